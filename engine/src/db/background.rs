//! The threads of a store: one flushes and allocates log slots, one compacts, and one commits the
//! groups of writes that form while an earlier group is committed.

use crate::error::{Error, Result};
use crate::lsm::Tree;
use parking_lot::{Condvar, Mutex};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The time that a thread waits before it repeats a failed job, and that an idle thread waits
/// before it checks again for work.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest single delay of a write.
const DELAY_MAX: Duration = Duration::from_millis(20);

/// State shared by the threads and the writers.
#[derive(Default)]
pub(super) struct Background {
    state: Mutex<State>,
    /// Notified when there may be work.
    work: Condvar,
    /// Notified when a job ends.
    progress: Condvar,
    /// The number of delayed writes.
    stalls: AtomicU64,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Counts the calls for work, so that a thread does not miss a call between its check for work
    /// and its wait.
    calls: u64,
    /// The number of callers of `wait_while`.
    waiting: usize,
    /// Why the last job failed. A later successful job clears this field.
    failed: Option<String>,
}

/// A thread of the store.
pub(super) struct Worker(JoinHandle<()>);

impl Worker {
    /// Starts a thread.
    pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Worker {
        let thread = std::thread::Builder::new().name(name.to_owned());
        Worker(thread.spawn(run).expect("the system can start a thread"))
    }

    pub(super) fn join(self) {
        // The panic handler already reported a panic of the thread.
        let _ = self.0.join();
    }
}

impl Background {
    /// Runs steps until the store is closed, and waits while none is due. The argument of a step is
    /// whether the whole pause before the step passed without a call for work.
    pub(super) fn run(&self, step: impl Fn(bool) -> Result<bool>) {
        let mut rested = false;
        loop {
            let calls = {
                let state = self.state.lock();
                if state.closed {
                    return;
                }
                state.calls
            };
            let result = step(mem::take(&mut rested));
            let mut state = self.state.lock();
            let failed = result.as_ref().err().map(Error::to_string);
            let idle = !matches!(result, Ok(true));
            if failed.is_some() || !idle {
                state.failed = failed;
            }
            self.progress.notify_all();
            if idle && state.calls == calls && !state.closed {
                rested = self.work.wait_for(&mut state, PAUSE).timed_out();
            }
        }
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.state.lock().waiting > 0
    }

    /// Wakes the threads, because there is work.
    pub(super) fn wake(&self) {
        self.state.lock().calls += 1;
        self.work.notify_all();
    }

    /// Makes the threads end.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
    }

    /// Returns when `due` is false. Meanwhile the flush thread also writes the sync marker and
    /// fills log slots, work that it otherwise leaves for idle times.
    ///
    /// # Errors
    /// Why the last job failed.
    pub(super) fn wait_while(&self, due: impl Fn() -> bool) -> Result<()> {
        self.state.lock().waiting += 1;
        self.wake();
        let mut state = self.state.lock();
        let mut outcome = Ok(());
        while outcome.is_ok() && due() {
            outcome = state.check();
            if outcome.is_ok() {
                self.progress.wait_for(&mut state, PAUSE);
            }
        }
        state.waiting -= 1;
        outcome
    }

    /// Delays a write. The delay grows with the backlog of flushes and compactions; at the limit,
    /// the write waits until the backlog is below the limit again.
    ///
    /// # Errors
    /// Why the last job failed, when the write must wait for progress.
    pub(super) fn slow_down(&self, tree: &Tree) -> Result<()> {
        let mut pressure = tree.pressure();
        if pressure <= 0.0 {
            return Ok(());
        }
        self.stalls.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        loop {
            self.progress.wait_for(&mut state, DELAY_MAX.mul_f64((pressure * pressure).min(1.0)));
            pressure = tree.pressure();
            if pressure < 1.0 || state.closed {
                return Ok(());
            }
            state.check()?;
        }
    }

    /// The number of delayed writes since the store was opened.
    pub(super) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }
}

impl State {
    fn check(&self) -> Result<()> {
        match &self.failed {
            Some(cause) => {
                let source = std::io::Error::other(cause.clone());
                Err(Error::Io { action: "maintain", file: "the tree".into(), source })
            }
            None => Ok(()),
        }
    }
}
