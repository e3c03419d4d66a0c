//! Reading a table: point lookups by way of the filter, and cursors.

use super::cache::BlockCache;
use super::filter;
use super::format::{
    BlockCursor, FOOTER_BYTES, Footer, Handle, Malformed, TRAILER_BYTES, VERSION, internal_key,
    open_block, split_key,
};
use super::writer::TableMeta;
use crate::checksum::key_hash;
use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::lsm::key::{Cursor, Version};
use bytes::{Buf, Bytes};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An open table file. When it is marked obsolete, the last user removes the file.
pub struct Table {
    /// What the manifest says of it.
    pub meta: TableMeta,
    disk: Arc<dyn Disk>,
    file: Box<dyn File>,
    path: String,
    top: Bytes,
    versions: u64,
    cache: Arc<BlockCache>,
    identity: u64,
    obsolete: AtomicBool,
}

impl Table {
    /// Opens and checks the footer and the top index.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::NewerFormat`].
    pub fn open(
        disk: Arc<dyn Disk>,
        path: String,
        meta: TableMeta,
        cache: Arc<BlockCache>,
    ) -> Result<Table> {
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::corrupt(path, 0, "a table", "the file", "none"));
            }
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        let len = file.len().map_err(Error::io("measure", &path))?;
        if len != meta.bytes || len < FOOTER_BYTES as u64 {
            return Err(Error::corrupt(path, len, "a table's length", meta.bytes, len));
        }
        let footer_at = len - FOOTER_BYTES as u64;
        let mut bytes = [0; FOOTER_BYTES];
        file.read_at(footer_at, &mut bytes).map_err(Error::io("read", &path))?;
        if let Some(found) = Footer::version(&bytes).filter(|&found| found > VERSION) {
            return Err(Error::NewerFormat { file: path, found, supported: VERSION });
        }
        let footer = Footer::decode(&bytes).filter(|footer| footer.number == meta.number);
        let Some(footer) = footer else {
            let expected = format!("the footer of table {}", meta.number);
            return Err(Error::corrupt(path, footer_at, "a table's footer", expected, "another"));
        };
        let identity = cache.identity();
        let top = Bytes::new();
        let obsolete = AtomicBool::new(false);
        let versions = footer.entries;
        let mut table = Table { meta, disk, file, path, top, versions, cache, identity, obsolete };
        table.top = table.load(footer.top)?;
        Ok(table)
    }

    /// Versions in the table.
    pub fn versions(&self) -> u64 {
        self.versions
    }

    /// The newest version of `key` at or before `ts`; the inner `None` is a tombstone.
    pub fn get(&self, key: &[u8], ts: u64) -> Result<Option<Option<Bytes>>> {
        let target = internal_key(key, ts);
        let mut top = self.cursor_of(self.top.clone())?;
        if !top.seek(&target).map_err(|e| self.malformed(e))? {
            return Ok(None);
        }
        let (index, filter) = self.partition(&top.value())?;
        if !filter::may_contain(&self.block(filter)?, key_hash(key)) {
            return Ok(None);
        }
        let mut index = self.cursor_of(self.block(index)?)?;
        if !index.seek(&target).map_err(|e| self.malformed(e))? {
            return Ok(None);
        }
        let mut data = self.cursor_of(self.block(self.handle(&index.value())?)?)?;
        if !data.seek(&target).map_err(|e| self.malformed(e))? {
            return Ok(None);
        }
        let found = self.version(&data)?;
        Ok((found.key == key).then_some(found.value))
    }

    /// The versions from internal position (`key`, newest) on.
    pub fn cursor(self: &Arc<Self>, from: &[u8]) -> Result<TableCursor> {
        let target = internal_key(from, u64::MAX);
        let mut top = self.cursor_of(self.top.clone())?;
        let mut cursor = TableCursor { table: self.clone(), top: None, index: None, data: None };
        if top.seek(&target).map_err(|e| self.malformed(e))? {
            let (index, _) = self.partition(&top.value())?;
            let mut index = self.cursor_of(self.block(index)?)?;
            if index.seek(&target).map_err(|e| self.malformed(e))? {
                let mut data = self.cursor_of(self.block(self.handle(&index.value())?)?)?;
                cursor.data = data.seek(&target).map_err(|e| self.malformed(e))?.then_some(data);
            }
            cursor.index = Some(index);
        }
        cursor.top = Some(top);
        Ok(cursor)
    }

    /// Reads every block and checks it; the number of versions found.
    pub fn verify(self: &Arc<Self>) -> Result<u64> {
        let mut cursor = self.cursor(&[])?;
        let mut count = 0;
        while cursor.next()?.is_some() {
            count += 1;
        }
        let mut top = self.cursor_of(self.top.clone())?;
        while top.advance().map_err(|e| self.malformed(e))? {
            let (_, filter) = self.partition(&top.value())?;
            self.load(filter)?;
        }
        Ok(count)
    }

    /// The file goes when the last user of this table does.
    pub fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    fn block(&self, handle: Handle) -> Result<Bytes> {
        if let Some(block) = self.cache.get(self.identity, handle.offset) {
            return Ok(block);
        }
        let block = self.load(handle)?;
        self.cache.insert(self.identity, handle.offset, block.clone());
        Ok(block)
    }

    fn load(&self, handle: Handle) -> Result<Bytes> {
        let len = handle.len as usize + TRAILER_BYTES;
        let end = handle.offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.meta.bytes) {
            return Err(self.malformed(Malformed));
        }
        let mut bytes = vec![0; len];
        self.file.read_at(handle.offset, &mut bytes).map_err(Error::io("read", &self.path))?;
        open_block(self.meta.number, handle.offset, bytes.into()).ok_or_else(|| {
            let what = "a table block";
            Error::corrupt(&self.path, handle.offset, what, "its checksum", "another")
        })
    }

    fn cursor_of(&self, content: Bytes) -> Result<BlockCursor> {
        BlockCursor::new(content).ok_or_else(|| self.malformed(Malformed))
    }

    fn handle(&self, value: &[u8]) -> Result<Handle> {
        Handle::decode(&mut &value[..]).ok_or_else(|| self.malformed(Malformed))
    }

    fn partition(&self, value: &[u8]) -> Result<(Handle, Handle)> {
        let mut value = value;
        let index = Handle::decode(&mut value);
        let filter = Handle::decode(&mut value);
        index.zip(filter).ok_or_else(|| self.malformed(Malformed))
    }

    fn version(&self, data: &BlockCursor) -> Result<Version> {
        let mut value = data.value();
        let kind = value.try_get_u8();
        let (Some((key, ts)), Ok(kind @ (0 | 1))) = (split_key(data.key()), kind) else {
            return Err(self.malformed(Malformed));
        };
        let value = (kind == 1).then_some(value);
        Ok(Version { key: Bytes::copy_from_slice(key), ts, value })
    }

    fn malformed(&self, _: Malformed) -> Error {
        Error::corrupt(&self.path, 0, "a table", "well-formed blocks", "a malformed one")
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            // A file left behind is removed at the next start.
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// Walks a table in order, block by block.
pub struct TableCursor {
    table: Arc<Table>,
    top: Option<BlockCursor>,
    index: Option<BlockCursor>,
    /// At an entry not yet given out.
    data: Option<BlockCursor>,
}

impl TableCursor {
    /// Loads the next data block and steps to its first entry.
    fn next_block(&mut self) -> Result<bool> {
        let table = &self.table;
        loop {
            if let Some(index) = &mut self.index
                && index.advance().map_err(|e| table.malformed(e))?
            {
                let block = table.block(table.handle(&index.value())?)?;
                let mut data = table.cursor_of(block)?;
                if data.advance().map_err(|e| table.malformed(e))? {
                    self.data = Some(data);
                    return Ok(true);
                }
                continue;
            }
            let Some(top) = &mut self.top else { return Ok(false) };
            if !top.advance().map_err(|e| table.malformed(e))? {
                return Ok(false);
            }
            let (index, _) = table.partition(&top.value())?;
            self.index = Some(table.cursor_of(table.block(index)?)?);
        }
    }
}

impl Cursor for TableCursor {
    fn next(&mut self) -> Result<Option<Version>> {
        if self.data.is_none() && !self.next_block()? {
            return Ok(None);
        }
        let Some(data) = &mut self.data else { return Ok(None) };
        let version = self.table.version(data)?;
        if !data.advance().map_err(|e| self.table.malformed(e))? {
            self.data = None;
        }
        Ok(Some(version))
    }
}
