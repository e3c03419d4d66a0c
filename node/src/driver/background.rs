//! The thread that flushes, compacts, allocates and fills log slots, so that no commit waits for
//! them.

use super::Input;
use crate::limits::Limits;
use crate::metrics::Metrics;
use bedstone_engine::scrub::Scrub;
use bedstone_engine::{Engine, Error};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;
use tracing::error;

/// How often it looks without being called.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that are read again and checked at each look without a call: 4 MiB a second at most.
const SCRUB_BYTES: u64 = 400 << 10;
/// From the beginning of a round of the scrub to that of the next, at least.
const SCRUB_ROUND: Duration = Duration::from_secs(3600);
/// Pause after a failure.
const PAUSE_FAILED: Duration = Duration::from_secs(1);

/// What to do about an error of the background work.
pub enum After {
    /// Try again later: there may be room then, or damage is repaired.
    Again,
    /// Stop the node: its disk fails, and whoever waits for it would wait for ever.
    Stop(String),
}

/// Decides what to do about an error.
pub fn after(error: &Error) -> After {
    match error.is_failed_write() {
        true => After::Stop(format!(
            "{error}: restart the node to verify the disk; if it fails again, replace the disk"
        )),
        false => After::Again,
    }
}

/// Runs until the channel closes or the disk fails.
pub fn run(engine: &Engine, calls: &Receiver<()>, driver: &Sender<Input>, metrics: &Metrics) {
    let mut pause = PAUSE;
    let mut scrub = Scrub::default();
    let mut next_round = crate::clock::now();
    let mut background = Background::default();
    loop {
        let idle = match calls.recv_timeout(pause) {
            Ok(()) => false,
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let worked = background.work(engine, &Limits::DEFAULT, driver, metrics);
        if idle {
            let now = crate::clock::now();
            if !scrub.is_between_rounds() || now >= next_round {
                if scrub.is_between_rounds() {
                    next_round = now + SCRUB_ROUND;
                }
                scrub_on(&mut scrub, engine, driver, metrics, SCRUB_BYTES);
            }
            let filled = engine.log().write_sync_marker().and_then(|()| engine.log().fill_slot());
            if let Err(error) = filled {
                error!(%error, "the log cannot be looked after");
            }
        }
        pause = PAUSE;
        if let Err(error) = worked {
            if let After::Stop(why) = after(&error) {
                let _ = driver.send(Input::Failed(why));
                return;
            }
            error!(%error, "background work failed; it will be tried again");
            pause = PAUSE_FAILED;
        }
    }
}

/// Reads on for so many bytes, and tells the driver of what cannot be read.
pub fn scrub_on(
    scrub: &mut Scrub,
    engine: &Engine,
    driver: &Sender<Input>,
    metrics: &Metrics,
    bytes: u64,
) {
    match scrub.step(engine, bytes) {
        Ok(done) => {
            metrics.scrubbed_bytes.inc_by(done.bytes);
            for damage in done.damage {
                metrics.damage_found.inc();
                error!(%damage, "the scrub found damage");
                if let Some(shard) = damage.damaged_shard() {
                    let _ = driver.send(Input::Damaged(shard, damage.to_string()));
                }
            }
        }
        Err(error) => error!(%error, "the scrub cannot read; it goes on with the next table"),
    }
}

/// The work, look by look. A look costs what there is to do, whatever the number of trees; a sweep
/// now and then finds what only time brought about.
#[derive(Default)]
pub struct Background {
    /// Looks until the next sweep.
    until_sweep: u64,
}

impl Background {
    /// Does what there is to do.
    ///
    /// # Errors
    /// The disk's; what was not done is done at the next call.
    pub fn work(
        &mut self,
        engine: &Engine,
        limits: &Limits,
        driver: &Sender<Input>,
        metrics: &Metrics,
    ) -> bedstone_engine::Result<()> {
        // What a failure leaves behind, a sweep finds.
        let until_sweep = std::mem::take(&mut self.until_sweep);
        let sweeps = until_sweep == 0;
        engine.measure_space()?;
        engine.relieve_memory();
        while engine.log().wants_slot() {
            engine.log().allocate_slot()?;
        }
        if sweeps {
            engine.plan_collection();
        }
        let crowded = engine.log().entry_segments() > limits.log_segments;
        let dirty = engine.take_dirty_trees();
        let trees = if sweeps || crowded { engine.trees() } else { dirty };
        let mut worked = false;
        for (shard, tree) in trees {
            let before = tree.flushed();
            if crowded && engine.log().base(shard).index < tree.applied().index {
                tree.freeze();
            }
            while let Some(job) = tree.job() {
                let begun = crate::clock::now();
                tree.run(job).inspect_err(|error| {
                    if error.is_damage() {
                        let _ = driver.send(Input::Damaged(shard, error.to_string()));
                    }
                })?;
                worked = true;
                metrics.compaction_seconds.observe(begun.elapsed().as_secs_f64());
                if tree.flushed() != before {
                    // Told at once: the log can be released while compaction goes on.
                    let _ = driver.send(Input::Flushed(shard));
                }
            }
            if crowded {
                let _ = driver.send(Input::Flushed(shard));
            }
        }
        engine.log().trim_slots()?;
        // What tables point to changes with the tables, and with it what is to be collected.
        self.until_sweep = match worked {
            true => 0,
            false => until_sweep.checked_sub(1).unwrap_or(limits.looks_between_sweeps),
        };
        Ok(())
    }
}
