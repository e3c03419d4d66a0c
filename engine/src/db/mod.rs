//! The engine as an embedded store with one shard. Each batch is one log entry, durable when
//! `write` returns.

mod background;
mod batch;
mod ingest;
mod store;

pub use batch::Batch;
pub use ingest::Ingest;

use crate::disk::Disk;
use crate::disk::os::OsDisk;
use crate::engine::{Engine, Options};
use crate::error::{Error, Result};
use crate::lsm::{InLog, Scan, Snapshot};
use crate::wal::{GroupCommit, Pending, Record};
use background::{Background, Worker};
use bytes::Bytes;
use parking_lot::Mutex;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{SHARD, Store};

const REPLAY_BYTES: usize = 1 << 20;

/// An embedded store.
///
/// When the free space of the disk is below a reserve
/// ([`Limits::reserve_bytes`](crate::limits::Limits)), puts are refused with [`Error::NoSpace`],
/// while reads, deletes and compactions continue. When there is enough space again, puts succeed
/// again.
///
/// Writers on several threads share syncs. Flushes, compactions and the preparation of log segments
/// run on threads of the store. If [`Options::threads`] is off, this work runs on the thread whose
/// write made the work due. Dropping the store ends its threads; all acknowledged writes are
/// durable before that.
pub struct Db {
    store: Arc<Store>,
    workers: Vec<Worker>,
}

impl Db {
    /// Opens the store in a directory, or creates one.
    ///
    /// # Errors
    /// See [`Engine::open`]; [`Error::Locked`] when another process has the directory open;
    /// [`Error::Missing`] when damage to the log has lost acknowledged writes.
    pub fn open(dir: &Path, options: Options) -> Result<Db> {
        Self::open_on(Arc::new(OsDisk::open(dir)?), options)
    }

    /// Opens the store on any disk, or creates one.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Db> {
        let threads = options.threads;
        let engine = Engine::open(disk, options)?;
        ingest::remove_strays(&engine)?;
        let tree = engine.open_shard(SHARD)?;
        engine.log().check_entries(SHARD)?;
        let (_, last) = engine.log().bounds(SHARD);
        if last.index < tree.applied().index {
            // The store is a checkpoint without a log. The log begins after the last entry that the
            // tables contain.
            engine.log().commit(&[Record::Reset { shard: SHARD, at: tree.applied() }])?;
        }
        while tree.applied().index < last.index {
            let first = tree.applied().index + 1;
            for entry in engine.log().entries(SHARD, first, last.index + 1, REPLAY_BYTES)? {
                let index = entry.id.index;
                let Some(ops) = batch::decode(&entry.data) else {
                    return Err(Error::corrupt("log", 0, "a log entry", "a batch", index));
                };
                let place = engine.log().place(SHARD, entry.id);
                let place = place.map(|place| InLog { data: &entry.data, place });
                tree.apply(entry.id, index.0, place, ops);
            }
        }
        let store = Store {
            next: Mutex::new((tree.applied().index + 1).0),
            engine,
            tree,
            committer: GroupCommit::default(),
            background: Background::default(),
            scrub: Mutex::default(),
            damage_found: AtomicU64::new(0),
            threads,
        };
        let store = Arc::new(store);
        let workers = if threads { store.start_threads() } else { Vec::new() };
        if !threads {
            store.maintain()?;
        }
        Ok(Db { store, workers })
    }

    /// Applies the changes atomically and durably.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::NoSpace`] when the disk is nearly full and nothing was
    /// written; [`Error::Poisoned`] after a failed sync: then the store may or may not contain the
    /// changes after it is reopened.
    pub fn write(&self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let store = &*self.store;
        let data = store.admit(batch)?;
        store.committer.write(data, store.threads, |entries| store.commit(entries))?;
        if store.threads { Ok(()) } else { store.maintain() }
    }

    /// Submits the changes. The changes of a batch are applied atomically, and the batches of one
    /// thread are applied in the order of submission. The call returns at once unless some MiB of
    /// submitted batches already wait for the disk. The changes are visible to reads and durable
    /// when [`Pending::wait`] returns, and not before. Therefore one thread can keep the disk busy,
    /// and a power loss cannot remove a write that was reported as complete. A batch that fails for
    /// lack of space does not prevent later batches.
    ///
    /// Without [`Options::threads`] this is [`Db::write`].
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::NoSpace`] when the disk is nearly full. [`Pending::wait`]
    /// returns later errors.
    pub fn submit(&self, batch: Batch) -> Result<Pending> {
        let store = &*self.store;
        if batch.is_empty() || !store.threads {
            return self.write(batch).map(|()| Pending::done());
        }
        let data = store.admit(batch)?;
        let bytes = data.len();
        Ok(store.committer.submit(data, bytes))
    }

    /// Flushes all memtables to tables, and returns when the flush is complete.
    pub fn flush(&self) -> Result<()> {
        self.store.tree.freeze();
        self.store.settle(|tree| tree.wants_flush())
    }

    /// Returns when no flush, no compaction and no collection of values is due.
    pub fn settle(&self) -> Result<()> {
        let store = &self.store;
        store.settle(|tree| {
            store.engine.plan_collection();
            tree.job().is_some() || store.threads && store.engine.log().wants_fill()
        })
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.store.tree.get(key)
    }

    /// Keys and values of a range, ascending. Writes during the scan may or may not be visible; a
    /// [`Db::snapshot`] gives a view of one moment.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        self.store.tree.scan(range)
    }

    /// Keys and values of a range, descending.
    pub fn scan_back(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        self.store.tree.scan_back(range)
    }

    /// A consistent view of the present state.
    pub fn snapshot(&self) -> Snapshot {
        self.store.tree.snapshot()
    }

    /// A view of the state after write number `ts`, a number that [`Snapshot::ts`] returned.
    ///
    /// # Errors
    /// [`Error::HistoryGone`] when `ts` is older than the history that [`Db::keep_history_from`]
    /// kept.
    pub fn snapshot_at(&self, ts: u64) -> Result<Snapshot> {
        self.store.tree.snapshot_at(ts)
    }

    /// Keeps the versions that [`Db::snapshot_at`] needs for write number `ts` and later ones.
    /// After each opening the store keeps no history until this call.
    pub fn keep_history_from(&self, ts: u64) {
        self.store.tree.keep_history_from(ts);
    }

    /// Sets the present time for values with a deadline: values whose deadline is at or before
    /// `now` are gone. The caller chooses the unit. Time does not go back. The caller must set the
    /// time again after each opening.
    pub fn advance(&self, now: u64) {
        self.store.tree.advance(now);
    }

    /// Creates a checkpoint of the present state in `checkpoints/name` below the directory of this
    /// store. The checkpoint is a store that can be opened there or moved elsewhere. Tables are
    /// linked, not copied, so a checkpoint is quick. A checkpoint needs space only for values that
    /// lie in the log, and later for the difference between the two stores.
    ///
    /// # Errors
    /// When the directory already exists, a part of the store cannot be read, or the disk fails.
    pub fn checkpoint(&self, name: &str) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            let source = std::io::ErrorKind::InvalidInput.into();
            let action = "name a checkpoint (letters, digits, `-`, `_`, `.`)";
            return Err(Error::io(action, name)(source));
        }
        self.store.engine.checkpoint(SHARD, &format!("checkpoints/{name}"))
    }

    /// Begins an ingestion of many keys at once; see [`Ingest`].
    pub fn ingest(&self) -> Result<Ingest<'_>> {
        Ingest::begin(&self.store)
    }

    /// The number of writes that were delayed since the store was opened, because flushes and
    /// compactions were behind.
    pub fn stalls(&self) -> u64 {
        self.store.background.stalls()
    }

    /// The number of damaged places that the scrub found since the store was opened. The scrub
    /// reads in idle times, 4 MiB a second at most. [`Tree::verify`](crate::Tree::verify) names the
    /// damage.
    pub fn damage_found(&self) -> u64 {
        self.store.damage_found.load(Ordering::Relaxed)
    }

    /// The engine of this store.
    pub fn engine(&self) -> &Engine {
        &self.store.engine
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.store.background.close();
        self.store.committer.close();
        self.workers.drain(..).for_each(Worker::join);
        // All acknowledged writes are already durable. If the sync marker cannot be written, the
        // recovery of the next start finds the last durable commit without it.
        let _ = self.store.engine.log().write_sync_marker();
    }
}
