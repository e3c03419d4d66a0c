//! Replacing a whole tree by a snapshot from elsewhere.

use super::key::{Value, Version};
use super::version::BOTTOM;
use super::{Tree, check_size, table_path};
use crate::LogId;
use crate::error::Result;
use crate::table::{TableMeta, TableWriter};
use bytes::Bytes;
use std::sync::Arc;

/// A tree being replaced by a snapshot. Dropped unfinished, it leaves only stray files, which the
/// next start removes.
pub struct Install {
    pub(super) tree: Arc<Tree>,
    pub(super) writer: Option<TableWriter>,
    pub(super) done: Vec<TableMeta>,
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
                let tree = &self.tree;
                let number = tree.number();
                let path = table_path(&tree.dir, number);
                let codec = limits.bottom_compression;
                let writer = TableWriter::create(&*tree.disk, path, number, limits, codec)?;
                self.writer.insert(writer)
            }
        };
        writer.add(&Version { key, ts, value: Value::Inline(value) })
    }

    /// Replaces the tree: afterwards it is the snapshot of log entry `at`, durably.
    pub fn finish(mut self, at: LogId, ts: u64) -> Result<()> {
        self.done.extend(self.writer.take().map(TableWriter::finish).transpose()?);
        let tree = &self.tree;
        let _flushing = tree.flushing.lock();
        let _compacting = tree.compacting.lock();
        let old = tree.view.read().tables.clone();
        let removed = old.tables().map(|(_, table)| table.meta.number).collect();
        let added = std::mem::take(&mut self.done).into_iter().map(|meta| (BOTTOM, meta)).collect();
        tree.install(Some((at, ts)), removed, added, |view| {
            view.active = Arc::default();
            view.frozen.clear();
            view.applied = at;
            view.ts = ts;
        })
    }
}
