//! The storage engine of Bedstone: bytes on one disk.
//!
//! One segmented write-ahead log serves every shard on the disk, and each shard keeps one LSM
//! tree. The trees have no log of their own: after a restart their memtables are rebuilt from the
//! one log.
//!
//! Two ways in:
//! - [`Engine`] is what a node uses. It separates the log ([`wal::Log`], group commit over shards)
//!   from the trees ([`lsm::Tree`], applied in index order), because Raft sits between the two.
//! - [`Db`] is an embedded store on the same parts: `open`, `write`, `get`, `scan`, `snapshot`.
//!
//! ```
//! use bedstone_engine::{Batch, Db, Options};
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Db::open(dir.path(), Options::tiny())?;
//! let mut batch = Batch::new();
//! batch.put(b"apple", b"red");
//! batch.put(b"pear", b"green");
//! db.write(batch)?; // durable when it returns
//! assert_eq!(db.get(b"apple")?.as_deref(), Some(&b"red"[..]));
//! for item in db.scan(b"a".to_vec()..b"q".to_vec()) {
//!     let (key, value) = item?;
//!     println!("{key:?} {value:?}");
//! }
//! # Ok::<(), bedstone_engine::Error>(())
//! ```
//!
//! The engine reads no clock and draws no random numbers, and starts no threads but those of a
//! [`Db`] ([`Options::threads`]). Flush and compaction are jobs that it hands out
//! ([`lsm::Tree::job`]) and that the caller runs where it likes.

pub mod check;
pub mod checksum;
pub mod compaction;
pub mod db;
pub mod disk;
pub mod engine;
pub mod error;
pub mod limits;
pub mod lsm;
pub mod memory;
pub mod shards;
pub mod table;
pub mod values;
pub mod wal;

pub use db::{Batch, Db};
pub use disk::{Disk, WriteDoor};
pub use engine::{Engine, Options};
pub use error::{Error, Result};
pub use lsm::key::Op;
pub use lsm::{Snapshot, Tree};

/// Names one shard, unique in a cluster and never reused.
pub type ShardId = u64;

/// A place in one shard's log: the term that wrote it and its index. Index 0 is "before all".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The Raft term of the entry.
    pub term: u64,
    /// The position in the shard's log, from 1.
    pub index: u64,
}
