//! The thread that flushes, compacts, allocates and fills log slots, so that no commit waits for
//! that work.

use super::event::{DiskEvent, Notify};
use crate::limits::Limits;
use crate::metrics::Metrics;
use bedstone_engine::scrub::Scrub;
use bedstone_engine::{Engine, Error};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tracing::error;

/// Pause between two looks for work without a call.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that the scrub reads at each look without a call: 4 MiB a second at most.
const SCRUB_BYTES: u64 = 400 << 10;
/// Shortest time from the beginning of a scrub round to the beginning of the next.
const SCRUB_ROUND: Duration = Duration::from_secs(3600);
/// Pause after a failure.
const PAUSE_FAILED: Duration = Duration::from_secs(1);

/// The reaction to an error of the background work.
pub enum OnError {
    /// Try again later: room may be freed by then, or damage repaired.
    Retry,
    /// Stop the node, with this text: the disk fails, and requests would wait for ever.
    Stop(String),
}

/// Decides on an error.
pub fn on_error(error: &Error) -> OnError {
    if error.is_failed_write() {
        return OnError::Stop(format!(
            "{error}: restart the node to verify the disk; if it fails again, replace the disk"
        ));
    }
    OnError::Retry
}

/// Runs until the channel closes or the disk fails.
pub fn run(engine: &Engine, calls: &Receiver<()>, notify: &Notify, metrics: &Metrics) {
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
        let worked = background.work(engine, &Limits::DEFAULT, notify, metrics);
        if idle {
            let now = crate::clock::now();
            if !scrub.is_between_rounds() || now >= next_round {
                if scrub.is_between_rounds() {
                    next_round = now + SCRUB_ROUND;
                }
                scrub_step(&mut scrub, engine, notify, metrics, SCRUB_BYTES);
            }
            let filled = engine.log().write_sync_marker().and_then(|()| engine.log().fill_slot());
            if let Err(error) = filled {
                error!(%error, "a log slot cannot be filled ahead of its use");
            }
        }
        pause = PAUSE;
        if let Err(error) = worked {
            if let OnError::Stop(why) = on_error(&error) {
                notify(DiskEvent::Failed(why));
                return;
            }
            error!(%error, "background work failed; the node tries again");
            pause = PAUSE_FAILED;
        }
    }
}

/// Reads the next `bytes` of the disk's data, and reports each shard whose data cannot be read.
pub fn scrub_step(
    scrub: &mut Scrub,
    engine: &Engine,
    notify: &Notify,
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
                    notify(DiskEvent::Damaged(shard, damage.to_string()));
                }
            }
        }
        Err(error) => error!(%error, "the scrub cannot read; it continues with the next table"),
    }
}

/// The work, look by look. A look costs time in proportion to the work there is, whatever the
/// number of trees. A sweep over all trees now and then finds work that only the passing of time
/// made due.
#[derive(Default)]
pub struct Background {
    /// Looks until the next sweep.
    until_sweep: u64,
}

impl Background {
    /// Does the work that is due.
    ///
    /// # Errors
    /// Errors of the disk; the next call does the work that was left.
    pub fn work(
        &mut self,
        engine: &Engine,
        limits: &Limits,
        notify: &Notify,
        metrics: &Metrics,
    ) -> bedstone_engine::Result<()> {
        // After an error the next call sweeps, and so finds the work that was left.
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
                        notify(DiskEvent::Damaged(shard, error.to_string()));
                    }
                })?;
                worked = true;
                metrics.compaction_seconds.observe(begun.elapsed().as_secs_f64());
                if tree.flushed() != before {
                    // Reported at once: the log can be released while compaction goes on.
                    notify(DiskEvent::Flushed(shard));
                }
            }
            if crowded {
                notify(DiskEvent::Flushed(shard));
            }
        }
        engine.log().trim_slots()?;
        // Compaction changes which values tables point to, and with it the collection targets.
        self.until_sweep = if worked {
            0
        } else {
            until_sweep.checked_sub(1).unwrap_or(limits.rounds_between_sweeps)
        };
        Ok(())
    }
}
