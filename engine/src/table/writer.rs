//! Writing a table front to back from sorted versions.

use super::filter;
use super::format::{
    BlockBuilder, Footer, Handle, Properties, TRAILER_BYTES, internal_key, kind, seal_block,
};
use crate::checksum::key_hash;
use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::key::{NEVER, Value, Version, is_system};
use crate::limits::{Codec, Limits};
use crate::values::Source;
use bytes::Bytes;
use std::mem;

/// Bytes buffered before a write to the file.
const WRITE_BYTES: usize = 256 << 10;

/// The manifest's record of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    /// The file's number, which names the file in its shard.
    pub number: u64,
    /// The number that seeds the checksums: the number under which the table was written.
    pub seed: u64,
    /// The timestamp of all versions of an ingested table, which replaces the timestamps in the
    /// file. `None` for a table that the tree wrote.
    pub ts: Option<u64>,
    /// The file's length.
    pub bytes: u64,
    /// The table's first user key.
    pub smallest: Bytes,
    /// The table's last user key.
    pub largest: Bytes,
    /// The table's newest timestamp.
    pub ts_max: u64,
}

/// A table under construction.
pub struct TableWriter {
    file: Box<dyn File>,
    path: String,
    number: u64,
    codec: Codec,
    block_bytes: usize,
    partition_blocks: usize,
    buffer: Vec<u8>,
    offset: u64,
    data: BlockBuilder,
    index: BlockBuilder,
    index_blocks: usize,
    hashes: Vec<u64>,
    top: BlockBuilder,
    smallest: Option<Bytes>,
    largest: Bytes,
    /// The internal key of the entry being added. The memory is reused between entries.
    internal: Vec<u8>,
    properties: Properties,
    value_bytes: u64,
}

impl TableWriter {
    /// Begins the table file `path` with the given number.
    pub fn create(
        disk: &dyn Disk,
        path: String,
        number: u64,
        limits: &Limits,
        codec: Codec,
    ) -> Result<Self> {
        let file = disk.create(&path).map_err(Error::io("create", &path))?;
        Ok(Self {
            file,
            path,
            number,
            codec,
            block_bytes: limits.table_block_bytes,
            partition_blocks: limits.table_partition_blocks,
            buffer: Vec::with_capacity(WRITE_BYTES),
            offset: 0,
            data: BlockBuilder::default(),
            index: BlockBuilder::default(),
            index_blocks: 0,
            hashes: Vec::new(),
            top: BlockBuilder::default(),
            smallest: None,
            largest: Bytes::new(),
            internal: Vec::new(),
            properties: Properties::default(),
            value_bytes: 0,
        })
    }

    /// The table's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Adds a version. Versions must be added in [`Version::order`].
    pub fn add(&mut self, version: &Version) -> Result<()> {
        internal_key(&mut self.internal, &version.key, version.ts);
        let mut head = [0u8; 9];
        head[1..].copy_from_slice(&version.expires.to_le_bytes());
        let (flag, head_bytes) = match version.expires {
            NEVER => (0, 1),
            _ => (kind::EXPIRES, 9),
        };
        let mut expired_by = version.expires;
        let pointer;
        let (kind, content): (u8, &[u8]) = match &version.value {
            Value::Inline(value) => (kind::INLINE, value),
            Value::Tombstone => {
                self.properties.tombstones += 1;
                expired_by = 0;
                (kind::TOMBSTONE, &[])
            }
            Value::At(at) => {
                let share = self.properties.shares.entry(at.source).or_default();
                share.bytes += u64::from(at.len);
                share.values += 1;
                self.value_bytes += u64::from(at.len);
                pointer = at.encode();
                let kind = match at.source {
                    Source::Log(_) => kind::IN_LOG,
                    Source::File(_) => kind::IN_FILE,
                };
                (kind, &pointer)
            }
        };
        head[0] = kind | flag;
        self.data.add(&self.internal, &[&head[..head_bytes], content]);
        self.properties.expired_by = self.properties.expired_by.max(expired_by);
        if self.largest != version.key || self.smallest.is_none() {
            self.hashes.push(key_hash(&version.key));
            self.largest = version.key.clone();
        }
        self.smallest.get_or_insert_with(|| version.key.clone());
        let least = if self.properties.entries == 0 { version.ts } else { self.properties.ts_min };
        self.properties.ts_min = least.min(version.ts);
        self.properties.entries += 1;
        self.properties.ts_max = self.properties.ts_max.max(version.ts);
        if self.data.len() >= self.block_bytes {
            self.cut_block()?;
        }
        Ok(())
    }

    /// Bytes of the values that the table points to.
    pub fn value_bytes(&self) -> u64 {
        self.value_bytes
    }

    /// The approximate size of the table so far.
    pub fn bytes(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    /// Whether the table must end before `key`. A full table ends between user keys, so that the
    /// tables of a run stay disjoint. With `separate_spaces`, a table ends between the system space
    /// and the user space.
    pub fn ends_before(&self, key: &[u8], full: bool, separate_spaces: bool) -> bool {
        let border = separate_spaces && is_system(&self.largest) != is_system(key);
        full && self.largest != key || border
    }

    /// Writes the remaining blocks and the footer, and syncs the file. The file's name is not
    /// durable until the directory is synced.
    pub fn finish(mut self) -> Result<TableMeta> {
        self.cut_block()?;
        self.cut_partition()?;
        let properties = self.write_block(&self.properties.encode(), Codec::None)?;
        let top = self.top.finish();
        let top = self.write_block(&top, Codec::None)?;
        let footer = Footer { number: self.number, top, properties };
        self.buffer.extend_from_slice(&footer.encode());
        self.drain()?;
        self.file.sync().map_err(Error::io("sync", &self.path))?;
        Ok(TableMeta {
            number: self.number,
            seed: self.number,
            ts: None,
            bytes: self.file.len().map_err(Error::io("measure", &self.path))?,
            smallest: self.smallest.unwrap_or_default(),
            largest: self.largest,
            ts_max: self.properties.ts_max,
        })
    }

    fn cut_block(&mut self) -> Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        let last = self.data.last_key().to_vec();
        let content = self.data.finish();
        let handle = self.write_block(&content, self.codec)?;
        let mut value = Vec::with_capacity(Handle::BYTES);
        handle.encode(&mut value);
        self.index.add(&last, &[&value]);
        self.index_blocks += 1;
        if self.index_blocks >= self.partition_blocks {
            self.cut_partition()?;
        }
        Ok(())
    }

    fn cut_partition(&mut self) -> Result<()> {
        if self.index.is_empty() {
            return Ok(());
        }
        let last = self.index.last_key().to_vec();
        let content = self.index.finish();
        let filter = filter::build(mem::take(&mut self.hashes));
        let filter = self.write_block(&filter, Codec::None)?;
        let index = self.write_block(&content, self.codec)?;
        let mut value = Vec::with_capacity(2 * Handle::BYTES);
        index.encode(&mut value);
        filter.encode(&mut value);
        self.top.add(&last, &[&value]);
        self.index_blocks = 0;
        // If versions of this key continue in the next partition, the filter of the next partition
        // must contain the key too.
        self.hashes.push(key_hash(&self.largest));
        Ok(())
    }

    fn write_block(&mut self, content: &[u8], codec: Codec) -> Result<Handle> {
        let offset = self.offset;
        let len = seal_block(&mut self.buffer, self.number, offset, content, codec);
        self.offset += u64::from(len) + TRAILER_BYTES as u64;
        let handle = Handle { offset, len };
        if self.buffer.len() >= WRITE_BYTES {
            self.drain()?;
        }
        Ok(handle)
    }

    fn drain(&mut self) -> Result<()> {
        self.file.append(&self.buffer).map_err(Error::io("write", &self.path))?;
        self.buffer.clear();
        Ok(())
    }
}
