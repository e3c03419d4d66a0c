//! Group commit: writes that wait at the same time are made durable with one sync.
//!
//! A writer that finds the log idle commits at once on its own thread, without a hand-over. A
//! writer that finds the log busy joins the group that forms meanwhile. The committer thread
//! commits that group when the running sync is done. There is no fixed delay: the longer the sync,
//! the larger the group. A writer that need not wait yet leaves its write to the committer thread
//! and continues.

use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of writes left to the committer thread above which the next such write waits for space.
const LEFT_BYTES_MAX: usize = 4 << 20;

const FORMING: u32 = 0;
const AWAITED: u32 = 1;
const DONE: u32 = 2;
const FAILED: u32 = 3;

/// Writes that share a sync, and the threads that wait for this sync. One wake-up serves all the
/// threads, and no system call is made when no thread waits.
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
                *self.error.lock() = Some(error.copy());
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
            Some(error) => Err(error.copy()),
        }
    }
}

/// A write that was handed over. The write takes place whether or not a thread waits for it. A
/// caller that drops the value never learns whether the write succeeded.
#[must_use = "a write may fail, and is durable only when `wait` has returned"]
pub struct Pending {
    group: Arc<Group>,
}

impl Pending {
    /// A write that is already durable.
    pub(crate) fn done() -> Self {
        let group = Group { state: DONE.into(), error: Mutex::default() };
        Self { group: Arc::new(group) }
    }

    /// Whether [`Pending::wait`] would return at once.
    pub fn is_settled(&self) -> bool {
        matches!(self.group.state.load(Ordering::Acquire), DONE | FAILED)
    }

    /// Waits until the write is durable.
    ///
    /// # Errors
    /// The error of the commit: [`Error::NoSpace`] when nothing was written, else
    /// [`Error::Poisoned`].
    pub fn wait(&self) -> Result<()> {
        self.group.wait()
    }
}

struct Queue<T> {
    entries: Vec<T>,
    /// Bytes of the entries that [`GroupCommit::submit`] added.
    left_bytes: usize,
    group: Arc<Group>,
    closed: bool,
}

/// Gathers writes and hands them to the committing thread.
pub struct GroupCommit<T> {
    queue: Mutex<Queue<T>>,
    /// Locked while a group is committed.
    busy: Mutex<()>,
    /// Signals that there is a group for the committer thread.
    waiting: Condvar,
    /// Signals that the submitted writes were removed from the queue.
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
    /// Adds a write and returns when `commit` has finished with a list that contains the write.
    /// `threaded` states whether a thread runs [`GroupCommit::run`].
    ///
    /// # Errors
    /// The error of the commit: [`Error::NoSpace`] when nothing was written, else
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

    /// Adds a write of `bytes` bytes for the thread that runs [`GroupCommit::run`]. Waits first
    /// while more than a few MiB of such writes are queued. Writes of one thread take place in
    /// order.
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

    /// Acquires the right to commit. With a committer thread, returns `None` when another thread is
    /// committing. Without one, the caller waits for its turn.
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

    /// Commits the groups that form during another commit, until [`GroupCommit::close`].
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
