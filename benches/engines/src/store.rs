//! The interface to every engine: the two traits, and the list of the engines.

use std::path::Path;

/// The settings of every engine.
#[derive(Clone, Copy)]
pub struct Setup {
    /// Bytes of the cache for blocks.
    pub cache: u64,
    /// Size at which a memtable is frozen; an engine may have one more memtable that is being
    /// flushed.
    pub memtable: u64,
    /// Values of this size or more stay in the log of Bedstone.
    pub separate: u64,
    /// Whether the store is opened for synced writes, after which it is never opened again.
    pub for_sync: bool,
}

/// An ordered map from bytes to bytes. A failure ends the process: a benchmark does not continue
/// after an error.
pub trait Store: Send + Sync {
    /// Sets the keys together. With `sync` they are durable when the call returns.
    fn write(&self, batch: &[(&[u8], &[u8])], sync: bool);
    /// The result of [`touch`] for the value, if there is one.
    fn get(&self, key: &[u8]) -> Option<usize>;
    /// The sum of the results of [`touch`] for the next `count` values.
    fn scan(&self, from: &[u8], count: usize) -> usize;
    /// Moves all data from memory into tables.
    fn flush(&self);
    /// Waits until no compaction is left to do.
    fn settle(&self);
}

/// A log of many shards; each shard numbers its entries from 1.
pub trait AppendLog: Send + Sync {
    /// Appends one entry, which is durable when the call returns. Entries up to `release` are not
    /// needed any more.
    fn append(&self, shard: u64, index: u64, payload: &[u8], release: Option<u64>);
}

/// Reads a byte of every cache line, so that no engine can return a pointer instead of reading.
pub fn touch(value: &[u8]) -> usize {
    let sum = value.iter().step_by(64).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    value.len() + usize::from(sum)
}

/// Threads for background work.
pub fn background_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}

/// Every name that [`open`] or [`open_log`] accepts.
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
        // Its recovery would need the replay that a user of both would have to write.
        "raft-engine+rocksdb" => !on_log && !workload.starts_with("reopen"),
        _ => !on_log,
    }
}

/// Opens or creates a store in a directory.
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

/// Opens or creates a log in a directory.
pub fn open_log(name: &str, dir: &Path, setup: Setup) -> Box<dyn AppendLog> {
    match name {
        "bedstone" => Box::new(crate::bedstone::BedstoneLog::open(dir, setup)),
        "raft-engine" => Box::new(crate::raft_log::RaftLog::open(dir)),
        other => panic!("no log is named {other:?}"),
    }
}
