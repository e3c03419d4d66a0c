//! What is asked of every engine: the two traits, and the list of those who answer.

use std::path::Path;

/// How every engine is opened.
#[derive(Clone, Copy)]
pub struct Setup {
    /// Bytes for blocks that were read.
    pub cache: u64,
    /// Size at which a memtable is frozen; an engine may have one more that is being written out.
    pub memtable: u64,
    /// Values of this size or more stay in Bedstone's log.
    pub separate: u64,
    /// Whether this is for synced writes, after which the store is never opened again.
    pub for_sync: bool,
}

/// An ordered map from bytes to bytes. Failures end the process: a benchmark has no plan B.
pub trait Store: Send + Sync {
    /// Sets the keys, together. With `sync` they are durable when it returns.
    fn write(&self, batch: &[(&[u8], &[u8])], sync: bool);
    /// What [`touch`] makes of the value, if there is one.
    fn get(&self, key: &[u8]) -> Option<usize>;
    /// What [`touch`] makes of the next `count` values, added up.
    fn scan(&self, from: &[u8], count: usize) -> usize;
    /// Moves everything that is in memory into tables.
    fn flush(&self);
    /// Waits until nothing is left to compact.
    fn settle(&self);
}

/// A log of many shards, each of which numbers its entries from 1.
pub trait AppendLog: Send + Sync {
    /// Appends one entry, durable when it returns. Entries up to `release` are not needed again.
    fn append(&self, shard: u64, index: u64, payload: &[u8], release: Option<u64>);
}

/// Reads a byte of every cache line, so that no engine gets away with a pointer.
pub fn touch(value: &[u8]) -> usize {
    let sum = value.iter().step_by(64).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    value.len() + usize::from(sum)
}

/// Threads for background work.
pub fn background_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}

/// Every name that [`open`] or [`open_log`] knows.
pub const NAMES: [&str; 9] = [
    "bedstone",
    "rocksdb",
    "rocksdb-blob",
    "fjall",
    "fjall-kv",
    "redb",
    "lmdb",
    "raft-engine",
    "raft-engine+rocksdb",
];

/// Whether a store takes part in a workload.
pub fn takes_part(store: &str, workload: &str) -> bool {
    let on_log = workload.starts_with("log");
    match store {
        "bedstone" => true,
        "raft-engine" => on_log,
        // Recovering it would mean to write the replay that a user of both would have to write.
        "raft-engine+rocksdb" => !on_log && !workload.starts_with("reopen"),
        _ => !on_log,
    }
}

/// Opens or makes a store in a directory.
pub fn open(name: &str, dir: &Path, setup: Setup) -> Box<dyn Store> {
    use crate::{bedstone, fjall, lmdb, raft_log, redb, rocks};
    match name {
        "bedstone" => Box::new(bedstone::Bedstone::open(dir, setup)),
        "rocksdb" => Box::new(rocks::Rocks::open(dir, setup, rocks::Values::InTables)),
        "rocksdb-blob" => Box::new(rocks::Rocks::open(dir, setup, rocks::Values::InBlobs)),
        "fjall" => Box::new(fjall::Fjall::open(dir, setup, fjall::Values::InTables)),
        "fjall-kv" => Box::new(fjall::Fjall::open(dir, setup, fjall::Values::InBlobs)),
        "redb" => Box::new(redb::Redb::open(dir, setup)),
        "lmdb" => Box::new(lmdb::Lmdb::open(dir)),
        "raft-engine+rocksdb" => Box::new(raft_log::TwoLogs::open(dir, setup)),
        other => panic!("no store is named {other:?}"),
    }
}

/// Opens or makes a log in a directory.
pub fn open_log(name: &str, dir: &Path, setup: Setup) -> Box<dyn AppendLog> {
    match name {
        "bedstone" => Box::new(crate::bedstone::BedstoneLog::open(dir, setup)),
        "raft-engine" => Box::new(crate::raft_log::RaftLog::open(dir)),
        other => panic!("no log is named {other:?}"),
    }
}
