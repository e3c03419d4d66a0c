//! The set of tables that make up a tree at one moment. A set is immutable: a change makes a new
//! set, and a reader keeps the set with which it began.

use super::bounds::{Bounds, Within};
use super::ranges::Ranges;
use crate::error::Result;
use crate::key::{Cursor, Found, Version, is_system};
use crate::table::{Fences, Lookup, Table, TableCursor, TableCursorBack};
use crate::values::{Holder, Source};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Tables of disjoint ranges, ascending by key. Every version of a key in a run is newer than the
/// versions of this key in runs with smaller ids.
#[derive(Clone)]
pub struct Run {
    /// The id of the run; a greater id is newer. [`BOTTOM`](crate::compaction::pick::BOTTOM) is the
    /// oldest run.
    pub id: u64,
    /// The tables.
    pub tables: Vec<Arc<Table>>,
    /// The ranges that the run deletes, in itself and in older runs.
    pub deleted: Arc<Ranges>,
    /// The largest keys of the tables.
    fences: Fences,
}

impl Run {
    fn new(id: u64) -> Run {
        Run { id, tables: Vec::new(), deleted: Arc::default(), fences: Fences::default() }
    }

    /// The number of tables that end before `key`; these tables are the first ones of the run.
    fn ending_before(&self, key: &[u8]) -> usize {
        self.fences.partition_point(key, |at| self.tables[at].meta.largest < key)
    }
}

/// The runs, newest first.
#[derive(Clone, Default)]
pub struct TableSet {
    /// The runs.
    pub runs: Vec<Run>,
    /// The bounds of the keys that belong to the tree; tables may hold other keys.
    pub bounds: Bounds,
}

/// A change of a table set.
#[derive(Default)]
pub(crate) struct Change {
    /// Numbers of the tables to remove.
    pub remove: Vec<u64>,
    /// Tables to add, with the ids of their runs.
    pub add: Vec<(u64, Arc<Table>)>,
    /// Ids of runs, with all the ranges that each run deletes after this change.
    pub deleted: Vec<(u64, Arc<Ranges>)>,
}

impl TableSet {
    /// The newest version of `key` at or before `ts`.
    pub(crate) fn get(&self, key: &[u8], ts: u64) -> Result<Option<Found>> {
        if !self.bounds.contains(key) {
            return Ok(None);
        }
        Self::get_in(&self.runs, &Lookup::new(key, ts))
    }

    /// The version that `lookup` describes, from `runs` only.
    pub(crate) fn get_in(runs: &[Run], lookup: &Lookup<'_>) -> Result<Option<Found>> {
        let Lookup { key, ts, .. } = *lookup;
        for run in runs {
            let at = run.ending_before(key);
            let table = run.tables.get(at).filter(|table| table.meta.smallest <= key);
            let found = table.map_or(Ok(None), |table| table.get(lookup))?;
            let deleted = run.deleted.covering(key, ts);
            let hides = |deleted: &u64| found.as_ref().is_none_or(|found| found.ts < *deleted);
            if let Some(deleted) = deleted.filter(hides) {
                return Ok(Some(Found::tombstone(deleted)));
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Adds a cursor for each run, from `from` on.
    pub(crate) fn cursors(&self, from: &[u8], out: &mut Vec<Box<dyn Cursor>>) -> Result<()> {
        for run in &self.runs {
            let at = run.ending_before(from);
            if at < run.tables.len() {
                out.push(Box::new(RunCursor::new(run.tables[at..].to_vec(), from, false)?));
            }
        }
        Ok(())
    }

    /// Adds a backward cursor for each run, from `to` on.
    pub(crate) fn cursors_back(
        &self,
        to: &Bound<Bytes>,
        out: &mut Vec<Box<dyn Cursor>>,
    ) -> Result<()> {
        for run in &self.runs {
            let end = match to {
                Bound::Unbounded => run.tables.len(),
                Bound::Included(to) => run.tables.partition_point(|t| t.meta.smallest <= to),
                Bound::Excluded(to) => run.tables.partition_point(|t| t.meta.smallest < to),
            };
            if end > 0 {
                let tables = run.tables[..end].to_vec();
                let mut cursor = RunCursorBack { rest: tables, current: None };
                cursor.open_next(to)?;
                out.push(Box::new(cursor));
            }
        }
        Ok(())
    }

    /// The holder of a source that some table points to.
    pub(crate) fn holder(&self, source: Source) -> Option<Holder> {
        self.tables().find_map(|(_, table)| table.holder(source)).cloned()
    }

    /// Every table with the id of its run.
    pub fn tables(&self) -> impl Iterator<Item = (u64, &Arc<Table>)> {
        self.runs.iter().flat_map(|run| run.tables.iter().map(move |table| (run.id, table)))
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> u64 {
        self.tables().map(|(_, table)| table.meta.bytes).sum()
    }

    /// Bytes that the tables point to, by source.
    pub fn shares(&self) -> BTreeMap<Source, u64> {
        let mut shares = BTreeMap::new();
        for (_, table) in self.tables() {
            for (&source, share) in &table.properties.shares {
                *shares.entry(source).or_default() += share.bytes;
            }
        }
        shares
    }

    /// A copy of this set with `change` applied.
    pub(crate) fn edited(&self, change: Change) -> TableSet {
        let mut runs = self.runs.clone();
        for run in &mut runs {
            run.tables.retain(|table| !change.remove.contains(&table.meta.number));
        }
        let mut run_of = |id| match runs.iter().position(|run: &Run| run.id == id) {
            Some(at) => at,
            None => {
                runs.push(Run::new(id));
                runs.len() - 1
            }
        };
        let added: Vec<_> = change.add.into_iter().map(|(id, table)| (run_of(id), table)).collect();
        let deleted = change.deleted.into_iter().map(|(id, ranges)| (run_of(id), ranges));
        let deleted: Vec<_> = deleted.collect();
        added.into_iter().for_each(|(at, table)| runs[at].tables.push(table));
        deleted.into_iter().for_each(|(at, ranges)| runs[at].deleted = ranges);
        runs.retain(|run| !run.tables.is_empty() || !run.deleted.is_empty());
        runs.sort_by_key(|run| Reverse(run.id));
        for run in &mut runs {
            run.tables.sort_by(|a, b| a.meta.smallest.cmp(&b.meta.smallest));
            let disjoint = |pair: &[Arc<Table>]| pair[0].meta.largest < pair[1].meta.smallest;
            assert!(run.tables.windows(2).all(disjoint), "the tables of a run are disjoint");
            run.fences = Fences::new(run.tables.iter().map(|table| &table.meta.largest[..]));
        }
        TableSet { runs, bounds: self.bounds.clone() }
    }
}

/// A cursor over disjoint tables in order. A table is opened when the cursor reaches it.
pub(crate) struct RunCursor {
    rest: std::vec::IntoIter<Arc<Table>>,
    current: Option<TableCursor>,
    bypass_cache: bool,
}

impl RunCursor {
    pub(crate) fn new(tables: Vec<Arc<Table>>, from: &[u8], bypass_cache: bool) -> Result<Self> {
        let mut cursor = RunCursor { rest: tables.into_iter(), current: None, bypass_cache };
        cursor.open_next(from)?;
        Ok(cursor)
    }

    /// A cursor over the versions in the tables that belong to the tree, past the block cache.
    pub(crate) fn within(tables: Vec<Arc<Table>>, bounds: &Bounds) -> Result<Within<RunCursor>> {
        let has_system = tables.first().is_some_and(|table| is_system(&table.meta.smallest));
        let from: &[u8] = if has_system { &[] } else { &bounds.from };
        let cursor = RunCursor::new(tables, from, true)?;
        Ok(Within { cursor, bounds: bounds.clone() })
    }

    fn open_next(&mut self, from: &[u8]) -> Result<()> {
        let cursor = self.rest.next().map(|table| table.cursor(from)).transpose()?;
        let bypass_cache = self.bypass_cache;
        self.current = cursor.map(|c| if bypass_cache { c.bypass_cache() } else { c });
        Ok(())
    }
}

impl Cursor for RunCursor {
    fn next(&mut self) -> Result<Option<Version>> {
        while let Some(current) = &mut self.current {
            if let Some(version) = current.next()? {
                return Ok(Some(version));
            }
            self.open_next(&[])?;
        }
        Ok(None)
    }
}

/// A backward cursor over disjoint tables in order. A table is opened when the cursor reaches it.
struct RunCursorBack {
    rest: Vec<Arc<Table>>,
    current: Option<TableCursorBack>,
}

impl RunCursorBack {
    fn open_next(&mut self, to: &Bound<Bytes>) -> Result<()> {
        self.current = self.rest.pop().map(|table| table.cursor_back(to)).transpose()?;
        Ok(())
    }
}

impl Cursor for RunCursorBack {
    fn next(&mut self) -> Result<Option<Version>> {
        while let Some(current) = &mut self.current {
            if let Some(version) = current.next()? {
                return Ok(Some(version));
            }
            self.open_next(&Bound::Unbounded)?;
        }
        Ok(None)
    }
}
