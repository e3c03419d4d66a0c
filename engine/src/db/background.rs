//! The threads of a store: one flushes and allocates log slots, one compacts, one commits the
//! groups that form while another commits.

use super::Store;
use crate::error::{Error, Result};
use crate::lsm::{Job, Tree};
use parking_lot::{Condvar, Mutex};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a failed job waits before it is tried again, and an idle thread before it looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes that an idle thread reads again and checks after each pause: 4 MiB a second at most.
const SCRUB_BYTES: u64 = 2 << 20;
/// The longest that one write is held back at a time.
const DELAY_MAX: Duration = Duration::from_millis(20);

/// What the threads tell each other and the writers.
#[derive(Default)]
pub(super) struct Background {
    state: Mutex<State>,
    /// There may be work.
    work: Condvar,
    /// A job ended.
    progress: Condvar,
    /// Writes that were held back.
    stalls: AtomicU64,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Counts calls for work, so that none is missed between looking and waiting.
    calls: u64,
    /// Callers that wait until something is done.
    waiting: usize,
    /// Why the last job failed; cleared by the next that does not.
    failed: Option<String>,
}

/// A thread of the store.
pub(super) struct Worker(JoinHandle<()>);

impl Worker {
    pub(super) fn join(self) {
        // A panic there was reported where it happened.
        let _ = self.0.join();
    }
}

/// Starts the threads.
pub(super) fn start(store: &Arc<Store>) -> Vec<Worker> {
    let thread = |name: &str, run: fn(&Store)| {
        let store = store.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        Worker(thread.spawn(move || run(&store)).expect("the system can start a thread"))
    };
    vec![
        thread("bedstone-commit", |store| store.committer.run(|entries| store.commit(entries))),
        thread("bedstone-flush", |store| store.background.run(|rested| store.flush_step(rested))),
        thread("bedstone-compact", |store| {
            store.background.run(|rested| store.compact_step(rested))
        }),
    ]
}

impl Store {
    /// Allocates a log slot or flushes a memtable; false when neither is due. Then, if it `rested`
    /// before or somebody waits for the background, it writes a sync marker and fills a slot.
    fn flush_step(&self, rested: bool) -> Result<bool> {
        self.engine.measure_space()?;
        let log = self.engine.log();
        if log.wants_slot() {
            log.allocate_slot()?;
            return Ok(true);
        }
        if !self.tree.wants_flush() {
            if !rested && !self.background.is_awaited() {
                return Ok(false);
            }
            log.write_sync_marker()?;
            return log.fill_slot();
        }
        self.tree.run(Job::Flush)?;
        self.release()?;
        self.background.wake();
        Ok(true)
    }

    /// Merges tables; false when none are due. Then, if it `rested` before, it reads on in the
    /// scrub: calls for work come faster than that should go.
    fn compact_step(&self, rested: bool) -> Result<bool> {
        self.engine.plan_collection();
        let Some(choice) = self.tree.compaction() else {
            if !rested {
                return Ok(false);
            }
            let found = self.scrub.lock().step(&self.engine, SCRUB_BYTES)?;
            self.damage_found.fetch_add(found.damage.len() as u64, Ordering::Relaxed);
            return Ok(false);
        };
        self.tree.run(Job::Compact(choice))?;
        self.engine.log().trim_slots()?;
        Ok(true)
    }
}

impl Background {
    /// Does steps until the store is closed, and waits while none is due. A step is told whether
    /// the whole pause went by without a call before it.
    fn run(&self, step: impl Fn(bool) -> Result<bool>) {
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

    fn is_awaited(&self) -> bool {
        self.state.lock().waiting > 0
    }

    /// There is work.
    pub(super) fn wake(&self) {
        self.state.lock().calls += 1;
        self.work.notify_all();
    }

    /// Lets the threads end.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
    }

    /// Returns when `due` is false. What else would wait for idle moments is done meanwhile.
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

    /// Holds a write back, the longer the further the background is behind: first a little, at the
    /// limit until there is progress.
    ///
    /// # Errors
    /// Why the background makes no progress, when it must before anything can be written.
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

    /// Writes that were held back since the start.
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
