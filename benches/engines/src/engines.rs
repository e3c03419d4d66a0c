//! The list of the engines, and how each is opened.

use crate::store::{AppendLog, Setup, Store};
use crate::{bedstone, fjall, lmdb, raft_log, redb, rocks};
use std::path::Path;

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
        "bedstone" => Box::new(bedstone::BedstoneLog::open(dir, setup)),
        "raft-engine" => Box::new(raft_log::RaftLog::open(dir)),
        other => panic!("no log is named {other:?}"),
    }
}
