//! Walking a table backwards. The key of an entry is stored without the prefix that it shares with
//! the key before it, so a block is decoded front to back and its versions are returned from the
//! end.

use super::format::{Handle, Malformed, internal_key};
use super::reader::Table;
use crate::error::Result;
use crate::key::{Cursor, Version};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

/// Walks a table from its end, block by block.
pub struct TableCursorBack {
    table: Arc<Table>,
    /// Index blocks still to be read, the next one last.
    partitions: Vec<Handle>,
    /// Data blocks of the current partition still to be read, the next one last.
    blocks: Vec<Handle>,
    /// Versions of the current block, the next one last.
    ready: Vec<Version>,
}

impl Table {
    /// The versions of user keys up to `to`, backwards: keys descend, versions of a key ascend.
    pub fn cursor_back(self: &Arc<Self>, to: &Bound<Bytes>) -> Result<TableCursorBack> {
        // The last internal key that the range can contain: the oldest possible version of the key
        // `to`, or, if the range excludes `to`, the newest possible version of that key.
        let mut target = Vec::new();
        match to {
            Bound::Unbounded => {}
            Bound::Included(key) => internal_key(&mut target, key, 0),
            Bound::Excluded(key) => internal_key(&mut target, key, u64::MAX),
        }
        let target = Some(&target[..]).filter(|target| !target.is_empty());
        let partitions = self.handles(self.top()?, target)?;
        let table = self.clone();
        let mut cursor = TableCursorBack { table, partitions, blocks: Vec::new(), ready: vec![] };
        cursor.next_partition(target)?;
        cursor.next_block()?;
        let past = |key: &Bytes| match to {
            Bound::Unbounded => false,
            Bound::Included(to) => key > to,
            Bound::Excluded(to) => key >= to,
        };
        while cursor.ready.last().is_some_and(|version| past(&version.key)) {
            cursor.ready.pop();
        }
        Ok(cursor)
    }

    /// The first handle of every index entry, up to and including the entry that covers `target`.
    /// Without a target, the handles of all entries.
    fn handles(&self, content: Bytes, target: Option<&[u8]>) -> Result<Vec<Handle>> {
        let mut index = self.cursor_of(content)?;
        let mut handles = Vec::new();
        while index.advance().map_err(|e| self.malformed(e))? {
            handles.push(self.handle(&index.value())?);
            if target.is_some_and(|t| super::format::compare(index.key(), t).is_ge()) {
                break;
            }
        }
        Ok(handles)
    }
}

impl TableCursorBack {
    fn next_partition(&mut self, target: Option<&[u8]>) -> Result<bool> {
        let Some(handle) = self.partitions.pop() else { return Ok(false) };
        self.blocks = self.table.handles(self.table.block(handle)?, target)?;
        Ok(true)
    }

    fn next_block(&mut self) -> Result<bool> {
        let table = &self.table;
        let Some(handle) = self.blocks.pop() else { return Ok(false) };
        let mut data = table.cursor_of(table.block(handle)?)?;
        while data.advance().map_err(|e: Malformed| table.malformed(e))? {
            self.ready.push(table.version(&data)?);
        }
        Ok(true)
    }
}

impl Cursor for TableCursorBack {
    fn next(&mut self) -> Result<Option<Version>> {
        while self.ready.is_empty() {
            if !self.next_block()? && !self.next_partition(None)? {
                return Ok(None);
            }
        }
        Ok(self.ready.pop())
    }
}
