//! Replacing a whole tree by a snapshot that was made elsewhere.

use super::jobs::Step;
use super::merge::Moment;
use super::ranges::Ranges;
use super::view::{HistoryItem, SnapshotHead};
use super::{Tree, check_size, table_path};
use crate::compaction::pick::BOTTOM;
use crate::error::Result;
use crate::key::{AsOf, Value};
use crate::table::{TableMeta, TableWriter};
use std::sync::Arc;

impl Tree {
    /// Begins to replace the whole tree by a snapshot. Readers see the old tree until
    /// [`Install::finish`].
    pub fn begin_install(self: &Arc<Self>) -> Install {
        Install { tree: self.clone(), ranges: Ranges::default(), writer: None, done: Vec::new() }
    }
}

/// A tree that is being replaced by a snapshot. An unfinished `Install` removes its tables when it
/// is dropped. After a crash, the next start removes these tables.
pub struct Install {
    pub(super) tree: Arc<Tree>,
    pub(super) ranges: Ranges,
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
    /// Adds a deleted range or a version. Versions must come in the
    /// order of [`Version::order`](crate::key::Version::order).
    ///
    /// # Errors
    /// [`Error::TooLarge`](crate::Error::TooLarge); errors of the disk.
    pub fn add(&mut self, item: HistoryItem) -> Result<()> {
        let version = match item {
            HistoryItem::Range(range) => {
                check_size(&range.from, &[])?;
                check_size(&range.to, &[])?;
                self.ranges.insert(range);
                return Ok(());
            }
            HistoryItem::Version(version) => version,
        };
        let value = match &version.value {
            Value::Inline(value) => &value[..],
            Value::Tombstone | Value::At(_) => &[],
        };
        check_size(&version.key, value)?;
        let limits = &self.tree.limits;
        let separate_spaces = self.tree.bounds().separate_spaces();
        let ends = |writer: &TableWriter| {
            writer.ends_before(&version.key, writer.bytes() >= limits.table_bytes, separate_spaces)
        };
        if self.writer.as_ref().is_some_and(ends) {
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
        writer.add(&version)
    }

    /// Replaces the tree, durably, by the snapshot.
    ///
    /// # Errors
    /// Errors of the disk. The tree is then unchanged.
    pub fn finish(mut self, head: SnapshotHead) -> Result<()> {
        let SnapshotHead { at, ts, history_from, now } = head;
        self.done.extend(self.writer.take().map(TableWriter::finish).transpose()?);
        let tree = &self.tree;
        let _flushing = tree.flushing.lock();
        let _compacting = tree.compacting.lock();
        let _applying = tree.applying.lock();
        let old = tree.view.read().tables.clone();
        let old_ranges = old.runs.iter().filter(|run| run.id != BOTTOM && !run.deleted.is_empty());
        let mut deleted: Vec<_> = old_ranges.map(|run| (run.id, Ranges::default())).collect();
        deleted.push((BOTTOM, std::mem::take(&mut self.ranges)));
        let step = Step {
            flushed: Some((at, ts)),
            horizon: Moment { ts: history_from, now, ..Moment::default() },
            removed: old.tables().map(|(_, table)| table.meta.number).collect(),
            added: std::mem::take(&mut self.done).into_iter().map(|meta| (BOTTOM, meta)).collect(),
            deleted,
        };
        tree.commit(step, |view| {
            view.active = Arc::default();
            view.frozen.clear();
            view.applied = at;
            view.as_of = AsOf { ts, written: ts };
            view.now = view.now.max(now);
        })
    }
}
