//! Which tables make up a tree at one moment. Immutable: a change makes a new version, and readers
//! keep the one they began with.

use super::key::Cursor;
use crate::Result;
use crate::table::Table;
use bytes::Bytes;
use std::sync::Arc;

/// Levels of a tree.
pub const LEVELS: usize = 7;

/// The tables by level. Level 0: newest first, ranges overlap. Below: by key, disjoint.
#[derive(Clone, Default)]
pub struct TableSet {
    /// The levels, `LEVELS` of them.
    pub levels: [Vec<Arc<Table>>; LEVELS],
}

impl TableSet {
    /// The newest version of `key` at or before `ts`; the inner `None` is a tombstone.
    pub(crate) fn get(&self, key: &[u8], ts: u64) -> Result<Option<Option<Bytes>>> {
        for table in &self.levels[0] {
            if covers(table, key)
                && let Some(found) = table.get(key, ts)?
            {
                return Ok(Some(found));
            }
        }
        for level in &self.levels[1..] {
            let at = level.partition_point(|table| table.meta.largest < key);
            if let Some(table) = level.get(at).filter(|table| covers(table, key))
                && let Some(found) = table.get(key, ts)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A cursor for each run of tables, from `from` on.
    pub(crate) fn cursors(&self, from: &[u8], out: &mut Vec<Box<dyn Cursor>>) -> Result<()> {
        for table in &self.levels[0] {
            if table.meta.largest >= from {
                out.push(Box::new(table.cursor(from)?));
            }
        }
        for level in &self.levels[1..] {
            let at = level.partition_point(|table| table.meta.largest < from);
            if at < level.len() {
                out.push(Box::new(Run::new(level[at..].to_vec(), from)?));
            }
        }
        Ok(())
    }

    /// Every table with its level.
    pub fn tables(&self) -> impl Iterator<Item = (usize, &Arc<Table>)> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(|(level, tables)| tables.iter().map(move |table| (level, table)))
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> u64 {
        self.tables().map(|(_, table)| table.meta.bytes).sum()
    }

    /// This set without some tables and with others.
    pub(crate) fn edited(&self, remove: &[u64], add: Vec<(usize, Arc<Table>)>) -> TableSet {
        let mut next = self.clone();
        for level in &mut next.levels {
            level.retain(|table| !remove.contains(&table.meta.number));
        }
        for (level, table) in add {
            next.levels[level].push(table);
        }
        next.levels[0].sort_by_key(|table| std::cmp::Reverse(table.meta.number));
        for level in &mut next.levels[1..] {
            level.sort_by(|a, b| a.meta.smallest.cmp(&b.meta.smallest));
        }
        next
    }
}

fn covers(table: &Table, key: &[u8]) -> bool {
    table.meta.smallest <= key && key <= &table.meta.largest[..]
}

/// Disjoint tables in order, as one cursor; each is opened when it is reached.
pub(crate) struct Run {
    rest: std::vec::IntoIter<Arc<Table>>,
    current: Option<crate::table::reader::TableCursor>,
}

impl Run {
    pub(crate) fn new(tables: Vec<Arc<Table>>, from: &[u8]) -> Result<Run> {
        let mut rest = tables.into_iter();
        let current = rest.next().map(|table| table.cursor(from)).transpose()?;
        Ok(Run { rest, current })
    }
}

impl Cursor for Run {
    fn next(&mut self) -> Result<Option<super::key::Version>> {
        while let Some(current) = &mut self.current {
            if let Some(version) = current.next()? {
                return Ok(Some(version));
            }
            self.current = self.rest.next().map(|table| table.cursor(&[])).transpose()?;
        }
        Ok(None)
    }
}
