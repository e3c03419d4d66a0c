//! The engine as an embedded store: one shard, each batch one log entry, durable when `write`
//! returns.

mod background;
mod batch;
mod ingest;

pub use batch::Batch;
pub use ingest::Ingest;

use crate::disk::Disk;
use crate::disk::os::OsDisk;
use crate::engine::{Engine, Options};
use crate::error::{Error, Result};
use crate::ids::{LogId, ShardId};
use crate::lsm::{InLog, Scan, Snapshot, Tree};
use crate::scrub::Scrub;
use crate::wal::{GroupCommit, HardState, Pending, Record, Vote};
use background::{Background, Worker};
use bytes::Bytes;
use parking_lot::Mutex;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARD: ShardId = 0;
const TERM: u64 = 1;
const REPLAY_BYTES: usize = 1 << 20;

/// An embedded store.
///
/// When the disk is nearly full, puts are refused with [`Error::NoSpace`] from a reserve
/// ([`Limits::reserve_bytes`](crate::limits::Limits)), while reads, deletes and compactions go on;
/// when there is room again, so do puts.
///
/// Writers on several threads share syncs. Flushes, compactions and the preparing of log segments
/// run on threads of the store, unless [`Options::threads`] is off: then on the thread whose write
/// made them due. Dropping the store ends its threads; everything written is durable anyway.
pub struct Db {
    store: Arc<Store>,
    workers: Vec<Worker>,
}

/// What the threads share.
struct Store {
    engine: Engine,
    tree: Arc<Tree>,
    committer: GroupCommit<Bytes>,
    /// The index of the next entry.
    next: Mutex<u64>,
    background: Background,
    scrub: Mutex<Scrub>,
    damage_found: AtomicU64,
    threads: bool,
}

impl Db {
    /// Opens or makes a store in a directory.
    ///
    /// # Errors
    /// See [`Engine::open`]; [`Error::Locked`] when another process has it; [`Error::Missing`] when
    /// damage to the log has taken away what was acknowledged.
    pub fn open(dir: &Path, options: Options) -> Result<Db> {
        Self::open_on(Arc::new(OsDisk::open(dir)?), options)
    }

    /// Opens or makes a store on any disk.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Db> {
        let threads = options.threads;
        let engine = Engine::open(disk, options)?;
        ingest::remove_strays(&engine)?;
        let tree = engine.open_shard(SHARD)?;
        engine.log().check_entries(SHARD)?;
        let (_, last) = engine.log().bounds(SHARD);
        if last.index < tree.applied().index {
            // A checkpoint: its log begins where its tables end.
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
                tree.apply(entry.id, index, place, ops);
            }
        }
        let store = Store {
            next: Mutex::new(tree.applied().index + 1),
            engine,
            tree,
            committer: GroupCommit::default(),
            background: Background::default(),
            scrub: Mutex::default(),
            damage_found: AtomicU64::new(0),
            threads,
        };
        let store = Arc::new(store);
        let workers = if threads { background::start(&store) } else { Vec::new() };
        if !threads {
            store.maintain()?;
        }
        Ok(Db { store, workers })
    }

    /// Makes the changes, atomically and durably.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::NoSpace`] when the disk is nearly full and nothing was
    /// written; [`Error::Poisoned`] after a failed sync, when the changes may or may not be there
    /// after reopening.
    pub fn write(&self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let store = &*self.store;
        let data = store.admit(batch)?;
        store.committer.write(data, store.threads, |entries| store.commit(entries))?;
        if store.threads { Ok(()) } else { store.maintain() }
    }

    /// Hands the changes over, to be made atomically and in the order in which this thread submits
    /// them, and returns at once unless some MiB wait for the disk already. They are seen by reads
    /// and durable when [`Pending::wait`] returns, and not before. So one thread keeps the disk
    /// busy, and nothing counts as written that a power loss could take away. One that finds no
    /// space does not keep later ones from taking place.
    ///
    /// Without [`Options::threads`] this is [`Db::write`].
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::NoSpace`] when the disk is nearly full. What happens later
    /// [`Pending::wait`] says.
    pub fn submit(&self, batch: Batch) -> Result<Pending> {
        let store = &*self.store;
        if batch.is_empty() || !store.threads {
            return self.write(batch).map(|()| Pending::done());
        }
        let data = store.admit(batch)?;
        let bytes = data.len();
        Ok(store.committer.submit(data, bytes))
    }

    /// Moves everything into tables, and returns when that is done.
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

    /// Keys and values of a range, ascending. Writes meanwhile may or may not be seen; take a
    /// [`Db::snapshot`] for one moment's view.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        self.store.tree.scan(range)
    }

    /// Keys and values of a range, descending.
    pub fn scan_back(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        self.store.tree.scan_back(range)
    }

    /// A view of this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.store.tree.snapshot()
    }

    /// A view of the moment after write number `ts`, as [`Snapshot::ts`] gave it then.
    ///
    /// # Errors
    /// [`Error::HistoryGone`] when it is older than what [`Db::keep_history_from`] kept.
    pub fn snapshot_at(&self, ts: u64) -> Result<Snapshot> {
        self.store.tree.snapshot_at(ts)
    }

    /// Keeps what [`Db::snapshot_at`] needs from write number `ts` on. At first, and after opening,
    /// that is nothing.
    pub fn keep_history_from(&self, ts: u64) {
        self.store.tree.keep_history_from(ts);
    }

    /// Says what time it is, for values with a deadline: those at or before it are gone. The unit
    /// is the caller's; time does not go back. To be said again after opening.
    pub fn advance(&self, now: u64) {
        self.store.tree.advance(now);
    }

    /// Copies the store as it is now into the directory `name` below `checkpoints` in its own: a
    /// store that can be opened there, or moved away. Tables are linked, not copied, so it is quick
    /// and takes room only for values that lie in the log, and as the two stores come to differ.
    ///
    /// # Errors
    /// When there is such a directory already, something cannot be read, or the disk fails.
    pub fn checkpoint(&self, name: &str) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            let source = std::io::ErrorKind::InvalidInput.into();
            let action = "name a checkpoint (letters, digits, `-`, `_`, `.`)";
            return Err(Error::io(action, name)(source));
        }
        self.store.engine.checkpoint(SHARD, &format!("checkpoints/{name}"))
    }

    /// Begins to take in many keys at once; see [`Ingest`].
    pub fn ingest(&self) -> Result<Ingest<'_>> {
        Ingest::begin(self)
    }

    /// Writes that were held back since the store was opened, because flushes and compactions were
    /// behind.
    pub fn stalls(&self) -> u64 {
        self.store.background.stalls()
    }

    /// Damage that the store found since it was opened by reading itself again in idle moments,
    /// 4 MiB a second at most. [`Tree::verify`] names it.
    pub fn damage_found(&self) -> u64 {
        self.store.damage_found.load(Ordering::Relaxed)
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.store.engine
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.store.background.close();
        self.store.committer.close();
        self.workers.drain(..).for_each(Worker::join);
        // Everything is durable already; where this fails, the next start says what is.
        let _ = self.store.engine.log().write_sync_marker();
    }
}

impl Store {
    /// The entry that a batch becomes, once there is room for it.
    fn admit(&self, batch: Batch) -> Result<Bytes> {
        if batch.grows() {
            self.engine.check_space()?;
        }
        let data = batch.into_data()?;
        Record::check_size(data.len(), self.engine.log().record_bytes_max())?;
        if self.threads {
            self.background.slow_down(&self.tree)?;
        }
        Ok(data)
    }

    /// Writes the entries as one commit, then applies them.
    fn commit(&self, entries: Vec<Bytes>) -> Result<()> {
        let mut next = self.next.lock();
        let first = LogId { term: TERM, index: *next };
        let last = *next + entries.len() as u64 - 1;
        let mut records = Vec::new();
        let mut at = first;
        for entries in Record::split(&entries, self.engine.log().record_bytes_max()) {
            records.push(Record::entries(SHARD, at, entries.iter().map(|e| (0, e.clone())))?);
            at.index += entries.len() as u64;
        }
        let state = HardState { term: TERM, vote: Vote::None, commit: last };
        records.push(Record::HardState { shard: SHARD, state });
        let log = self.engine.log();
        log.commit(&records)?;
        *next = last + 1;
        for (index, data) in (first.index..).zip(&entries) {
            let ops = batch::decode(data).expect("a batch is decoded as it was encoded");
            let id = LogId { term: TERM, index };
            let place = log.place(SHARD, id).map(|place| InLog { data, place });
            self.tree.apply(id, index, place, ops);
        }
        if self.threads && (self.tree.wants_flush() || log.wants_slot()) {
            self.background.wake();
        }
        Ok(())
    }

    /// Gives up the log that flushes made needless.
    fn release(&self) -> Result<()> {
        let upto = self.tree.flushed();
        if upto.index > self.engine.log().base(SHARD).index {
            self.engine.log().commit(&[Record::Release { shard: SHARD, upto }])?;
        }
        Ok(())
    }

    /// Does everything that is due, on this thread.
    fn maintain(&self) -> Result<()> {
        self.engine.measure_space()?;
        while let Some(job) = self.tree.job() {
            self.tree.run(job)?;
            self.release()?;
            self.engine.plan_collection();
            self.engine.log().trim_slots()?;
        }
        Ok(())
    }

    /// Waits until something is not due any more; without threads, does it.
    fn settle(&self, due: impl Fn(&Tree) -> bool) -> Result<()> {
        if self.threads { self.background.wait_while(|| due(&self.tree)) } else { self.maintain() }
    }
}
