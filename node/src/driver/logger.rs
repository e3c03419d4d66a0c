//! The thread that makes things durable: one per disk, for all shards on it. What arrives while a
//! sync is under way shares the next one.

use super::Input;
use crate::metrics::Metrics;
use bedstone_engine::wal::Record;
use bedstone_engine::{Engine, ShardId};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::time::Duration;

/// After this much quiet, one empty block promises that the last commit is durable, so that damage
/// to it is told from a torn tail.
const SYNC_MARKER_DELAY: Duration = Duration::from_millis(5);
const FOREVER: Duration = Duration::from_secs(3600);

/// What is to be made durable.
pub struct LogJob {
    /// The records.
    pub records: Vec<Record>,
    /// Whom to tell, with the write's number.
    pub done: Option<(ShardId, u64)>,
}

/// One commit's worth: the records of some jobs, and whom to tell.
pub fn gather(jobs: impl Iterator<Item = LogJob>) -> (Vec<Record>, Vec<(ShardId, u64)>) {
    let (mut records, mut done) = (Vec::new(), Vec::new());
    for job in jobs {
        records.extend(job.records);
        done.extend(job.done);
    }
    (records, done)
}

/// Runs until the channel closes or the log fails.
pub fn run(
    engine: &Engine,
    jobs: &Receiver<LogJob>,
    driver: &Sender<Input>,
    metrics: &Arc<Metrics>,
) {
    let mut marked = true;
    loop {
        let wait = if marked { FOREVER } else { SYNC_MARKER_DELAY };
        let first = match jobs.recv_timeout(wait) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let (records, done) = gather(first.into_iter().chain(jobs.try_iter()));
        if records.is_empty() && marked {
            continue;
        }
        marked = records.is_empty();
        let begun = crate::clock::now();
        if let Err(error) = engine.log().commit(&records) {
            let _ = driver.send(Input::Failed(error.to_string()));
            return;
        }
        if !marked {
            metrics.wal_fsync_seconds.observe(begun.elapsed().as_secs_f64());
            metrics.wal_commit_records.observe(records.len() as f64);
        }
        if !done.is_empty() && driver.send(Input::Persisted(done)).is_err() {
            return;
        }
    }
}
