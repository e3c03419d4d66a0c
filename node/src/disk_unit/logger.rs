//! The thread that makes records durable. Each disk has one such thread for all its shards. Records
//! that arrive during a sync share the next sync.

use super::event::{DiskEvent, Notify};
use crate::metrics::Metrics;
use bedstone_engine::wal::Record;
use bedstone_engine::{Engine, ShardId};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// After a commit, the log writes a sync marker when no other commit follows for this long. The
/// marker distinguishes damage to the last commit from a torn write.
const SYNC_MARKER_DELAY: Duration = Duration::from_millis(5);
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// Records to make durable in one commit.
pub struct LogJob {
    /// The records.
    pub records: Vec<Record>,
    /// The shard and the sequence number of the write. The thread reports them when the write is
    /// durable.
    pub done: Option<(ShardId, u64)>,
}

/// Joins jobs into one commit. Returns the records and the writes to report.
pub fn gather(jobs: impl Iterator<Item = LogJob>) -> (Vec<Record>, Vec<(ShardId, u64)>) {
    let (mut records, mut done) = (Vec::new(), Vec::new());
    for job in jobs {
        records.extend(job.records);
        done.extend(job.done);
    }
    (records, done)
}

/// Writes the queued jobs until the channel closes, the worker stops or the log fails.
pub fn run(engine: &Engine, jobs: &Receiver<LogJob>, notify: &Notify, metrics: &Metrics) {
    let mut marked = true;
    loop {
        let wait = if marked { IDLE_WAIT } else { SYNC_MARKER_DELAY };
        let first = match jobs.recv_timeout(wait) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let (records, done) = gather(first.into_iter().chain(jobs.try_iter()));
        if records.is_empty() && marked {
            continue;
        }
        // A commit without records is the sync marker.
        marked = records.is_empty();
        let begun = crate::clock::now();
        if let Err(error) = engine.log().commit(&records) {
            notify(DiskEvent::Failed(error.to_string()));
            return;
        }
        if !marked {
            metrics.wal_fsync_seconds.observe(begun.elapsed().as_secs_f64());
            metrics.wal_commit_records.observe(records.len() as f64);
        }
        if !done.is_empty() && !notify(DiskEvent::Persisted(done)) {
            return;
        }
    }
}
