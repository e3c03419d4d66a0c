//! One shard's tree: memtables over tables, and the jobs that move data down.
//!
//! A tree has no log. [`Tree::apply`] applies log entries in order. After a restart, the caller
//! applies the entries after [`Tree::flushed`] again.

pub mod bounds;
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
pub use view::{History, HistoryItem, Scan, Snapshot, SnapshotHead};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ids::{LogId, ShardId};
use crate::key::{AsOf, NEVER, Op, Value};
use crate::limits::{KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
use crate::memory::Memory;
use crate::table::{BlockCache, Table};
use crate::values::{Pointer, Source, Sources};
use crate::wal::{Place, Segments};
use bounds::Bounds;
use bytes::Bytes;
use manifest::{Manifest, TreeState};
use memtable::Change;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeSet, HashSet};
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use version::TableSet;
use view::{View, Way, resolve};

/// One shard's sorted data. Threads share a tree: one applier, any number of readers, and at most
/// one flush and one compaction at a time.
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
    /// Held while a log entry is applied, so that the active memtable is neither frozen nor
    /// replaced meanwhile.
    applying: Mutex<()>,
    flushing: Mutex<()>,
    compacting: Mutex<()>,
    /// The sources that values leave when the tables that point to these values are rewritten.
    collection_targets: RwLock<Arc<BTreeSet<Source>>>,
    /// Versions that are hidden at this timestamp and at every later timestamp may be dropped.
    horizon: AtomicU64,
    /// Whether the tree is closed. No job may write in the directory of a closed tree.
    closed: AtomicBool,
    dirty: Arc<Mutex<BTreeSet<ShardId>>>,
}

/// The manifest, and the state that the next edit repeats.
struct Store {
    manifest: Manifest,
    state: TreeState,
}

/// The resources that all trees of a disk share.
#[derive(Clone)]
pub struct Shared {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The configured limits.
    pub limits: Limits,
    /// The block cache of all tables.
    pub cache: Arc<BlockCache>,
    /// The segments of the log. Values may lie in these segments.
    pub segments: Arc<Segments>,
    /// The memory budget of all memtables.
    pub memory: Arc<Memory>,
    /// The shards whose trees changed, so that a tree may have a new background job.
    pub dirty: Arc<Mutex<BTreeSet<ShardId>>>,
}

impl Shared {
    /// Creates the shared resources of a disk from a block cache and the segments of a log.
    pub fn new(
        disk: Arc<dyn Disk>,
        limits: Limits,
        cache: Arc<BlockCache>,
        segments: Arc<Segments>,
    ) -> Shared {
        // The budget lets a single shard fill all of its memtables.
        let alone = 2 * limits.memtable_bytes * (limits.memtables_frozen_max + 1);
        let memory = Arc::new(Memory::new(limits.memtables_bytes.max(alone)));
        let dirty = Arc::default();
        Shared { disk, limits, cache, segments, memory, dirty }
    }
}

/// The log entry that a change comes from. A value that is a part of the entry's memory need not be
/// copied, because the value lies in the log.
pub struct InLog<'a> {
    /// The entry's data.
    pub data: &'a Bytes,
    /// The position of the data in the log.
    pub place: Place,
}

impl InLog<'_> {
    /// A pointer to `value`, if `value` is a part of the entry's data.
    fn pointer(&self, key: &[u8], value: &Bytes) -> Option<Pointer> {
        let at = (value.as_ptr() as usize).checked_sub(self.data.as_ptr() as usize)?;
        let inside = at + value.len() <= self.data.len();
        let offset = self.place.offset + u32::try_from(at).ok()?;
        let source = Source::Log(self.place.segment.sequence());
        inside.then(|| Pointer::to(key, value, source, offset))
    }
}

impl Tree {
    /// Opens the tree of a shard in directory `dir`, or creates the tree if none exists. A damaged
    /// or missing table or source of values is not an error here. Reads of the keys in the damaged
    /// table or source fail later.
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
        let state = whole.state.clone();
        let bounds = state.bounds.clone();
        let tables = TableSet { runs: Vec::new(), bounds }.edited(change);
        let manifest = Manifest::create(&*disk, &dir, number + 1, &whole)?;
        remove_strays(&*disk, &dir, &tables, &manifest)?;
        let view = View {
            shard,
            active: Arc::default(),
            frozen: Vec::new(),
            tables: Arc::new(tables),
            applied: state.flushed,
            as_of: AsOf { ts: state.ts_max, written: state.ts_max },
            now: state.now,
            flushed: state.flushed,
            flushed_now: state.now,
            history_from: state.history_from,
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
            next_number: AtomicU64::new(state.next_number),
            store: Mutex::new(Store { manifest, state }),
            applying: Mutex::default(),
            flushing: Mutex::default(),
            compacting: Mutex::default(),
            collection_targets: RwLock::default(),
            horizon: AtomicU64::new(u64::MAX),
            closed: AtomicBool::new(false),
            dirty,
        })
    }

    /// Records that the tree may have a new background job.
    pub(crate) fn mark_dirty(&self) {
        self.dirty.lock().insert(self.shard);
    }

    /// Applies log entry `at`. Readers at later timestamps see all changes of the entry at once.
    /// Entries must come in index order, and each entry must have a later timestamp than the entry
    /// before it, because a snapshot is defined by its timestamp. With `entry`, large values stay
    /// in the log and the tree keeps only a pointer. This function does no I/O.
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
        let set = |key: Bytes, value: Bytes, expires, ts| match separate(&key, &value) {
            // The key is copied, so that the key does not keep the entry's memory allocated.
            Some(at) => Change::Set(Bytes::copy_from_slice(&key), Value::At(at), expires, ts),
            None => Change::Set(key, Value::Inline(value), expires, ts),
        };
        let changes = ops.into_iter().map(|op| match op {
            Op::Put(key, value) => set(key, value, NEVER, None),
            Op::PutUntil(key, value, deadline) => set(key, value, deadline, None),
            Op::PutAt { key, value, expires, ts } => set(key, value, expires, Some(ts)),
            Op::Delete(key) => Change::Set(key, Value::Tombstone, NEVER, None),
            Op::DeleteAt { key, ts } => Change::Set(key, Value::Tombstone, NEVER, Some(ts)),
            Op::DeleteRange(from, to) => Change::DeleteRange(from, to),
        });
        let _applying = self.applying.lock();
        let active = self.view.read().active.clone();
        let segment = entry.as_ref().map(|entry| &entry.place.segment);
        active.apply(at, ts, segment, &self.memory, changes);
        let full = active.is_full(&self.limits);
        let mut view = self.view.write();
        assert!(at.index > view.applied.index, "log entries are applied once, in index order");
        assert!(ts > view.as_of.ts, "log entries have ascending timestamps");
        view.applied = at;
        view.as_of = AsOf { ts, written: ts };
        if full {
            view.freeze();
            self.mark_dirty();
        }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The bounds of the keys that belong to the tree.
    pub fn bounds(&self) -> Bounds {
        self.view.read().tables.bounds.clone()
    }

    /// The last log entry applied.
    pub fn applied(&self) -> LogId {
        self.view.read().applied
    }

    /// The last log entry whose effect is in durable tables. The log up to this entry can be
    /// released.
    pub fn flushed(&self) -> LogId {
        self.view.read().flushed
    }

    /// The newest timestamp applied.
    pub fn ts(&self) -> u64 {
        self.view.read().as_of.ts
    }

    /// Advances the tree's time to `now`. Readers no longer see values whose deadline is at or
    /// before `now`, and compaction drops these values. Time does not go back: an earlier `now` is
    /// ignored. The time is stored only with each flush, so the owner of the clock must set the
    /// time again after opening the tree.
    pub fn advance(&self, now: u64) {
        let mut view = self.view.write();
        view.now = view.now.max(now);
    }

    /// Keeps all versions that a reader at timestamp `ts` or later may need; compaction may drop
    /// the other versions. Initially only the newest version of each key is kept, as with
    /// `u64::MAX`.
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
            if let Some(found) = view.get_recent(key, AsOf::NEWEST) {
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

    /// A view that no later write changes. The snapshot keeps its memtables and files while it
    /// lives.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_of(self.view.read().clone())
    }

    fn snapshot_of(&self, view: View) -> Snapshot {
        let kept = view.as_of.ts.min(self.horizon.load(Ordering::Acquire));
        Snapshot { horizon: kept.max(view.history_from), view }
    }

    /// The tree as it was at timestamp `ts`, or the current tree if `ts` lies in the future.
    ///
    /// # Errors
    /// [`Error::HistoryGone`] for a timestamp before [`Tree::history_from`].
    pub fn snapshot_at(&self, ts: u64) -> Result<Snapshot> {
        let mut view = self.view.read().clone();
        if ts < view.history_from {
            let (shard, oldest) = (self.shard, view.history_from);
            return Err(Error::HistoryGone { shard, requested: ts, oldest });
        }
        view.as_of.ts = view.as_of.ts.min(ts);
        Ok(self.snapshot_of(view))
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

    /// Bytes of the active memtable.
    pub(crate) fn active_bytes(&self) -> usize {
        self.view.read().active.bytes()
    }

    fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}

/// Rejects a key or a value that exceeds its size limit.
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

/// Removes files that neither the manifest nor its tables reference: outputs of a job that a power
/// failure cut. The value files of a damaged table are not known, so if a table is damaged, all
/// value files are kept.
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
