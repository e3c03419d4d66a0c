//! The storage engine of Bedstone: the data on one disk.
//!
//! One segmented write-ahead log serves every shard on the disk, and each shard keeps one LSM
//! tree. The trees have no log of their own: after a restart, their memtables are rebuilt from this
//! log.
//!
//! The engine has two interfaces:
//! - [`Engine`] is the interface for a node. [`Engine`] separates the log ([`wal::Log`], group
//!   commit over shards) from the trees ([`lsm::Tree`], applied in index order), because Raft sits
//!   between the two.
//! - [`Db`] is an embedded store built from the same parts: `open`, `write`, `get`, `scan`,
//!   `snapshot`.
//!
//! ```
//! use bedstone_engine::{Batch, Db, Options};
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Db::open(dir.path(), Options::tiny())?;
//! let mut batch = Batch::new();
//! batch.put(b"apple", b"red");
//! batch.put(b"pear", b"green");
//! db.write(batch)?; // durable when `write` returns
//! assert_eq!(db.get(b"apple")?.as_deref(), Some(&b"red"[..]));
//! for item in db.scan(b"a".to_vec()..b"q".to_vec()) {
//!     let (key, value) = item?;
//!     println!("{key:?} {value:?}");
//! }
//! # Ok::<(), bedstone_engine::Error>(())
//! ```
//!
//! Batches also delete ranges and set values that expire. Snapshots are consistent views that no
//! later write changes. Scans go in both directions. A past state can be read if history is kept.
//! Sorted keys can be ingested past the log. A checkpoint is a separate store made of links:
//!
//! ```
//! use bedstone_engine::{Batch, Db, Options};
//! # let dir = tempfile::tempdir().unwrap();
//! // `Options::default()` is for servers; these options have small sizes, for tests.
//! let db = Db::open(dir.path(), Options::tiny())?;
//! let mut batch = Batch::new();
//! batch.put(b"a/1", b"one");
//! batch.put(b"a/2", b"two");
//! batch.put_until(b"b", b"for a while", 1000);
//! db.write(batch)?;
//! let before = db.snapshot();
//! db.keep_history_from(before.ts());
//! let mut batch = Batch::new();
//! batch.delete_range(b"a/", b"a0"); // every key that begins with `a/`
//! db.write(batch)?;
//! db.advance(1000); // the caller supplies the time
//! assert!(db.scan(..).next().is_none());
//! assert_eq!(before.scan(..).count(), 3);
//! let last = before.scan_back(..b"b".to_vec()).next().unwrap()?;
//! assert_eq!(&last.0[..], b"a/2");
//! assert_eq!(db.snapshot_at(before.ts())?.get(b"a/1")?.as_deref(), Some(&b"one"[..]));
//!
//! let mut ingest = db.ingest()?; // keys must ascend
//! for number in 0..100 {
//!     ingest.put(format!("bulk{number:03}").as_bytes(), b"value")?;
//! }
//! ingest.finish()?; // all keys become visible now
//! db.checkpoint("monday")?;
//! let copy = Db::open(&dir.path().join("checkpoints/monday"), Options::tiny())?;
//! assert_eq!(copy.scan(..).count(), 100);
//! # Ok::<(), bedstone_engine::Error>(())
//! ```
//!
//! One thread keeps the disk busy by submitting batches and waiting for them later. A batch is
//! durable when its wait returns, and batches are applied in order:
//!
//! ```
//! use bedstone_engine::{Batch, Db, Options, Pending};
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Db::open(dir.path(), Options::tiny())?;
//! let mut pending = Vec::new();
//! for number in 0..100u32 {
//!     let mut batch = Batch::new();
//!     batch.put(&number.to_be_bytes(), b"value");
//!     pending.push(db.submit(batch)?);
//! }
//! pending.iter().try_for_each(Pending::wait)?; // all batches are durable and visible to reads
//! assert_eq!(db.scan(..).count(), 100);
//! # Ok::<(), bedstone_engine::Error>(())
//! ```
//!
//! The engine reads no clock and draws no random numbers. The only threads that it starts are those
//! of a [`Db`] ([`Options::threads`]). Flush and compaction are jobs that the engine returns
//! ([`lsm::Tree::job`]) and that the caller runs on a thread of its choice.

pub mod check;
pub mod checksum;
pub mod compaction;
pub mod db;
pub mod disk;
pub mod engine;
pub mod error;
pub mod ids;
pub mod key;
pub mod limits;
pub mod lsm;
pub mod memory;
pub mod missing;
pub mod scrub;
pub mod shards;
pub mod table;
pub mod values;
pub mod wal;

pub use db::{Batch, Db};
pub use disk::{Disk, WriteMode};
pub use engine::{Engine, Options};
pub use error::{Error, Result};
pub use ids::{Index, LogId, Lsn, ReplicaId, ShardId, Term};
pub use key::Op;
pub use lsm::{Snapshot, Tree};
pub use wal::Pending;
