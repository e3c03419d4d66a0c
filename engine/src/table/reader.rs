//! Reading a table: point lookups by way of the filter, and cursors.

use super::cache::BlockCache;
use super::filter;
use super::format::{
    BlockCursor, FOOTER_BYTES, Footer, Handle, Malformed, Properties, TRAILER_BYTES, VERSION,
    internal_key, open_block, split_key,
};
use super::writer::TableMeta;
use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::lsm::key::{Cursor, Found, Value, Version};
use crate::values::{Holder, Pointer, Source, Sources};
use bytes::Bytes;
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
    /// What it holds.
    pub properties: Properties,
    /// Every source that it points to, ascending.
    holders: Vec<Holder>,
    cache: Arc<BlockCache>,
    identity: u64,
    obsolete: AtomicBool,
}

impl Table {
    /// Opens and checks the footer, the top index and the properties, and holds what it points to.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::NewerFormat`].
    pub fn open(
        disk: Arc<dyn Disk>,
        path: String,
        meta: TableMeta,
        cache: Arc<BlockCache>,
        sources: &Sources,
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
        let mut table = Table {
            meta,
            disk,
            file,
            path,
            top: Bytes::new(),
            properties: Properties::default(),
            holders: Vec::new(),
            cache,
            identity,
            obsolete: AtomicBool::new(false),
        };
        table.top = table.load(footer.top)?;
        let properties = Properties::decode(&table.load(footer.properties)?);
        table.properties = properties.ok_or_else(|| table.malformed(Malformed))?;
        let held = table.properties.shares.keys();
        table.holders = held.map(|&source| sources.hold(source)).collect::<Result<_>>()?;
        Ok(table)
    }

    /// The holder of a source that this table points to.
    pub fn holder(&self, source: Source) -> Option<&Holder> {
        let at = self.holders.binary_search_by_key(&source, Holder::source).ok()?;
        Some(&self.holders[at])
    }

    /// The newest version of `key` at or before `ts`.
    pub fn get(&self, key: &[u8], hash: u64, ts: u64) -> Result<Option<Found>> {
        let mut target = Vec::with_capacity(key.len() + 8);
        internal_key(&mut target, key, ts);
        let mut top = self.cursor_of(self.top.clone())?;
        if !top.seek(&target).map_err(|e| self.malformed(e))? {
            return Ok(None);
        }
        let (index, filter) = self.partition(&top.value())?;
        if !filter::may_contain(&self.block(filter)?, hash) {
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
        match split_key(data.key()) {
            Some((found, _)) if found != key => return Ok(None),
            _ => {}
        }
        Ok(Some(match self.value(data.value())? {
            Value::Tombstone => Found::Tombstone,
            Value::Inline(value) => Found::Inline(value),
            Value::At(pointer) => {
                let holder = self.holder(pointer.source).cloned();
                Found::At(pointer, holder.ok_or_else(|| self.malformed(Malformed))?)
            }
        }))
    }

    /// The versions from internal position (`key`, newest) on.
    pub fn cursor(self: &Arc<Self>, from: &[u8]) -> Result<TableCursor> {
        let mut target = Vec::with_capacity(from.len() + 8);
        internal_key(&mut target, from, u64::MAX);
        let mut top = self.cursor_of(self.top.clone())?;
        let mut cursor = TableCursor {
            table: self.clone(),
            top: None,
            index: None,
            data: None,
            past_cache: false,
        };
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

    /// Reads every block, past the cache, and every value pointed to, and checks them; the number
    /// of versions found.
    pub fn verify(self: &Arc<Self>) -> Result<u64> {
        let mut cursor = self.cursor(&[])?;
        cursor.past_cache = true;
        let mut count = 0;
        while let Some(version) = cursor.next()? {
            if let Value::At(pointer) = version.value {
                let holder = self.holder(pointer.source);
                holder.ok_or_else(|| self.malformed(Malformed))?.read(&version.key, &pointer)?;
            }
            count += 1;
        }
        let mut top = self.cursor_of(self.top.clone())?;
        while top.advance().map_err(|e| self.malformed(e))? {
            let (index, filter) = self.partition(&top.value())?;
            self.load(filter)?;
            self.load(index)?;
        }
        if count != self.properties.entries {
            let (what, expected) = ("the versions in a table", self.properties.entries);
            return Err(Error::corrupt(&self.path, 0, what, expected, count));
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
        let (key, ts) = split_key(data.key()).ok_or_else(|| self.malformed(Malformed))?;
        let value = self.value(data.value())?;
        Ok(Version { key: Bytes::copy_from_slice(key), ts, value })
    }

    fn value(&self, mut stored: Bytes) -> Result<Value> {
        let pointer = |source| Pointer::decode(stored.get(1..)?, source).map(Value::At);
        let value = match stored.first() {
            Some(0) => Some(Value::Tombstone),
            Some(1) => Some(Value::Inline(stored.split_off(1))),
            Some(2) => pointer(Source::Log),
            Some(3) => pointer(Source::File),
            _ => None,
        };
        value.ok_or_else(|| self.malformed(Malformed))
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
    /// Data blocks are read from the file and not kept: for work that reads everything once.
    past_cache: bool,
}

impl TableCursor {
    /// The cursor, reading past the cache.
    pub fn past_cache(mut self) -> Self {
        self.past_cache = true;
        self
    }

    /// Loads the next data block and steps to its first entry.
    fn next_block(&mut self) -> Result<bool> {
        let table = &self.table;
        loop {
            if let Some(index) = &mut self.index
                && index.advance().map_err(|e| table.malformed(e))?
            {
                let handle = table.handle(&index.value())?;
                let block = match self.past_cache {
                    true => table.load(handle)?,
                    false => table.block(handle)?,
                };
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
