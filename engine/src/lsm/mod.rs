//! One shard's tree: memtables over tables, and the jobs that move data down.
//!
//! A tree has no log. [`Tree::apply`] takes the effect of log entries in order; after a restart
//! the caller applies again from [`Tree::flushed`] on.

pub(crate) mod directories;
mod files;
mod install;
mod jobs;
pub mod manifest;
mod memtable;
pub(crate) mod merge;
pub mod ranges;
mod stats;
pub mod version;
mod view;

pub(crate) use files::{LogValues, TreeDir};
pub use install::Install;
pub use jobs::Job;
pub use stats::TreeStats;
pub use view::{Scan, Snapshot};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ids::{LogId, ShardId};
use crate::key::{NEVER, Op, Value};
use crate::limits::{KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
use crate::memory::Memory;
use crate::table::{BlockCache, Table};
use crate::values::{Pointer, Source, Sources};
use crate::wal::{Place, Segments};
use bytes::Bytes;
use manifest::{Manifest, Standing};
use memtable::Change;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeSet, HashSet};
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use version::{Bounds, TableSet};
use view::{View, Way, resolve};

/// One shard's sorted data. Shared between threads: one applier, any readers, one flush and one
/// compaction at a time.
pub struct Tree {
    disk: Arc<dyn Disk>,
    shard: ShardId,
    dir: String,
    limits: Limits,
    cache: Arc<BlockCache>,
    sources: Sources,
    memory: Arc<Memory>,
    view: RwLock<View>,
    store: Mutex<Store>,
    next_number: AtomicU64,
    /// Held while an entry is applied: the memtable that it goes to is neither frozen nor replaced
    /// meanwhile.
    applying: Mutex<()>,
    flushing: Mutex<()>,
    compacting: Mutex<()>,
    /// Values in these move when the tables that point to them are rewritten.
    collection_targets: RwLock<Arc<BTreeSet<Source>>>,
    /// Versions that are hidden at this timestamp and later may go.
    horizon: AtomicU64,
    /// Its directory is given up: no job may write there.
    closed: AtomicBool,
    dirty: Arc<Mutex<BTreeSet<ShardId>>>,
}

/// The manifest, and what the next edit repeats.
struct Store {
    manifest: Manifest,
    standing: Standing,
}

/// What the trees of a disk share.
#[derive(Clone)]
pub struct Shared {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Sizes.
    pub limits: Limits,
    /// Blocks of all tables.
    pub cache: Arc<BlockCache>,
    /// Segments of the log, where values lie.
    pub segments: Arc<Segments>,
    /// What all memtables take.
    pub memory: Arc<Memory>,
    /// Trees to which something happened that may have made a job.
    pub dirty: Arc<Mutex<BTreeSet<ShardId>>>,
}

impl Shared {
    /// Of a disk, with a block cache and a log's segments.
    pub fn new(
        disk: Arc<dyn Disk>,
        limits: Limits,
        cache: Arc<BlockCache>,
        segments: Arc<Segments>,
    ) -> Shared {
        // One shard alone may fill all of its memtables.
        let alone = 2 * limits.memtable_bytes * (limits.memtables_frozen_max + 1);
        let memory = Arc::new(Memory::new(limits.memtables_bytes.max(alone)));
        let dirty = Arc::default();
        Shared { disk, limits, cache, segments, memory, dirty }
    }
}

/// The log entry that a change comes from: values that share its memory need not be copied, since
/// they lie in the log.
pub struct InLog<'a> {
    /// The entry's data.
    pub data: &'a Bytes,
    /// Where it lies.
    pub place: Place,
}

impl InLog<'_> {
    /// A pointer to `value`, if that is a part of the entry's data.
    fn pointer(&self, key: &[u8], value: &Bytes) -> Option<Pointer> {
        let at = (value.as_ptr() as usize).checked_sub(self.data.as_ptr() as usize)?;
        let inside = at + value.len() <= self.data.len();
        let offset = self.place.offset + u32::try_from(at).ok()?;
        let source = Source::Log(self.place.segment.sequence());
        inside.then(|| Pointer::to(key, value, source, offset))
    }
}

impl Tree {
    /// Opens the tree of a shard in directory `dir`, making it if there is none. A table or a
    /// source of values that is damaged or missing is no error here, but for who reads what it
    /// held.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the manifest is damaged.
    pub fn open(shared: &Shared, shard: ShardId, dir: &str) -> Result<Tree> {
        let Shared { disk, limits, cache, segments, memory, dirty } = shared.clone();
        let dir = dir.to_owned();
        disk.make_dir(&dir).map_err(Error::io("create", &dir))?;
        let sources = Sources::new(disk.clone(), shard, dir.clone(), segments);
        let (edits, number) = Manifest::read(&*disk, &dir)?.unwrap_or_default();
        let whole = manifest::fold(edits);
        let mut change = version::Change::default();
        for (run, meta) in &whole.added {
            let path = table_path(&dir, meta.number);
            let table = Table::open(disk.clone(), path, meta.clone(), cache.clone(), &sources)?;
            change.add.push((*run, Arc::new(table)));
        }
        for (run, ranges) in &whole.deleted {
            change.deleted.push((*run, Arc::new(ranges.iter().cloned().collect())));
        }
        let standing = whole.standing.clone();
        let bounds = standing.bounds.clone();
        let tables = TableSet { runs: Vec::new(), bounds }.edited(change);
        let manifest = Manifest::create(&*disk, &dir, number + 1, &whole)?;
        remove_strays(&*disk, &dir, &tables, &manifest)?;
        let view = View {
            shard,
            active: Arc::default(),
            frozen: Vec::new(),
            tables: Arc::new(tables),
            applied: standing.flushed,
            ts: standing.ts_max,
            now: standing.now,
            flushed: standing.flushed,
            flushed_now: standing.now,
            history_from: standing.history_from,
        };
        dirty.lock().insert(shard);
        Ok(Tree {
            disk,
            shard,
            dir,
            limits,
            cache,
            sources,
            memory,
            view: RwLock::new(view),
            next_number: AtomicU64::new(standing.next_number),
            store: Mutex::new(Store { manifest, standing }),
            applying: Mutex::default(),
            flushing: Mutex::default(),
            compacting: Mutex::default(),
            collection_targets: RwLock::default(),
            horizon: AtomicU64::new(u64::MAX),
            closed: AtomicBool::new(false),
            dirty,
        })
    }

    /// There may be a job that there was not before.
    pub(crate) fn mark_dirty(&self) {
        self.dirty.lock().insert(self.shard);
    }

    /// Takes the effect of log entry `at`, all of it at once for readers of later timestamps.
    /// Entries come in index order, and each has a later timestamp than the one before it: a
    /// snapshot sees what its timestamp sees. With `entry`, large values stay in the log and only
    /// a pointer is kept. Costs no I/O.
    pub fn apply(
        &self,
        at: LogId,
        ts: u64,
        entry: Option<InLog<'_>>,
        ops: impl IntoIterator<Item = Op>,
    ) {
        let separate = |key: &Bytes, value: &Bytes| {
            let large = value.len() >= self.limits.value_bytes_separate;
            entry.as_ref().filter(|_| large)?.pointer(key, value)
        };
        let set = |key: Bytes, value: Bytes, expires| match separate(&key, &value) {
            // The key is copied, so that it does not keep the entry's memory.
            Some(at) => Change::Set(Bytes::copy_from_slice(&key), Value::At(at), expires),
            None => Change::Set(key, Value::Inline(value), expires),
        };
        let changes = ops.into_iter().map(|op| match op {
            Op::Put(key, value) => set(key, value, NEVER),
            Op::PutUntil(key, value, deadline) => set(key, value, deadline),
            Op::Delete(key) => Change::Set(key, Value::Tombstone, NEVER),
            Op::DeleteRange(from, to) => Change::DeleteRange(from, to),
        });
        let _applying = self.applying.lock();
        let active = self.view.read().active.clone();
        let segment = entry.as_ref().map(|entry| &entry.place.segment);
        active.apply(at, ts, segment, &self.memory, changes);
        let full = active.is_full(&self.limits);
        let mut view = self.view.write();
        assert!(at.index > view.applied.index, "entries are applied once, in order");
        assert!(ts > view.ts, "timestamps rise");
        view.applied = at;
        view.ts = ts;
        if full {
            view.freeze();
            self.mark_dirty();
        }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The keys that belong to it.
    pub fn bounds(&self) -> Bounds {
        self.view.read().tables.bounds.clone()
    }

    /// The last log entry applied.
    pub fn applied(&self) -> LogId {
        self.view.read().applied
    }

    /// The last log entry whose effect is in durable tables: the log before it can be released.
    pub fn flushed(&self) -> LogId {
        self.view.read().flushed
    }

    /// The newest timestamp applied.
    pub fn ts(&self) -> u64 {
        self.view.read().ts
    }

    /// From now on readers do not see values whose deadline is at or before `now`, and compaction
    /// drops them. Time does not go back: an earlier one is ignored. It is kept with each flush, so
    /// who owns the clock says it again after opening.
    pub fn advance(&self, now: u64) {
        let mut view = self.view.write();
        view.now = view.now.max(now);
    }

    /// Versions that a reader at timestamp `ts` or later may need are kept from now on; others may
    /// go. At first only the newest are kept, as by `u64::MAX`.
    pub fn keep_history_from(&self, ts: u64) {
        self.horizon.store(ts, Ordering::Release);
    }

    /// The oldest timestamp that [`Tree::snapshot_at`] can read.
    pub fn history_from(&self) -> u64 {
        self.view.read().history_from
    }

    /// The newest value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let (tables, now) = {
            let view = self.view.read();
            if let Some(found) = view.get_recent(key, u64::MAX) {
                let now = view.now;
                drop(view);
                return resolve(self.shard, key, Some(found), now);
            }
            (view.tables.clone(), view.now)
        };
        resolve(self.shard, key, tables.get(key, u64::MAX)?, now)
    }

    /// The values of a range, ascending, as of this moment.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        let view = self.view.read().clone();
        view.scan(range, Way::Forward)
    }

    /// The values of a range, descending, as of this moment.
    pub fn scan_back(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        let view = self.view.read().clone();
        view.scan(range, Way::Back)
    }

    /// A view that no later write changes. What it needs is kept while it lives.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { view: self.view.read().clone() }
    }

    /// The tree as it was at timestamp `ts`, or is, if that is still to come.
    ///
    /// # Errors
    /// [`Error::HistoryGone`] for a time before [`Tree::history_from`].
    pub fn snapshot_at(&self, ts: u64) -> Result<Snapshot> {
        let mut view = self.view.read().clone();
        if ts < view.history_from {
            let (shard, oldest) = (self.shard, view.history_from);
            return Err(Error::HistoryGone { shard, asked: ts, oldest });
        }
        view.ts = view.ts.min(ts);
        Ok(Snapshot { view })
    }

    /// Freezes the memtable, so that the next jobs make everything applied so far durable.
    pub fn freeze(&self) {
        let _applying = self.applying.lock();
        let mut view = self.view.write();
        if !view.active.is_empty() {
            view.freeze();
            self.mark_dirty();
        }
    }

    /// Bytes of the memtable that is not frozen yet.
    pub(crate) fn active_bytes(&self) -> usize {
        self.view.read().active.bytes()
    }

    fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}

/// Refuses what is over the limits of a key or a value.
pub fn check_size(key: &[u8], value: &[u8]) -> Result<()> {
    let too_large = |what, found, limit| Err(Error::TooLarge { what, found, limit });
    if key.len() > KEY_BYTES_MAX {
        return too_large("the key", key.len(), KEY_BYTES_MAX);
    }
    if value.len() > VALUE_BYTES_MAX {
        return too_large("the value", value.len(), VALUE_BYTES_MAX);
    }
    Ok(())
}

fn table_path(dir: &str, number: u64) -> String {
    format!("{dir}/{number:06}.sst")
}

fn value_files(tables: &TableSet) -> BTreeSet<u64> {
    let number = |source: &Source| match source {
        Source::File(number) => Some(*number),
        Source::Log(_) => None,
    };
    tables
        .tables()
        .flat_map(|(_, table)| table.properties.shares.keys().filter_map(number))
        .collect()
}

/// Removes files that no manifest names, nor a table of one: outputs of a job that the power cut.
/// What a damaged table points to is not known, so then value files stay.
fn remove_strays(disk: &dyn Disk, dir: &str, tables: &TableSet, manifest: &Manifest) -> Result<()> {
    let names = tables.tables().map(|(_, table)| table_path(dir, table.meta.number));
    let mut known: HashSet<String> = names.collect();
    known.extend(value_files(tables).iter().map(|number| format!("{dir}/{number:06}.val")));
    known.insert(manifest::manifest_path(dir, manifest.number()));
    known.insert(format!("{dir}/CURRENT"));
    let damaged = tables.tables().any(|(_, table)| table.damage().is_some());
    for name in disk.list(dir).map_err(Error::io("list", dir))? {
        let path = format!("{dir}/{name}");
        let kept = known.contains(&path) || damaged && name.ends_with(".val");
        if !kept {
            disk.remove(&path).map_err(Error::io("remove", path))?;
        }
    }
    Ok(())
}
