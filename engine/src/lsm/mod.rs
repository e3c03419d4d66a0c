//! One shard's tree: memtables over tables, and the jobs that move data down.
//!
//! A tree has no log. [`Tree::apply`] takes the effect of log entries in order; after a restart
//! the caller applies again from [`Tree::flushed`] on.

mod install;
pub mod key;
pub mod manifest;
mod memtable;
pub(crate) mod merge;
pub mod version;
mod view;

pub use install::Install;
pub use view::{Scan, Snapshot};

use crate::checksum::key_hash;
use crate::compaction::pick::{self, Choice, Shape};
use crate::compaction::run::{Output, write_tables};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::limits::{Codec, KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
use crate::table::{BlockCache, Table, TableMeta};
use crate::values::pick::Usage;
use crate::values::{Holder, Pointer, Source, Sources};
use crate::wal::{Place, Segments};
use crate::{LogId, ShardId};
use bytes::Bytes;
use key::{Cursor, Op, Value};
use manifest::{Edit, Manifest};
use merge::{Merge, Retained};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use version::{BOTTOM, RunCursor, TableSet};
use view::{View, resolve};

/// One shard's sorted data. Shared between threads: one applier, any readers, one flush and one
/// compaction at a time.
pub struct Tree {
    disk: Arc<dyn Disk>,
    dir: String,
    limits: Limits,
    cache: Arc<BlockCache>,
    sources: Sources,
    view: RwLock<View>,
    store: Mutex<Store>,
    next_number: AtomicU64,
    flushing: Mutex<()>,
    compacting: Mutex<()>,
    /// Values in these move when the tables that point to them are rewritten.
    doomed: RwLock<Arc<BTreeSet<Source>>>,
    snapshots: Mutex<BTreeMap<u64, usize>>,
}

/// The manifest, and what the next edit repeats.
struct Store {
    manifest: Manifest,
    flushed: LogId,
    ts_max: u64,
}

/// Work for a background thread; see [`Tree::run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Write the oldest frozen memtable to a run of its own.
    Flush,
    /// Merge tables.
    Compact(Choice),
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
    /// Opens the tree of a shard, making it if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the manifest, a table or a source of values is damaged or missing.
    pub fn open(
        disk: Arc<dyn Disk>,
        shard: ShardId,
        limits: Limits,
        cache: Arc<BlockCache>,
        segments: Arc<Segments>,
    ) -> Result<Tree> {
        let dir = format!("shards/{shard}");
        disk.make_dir(&dir).map_err(Error::io("create", &dir))?;
        let sources = Sources::new(disk.clone(), dir.clone(), segments);
        let (edits, number) = Manifest::read(&*disk, &dir)?.unwrap_or_default();
        let whole = manifest::fold(edits);
        let mut add = Vec::new();
        for (run, meta) in &whole.added {
            let path = table_path(&dir, meta.number);
            let table = Table::open(disk.clone(), path, meta.clone(), cache.clone(), &sources)?;
            add.push((*run, Arc::new(table)));
        }
        let tables = TableSet::default().edited(&[], add);
        let manifest = Manifest::create(&*disk, &dir, number + 1, &whole)?;
        remove_strays(&*disk, &dir, &tables, &manifest)?;
        let view = View {
            active: Arc::default(),
            frozen: Vec::new(),
            tables: Arc::new(tables),
            applied: whole.flushed,
            ts: whole.ts_max,
            flushed: whole.flushed,
        };
        let store = Store { manifest, flushed: whole.flushed, ts_max: whole.ts_max };
        Ok(Tree {
            disk,
            dir,
            limits,
            cache,
            sources,
            view: RwLock::new(view),
            store: Mutex::new(store),
            next_number: AtomicU64::new(whole.next_number),
            flushing: Mutex::default(),
            compacting: Mutex::default(),
            doomed: RwLock::default(),
            snapshots: Mutex::default(),
        })
    }

    /// Takes the effect of log entry `at`, all of it at once for readers of later timestamps.
    /// Entries come in index order; timestamps never fall. With `entry`, large values stay in the
    /// log and only a pointer is kept. Costs no I/O.
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
        let changes = ops.into_iter().map(|op| match op {
            // The key is copied, so that it does not keep the entry's memory.
            Op::Put(key, value) => match separate(&key, &value) {
                Some(pointer) => (Bytes::copy_from_slice(&key), Value::At(pointer)),
                None => (key, Value::Inline(value)),
            },
            Op::Delete(key) => (key, Value::Tombstone),
        });
        let active = self.view.read().active.clone();
        active.apply(at, ts, entry.as_ref().map(|entry| &entry.place.segment), changes);
        let full = active.is_full(&self.limits);
        let mut view = self.view.write();
        assert!(at.index > view.applied.index, "entries are applied once, in order");
        view.applied = at;
        view.ts = view.ts.max(ts);
        if full {
            view.freeze();
        }
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

    /// Whether a memtable waits to be flushed.
    pub fn wants_flush(&self) -> bool {
        !self.view.read().frozen.is_empty()
    }

    /// How much background work waits: 0 when writers need not care, 1 when they must wait.
    pub fn pressure(&self) -> f64 {
        let view = self.view.read();
        let part = |count: usize, limit: usize| {
            (count.saturating_sub(limit / 2)) as f64 / (limit - limit / 2) as f64
        };
        let memtables = part(view.frozen.len(), self.limits.memtables_frozen_max);
        memtables.max(part(view.tables.runs.len(), 8 * self.limits.runs_max))
    }

    /// Whether writers should wait for background work.
    pub fn is_behind(&self) -> bool {
        self.pressure() >= 1.0
    }

    /// The newest value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let tables = {
            let view = self.view.read();
            if let Some(found) = view.get_recent(key, u64::MAX) {
                drop(view);
                return resolve(key, Some(found));
            }
            view.tables.clone()
        };
        resolve(key, tables.get(key, key_hash(key), u64::MAX)?)
    }

    /// The newest values of a range, ascending; later writes may or may not be seen.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        let view = self.view.read().clone();
        view.scan(range, u64::MAX)
    }

    /// A view that no later write changes. What it needs is kept while it lives.
    pub fn snapshot(self: &Arc<Self>) -> Snapshot {
        let view = self.view.read();
        *self.snapshots.lock().entry(view.ts).or_default() += 1;
        Snapshot { tree: self.clone(), view: view.clone() }
    }

    fn forget_snapshot(&self, ts: u64) {
        let mut snapshots = self.snapshots.lock();
        if let Some(count) = snapshots.get_mut(&ts) {
            *count -= 1;
            if *count == 0 {
                snapshots.remove(&ts);
            }
        }
    }

    /// Freezes the memtable, so that the next jobs make everything applied so far durable.
    pub fn freeze(&self) {
        let mut view = self.view.write();
        if !view.active.is_empty() {
            view.freeze();
        }
    }

    /// What should be done in the background now: a flush before anything else.
    pub fn job(&self) -> Option<Job> {
        if self.wants_flush() {
            return Some(Job::Flush);
        }
        self.compaction().map(Job::Compact)
    }

    /// What should be merged now, or rewritten so that values leave a doomed source.
    pub fn compaction(&self) -> Option<Choice> {
        let tables = self.view.read().tables.clone();
        let shape = |run: &version::Run| {
            let values = |table: &Arc<Table>| -> u64 {
                table.properties.shares.values().map(|share| share.bytes).sum()
            };
            let weight = run.tables.iter().map(|table| table.meta.bytes + values(table)).sum();
            let tables = run.tables.iter().map(|table| table.meta.clone()).collect();
            Shape { run: run.id, tables, weight }
        };
        let shapes: Vec<Shape> = tables.runs.iter().map(shape).collect();
        if let Some(choice) = pick::pick(&shapes, &self.limits) {
            return Some(choice);
        }
        let doomed = self.doomed.read().clone();
        let points = |table: &Table| table.properties.shares.keys().any(|s| doomed.contains(s));
        let (run, table) = tables.tables().find(|(_, table)| points(table))?;
        let inputs = vec![vec![table.meta.number]];
        let oldest = tables.runs.last().is_some_and(|last| last.id == run);
        Some(Choice { inputs, run, bottom: oldest })
    }

    /// Does a job: reads and writes tables, then swaps them in. Blocks; for a background thread.
    /// A flush and a compaction may run at the same time, two of a kind exclude each other.
    pub fn run(&self, job: Job) -> Result<()> {
        match job {
            Job::Flush => self.flush(),
            Job::Compact(choice) => self.compact(&choice),
        }
    }

    fn flush(&self) -> Result<()> {
        let _flushing = self.flushing.lock();
        let Some(memtable) = self.view.read().frozen.last().cloned() else { return Ok(()) };
        let horizon = self.horizon();
        let cursor = Retained::new(memtable.cursor(Bound::Unbounded), horizon, false);
        let run = self.number();
        let none = BTreeSet::new();
        let metas = self.write(cursor, self.limits.compression, u64::MAX, &none, &|_| Ok(false))?;
        let added = metas.into_iter().map(|meta| (run, meta)).collect();
        let flushed = Some((memtable.upto(), memtable.ts_max()));
        self.install(flushed, Vec::new(), added, |view| {
            view.frozen.retain(|other| !Arc::ptr_eq(other, &memtable));
        })
    }

    fn compact(&self, choice: &Choice) -> Result<()> {
        let _compacting = self.compacting.lock();
        let tables = self.view.read().tables.clone();
        let find = |number| tables.tables().find(|(_, table)| table.meta.number == number);
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for run in &choice.inputs {
            let tables: Option<Vec<_>> =
                run.iter().map(|&number| find(number).map(|(_, table)| table.clone())).collect();
            let Some(tables) = tables else { return Ok(()) }; // an install came in between
            sources.push(Box::new(RunCursor::new(tables, &[], true)?));
        }
        let codec = match choice.run {
            BOTTOM => self.limits.bottom_compression,
            _ => self.limits.compression,
        };
        let horizon = self.horizon();
        let cursor = Retained::new(Merge::new(sources)?, horizon, choice.bottom);
        let doomed = self.doomed.read().clone();
        let read = |run: &version::Run| {
            run.tables.iter().any(|t| choice.inputs.iter().flatten().any(|&n| n == t.meta.number))
        };
        let view = self.view.read().clone();
        let newer = view.tables.runs.iter().take_while(|run| run.id > choice.run && !read(run));
        let newer = &view.tables.runs[..newer.count()];
        let hidden = |version: &key::Version| {
            // Whatever a memtable or a newer run has of the key is newer.
            Ok(view.get_recent(&version.key, horizon).is_some()
                || TableSet::get_in(newer, &version.key, key_hash(&version.key), horizon)?
                    .is_some())
        };
        let metas = self.write(cursor, codec, self.limits.table_bytes, &doomed, &hidden)?;
        let added = metas.into_iter().map(|meta| (choice.run, meta)).collect();
        self.install(None, choice.inputs.concat(), added, |_| {})
    }

    fn write(
        &self,
        cursor: impl Cursor,
        codec: Codec,
        table_bytes: u64,
        doomed: &BTreeSet<Source>,
        hidden: &dyn Fn(&key::Version) -> Result<bool>,
    ) -> Result<Vec<TableMeta>> {
        let out = Output {
            disk: &*self.disk,
            limits: &self.limits,
            codec,
            table_bytes,
            sources: &self.sources,
            doomed,
            hidden,
            path: &|number| table_path(&self.dir, number),
            number: &mut || self.number(),
        };
        write_tables(cursor, out)
    }

    fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes new tables durable by name, then by manifest, then visible; then lets old ones go.
    /// `flushed` is how far in the log the new tables reach.
    fn install(
        &self,
        flushed: Option<(LogId, u64)>,
        removed: Vec<u64>,
        added: Vec<(u64, TableMeta)>,
        change: impl FnOnce(&mut View),
    ) -> Result<()> {
        self.disk.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;
        let mut add = Vec::new();
        for (run, meta) in &added {
            let path = table_path(&self.dir, meta.number);
            let cache = self.cache.clone();
            let table = Table::open(self.disk.clone(), path, meta.clone(), cache, &self.sources)?;
            add.push((*run, Arc::new(table)));
        }
        let store = &mut *self.store.lock();
        if let Some((flushed, ts_max)) = flushed {
            store.flushed = flushed;
            store.ts_max = store.ts_max.max(ts_max);
        }
        let edit = Edit {
            flushed: store.flushed,
            ts_max: store.ts_max,
            next_number: self.next_number.load(Ordering::Relaxed),
            removed,
            added,
        };
        store.manifest.append(&edit)?;
        let (old, new) = {
            let mut view = self.view.write();
            let next = Arc::new(view.tables.edited(&edit.removed, add));
            change(&mut view);
            view.flushed = store.flushed;
            (std::mem::replace(&mut view.tables, next.clone()), next)
        };
        let gone = old.tables().filter(|(_, table)| edit.removed.contains(&table.meta.number));
        gone.for_each(|(_, table)| table.retire());
        // Those of the old set alone: another job may just have made one that is in neither.
        let used = value_files(&new);
        self.sources.retire_files(value_files(&old).difference(&used));
        if store.manifest.bytes() > self.limits.manifest_bytes {
            self.roll_manifest(store)?;
        }
        Ok(())
    }

    fn roll_manifest(&self, store: &mut Store) -> Result<()> {
        let tables = self.view.read().tables.clone();
        let added = tables.tables().map(|(run, table)| (run, table.meta.clone())).collect();
        let whole = Edit {
            flushed: store.flushed,
            ts_max: store.ts_max,
            next_number: self.next_number.load(Ordering::Relaxed),
            removed: Vec::new(),
            added,
        };
        let old = store.manifest.number();
        store.manifest = Manifest::create(&*self.disk, &self.dir, old + 1, &whole)?;
        let path = manifest::manifest_path(&self.dir, old);
        self.disk.remove(&path).map_err(Error::io("remove", path))
    }

    /// Versions at or before this timestamp that a newer one hides are needed by nobody.
    fn horizon(&self) -> u64 {
        self.snapshots.lock().keys().next().copied().unwrap_or(u64::MAX)
    }

    /// Begins to replace the whole tree by a snapshot from elsewhere; readers see the old tree
    /// until [`Install::finish`].
    pub fn begin_install(self: &Arc<Self>) -> Install {
        Install { tree: self.clone(), writer: None, done: Vec::new() }
    }

    /// Bytes of values that the tables have in each source. What a newer run replaces counts until
    /// a merge finds out.
    pub fn live(&self) -> BTreeMap<Source, u64> {
        let tables = self.view.read().tables.clone();
        tables.shares()
    }

    /// The value files, and what of them is alive.
    pub fn value_files(&self) -> Vec<Usage> {
        let tables = self.view.read().tables.clone();
        let usage = |(source, live)| match source {
            Source::Log(_) => None,
            Source::File(_) => {
                let total = tables.holder(source).as_ref().map_or(0, Holder::bytes);
                Some(Usage { source, total, live })
            }
        };
        self.live().into_iter().filter_map(usage).filter(|usage| usage.total > 0).collect()
    }

    /// Whether tables still point to a source that is to be collected.
    pub fn is_collecting(&self) -> bool {
        let (doomed, tables) = (self.doomed.read().clone(), self.view.read().tables.clone());
        !doomed.is_empty() && tables.shares().keys().any(|source| doomed.contains(source))
    }

    /// From now on values leave these sources when a table that points to them is rewritten, and
    /// such tables are.
    pub fn doom(&self, sources: BTreeSet<Source>) {
        *self.doomed.write() = Arc::new(sources);
    }

    /// Sizes, for status and metrics.
    pub fn stats(&self) -> TreeStats {
        let view = self.view.read().clone();
        let shares = view.tables.shares();
        let live = |log: bool| {
            let of = shares.iter().filter(|(source, _)| matches!(source, Source::Log(_)) == log);
            of.map(|(_, bytes)| bytes).sum()
        };
        TreeStats {
            memtable_bytes: view.memtables().map(|memtable| memtable.bytes()).sum(),
            table_bytes: view.tables.bytes(),
            versions: view
                .memtables()
                .map(|memtable| memtable.keys() as u64)
                .chain(view.tables.tables().map(|(_, table)| table.properties.entries))
                .sum(),
            tables: view.tables.tables().count(),
            runs: view.tables.runs.len(),
            log_value_bytes: live(true),
            file_value_bytes: live(false),
        }
    }

    /// Reads every table and every value pointed to and checks them; the number of versions.
    pub fn verify(&self) -> Result<u64> {
        let tables = self.view.read().tables.clone();
        tables.tables().map(|(_, table)| table.verify()).sum()
    }
}

/// Sizes of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeStats {
    /// Bytes in memtables.
    pub memtable_bytes: usize,
    /// Bytes in table files.
    pub table_bytes: u64,
    /// Versions in memtables and tables: the number of keys and of what compaction will drop.
    pub versions: u64,
    /// Table files.
    pub tables: usize,
    /// Sorted runs.
    pub runs: usize,
    /// Bytes of values that tables point to in log segments.
    pub log_value_bytes: u64,
    /// Bytes of values that tables point to in value files.
    pub file_value_bytes: u64,
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
fn remove_strays(disk: &dyn Disk, dir: &str, tables: &TableSet, manifest: &Manifest) -> Result<()> {
    let names = tables.tables().map(|(_, table)| table_path(dir, table.meta.number));
    let mut known: HashSet<String> = names.collect();
    known.extend(value_files(tables).iter().map(|number| format!("{dir}/{number:06}.val")));
    known.insert(manifest::manifest_path(dir, manifest.number()));
    known.insert(format!("{dir}/CURRENT"));
    for name in disk.list(dir).map_err(Error::io("list", dir))? {
        let path = format!("{dir}/{name}");
        if !known.contains(&path) {
            disk.remove(&path).map_err(Error::io("remove", path))?;
        }
    }
    Ok(())
}
