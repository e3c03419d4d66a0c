//! Group commit: what waits together is written with one sync.
//!
//! A writer that finds the log idle commits at once, on its own thread, with no hand-over. One that
//! finds it busy joins the group that forms meanwhile; the committer thread takes that over when
//! the sync before it is done. There is no fixed delay: a group is as large as the sync is long.
//! One that need not wait yet leaves its write to the committer thread and goes on.

use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of writes left to the committer from which on the next waits for room.
const LEFT_BYTES_MAX: usize = 4 << 20;

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

/// A write that was handed over. It takes place whether anybody waits for it or not; to forget it
/// is to forget whether it did.
#[must_use = "a write may fail, and is durable only when `wait` has returned"]
pub struct Pending {
    group: Arc<Group>,
}

impl Pending {
    /// A write that took place.
    pub(crate) fn done() -> Self {
        let group = Group { state: DONE.into(), error: Mutex::default() };
        Self { group: Arc::new(group) }
    }

    /// Whether [`Pending::wait`] would return at once.
    pub fn is_settled(&self) -> bool {
        matches!(self.group.state.load(Ordering::Acquire), DONE | FAILED)
    }

    /// Returns when the write is durable.
    ///
    /// # Errors
    /// What the commit failed with: [`Error::NoSpace`] when nothing was written, else
    /// [`Error::Poisoned`].
    pub fn wait(&self) -> Result<()> {
        self.group.wait()
    }
}

struct Queue<T> {
    entries: Vec<T>,
    /// Bytes of those that [`GroupCommit::submit`] left.
    left_bytes: usize,
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
    /// What was left has been taken over.
    room: Condvar,
}

impl<T> Default for GroupCommit<T> {
    fn default() -> Self {
        let (entries, group) = (Vec::new(), Arc::default());
        let queue = Queue { entries, left_bytes: 0, group, closed: false };
        let (waiting, room) = (Condvar::new(), Condvar::new());
        Self { queue: Mutex::new(queue), busy: Mutex::default(), waiting, room }
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

    /// Adds a write of so many bytes for the thread that runs [`GroupCommit::run`], and returns
    /// when no more than a few MiB wait for it. Writes of one thread take place in order.
    pub fn submit(&self, entry: T, bytes: usize) -> Pending {
        let mut queue = self.queue.lock();
        while queue.left_bytes > 0 && queue.left_bytes + bytes > LEFT_BYTES_MAX {
            self.room.wait(&mut queue);
        }
        queue.entries.push(entry);
        queue.left_bytes += bytes;
        let pending = Pending { group: queue.group.clone() };
        drop(queue);
        self.waiting.notify_one();
        pending
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
            if mem::take(&mut queue.left_bytes) > 0 {
                self.room.notify_all();
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
