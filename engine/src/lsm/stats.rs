//! The content of a tree by location, for metrics and for the choice of collection targets.

use super::{Tree, version};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::table::Table;
use crate::values::pick::Usage;
use crate::values::{Holder, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Sizes of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeStats {
    /// Bytes in memtables.
    pub memtable_bytes: usize,
    /// Bytes in table files.
    pub table_bytes: u64,
    /// Keys in memtables plus versions in tables. The number includes versions that compaction will
    /// drop.
    pub versions: u64,
    /// Table files.
    pub tables: usize,
    /// Tables that cannot be read at all.
    pub damaged_tables: usize,
    /// Sorted runs.
    pub runs: usize,
    /// Pieces of deleted ranges, over all runs.
    pub deleted_ranges: usize,
    /// Bytes of values that tables point to in log segments.
    pub log_value_bytes: u64,
    /// Bytes of values that tables point to in value files.
    pub file_value_bytes: u64,
}

impl Tree {
    /// The amount of pending background work: at 0 writers need not slow down, from 1 on writers
    /// must wait.
    pub fn pressure(&self) -> f64 {
        let Limits { memtables_frozen_max, runs_max, .. } = self.limits;
        let view = self.view.read();
        let part = |count: usize, limit: usize| {
            (count.saturating_sub(limit / 2)) as f64 / (limit - limit / 2) as f64
        };
        let memtables = part(view.frozen.len(), memtables_frozen_max);
        memtables.max(part(view.tables.runs.len(), 8 * runs_max)).max(self.memory.pressure())
    }

    /// Whether writers should wait for background work.
    pub fn is_behind(&self) -> bool {
        self.pressure() >= 1.0
    }

    /// Bytes of values that the tables point to in each source. A value that a newer run replaces
    /// counts until a merge drops it.
    pub fn live(&self) -> BTreeMap<Source, u64> {
        let tables = self.view.read().tables.clone();
        tables.shares()
    }

    /// The value files, each with its total bytes and its live bytes.
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

    /// Whether tables still point to a collection target.
    pub fn is_collecting(&self) -> bool {
        let (collection_targets, tables) =
            (self.collection_targets.read().clone(), self.view.read().tables.clone());
        !collection_targets.is_empty()
            && tables.shares().keys().any(|source| collection_targets.contains(source))
    }

    /// Sets the collection targets. Tables that point to a collection target are rewritten, and the
    /// rewrite moves their values out of the target. If the targets change, the active memtable is
    /// frozen and its flush precedes the rewrites, so that values that were already overwritten
    /// need not move.
    pub fn set_collection_targets(&self, sources: BTreeSet<Source>) {
        let begins = !sources.is_empty() && *self.collection_targets.read().as_ref() != sources;
        if begins {
            self.freeze();
        }
        *self.collection_targets.write() = Arc::new(sources);
        if begins {
            self.mark_dirty();
        }
    }

    /// Sizes, for status and metrics.
    pub fn stats(&self) -> TreeStats {
        let view = self.view.read().clone();
        let shares = view.tables.shares();
        let live = |log: bool| {
            let of = shares.iter().filter(|(source, _)| matches!(source, Source::Log(_)) == log);
            of.map(|(_, bytes)| bytes).sum()
        };
        let tables = || view.tables.tables().map(|(_, table)| table);
        let recent = view.memtables().map(|memtable| memtable.keys() as u64);
        let ranges = |run: &version::Run| run.deleted.len();
        TreeStats {
            memtable_bytes: view.memtables().map(|memtable| memtable.bytes()).sum(),
            table_bytes: view.tables.bytes(),
            versions: recent.chain(tables().map(|table| table.properties.entries)).sum(),
            tables: tables().count(),
            damaged_tables: tables().filter(|table| table.damage().is_some()).count(),
            runs: view.tables.runs.len(),
            deleted_ranges: view.tables.runs.iter().map(ranges).sum(),
            log_value_bytes: live(true),
            file_value_bytes: live(false),
        }
    }

    /// Reads and verifies every table and every value that a table points to. Returns the number of
    /// versions.
    ///
    /// # Errors
    /// [`Error::Damaged`] for the first damage found.
    pub fn verify(&self) -> Result<u64> {
        let tables = self.view.read().tables.clone();
        tables.tables().map(|(_, table)| table.verify()).sum()
    }

    /// The numbers of the tree's tables.
    pub(crate) fn table_numbers(&self) -> Vec<u64> {
        let tables = self.view.read().tables.clone();
        tables.tables().map(|(_, table)| table.meta.number).collect()
    }

    /// The table with this number, if the tree still has it.
    pub(crate) fn table(&self, number: u64) -> Option<Arc<Table>> {
        let tables = self.view.read().tables.clone();
        tables.tables().map(|(_, table)| table).find(|t| t.meta.number == number).cloned()
    }

    /// The error of each table that cannot be read at all, as readers of the table get it.
    pub fn damage(&self) -> Vec<Error> {
        let tables = self.view.read().tables.clone();
        tables.tables().filter_map(|(_, table)| table.damage()).collect()
    }
}
