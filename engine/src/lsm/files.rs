//! Operations on the files of a tree: copying the tree for a checkpoint or a split, ingesting
//! tables that were written elsewhere, and closing the directory. Files are linked, never copied.
//! Only tables that point into the log are rewritten, with their values, when the copy must not
//! depend on the log: the log does not belong to one tree.

use super::bounds::Bounds;
use super::jobs::{Step, whole_edit};
use super::manifest::{Manifest, TreeState};
use super::version::{self, RunCursor, TableSet};
use super::view::View;
use super::{Tree, table_path, value_files};
use crate::compaction::run::{Output, write_tables};
use crate::error::{Error, Result};
use crate::ids::{LogId, ShardId};
use crate::key::{AsOf, Cursor};
use crate::limits::Codec;
use crate::table::{Table, TableMeta};
use crate::values::Source;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a copy of a tree treats values that lie in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogValues {
    /// The copy stays on this disk, in this store. The tables of the copy point into the log as the
    /// tables of the original do.
    Shared,
    /// The copy is independent of the log: its values are written into its own value files.
    Moved,
}

impl Tree {
    /// Copies the current tables of this tree to a new tree in directory `dir`, limited to `bounds`
    /// if given. `CURRENT` is written last: the copy is complete and durable when this function
    /// returns, and does not exist as a tree before. Memtables are not copied.
    pub(crate) fn copy_to(
        &self,
        dir: &str,
        bounds: Option<Bounds>,
        flushed: Option<LogId>,
        values: LogValues,
    ) -> Result<LogId> {
        let view = self.view.read().clone();
        let state = self.store.lock().state.clone();
        self.disk.make_dir(dir).map_err(Error::io("create", dir))?;
        let bounds = bounds.unwrap_or_else(|| view.tables.bounds.clone());
        let mut copies = version::Change::default();
        for (run, table) in view.tables.tables() {
            if !bounds.meet(&table.meta.smallest, &table.meta.largest) {
                continue;
            }
            if let Some(damage) = table.damage() {
                return Err(damage);
            }
            let points = |source: &Source| matches!(source, Source::Log(_));
            if values == LogValues::Moved && table.properties.shares.keys().any(points) {
                for meta in self.rewrite_to(dir, table, &view.tables.bounds)? {
                    copies.add.push((run, self.open_in(dir, meta)?));
                }
            } else {
                let path = table_path(dir, table.meta.number);
                self.link(&table_path(&self.dir, table.meta.number), &path)?;
                copies.add.push((run, table.clone()));
            }
        }
        for run in &view.tables.runs {
            copies.deleted.push((run.id, run.deleted.clone()));
        }
        let tables = TableSet { runs: Vec::new(), bounds: bounds.clone() }.edited(copies);
        // Value files that `rewrite_to` wrote are already in `dir`. The other value files belong to
        // this tree and are linked.
        for number in value_files(&tables).intersection(&value_files(&view.tables)) {
            self.link(&self.sources.path(*number), &format!("{dir}/{number:06}.val"))?;
        }
        self.disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        let flushed = flushed.unwrap_or(view.flushed);
        let next_number = self.next_number.load(Ordering::Relaxed);
        let history_from = view.history_from;
        let state = TreeState { flushed, next_number, bounds, history_from, ..state };
        Manifest::create(&*self.disk, dir, 1, &whole_edit(&tables, state))?;
        Ok(flushed)
    }

    fn link(&self, from: &str, to: &str) -> Result<()> {
        self.disk.link(from, to).map_err(Error::io("link", to))
    }

    fn open_in(&self, dir: &str, meta: TableMeta) -> Result<Arc<Table>> {
        let path = table_path(dir, meta.number);
        let sources = self.sources.in_dir(dir);
        let table = Table::open(self.disk.clone(), path, meta, self.cache.clone(), &sources)?;
        table.damage().map_or(Ok(Arc::new(table)), Err)
    }

    /// Rewrites a table in another directory, together with its values that lie in the log.
    fn rewrite_to(&self, dir: &str, table: &Arc<Table>, of: &Bounds) -> Result<Vec<TableMeta>> {
        let in_log = table.properties.shares.keys().filter(|s| matches!(s, Source::Log(_)));
        let collection_targets: BTreeSet<Source> = in_log.copied().collect();
        write_tables(
            RunCursor::within(vec![table.clone()], of)?,
            Output {
                disk: &*self.disk,
                limits: &self.limits,
                codec: Codec::default(),
                table_bytes: u64::MAX,
                separate_spaces: of.separate_spaces(),
                sources: &self.sources.in_dir(dir),
                collection_targets: &collection_targets,
                hidden: &|_| Ok(false),
                path: &|number| table_path(dir, number),
                number: &mut || self.number(),
            },
        )
    }

    /// Ingests a table file that a [`TableWriter`](crate::table) wrote elsewhere, as the effect of
    /// log entry `at`: all its keys are set at timestamp `ts`. The file is linked, not copied, so
    /// the file must lie on this disk. The applier of the shard calls this function.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Corrupt`] when the file is not a sound table of ascending
    /// keys, or points to values outside the file.
    pub fn ingest(&self, at: LogId, ts: u64, path: &str) -> Result<()> {
        let found = self.examine(path)?;
        let _flushing = self.flushing.lock();
        // Memtables are flushed to runs first, because the ingested table is newer than the
        // memtables.
        self.freeze();
        self.flush_frozen()?;
        let number = self.number();
        self.link(path, &table_path(&self.dir, number))?;
        let meta = TableMeta { number, ts: Some(ts), ts_max: ts, ..found };
        let step = Step { flushed: Some((at, ts)), added: vec![(number, meta)], ..Step::default() };
        self.commit(step, |view: &mut View| {
            view.applied = at;
            let ts = view.as_of.ts.max(ts);
            view.as_of = AsOf { ts, written: ts };
        })
    }

    /// Verifies a foreign table by a full read, and returns its metadata.
    fn examine(&self, path: &str) -> Result<TableMeta> {
        let file = self.disk.open(path).map_err(Error::io("open", path))?;
        let bytes = file.len().map_err(Error::io("measure", path))?;
        let seed = crate::table::reader::file_number(&*file, path)?;
        let (smallest, largest) = Default::default();
        let meta = TableMeta { number: 0, seed, ts: None, bytes, smallest, largest, ts_max: 0 };
        let sources = self.sources.in_dir(&self.dir);
        let table = Table::open(
            self.disk.clone(),
            path.to_owned(),
            meta.clone(),
            self.cache.clone(),
            &sources,
        )?;
        let table = Arc::new(table);
        table.verify()?;
        if !table.properties.shares.is_empty() {
            let (what, expected) = ("a table to ingest", "values in the table");
            return Err(Error::corrupt(path, 0, what, expected, "pointers"));
        }
        let mut cursor = table.cursor(&[])?;
        let mut meta = meta;
        let Some(first) = cursor.next()? else {
            return Err(Error::corrupt(path, 0, "a table to ingest", "keys", "none"));
        };
        meta.smallest = first.key.clone();
        meta.largest = first.key;
        while let Some(version) = cursor.next()? {
            if version.key <= meta.largest {
                // All keys get one timestamp, so the table can hold only one version of a key.
                let (what, expected) = ("a table to ingest", "ascending keys");
                return Err(Error::corrupt(path, 0, what, expected, format!("{:?}", version.key)));
            }
            meta.largest = version.key;
        }
        Ok(meta)
    }

    /// Restricts the tree to `bounds`, durably. Readers no longer see keys outside `bounds`; later
    /// compactions drop these keys.
    pub(crate) fn restrict(&self, bounds: Bounds) -> Result<()> {
        let _flushing = self.flushing.lock();
        let _compacting = self.compacting.lock();
        let store = &mut *self.store.lock();
        let before = std::mem::replace(&mut store.state.bounds, bounds.clone());
        if let Err(error) = self.roll_manifest(store) {
            store.state.bounds = before;
            return Err(error);
        }
        let mut view = self.view.write();
        let runs = view.tables.runs.clone();
        view.tables = Arc::new(TableSet { runs, bounds });
        self.mark_dirty();
        Ok(())
    }

    /// Flushes everything applied so far.
    pub fn flush_all(&self) -> Result<()> {
        let _flushing = self.flushing.lock();
        self.freeze();
        self.flush_frozen()
    }

    /// Waits for the running jobs and prevents new jobs, so that the directory can be removed or
    /// replaced.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        drop(self.flushing.lock());
        drop(self.compacting.lock());
    }

    /// The directory of the tree.
    pub(crate) fn dir(&self) -> &str {
        &self.dir
    }
}

/// A tree's directory, by shard and generation: `shards/7`, then `shards/7.1` for the tree that
/// replaced `shards/7`. The greatest generation with a `CURRENT` file is the live one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TreeDir {
    /// The shard.
    pub shard: ShardId,
    /// The number of trees that the shard had before this tree.
    pub generation: u64,
}

impl TreeDir {
    /// The path of the directory.
    pub(crate) fn path(&self) -> String {
        match self.generation {
            0 => format!("shards/{}", self.shard),
            generation => format!("shards/{}.{generation}", self.shard),
        }
    }

    /// Parses the name of a directory in `shards`.
    pub(crate) fn parse(name: &str) -> Option<TreeDir> {
        let (shard, generation) = name.split_once('.').unwrap_or((name, "0"));
        let dir = TreeDir { shard: shard.parse().ok()?, generation: generation.parse().ok()? };
        (dir.path() == format!("shards/{name}")).then_some(dir)
    }
}
