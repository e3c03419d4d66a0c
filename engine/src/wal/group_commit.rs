//! Group commit: what waits together is written with one sync.
//!
//! A writer that finds the log idle commits at once, on its own thread, with no hand-over. One that
//! finds it busy joins the group that forms meanwhile; the committer thread takes that over when
//! the sync before it is done. There is no fixed delay: a group is as large as the sync is long.

use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const FORMING: u32 = 0;
const AWAITED: u32 = 1;
const DONE: u32 = 2;
const FAILED: u32 = 3;

/// Writes that share a sync, and whoever waits for it: one wake-up for all of them, and no system
/// call when nobody waits.
#[derive(Default)]
struct Group {
    state: AtomicU32,
    error: Mutex<Option<Error>>,
}

impl Group {
    fn settle(&self, result: &Result<()>) {
        let state = match result {
            Ok(()) => DONE,
            Err(error) => {
                *self.error.lock() = Some(error.echo());
                FAILED
            }
        };
        if self.state.swap(state, Ordering::AcqRel) == AWAITED {
            atomic_wait::wake_all(&self.state);
        }
    }

    fn wait(&self) -> Result<()> {
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        loop {
            match self.state.load(acquire) {
                FORMING => {
                    let _ = self.state.compare_exchange(FORMING, AWAITED, relaxed, relaxed);
                }
                AWAITED => atomic_wait::wait(&self.state, AWAITED),
                _ => break,
            }
        }
        match &*self.error.lock() {
            None => Ok(()),
            Some(error) => Err(error.echo()),
        }
    }
}

struct Queue<T> {
    entries: Vec<T>,
    group: Arc<Group>,
    closed: bool,
}

/// Gathers writes and hands them to whoever commits.
pub struct GroupCommit<T> {
    queue: Mutex<Queue<T>>,
    /// Held while a group is committed.
    busy: Mutex<()>,
    /// There is a group for the committer thread.
    waiting: Condvar,
}

impl<T> Default for GroupCommit<T> {
    fn default() -> Self {
        let queue = Queue { entries: Vec::new(), group: Arc::default(), closed: false };
        Self { queue: Mutex::new(queue), busy: Mutex::default(), waiting: Condvar::new() }
    }
}

impl<T> GroupCommit<T> {
    /// Adds a write, and returns when `commit` was done with a list that holds it. `threaded` says
    /// whether a thread runs [`GroupCommit::run`].
    ///
    /// # Errors
    /// What the commit failed with: [`Error::NoSpace`] when nothing was written, else
    /// [`Error::Poisoned`].
    pub fn write(
        &self,
        entry: T,
        threaded: bool,
        commit: impl Fn(Vec<T>) -> Result<()>,
    ) -> Result<()> {
        let group = {
            let mut queue = self.queue.lock();
            queue.entries.push(entry);
            queue.group.clone()
        };
        if let Some(busy) = self.lead(threaded) {
            self.commit_group(&commit);
            drop(busy);
            if !self.queue.lock().entries.is_empty() {
                self.waiting.notify_one();
            }
        }
        group.wait()
    }

    /// The right to commit: at once when nobody does; without a thread to take over, in turn.
    fn lead(&self, threaded: bool) -> Option<MutexGuard<'_, ()>> {
        if threaded { self.busy.try_lock() } else { Some(self.busy.lock()) }
    }

    fn commit_group(&self, commit: &impl Fn(Vec<T>) -> Result<()>) {
        let (entries, group) = {
            let mut queue = self.queue.lock();
            if queue.entries.is_empty() {
                return;
            }
            (mem::take(&mut queue.entries), mem::take(&mut queue.group))
        };
        group.settle(&commit(entries));
    }

    /// Commits the groups that form while another is committed, until [`GroupCommit::close`].
    pub fn run(&self, commit: impl Fn(Vec<T>) -> Result<()>) {
        loop {
            {
                let mut queue = self.queue.lock();
                while queue.entries.is_empty() {
                    if queue.closed {
                        return;
                    }
                    self.waiting.wait(&mut queue);
                }
            }
            let _busy = self.busy.lock();
            self.commit_group(&commit);
        }
    }

    /// Lets the committer thread end.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.waiting.notify_all();
    }
}
