//! Replacing a whole tree by a snapshot that was made elsewhere.

use super::jobs::Step;
use super::merge::Moment;
use super::ranges::Ranges;
use super::{Tree, check_size, table_path};
use crate::compaction::pick::BOTTOM;
use crate::error::Result;
use crate::ids::LogId;
use crate::key::{NEVER, Value, Version, is_system};
use crate::table::{TableMeta, TableWriter};
use bytes::Bytes;
use std::sync::Arc;

impl Tree {
    /// Begins to replace the whole tree by a snapshot. Readers see the old tree until
    /// [`Install::finish`].
    pub fn begin_install(self: &Arc<Self>) -> Install {
        Install { tree: self.clone(), writer: None, done: Vec::new() }
    }
}

/// A tree that is being replaced by a snapshot. An unfinished `Install` removes its tables when it
/// is dropped. After a crash, the next start removes these tables.
pub struct Install {
    pub(super) tree: Arc<Tree>,
    pub(super) writer: Option<TableWriter>,
    pub(super) done: Vec<TableMeta>,
}

impl Drop for Install {
    fn drop(&mut self) {
        let under_way = self.writer.take().map(|writer| writer.number());
        let numbers = self.done.iter().map(|meta| meta.number).chain(under_way);
        for number in numbers {
            let _ = self.tree.disk.remove(&table_path(&self.tree.dir, number));
        }
    }
}

impl Install {
    /// Adds a key. Keys must come in ascending order.
    pub fn put(&mut self, key: Bytes, ts: u64, value: Bytes) -> Result<()> {
        check_size(&key, &value)?;
        let limits = &self.tree.limits;
        let separate = self.tree.bounds().separate_spaces();
        let full = |w: &TableWriter| {
            let border = separate && is_system(w.largest()) != is_system(&key);
            w.bytes() >= limits.table_bytes || border
        };
        if self.writer.as_ref().is_some_and(full) {
            self.done.extend(self.writer.take().map(TableWriter::finish).transpose()?);
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let tree = &self.tree;
                let number = tree.number();
                let path = table_path(&tree.dir, number);
                let codec = limits.bottom_compression;
                let writer = TableWriter::create(&*tree.disk, path, number, limits, codec)?;
                self.writer.insert(writer)
            }
        };
        writer.add(&Version { key, ts, expires: NEVER, value: Value::Inline(value) })
    }

    /// Replaces the tree, durably, by the snapshot taken at log entry `at`.
    pub fn finish(mut self, at: LogId, ts: u64) -> Result<()> {
        self.done.extend(self.writer.take().map(TableWriter::finish).transpose()?);
        let tree = &self.tree;
        let _flushing = tree.flushing.lock();
        let _compacting = tree.compacting.lock();
        let _applying = tree.applying.lock();
        let old = tree.view.read().tables.clone();
        let ranges = old.runs.iter().filter(|run| !run.deleted.is_empty());
        let step = Step {
            flushed: Some((at, ts)),
            horizon: Moment { ts, ..Moment::default() },
            removed: old.tables().map(|(_, table)| table.meta.number).collect(),
            added: std::mem::take(&mut self.done).into_iter().map(|meta| (BOTTOM, meta)).collect(),
            deleted: ranges.map(|run| (run.id, Ranges::default())).collect(),
        };
        tree.commit(step, |view| {
            view.active = Arc::default();
            view.frozen.clear();
            view.applied = at;
            view.ts = ts;
        })
    }
}
