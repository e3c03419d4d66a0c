//! The jobs that move data down: flushing a memtable, merging runs, and rewriting tables so that
//! values leave collection targets or keys outside the bounds are dropped. Each job ends in one
//! edit of the manifest.

use super::manifest::{Edit, Manifest};
use super::merge::{Merge, Moment, Retained};
use super::ranges::{RangeTombstone, Ranges};
use super::version::{self, Run, RunCursor, TableSet};
use super::view::View;
use super::{Store, Tree, manifest, table_path, value_files};
use crate::compaction::pick::BOTTOM;
use crate::compaction::pick::{self, Choice, Input, Shape};
use crate::compaction::run::{Output, write_tables};
use crate::error::{Error, Result};
use crate::ids::LogId;
use crate::key::{AsOf, Cursor, Version};
use crate::limits::Codec;
use crate::table::{Lookup, Table, TableMeta};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Work for a background thread; see [`Tree::run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Write the oldest frozen memtable to a run of its own.
    Flush,
    /// Merge tables.
    Compact(Choice),
}

/// A change of the tree that is about to become durable.
#[derive(Default)]
pub(super) struct Step {
    /// The last log entry whose effect is in the new tables, and their newest timestamp.
    pub flushed: Option<(LogId, u64)>,
    /// The timestamp and the time by which the job judged versions as hidden or expired.
    pub horizon: Moment,
    /// Numbers of the tables to remove.
    pub removed: Vec<u64>,
    /// Tables to add, with the ids of their runs.
    pub added: Vec<(u64, TableMeta)>,
    /// Ids of runs, with all the ranges that each run deletes after this step.
    pub deleted: Vec<(u64, Ranges)>,
}

impl Tree {
    /// Whether a memtable waits to be flushed.
    pub fn wants_flush(&self) -> bool {
        !self.view.read().frozen.is_empty()
    }

    /// The next background job, if any. A flush precedes every compaction.
    pub fn job(&self) -> Option<Job> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        if self.wants_flush() {
            return Some(Job::Flush);
        }
        self.compaction().map(Job::Compact)
    }

    /// The next compaction, if any: a merge of runs, or a rewrite of tables. A rewrite moves values
    /// out of a collection target, drops keys that a split moved to another tree, or drops versions
    /// that have expired or that a range tombstone hides.
    pub fn compaction(&self) -> Option<Choice> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let view = self.view.read().clone();
        let horizon = self.horizon_of(&view, Vec::new());
        let runs = &view.tables.runs;
        let shapes: Vec<Shape> =
            (0..runs.len()).map(|at| shape(&runs[at], &runs[at + 1..], &horizon)).collect();
        let choice = pick::pick(&shapes, &self.limits).or_else(|| self.rewriting(&view, &horizon));
        let choice = choice?;
        let inputs = view.tables.tables().filter(|(_, table)| choice.reads(table.meta.number));
        let inputs: Vec<&Arc<Table>> = inputs.map(|(_, table)| table).collect();
        // A damaged table cannot be merged until it is repaired.
        let sound = inputs.iter().all(|table| table.damage().is_none());
        (sound && self.has_room(&inputs)).then_some(choice)
    }

    /// Whether the disk has room for the output of a merge while the inputs still exist, plus two
    /// log slots. The two slots keep room for deletes and flushes.
    fn has_room(&self, inputs: &[&Arc<Table>]) -> bool {
        let collection_targets = self.collection_targets.read();
        let moved = |table: &Table| -> u64 {
            let shares = table.properties.shares.iter();
            shares
                .filter(|(source, _)| collection_targets.contains(source))
                .map(|(_, share)| share.bytes)
                .sum()
        };
        let written: u64 = inputs.iter().map(|table| table.meta.bytes + moved(table)).sum();
        let free = self.disk.free_bytes().unwrap_or(u64::MAX);
        free >= written.saturating_add(2 * self.limits.segment_bytes)
    }

    fn rewriting(&self, view: &View, horizon: &Moment) -> Option<Choice> {
        let collection_targets = self.collection_targets.read().clone();
        let bounds = &view.tables.bounds;
        let due = |table: &Table| {
            table.properties.shares.keys().any(|source| collection_targets.contains(source))
                || !bounds.contain(&table.meta.smallest, &table.meta.largest)
        };
        let oldest = view.tables.runs.last()?;
        if let Some((run, table)) = view.tables.tables().find(|(_, table)| due(table)) {
            let inputs = vec![Input { run, tables: vec![table.meta.number] }];
            return Some(Choice { inputs, run, bottom: run == oldest.id });
        }
        // In the oldest run, tables whose versions have all expired are dropped without being read.
        // Versions that a range tombstone hides are dropped as well: they were kept for readers at
        // older timestamps when the tombstone reached this run.
        let due = |table: &&Arc<Table>| {
            let (smallest, largest) = (&table.meta.smallest, &table.meta.largest);
            table.properties.expired_by <= horizon.now && table.damage().is_none()
                || oldest.deleted.touches(smallest, largest, horizon.ts)
        };
        // Only adjacent tables are chosen: the key range of the output must not span a table
        // between the inputs.
        let first = oldest.tables.iter().skip_while(|table| !due(table)).take_while(due);
        let tables: Vec<u64> = first.map(|table| table.meta.number).collect();
        let settled = oldest.deleted.oldest().is_some_and(|oldest| oldest <= horizon.ts);
        let inputs = vec![Input { run: oldest.id, tables }];
        let any = settled || !inputs[0].tables.is_empty();
        any.then_some(Choice { inputs, run: oldest.id, bottom: true })
    }

    /// Runs a job: reads and writes tables, then installs the new tables. The function blocks, so a
    /// background thread must call it. A flush and a compaction may run concurrently; two flushes,
    /// or two compactions, exclude each other.
    ///
    /// # Errors
    /// On an error the tree is unchanged, and the caller may retry the job.
    pub fn run(&self, job: Job) -> Result<()> {
        match job {
            Job::Flush => {
                let _flushing = self.flushing.lock();
                self.flush_oldest()
            }
            Job::Compact(choice) => self.compact(&choice),
        }
    }

    /// Flushes every frozen memtable. The caller holds the `flushing` lock.
    pub(super) fn flush_frozen(&self) -> Result<()> {
        while self.wants_flush() {
            self.flush_oldest()?;
        }
        Ok(())
    }

    fn flush_oldest(&self) -> Result<()> {
        let view = self.view.read().clone();
        let Some(memtable) = view.frozen.last().cloned() else { return Ok(()) };
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut horizon = self.horizon_of(&view, vec![memtable.deleted()]);
        horizon.now = memtable.now();
        let mut ranges = (*memtable.deleted()).clone();
        ranges.settle(horizon.ts, |_, _| false);
        let cursor =
            Retained::new(memtable.cursor(Bound::Unbounded, AsOf::NEWEST), horizon.clone(), false);
        let run = self.number();
        let none = BTreeSet::new();
        let metas = self.write(cursor, self.limits.compression, u64::MAX, &none, &|_| Ok(false))?;
        let step = Step {
            flushed: Some((memtable.upto(), memtable.ts_max())),
            horizon,
            removed: Vec::new(),
            added: metas.into_iter().map(|meta| (run, meta)).collect(),
            deleted: vec![(run, ranges)],
        };
        self.commit(step, |view| view.frozen.retain(|other| !Arc::ptr_eq(other, &memtable)))
    }

    fn compact(&self, choice: &Choice) -> Result<()> {
        let _compacting = self.compacting.lock();
        let view = self.view.read().clone();
        let runs = &view.tables.runs;
        let present = choice.inputs.iter().flat_map(|input| &input.tables);
        let known: BTreeSet<u64> = view.tables.tables().map(|(_, t)| t.meta.number).collect();
        if self.closed.load(Ordering::Acquire) || present.into_iter().any(|n| !known.contains(n)) {
            return Ok(()); // the tree was closed or its tables were replaced meanwhile
        }
        let inputs: Vec<&Run> =
            choice.inputs.iter().filter_map(|i| runs.iter().find(|run| run.id == i.run)).collect();
        let mut ranges = Ranges::default();
        inputs.iter().for_each(|run| ranges.absorb(&run.deleted));
        let horizon = self.horizon_of(&view, vec![Arc::new(ranges.clone())]);
        let oldest = runs.last().map(|run| run.id);
        // Whether no version in the table is alive and dropping the table exposes no older version.
        let dead = |run: &Run, table: &Table| {
            let (smallest, largest) = (&table.meta.smallest, &table.meta.largest);
            let deleted = ranges.covering_all(smallest, largest, horizon.ts);
            deleted.is_some_and(|deleted| table.meta.ts_max < deleted)
                || Some(run.id) == oldest && table.properties.expired_by <= horizon.now
        };
        let bounds = &view.tables.bounds;
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for run in &inputs {
            let read = run.tables.iter().filter(|t| choice.reads(t.meta.number) && !dead(run, t));
            sources.push(Box::new(RunCursor::within(read.cloned().collect(), bounds)?));
        }
        let codec = match choice.run {
            BOTTOM => self.limits.bottom_compression,
            _ => self.limits.compression,
        };
        let merge = Merge::new(sources, false)?;
        let cursor = Retained::new(merge, horizon.clone(), choice.bottom);
        let collection_targets = self.collection_targets.read().clone();
        let newer = runs.iter().take_while(|run| {
            run.id > choice.run && choice.inputs.iter().all(|input| input.run != run.id)
        });
        let newer = &runs[..newer.count()];
        let hidden = |version: &Version| {
            // A version of the key in a newer run is newer than this version. Memtables are not
            // consulted: after a crash, log entries are applied again to rebuild the memtables, and
            // these entries read the versions that preceded them.
            let lookup = Lookup::new(&version.key, horizon.ts);
            Ok(TableSet::get_in(newer, &lookup)?.is_some())
        };
        let metas =
            self.write(cursor, codec, self.limits.table_bytes, &collection_targets, &hidden)?;
        // A range tombstone can be dropped when the oldest run holds nothing that it hides.
        let done = |from: &Bytes, to: &Bytes| {
            let output = inputs.iter().find(|run| run.id == choice.run);
            choice.bottom
                && output.into_iter().flat_map(|run| &run.tables).all(|table| {
                    let apart = table.meta.largest < *from || *to <= table.meta.smallest;
                    apart || choice.reads(table.meta.number)
                })
        };
        ranges.settle(horizon.ts, done);
        let emptied = inputs.iter().filter(|run| run.id != choice.run && !run.deleted.is_empty());
        let mut deleted: Vec<_> = emptied.map(|run| (run.id, Ranges::default())).collect();
        deleted.push((choice.run, ranges));
        let step = Step {
            flushed: None,
            horizon,
            removed: choice.inputs.iter().flat_map(|input| input.tables.clone()).collect(),
            added: metas.into_iter().map(|meta| (choice.run, meta)).collect(),
            deleted,
        };
        self.commit(step, |_| {})
    }

    /// The moment that bounds all later reads: no reader uses an earlier timestamp or an earlier
    /// time. This includes log entries that are applied again after a crash, because these entries
    /// come after the flushed entries.
    fn horizon_of(&self, view: &View, deleted: Vec<Arc<Ranges>>) -> Moment {
        let ts = view.as_of.ts.min(self.horizon.load(Ordering::Acquire));
        Moment { ts, now: view.flushed_now, deleted }
    }

    fn write(
        &self,
        cursor: impl Cursor,
        codec: Codec,
        table_bytes: u64,
        collection_targets: &BTreeSet<crate::values::Source>,
        hidden: &dyn Fn(&Version) -> Result<bool>,
    ) -> Result<Vec<TableMeta>> {
        let begun = RefCell::new(Vec::new());
        let path = |number| table_path(&self.dir, number);
        let out = Output {
            disk: &*self.disk,
            limits: &self.limits,
            codec,
            table_bytes,
            separate_spaces: self.bounds().separate_spaces(),
            sources: &self.sources,
            collection_targets,
            hidden,
            path: &path,
            number: &mut || {
                let number = self.number();
                begun.borrow_mut().push(number);
                number
            },
        };
        let written = write_tables(cursor, out);
        if written.is_err() {
            // The disk may be full because of the files of the failed job, so they are removed. A
            // file that cannot be removed now is removed at the next start.
            for &number in begun.borrow().iter() {
                let _ = self.disk.remove(&path(number));
                let _ = self.disk.remove(&self.sources.path(number));
            }
        }
        written
    }

    /// Commits a step: syncs the directory, appends the edit to the manifest, makes the new tables
    /// visible, and then retires the old tables and value files.
    pub(super) fn commit(&self, step: Step, change: impl FnOnce(&mut View)) -> Result<()> {
        self.disk.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;
        let mut tables = version::Change { remove: step.removed.clone(), ..Default::default() };
        for (run, meta) in &step.added {
            let path = table_path(&self.dir, meta.number);
            let cache = self.cache.clone();
            let table = Table::open(self.disk.clone(), path, meta.clone(), cache, &self.sources)?;
            if let Some(damage) = table.damage() {
                return Err(damage);
            }
            tables.add.push((*run, Arc::new(table)));
        }
        let list = |ranges: &Ranges| -> Vec<RangeTombstone> { ranges.iter().collect() };
        let edit_deleted = step.deleted.iter().map(|(run, ranges)| (*run, list(ranges)));
        let store = &mut *self.store.lock();
        if store.manifest.failed() {
            self.roll_manifest(store)?;
        }
        let mut state = store.state.clone();
        if let Some((flushed, ts_max)) = step.flushed {
            state.flushed = flushed;
            state.ts_max = state.ts_max.max(ts_max);
        }
        state.now = state.now.max(step.horizon.now);
        state.history_from = state.history_from.max(step.horizon.ts);
        state.next_number = self.next_number.load(Ordering::Relaxed);
        let before = &store.state;
        assert!(state.flushed.index >= before.flushed.index, "flushed entries stay flushed");
        assert!(state.next_number >= before.next_number, "file numbers ascend");
        let edit = Edit {
            state,
            removed: step.removed,
            added: step.added,
            deleted: edit_deleted.collect(),
        };
        store.manifest.append(&edit)?;
        store.state = edit.state;
        tables.deleted = step.deleted.into_iter().map(|(run, r)| (run, Arc::new(r))).collect();
        let (old, new) = {
            let mut view = self.view.write();
            let next = Arc::new(view.tables.edited(tables));
            change(&mut view);
            view.flushed = store.state.flushed;
            view.flushed_now = store.state.now;
            view.history_from = store.state.history_from;
            (std::mem::replace(&mut view.tables, next.clone()), next)
        };
        self.mark_dirty();
        let gone = old.tables().filter(|(_, table)| edit.removed.contains(&table.meta.number));
        gone.for_each(|(_, table)| table.retire());
        // Only value files of the old set are retired: a concurrent job may just have created a
        // value file that is in neither set.
        let used = value_files(&new);
        self.sources.retire_files(value_files(&old).difference(&used));
        if store.manifest.bytes() > self.limits.manifest_bytes {
            self.roll_manifest(store)?;
        }
        Ok(())
    }

    /// Begins a new manifest with the whole state and removes the old one.
    pub(super) fn roll_manifest(&self, store: &mut Store) -> Result<()> {
        let tables = self.view.read().tables.clone();
        let mut whole = whole_edit(&tables, store.state.clone());
        whole.state.next_number = self.next_number.load(Ordering::Relaxed);
        let old = store.manifest.number();
        store.manifest = Manifest::create(&*self.disk, &self.dir, old + 1, &whole)?;
        let path = manifest::manifest_path(&self.dir, old);
        self.disk.remove(&path).map_err(Error::io("remove", path))
    }
}

/// The whole state of a tree as one edit.
pub(super) fn whole_edit(tables: &TableSet, state: manifest::TreeState) -> Edit {
    let ranges = tables.runs.iter().filter(|run| !run.deleted.is_empty());
    Edit {
        state,
        removed: Vec::new(),
        added: tables.tables().map(|(run, table)| (run, table.meta.clone())).collect(),
        deleted: ranges.map(|run| (run.id, run.deleted.iter().collect())).collect(),
    }
}

/// The properties of a run by which compactions are chosen.
fn shape(run: &Run, older: &[Run], horizon: &Moment) -> Shape {
    let values = |table: &Arc<Table>| -> u64 {
        table.properties.shares.values().map(|share| share.bytes).sum()
    };
    let deletes = |table: &Arc<Table>| {
        let (smallest, largest) = (&table.meta.smallest, &table.meta.largest);
        run.deleted.covering_all(smallest, largest, horizon.ts).is_some()
    };
    Shape {
        run: run.id,
        tables: run.tables.iter().map(|table| table.meta.clone()).collect(),
        weight: run.tables.iter().map(|table| table.meta.bytes + values(table)).sum(),
        ranges: run.deleted.len(),
        extent: run.deleted.extent().map(|(from, to)| (from.clone(), to.clone())),
        deletes_tables: !run.deleted.is_empty()
            && older.iter().flat_map(|run| &run.tables).any(deletes),
    }
}
