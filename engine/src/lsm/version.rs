//! Which tables make up a tree at one moment. Immutable: a change makes a new version, and readers
//! keep the one they began with.

use super::key::{Cursor, Found};
use crate::Result;
use crate::table::Table;
use crate::values::{Holder, Source};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The run that the others are merged into in the end.
pub const BOTTOM: u64 = 0;

/// Tables of disjoint ranges, ascending by key. All that a run holds of a key is newer than what
/// runs of smaller ids hold of it.
#[derive(Clone)]
pub struct Run {
    /// Names it, and says how new it is. [`BOTTOM`] is the oldest.
    pub id: u64,
    /// The tables.
    pub tables: Vec<Arc<Table>>,
}

/// The runs, newest first.
#[derive(Clone, Default)]
pub struct TableSet {
    /// The runs.
    pub runs: Vec<Run>,
}

impl TableSet {
    /// The newest version of `key` at or before `ts`.
    pub(crate) fn get(&self, key: &[u8], hash: u64, ts: u64) -> Result<Option<Found>> {
        Self::get_in(&self.runs, key, hash, ts)
    }

    /// The newest version of `key` at or before `ts` in some of the runs.
    pub(crate) fn get_in(runs: &[Run], key: &[u8], hash: u64, ts: u64) -> Result<Option<Found>> {
        for run in runs {
            let at = run.tables.partition_point(|table| table.meta.largest < key);
            if let Some(table) = run.tables.get(at).filter(|table| table.meta.smallest <= key)
                && let Some(found) = table.get(key, hash, ts)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A cursor for each run, from `from` on.
    pub(crate) fn cursors(&self, from: &[u8], out: &mut Vec<Box<dyn Cursor>>) -> Result<()> {
        for run in &self.runs {
            let at = run.tables.partition_point(|table| table.meta.largest < from);
            if at < run.tables.len() {
                out.push(Box::new(RunCursor::new(run.tables[at..].to_vec(), from, false)?));
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

    /// This set without some tables and with others.
    pub(crate) fn edited(&self, remove: &[u64], add: Vec<(u64, Arc<Table>)>) -> TableSet {
        let mut runs = self.runs.clone();
        for run in &mut runs {
            run.tables.retain(|table| !remove.contains(&table.meta.number));
        }
        for (id, table) in add {
            match runs.iter_mut().find(|run| run.id == id) {
                Some(run) => run.tables.push(table),
                None => runs.push(Run { id, tables: vec![table] }),
            }
        }
        runs.retain(|run| !run.tables.is_empty());
        runs.sort_by_key(|run| Reverse(run.id));
        for run in &mut runs {
            run.tables.sort_by(|a, b| a.meta.smallest.cmp(&b.meta.smallest));
        }
        TableSet { runs }
    }
}

/// Disjoint tables in order, as one cursor; each is opened when it is reached.
pub(crate) struct RunCursor {
    rest: std::vec::IntoIter<Arc<Table>>,
    current: Option<crate::table::reader::TableCursor>,
    past_cache: bool,
}

impl RunCursor {
    pub(crate) fn new(tables: Vec<Arc<Table>>, from: &[u8], past_cache: bool) -> Result<Self> {
        let mut cursor = RunCursor { rest: tables.into_iter(), current: None, past_cache };
        cursor.open_next(from)?;
        Ok(cursor)
    }

    fn open_next(&mut self, from: &[u8]) -> Result<()> {
        let cursor = self.rest.next().map(|table| table.cursor(from)).transpose()?;
        let past_cache = self.past_cache;
        self.current = cursor.map(|c| if past_cache { c.past_cache() } else { c });
        Ok(())
    }
}

impl Cursor for RunCursor {
    fn next(&mut self) -> Result<Option<super::key::Version>> {
        while let Some(current) = &mut self.current {
            if let Some(version) = current.next()? {
                return Ok(Some(version));
            }
            self.open_next(&[])?;
        }
        Ok(None)
    }
}
