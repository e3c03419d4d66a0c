//! The Redis-like store as a state machine over a shard's tree.

use super::apply::apply_entry;
use super::command::{Read, decode_batch};
use super::read;
use super::reply::Reply;
use super::system;
use super::{MachineStats, ReadOutcome, ReadTime, StateMachine};
use crate::raft::Conf;
use bedstone_engine::lsm::InLog;
use bedstone_engine::wal::{Entry, Place};
use bedstone_engine::{Error, LogId, Result, Tree};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The Redis-like store in the tree of one shard.
pub struct Store {
    tree: Arc<Tree>,
    ended: AtomicBool,
}

impl Store {
    /// The store in a tree.
    pub fn new(tree: Arc<Tree>) -> Store {
        Store { tree, ended: AtomicBool::new(false) }
    }
}

impl StateMachine for Store {
    fn apply(&self, entry: &Entry, place: Option<Place>) -> Result<Vec<Reply>> {
        let Some(batch) = decode_batch(entry.data.clone()) else {
            let (what, found) = ("a log entry", format!("{:?}", entry.id));
            return Err(Error::corrupt("log", 0, what, "a batch of commands", found));
        };
        let in_log = place.map(|place| InLog { data: &entry.data, place });
        apply_entry(&self.tree, entry.id, &batch, in_log)
    }

    fn apply_members(&self, at: LogId, conf: &Conf) {
        self.tree.apply(at, self.tree.ts() + 1, None, [system::keep_members(conf)]);
    }

    fn read(&self, read: &Read, time: ReadTime) -> Result<ReadOutcome> {
        if self.ended.load(Ordering::Relaxed) {
            return Err(Error::Poisoned { cause: "the disk of the shard failed".to_owned() });
        }
        read::answer(&self.tree, read, time)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn stats(&self) -> MachineStats {
        let stats = self.tree.stats();
        MachineStats { memtable_bytes: stats.memtable_bytes, versions: stats.versions }
    }
}
