//! Reading a table: point lookups through the filter, and cursors.
//!
//! A table opens even if its file is missing or the end of the file is damaged. Reads of its keys
//! then fail with that damage, and the other tables of the tree remain readable.

use super::cache::BlockCache;
use super::fences::Fences;
use super::filter;
use super::format::{
    BlockCursor, FOOTER_BYTES, Footer, Handle, Malformed, Properties, TRAILER_BYTES, TS_BYTES,
    VERSION, compare, internal_key, kind, open_block, split_key,
};
use super::writer::TableMeta;
use crate::checksum::key_hash;
use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::ids::ShardId;
use crate::key::{Cursor, Found, NEVER, Value, Version};
use crate::values::{Holder, Pointer, Source, Sources};
use bytes::{Buf, Bytes};
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};

/// A lookup to run on several tables: the newest version of a key at or before a timestamp.
pub struct Lookup<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) ts: u64,
    hash: u64,
    /// The internal key of `key` at `ts`.
    target: Vec<u8>,
}

impl<'a> Lookup<'a> {
    /// A lookup of a user key.
    pub fn new(key: &'a [u8], ts: u64) -> Self {
        let mut target = Vec::with_capacity(key.len() + TS_BYTES);
        internal_key(&mut target, key, ts);
        Lookup { key, ts, hash: key_hash(key), target }
    }
}

/// An open table file. When it is marked obsolete, the last user removes the file.
pub struct Table {
    /// The manifest's record of the table.
    pub meta: TableMeta,
    shard: ShardId,
    disk: Arc<dyn Disk>,
    path: String,
    body: Result<Body, Arc<Error>>,
    /// The properties block; empty when the table is damaged.
    pub properties: Properties,
    /// The sources that the table points to, ascending, without missing or damaged sources.
    holders: Vec<Holder>,
    cache: Arc<BlockCache>,
    identity: u64,
    obsolete: AtomicBool,
}

/// The parts of a table that need a sound footer, top index and properties block.
struct Body {
    file: Box<dyn File>,
    top: Bytes,
    partitions: Partitions,
}

/// The decoded top index. A lookup that the filter ends reads no block other than the filter.
#[derive(Default)]
struct Partitions {
    fences: Fences,
    /// The last internal keys of all partitions, concatenated.
    lasts: Vec<u8>,
    /// The end of each of these keys in `lasts`.
    ends: Vec<u32>,
    parts: Vec<Partition>,
}

/// A partition: neighbouring data blocks with one index block and one filter block.
#[derive(Clone, Copy)]
struct Partition {
    index: Handle,
    filter: Handle,
}

impl Partitions {
    /// Decodes a top index; `None` when the content is not a valid top index.
    fn read(top: Bytes) -> Option<Partitions> {
        let mut read = Partitions::default();
        let mut top = BlockCursor::new(top)?;
        while top.advance().ok()? {
            let before = read.parts.len().checked_sub(1).map(|at| read.last(at));
            if before.is_some_and(|before| compare(before, top.key()).is_ge()) {
                return None;
            }
            split_key(top.key())?;
            let value = top.value();
            let mut handles = &value[..];
            let (index, filter) = (Handle::decode(&mut handles)?, Handle::decode(&mut handles)?);
            read.parts.push(Partition { index, filter });
            read.lasts.extend_from_slice(top.key());
            read.ends.push(u32::try_from(read.lasts.len()).ok()?);
        }
        let lasts = (0..read.parts.len()).map(|at| read.last(at));
        read.fences = Fences::new(lasts.map(|last| &last[..last.len() - TS_BYTES]));
        Some(read)
    }

    fn last(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.lasts[from..self.ends[at] as usize]
    }

    /// The partition with the first entry at or after `target`, an internal key of `key`.
    fn find(&self, key: &[u8], target: &[u8]) -> Option<Partition> {
        let is_before = |at| compare(self.last(at), target) == Ordering::Less;
        self.parts.get(self.fences.partition_point(key, is_before)).copied()
    }
}

impl Table {
    /// Opens a table, checks the footer, the top index and the properties, and holds the sources
    /// that the table points to. Damage is not an error of this call but of the reads that meet the
    /// damage: see [`Table::damage`].
    ///
    /// # Errors
    /// [`Error::NewerFormat`]; [`Error::Io`] when the system refuses to open the file.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: String,
        meta: TableMeta,
        cache: Arc<BlockCache>,
        sources: &Sources,
    ) -> Result<Table> {
        let opened = match disk.open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::corrupt(&path, 0, "a table", "the file", "none"))
            }
            Err(e) => return Err(Error::io("open", path)(e)),
            Ok(file) => read_end(file, &path, &meta),
        };
        let (body, properties) = match opened {
            Ok((body, properties)) => (Ok(body), properties),
            Err(error) if error.is_damage() => (Err(Arc::new(error)), Properties::default()),
            Err(error) => return Err(error),
        };
        let mut holders = Vec::with_capacity(properties.shares.len());
        for &source in properties.shares.keys() {
            match sources.hold(source) {
                Ok(holder) => holders.push(holder),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        let (shard, identity, obsolete) = (sources.shard(), cache.identity(), false.into());
        Ok(Table { meta, shard, disk, path, body, properties, holders, cache, identity, obsolete })
    }

    /// The damage that makes the whole table unreadable, if any.
    pub fn damage(&self) -> Option<Error> {
        self.top().err()
    }

    pub(super) fn top(&self) -> Result<Bytes> {
        self.body().map(|body| body.top.clone())
    }

    fn body(&self) -> Result<&Body> {
        self.body.as_ref().map_err(|cause| self.damaged(cause.clone()))
    }

    /// Wraps damage in an error that names the shard and the keys that the damage may affect.
    fn damaged(&self, cause: Arc<Error>) -> Error {
        let (from, to) = (self.meta.smallest.clone(), self.meta.largest.clone());
        Error::Damaged { shard: self.shard, from, to, cause }
    }

    /// The holder of a source that this table points to.
    pub fn holder(&self, source: Source) -> Option<&Holder> {
        let at = self.holders.binary_search_by_key(&source, Holder::source).ok()?;
        Some(&self.holders[at])
    }

    /// The newest version of a key at or before a timestamp.
    pub fn get(&self, lookup: &Lookup<'_>) -> Result<Option<Found>> {
        let Lookup { key, ts, hash, target } = lookup;
        if self.meta.ts.unwrap_or(self.properties.ts_min) > *ts {
            return Ok(None);
        }
        let partition = self.body()?.partitions.find(key, target);
        let Some(partition) = partition else { return Ok(None) };
        if !filter::may_contain(&self.block(partition.filter)?, *hash) {
            return Ok(None);
        }
        let mut index = self.cursor_of(self.block(partition.index)?)?;
        if !index.seek(target).map_err(|e| self.malformed(e))? {
            return Ok(None);
        }
        let mut data = self.cursor_of(self.block(self.handle(&index.value())?)?)?;
        if !data.seek(target).map_err(|e| self.malformed(e))? {
            return Ok(None);
        }
        let version = self.stored(data.value())?;
        let ts = match split_key(data.key()) {
            Some((found, ts)) if found == *key => self.meta.ts.unwrap_or(ts),
            _ => return Ok(None),
        };
        let (value, expires) = version;
        let holder = match &value {
            Value::At(pointer) => Some(self.source(pointer.source)?.clone()),
            _ => None,
        };
        Ok(Some(Found { ts, expires, value, holder }))
    }

    /// A cursor over the versions from the newest version of key `from` on.
    pub fn cursor(self: &Arc<Self>, from: &[u8]) -> Result<TableCursor> {
        let mut target = Vec::with_capacity(from.len() + 8);
        internal_key(&mut target, from, u64::MAX);
        let mut top = self.cursor_of(self.top()?)?;
        let mut cursor = TableCursor {
            table: self.clone(),
            top: None,
            index: None,
            data: None,
            bypass_cache: false,
        };
        if top.seek(&target).map_err(|e| self.malformed(e))? {
            let index = self.handle(&top.value())?;
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

    /// Reads every block, past the cache, and every value that the table points to, and checks
    /// them. Returns the number of versions found.
    pub fn verify(self: &Arc<Self>) -> Result<u64> {
        let mut cursor = self.cursor(&[])?;
        cursor.bypass_cache = true;
        let (mut count, mut ts_min, mut ts_max) = (0, u64::MAX, 0);
        let mut last: Option<Version> = None;
        while let Some(version) = cursor.next()? {
            ts_min = ts_min.min(version.ts);
            ts_max = ts_max.max(version.ts);
            let before = last.replace(version.clone());
            // Two versions of a key that have the same timestamp are an error too. A table that was
            // ingested at one timestamp therefore holds at most one version of each key.
            if before.is_some_and(|before| before.order(&version).is_ge()) {
                return Err(self.malformed(Malformed));
            }
            if let Value::At(pointer) = &version.value {
                self.read_value(&version.key, pointer)?;
            }
            count += 1;
        }
        self.verify_index()?;
        if count != self.properties.entries {
            let (what, expected) = ("the versions in a table", self.properties.entries);
            let cause = Error::corrupt(&self.path, 0, what, expected, count);
            return Err(self.damaged(Arc::new(cause)));
        }
        let Properties { ts_min: least, ts_max: greatest, .. } = self.properties;
        if self.meta.ts.is_none() && count > 0 && (ts_min, ts_max) != (least, greatest) {
            let (what, expected) = ("the timestamps in a table", format!("{least} to {greatest}"));
            let found = format!("{ts_min} to {ts_max}");
            let cause = Error::corrupt(&self.path, 0, what, expected, found);
            return Err(self.damaged(Arc::new(cause)));
        }
        Ok(count)
    }

    /// Reads every index and filter block, past the cache, and checks them.
    pub(crate) fn verify_index(&self) -> Result<()> {
        for partition in &self.body()?.partitions.parts {
            self.load(partition.filter)?;
            self.load(partition.index)?;
        }
        Ok(())
    }

    /// Reads and checks a value that the table points to.
    pub(crate) fn read_value(&self, key: &[u8], pointer: &Pointer) -> Result<Bytes> {
        let read = self.source(pointer.source)?.read(key, pointer);
        read.map_err(|error| if error.is_damage() { self.damaged(Arc::new(error)) } else { error })
    }

    fn source(&self, source: Source) -> Result<&Holder> {
        self.holder(source).ok_or_else(|| {
            let (what, expected) = ("a source of values", format!("{source:?}"));
            self.damaged(Arc::new(Error::corrupt(&self.path, 0, what, expected, "none")))
        })
    }

    /// Marks the table obsolete: the file is removed when the last user drops the table.
    pub fn retire(&self) {
        self.obsolete.store(true, atomic::Ordering::Release);
    }

    pub(super) fn block(&self, handle: Handle) -> Result<Bytes> {
        if let Some(block) = self.cache.get(self.identity, handle.offset) {
            return Ok(block);
        }
        let block = self.load(handle)?;
        self.cache.insert(self.identity, handle.offset, block.clone());
        Ok(block)
    }

    fn load(&self, handle: Handle) -> Result<Bytes> {
        let body = self.body()?;
        load(&*body.file, &self.path, &self.meta, handle).map_err(|e| self.damaged(Arc::new(e)))
    }

    pub(super) fn cursor_of(&self, content: Bytes) -> Result<BlockCursor> {
        BlockCursor::new(content).ok_or_else(|| self.malformed(Malformed))
    }

    pub(super) fn handle(&self, value: &[u8]) -> Result<Handle> {
        Handle::decode(&mut &value[..]).ok_or_else(|| self.malformed(Malformed))
    }

    pub(super) fn version(&self, data: &BlockCursor) -> Result<Version> {
        let (key, ts) = split_key(data.key()).ok_or_else(|| self.malformed(Malformed))?;
        let ts = self.meta.ts.unwrap_or(ts);
        let (value, expires) = self.stored(data.value())?;
        Ok(Version { key: Bytes::copy_from_slice(key), ts, expires, value })
    }

    /// Decodes a stored value and the time at which the value expires.
    fn stored(&self, stored: Bytes) -> Result<(Value, u64)> {
        decode_value(stored).ok_or_else(|| self.malformed(Malformed))
    }

    pub(super) fn malformed(&self, _: Malformed) -> Error {
        let (expected, found) = ("well-formed blocks", "a malformed one");
        self.damaged(Arc::new(Error::corrupt(&self.path, 0, "a table", expected, found)))
    }
}

/// The number in the footer of a table file.
pub(crate) fn file_number(file: &dyn File, path: &str) -> Result<u64> {
    let len = file.len().map_err(Error::io("measure", path))?;
    let mut bytes = [0; FOOTER_BYTES];
    let at = len.saturating_sub(FOOTER_BYTES as u64);
    if len >= FOOTER_BYTES as u64 {
        file.read_at(at, &mut bytes).map_err(Error::io("read", path))?;
    }
    let footer = Footer::decode(&bytes);
    footer.map(|footer| footer.number).ok_or_else(|| {
        Error::corrupt(path, at, "a table's footer", "a sound footer", "other bytes")
    })
}

/// Reads and checks the footer, the top index and the properties.
fn read_end(file: Box<dyn File>, path: &str, meta: &TableMeta) -> Result<(Body, Properties)> {
    let len = file.len().map_err(Error::io("measure", path))?;
    if len != meta.bytes || len < FOOTER_BYTES as u64 {
        return Err(Error::corrupt(path, len, "a table's length", meta.bytes, len));
    }
    let footer_at = len - FOOTER_BYTES as u64;
    let mut bytes = [0; FOOTER_BYTES];
    file.read_at(footer_at, &mut bytes).map_err(Error::io("read", path))?;
    if let Some(found) = Footer::version(&bytes).filter(|&found| found > VERSION) {
        return Err(Error::NewerFormat { file: path.to_owned(), found, supported: VERSION });
    }
    let footer = Footer::decode(&bytes).filter(|footer| footer.number == meta.seed);
    let Some(footer) = footer else {
        let expected = format!("the footer of table {}", meta.seed);
        return Err(Error::corrupt(path, footer_at, "a table's footer", expected, "another"));
    };
    let top = load(&*file, path, meta, footer.top)?;
    let properties = Properties::decode(&load(&*file, path, meta, footer.properties)?);
    let properties = properties.ok_or_else(|| {
        let what = "a table's properties";
        Error::corrupt(path, footer.properties.offset, what, "well-formed ones", "others")
    })?;
    let partitions = Partitions::read(top.clone()).ok_or_else(|| {
        let (what, expected) = ("a table's top index", "a well-formed one");
        Error::corrupt(path, footer.top.offset, what, expected, "another")
    })?;
    Ok((Body { file, top, partitions }, properties))
}

fn load(file: &dyn File, path: &str, meta: &TableMeta, handle: Handle) -> Result<Bytes> {
    let len = handle.len as usize + TRAILER_BYTES;
    let end = handle.offset.checked_add(len as u64);
    if end.is_none_or(|end| end > meta.bytes) {
        return Err(Error::corrupt(path, handle.offset, "a table block", "one in the file", len));
    }
    let mut bytes = vec![0; len];
    file.read_at(handle.offset, &mut bytes).map_err(Error::io("read", path))?;
    open_block(meta.seed, handle.offset, bytes.into()).ok_or_else(|| {
        Error::corrupt(path, handle.offset, "a table block", "its checksum", "another")
    })
}

/// Decodes a stored value: the kind, the deadline if there is one, and the value or pointer.
/// Returns the value and its deadline, [`NEVER`] without one.
fn decode_value(mut stored: Bytes) -> Option<(Value, u64)> {
    let kind = stored.try_get_u8().ok()?;
    let expires = match kind & kind::EXPIRES {
        0 => NEVER,
        _ => stored.try_get_u64_le().ok()?,
    };
    let pointer = |source| Pointer::decode(&stored, source).map(Value::At);
    let value = match kind & !kind::EXPIRES {
        kind::TOMBSTONE => Value::Tombstone,
        kind::INLINE => Value::Inline(stored),
        kind::IN_LOG => pointer(Source::Log)?,
        kind::IN_FILE => pointer(Source::File)?,
        _ => return None,
    };
    Some((value, expires))
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.obsolete.load(atomic::Ordering::Acquire) {
            // If the removal fails, the next start removes the file.
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// Walks a table in order, block by block.
pub struct TableCursor {
    table: Arc<Table>,
    top: Option<BlockCursor>,
    index: Option<BlockCursor>,
    /// A cursor at an entry that was not yet returned.
    data: Option<BlockCursor>,
    /// Data blocks are read from the file and not put into the cache: for work that reads
    /// everything once.
    bypass_cache: bool,
}

impl TableCursor {
    /// Makes the cursor read data blocks past the cache.
    pub fn bypass_cache(mut self) -> Self {
        self.bypass_cache = true;
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
                let block =
                    if self.bypass_cache { table.load(handle)? } else { table.block(handle)? };
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
            let index = table.handle(&top.value())?;
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
