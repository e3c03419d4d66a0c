//! One shard's tree: memtables over tables, and the jobs that move data down.
//!
//! A tree has no log. [`Tree::apply`] takes the effect of log entries in order; after a restart
//! the caller applies again from [`Tree::flushed`] on.

pub mod key;
pub mod manifest;
mod memtable;
pub(crate) mod merge;
pub mod version;

use crate::compaction::pick::{self, Choice};
use crate::compaction::run::write_tables;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::limits::{KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
use crate::table::{BlockCache, Table, TableMeta, TableWriter};
use crate::{LogId, ShardId};
use bytes::Bytes;
use key::{Cursor, Op, Version};
use manifest::{Edit, Manifest};
use memtable::Memtable;
use merge::{Merge, Retained, Visible};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashSet};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use version::TableSet;

/// One shard's sorted data. Shared between threads: one applier, one job at a time, any readers.
pub struct Tree {
    disk: Arc<dyn Disk>,
    dir: String,
    limits: Limits,
    cache: Arc<BlockCache>,
    state: RwLock<State>,
    store: Mutex<Store>,
    snapshots: Mutex<BTreeMap<u64, usize>>,
}

/// What readers and the applier see.
struct State {
    active: Arc<Memtable>,
    /// Newest first.
    frozen: Vec<Arc<Memtable>>,
    tables: Arc<TableSet>,
    applied: LogId,
    ts: u64,
    flushed: LogId,
}

/// What jobs change, one at a time.
struct Store {
    manifest: Manifest,
    next_number: u64,
    flushed: LogId,
    ts_max: u64,
}

/// Work for a background thread; see [`Tree::run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Write the oldest frozen memtable to level 0.
    Flush,
    /// Merge tables.
    Compact(Choice),
}

impl Tree {
    /// Opens the tree of a shard, making it if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the manifest or a table is damaged or missing.
    pub fn open(
        disk: Arc<dyn Disk>,
        shard: ShardId,
        limits: Limits,
        cache: Arc<BlockCache>,
    ) -> Result<Tree> {
        let dir = format!("shards/{shard}");
        disk.make_dir(&dir).map_err(Error::io("create", &dir))?;
        let (edits, number) = Manifest::read(&*disk, &dir)?.unwrap_or_default();
        let whole = manifest::fold(edits);
        let mut add = Vec::new();
        for (level, meta) in &whole.added {
            let path = table_path(&dir, meta.number);
            let table = Table::open(disk.clone(), path, meta.clone(), cache.clone())?;
            add.push((*level, Arc::new(table)));
        }
        let manifest = Manifest::create(&*disk, &dir, number + 1, &whole)?;
        remove_strays(&*disk, &dir, &whole, &manifest)?;
        let state = State {
            active: Arc::default(),
            frozen: Vec::new(),
            tables: Arc::new(TableSet::default().edited(&[], add)),
            applied: whole.flushed,
            ts: whole.ts_max,
            flushed: whole.flushed,
        };
        let store = Store {
            manifest,
            next_number: whole.next_number,
            flushed: whole.flushed,
            ts_max: whole.ts_max,
        };
        Ok(Tree {
            disk,
            dir,
            limits,
            cache,
            state: RwLock::new(state),
            store: Mutex::new(store),
            snapshots: Mutex::default(),
        })
    }

    /// Takes the effect of log entry `at`, all of it at once for readers of later timestamps.
    /// Entries come in index order; timestamps never fall. Costs no I/O.
    pub fn apply(&self, at: LogId, ts: u64, ops: impl IntoIterator<Item = Op>) {
        let changes = ops.into_iter().map(|op| match op {
            Op::Put(key, value) => (key, Some(value)),
            Op::Delete(key) => (key, None),
        });
        let active = self.state.read().active.clone();
        active.apply(at, ts, changes);
        let full = active.bytes() >= self.limits.memtable_bytes;
        let mut state = self.state.write();
        assert!(at.index > state.applied.index, "entries are applied once, in order");
        state.applied = at;
        state.ts = state.ts.max(ts);
        if full {
            state.freeze();
        }
    }

    /// The last log entry applied.
    pub fn applied(&self) -> LogId {
        self.state.read().applied
    }

    /// The last log entry whose effect is in durable tables: the log before it can be released.
    pub fn flushed(&self) -> LogId {
        self.state.read().flushed
    }

    /// The newest timestamp applied.
    pub fn ts(&self) -> u64 {
        self.state.read().ts
    }

    /// Whether writers should wait for background work.
    pub fn is_behind(&self) -> bool {
        let state = self.state.read();
        state.frozen.len() >= self.limits.memtables_frozen_max
            || state.tables.levels[0].len() >= 4 * self.limits.level0_tables
    }

    /// The newest value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.get_at(key, u64::MAX)
    }

    /// The value of a key at a timestamp. Versions that no snapshot needs may be gone, so ask only
    /// for `u64::MAX` or for a held [`Snapshot`]'s.
    fn get_at(&self, key: &[u8], ts: u64) -> Result<Option<Bytes>> {
        let tables = {
            let state = self.state.read();
            for memtable in std::iter::once(&state.active).chain(&state.frozen) {
                if let Some(found) = memtable.get(key, ts) {
                    return Ok(found);
                }
            }
            state.tables.clone()
        };
        Ok(tables.get(key, ts)?.flatten())
    }

    /// The newest values of a range, ascending; later writes may or may not be seen.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        let state = self.state.read();
        state.scan(range, u64::MAX)
    }

    /// A view that no later write changes. What it needs is kept while it lives.
    pub fn snapshot(self: &Arc<Self>) -> Snapshot {
        let state = self.state.read();
        *self.snapshots.lock().entry(state.ts).or_default() += 1;
        Snapshot { tree: self.clone(), view: state.clone() }
    }

    /// Freezes the memtable, so that the next jobs make everything applied so far durable.
    pub fn freeze(&self) {
        let mut state = self.state.write();
        if !state.active.is_empty() {
            state.freeze();
        }
    }

    /// What should be done in the background now.
    pub fn job(&self) -> Option<Job> {
        let state = self.state.read();
        if !state.frozen.is_empty() {
            return Some(Job::Flush);
        }
        let shape = state.tables.levels.each_ref();
        let shape = shape.map(|level| level.iter().map(|table| table.meta.clone()).collect());
        pick::pick(&shape, &self.limits).map(Job::Compact)
    }

    /// Does a job: reads and writes tables, then swaps them in. Blocks; for a background thread.
    /// Jobs of one tree exclude each other.
    pub fn run(&self, job: Job) -> Result<()> {
        let mut store = self.store.lock();
        match job {
            Job::Flush => self.flush(&mut store),
            Job::Compact(choice) => self.compact(&mut store, choice),
        }
    }

    fn flush(&self, store: &mut Store) -> Result<()> {
        let Some(memtable) = self.state.read().frozen.last().cloned() else { return Ok(()) };
        let horizon = self.horizon();
        let cursor = Retained::new(memtable.cursor(Bound::Unbounded), horizon, false);
        let metas = self.write(store, cursor, u64::MAX)?;
        store.flushed = memtable.upto();
        store.ts_max = store.ts_max.max(memtable.ts_max());
        let added = metas.into_iter().map(|meta| (0, meta)).collect();
        self.install(store, Vec::new(), added, |state| {
            state.frozen.retain(|other| !Arc::ptr_eq(other, &memtable));
        })
    }

    fn compact(&self, store: &mut Store, choice: Choice) -> Result<()> {
        let tables = self.state.read().tables.clone();
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for number in &choice.inputs {
            let table = tables.tables().find(|(_, table)| table.meta.number == *number);
            let Some((_, table)) = table else { return Ok(()) }; // an install came in between
            sources.push(Box::new(table.cursor(&[])?));
        }
        let cursor = Retained::new(Merge::new(sources)?, self.horizon(), choice.bottom);
        let metas = self.write(store, cursor, self.limits.table_bytes)?;
        let added = metas.into_iter().map(|meta| (choice.level, meta)).collect();
        self.install(store, choice.inputs, added, |_| {})
    }

    fn write(
        &self,
        store: &mut Store,
        cursor: impl Cursor,
        table_bytes: u64,
    ) -> Result<Vec<TableMeta>> {
        let limits = Limits { table_bytes, ..self.limits };
        write_tables(&*self.disk, &limits, cursor, || {
            let number = store.next_number;
            store.next_number += 1;
            (table_path(&self.dir, number), number)
        })
    }

    /// Makes new tables durable by name, then by manifest, then visible; then lets old ones go.
    fn install(
        &self,
        store: &mut Store,
        removed: Vec<u64>,
        added: Vec<(usize, TableMeta)>,
        change: impl FnOnce(&mut State),
    ) -> Result<()> {
        self.disk.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;
        let mut add = Vec::new();
        for (level, meta) in &added {
            let path = table_path(&self.dir, meta.number);
            let table = Table::open(self.disk.clone(), path, meta.clone(), self.cache.clone())?;
            add.push((*level, Arc::new(table)));
        }
        let edit = Edit {
            flushed: store.flushed,
            ts_max: store.ts_max,
            next_number: store.next_number,
            removed,
            added,
        };
        store.manifest.append(&edit)?;
        let old = {
            let mut state = self.state.write();
            let next = Arc::new(state.tables.edited(&edit.removed, add));
            change(&mut state);
            state.flushed = store.flushed;
            std::mem::replace(&mut state.tables, next)
        };
        let gone = old.tables().filter(|(_, table)| edit.removed.contains(&table.meta.number));
        gone.for_each(|(_, table)| table.retire());
        if store.manifest.bytes() > self.limits.manifest_bytes {
            self.roll_manifest(store)?;
        }
        Ok(())
    }

    fn roll_manifest(&self, store: &mut Store) -> Result<()> {
        let tables = self.state.read().tables.clone();
        let added = tables.tables().map(|(level, table)| (level, table.meta.clone())).collect();
        let whole = Edit {
            flushed: store.flushed,
            ts_max: store.ts_max,
            next_number: store.next_number,
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

    /// Sizes, for status and metrics.
    pub fn stats(&self) -> TreeStats {
        let state = self.state.read();
        TreeStats {
            memtable_bytes: state.active.bytes()
                + state.frozen.iter().map(|memtable| memtable.bytes()).sum::<usize>(),
            table_bytes: state.tables.bytes(),
            versions: std::iter::once(&state.active)
                .chain(&state.frozen)
                .map(|memtable| memtable.keys() as u64)
                .chain(state.tables.tables().map(|(_, table)| table.versions()))
                .sum(),
            tables: state.tables.tables().count(),
            level0_tables: state.tables.levels[0].len(),
        }
    }

    /// Reads every table and checks every block; the number of versions.
    pub fn verify(&self) -> Result<u64> {
        let tables = self.state.read().tables.clone();
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
    /// Of them in level 0.
    pub level0_tables: usize,
}

impl Clone for State {
    fn clone(&self) -> Self {
        Self {
            active: self.active.clone(),
            frozen: self.frozen.clone(),
            tables: self.tables.clone(),
            ..*self
        }
    }
}

impl State {
    fn freeze(&mut self) {
        let full = std::mem::take(&mut self.active);
        self.frozen.insert(0, full);
    }

    fn scan(&self, range: impl RangeBounds<Vec<u8>>, ts: u64) -> Scan {
        let from = range.start_bound().map(|key| Bytes::copy_from_slice(key));
        let end = range.end_bound().cloned();
        let open = || {
            let first: &[u8] = match &from {
                Bound::Included(key) | Bound::Excluded(key) => key,
                Bound::Unbounded => &[],
            };
            let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
            for memtable in std::iter::once(&self.active).chain(&self.frozen) {
                sources.push(Box::new(memtable.cursor(from.clone())));
            }
            self.tables.cursors(first, &mut sources)?;
            Merge::new(sources)
        };
        let skip = match range.start_bound() {
            Bound::Excluded(key) => Some(key.clone()),
            _ => None,
        };
        Scan { source: open().map(|merge| Visible::new(merge, ts)).map_err(Some), skip, end }
    }
}

/// A consistent, unchanging view of a tree.
pub struct Snapshot {
    tree: Arc<Tree>,
    view: State,
}

impl Snapshot {
    /// The last log entry in the view.
    pub fn applied(&self) -> LogId {
        self.view.applied
    }

    /// The timestamp of the view.
    pub fn ts(&self) -> u64 {
        self.view.ts
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        for memtable in std::iter::once(&self.view.active).chain(&self.view.frozen) {
            if let Some(found) = memtable.get(key, self.view.ts) {
                return Ok(found);
            }
        }
        Ok(self.view.tables.get(key, self.view.ts)?.flatten())
    }

    /// The values of a range, ascending.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        self.view.scan(range, self.view.ts)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut snapshots = self.tree.snapshots.lock();
        if let Some(count) = snapshots.get_mut(&self.view.ts) {
            *count -= 1;
            if *count == 0 {
                snapshots.remove(&self.view.ts);
            }
        }
    }
}

/// Keys and values of a range, ascending.
pub struct Scan {
    source: Result<Visible<Merge>, Option<Error>>,
    skip: Option<Vec<u8>>,
    end: Bound<Vec<u8>>,
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let visible = match &mut self.source {
            Ok(visible) => visible,
            Err(error) => return error.take().map(Err),
        };
        loop {
            let (key, value) = match visible.next() {
                Ok(Some((key, _, value))) => (key, value),
                Ok(None) => return None,
                Err(error) => {
                    self.source = Err(None);
                    return Some(Err(error));
                }
            };
            if self.skip.as_ref().is_some_and(|skip| skip == &key) {
                continue;
            }
            let past = match &self.end {
                Bound::Included(end) => key > end,
                Bound::Excluded(end) => key >= end,
                Bound::Unbounded => false,
            };
            return (!past).then_some(Ok((key, value)));
        }
    }
}

/// A tree being replaced by a snapshot. Dropped unfinished, it leaves only stray files, which the
/// next start removes.
pub struct Install {
    tree: Arc<Tree>,
    writer: Option<TableWriter>,
    done: Vec<TableMeta>,
}

impl Install {
    /// Adds a key; keys ascend.
    pub fn put(&mut self, key: Bytes, ts: u64, value: Bytes) -> Result<()> {
        check_size(&key, &value)?;
        let limits = &self.tree.limits;
        if self.writer.as_ref().is_some_and(|w| w.bytes() >= limits.table_bytes) {
            self.done.extend(self.writer.take().map(TableWriter::finish).transpose()?);
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let number = {
                    let mut store = self.tree.store.lock();
                    store.next_number += 1;
                    store.next_number - 1
                };
                let path = table_path(&self.tree.dir, number);
                self.writer.insert(TableWriter::create(&*self.tree.disk, path, number, limits)?)
            }
        };
        writer.add(&Version { key, ts, value: Some(value) })
    }

    /// Replaces the tree: afterwards it is the snapshot of log entry `at`, durably.
    pub fn finish(mut self, at: LogId, ts: u64) -> Result<()> {
        self.done.extend(self.writer.take().map(TableWriter::finish).transpose()?);
        let tree = &self.tree;
        let mut store = tree.store.lock();
        let old = tree.state.read().tables.clone();
        let removed = old.tables().map(|(_, table)| table.meta.number).collect();
        let added = std::mem::take(&mut self.done).into_iter().map(|meta| (1, meta)).collect();
        store.flushed = at;
        store.ts_max = ts;
        tree.install(&mut store, removed, added, |state| {
            state.active = Arc::default();
            state.frozen.clear();
            state.applied = at;
            state.ts = ts;
        })
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

/// Removes files that no manifest names: outputs of a job that the power cut.
fn remove_strays(disk: &dyn Disk, dir: &str, whole: &Edit, manifest: &Manifest) -> Result<()> {
    let tables = whole.added.iter().map(|(_, meta)| table_path(dir, meta.number));
    let mut known: HashSet<String> = tables.collect();
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
