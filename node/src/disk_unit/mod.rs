//! One disk of a node: its engine, its logger, its background work and its trust record.
//!
//! A [`DiskUnit`] is the handle through which replicas and the worker use a disk. Two loops serve
//! it, each on a thread of its own: [`logger::run`] makes log records durable, [`background::run`]
//! flushes, compacts and scrubs. Both report to the worker with [`DiskEvent`]s. The simulator
//! serves the same channels itself.

pub mod background;
mod event;
pub mod logger;
pub mod trust;

use crate::status::DiskStatus;
use bedstone_engine::wal::Record;
use bedstone_engine::{Engine, ShardId};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
pub use event::{DiskEvent, Notify};
use logger::LogJob;
use std::sync::Arc;
use tracing::warn;
use trust::DiskTrust;

/// The place of a disk in the list of the disks of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskNumber(pub usize);

/// See the module.
pub struct DiskUnit {
    engine: Arc<Engine>,
    path: String,
    log: Sender<LogJob>,
    background: Sender<()>,
}

/// The ends of a disk's channels that its logger and its background work serve.
pub struct DiskQueues {
    /// Records to make durable.
    pub log_jobs: Receiver<LogJob>,
    /// Calls of the background work.
    pub background_calls: Receiver<()>,
}

impl DiskUnit {
    /// The unit of a disk at `path`, and the queues that are to be served for it.
    pub fn new(engine: Arc<Engine>, path: String) -> (DiskUnit, DiskQueues) {
        let (log, log_jobs) = unbounded();
        let (background, background_calls) = bounded(1);
        let unit = DiskUnit { engine, path, log, background };
        (unit, DiskQueues { log_jobs, background_calls })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The path, for messages to operators.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Queues records for the log. With `done`, [`DiskEvent::Persisted`] reports the write.
    pub fn log(&self, records: Vec<Record>, done: Option<(ShardId, u64)>) {
        // A logger that stopped has reported why.
        let _ = self.log.send(LogJob { records, done });
    }

    /// Calls the background work. A call that waits already serves for this one too.
    pub fn call_background(&self) {
        let _ = self.background.try_send(());
    }

    /// The disk as status shows it.
    pub fn status(&self) -> DiskStatus {
        let log = self.engine.log();
        let (segments, for_entries) = (log.segments().holds().len(), log.entry_segments());
        DiskStatus {
            path: self.path.clone(),
            free_bytes: self.engine.free_bytes().unwrap_or(0),
            log_segments: segments,
            log_segments_for_entries: for_entries,
            log_segments_for_values: segments.saturating_sub(for_entries),
            write_mode: format!("{:?}", self.engine.write_mode()).to_lowercase(),
            health: log.check().map_or_else(|error| error.to_string(), |()| "ok".to_owned()),
        }
    }
}

/// Restores the trust in a disk whose shards are all complete.
///
/// # Errors
/// A write that failed: the node cannot go on. After another error the disk stays suspect until the
/// next start, and `None` takes the record's place.
pub fn restore_trust(trust: &mut Option<DiskTrust>) -> Result<(), String> {
    let Some(Err(error)) = trust.as_mut().map(DiskTrust::restore) else { return Ok(()) };
    if error.is_failed_write() {
        return Err(error.to_string());
    }
    warn!(%error, "the trust record cannot be written; the disk is suspect at the next start too");
    *trust = None;
    Ok(())
}
