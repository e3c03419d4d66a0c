//! Writing a table, front to back, from versions in order.

use super::filter;
use super::format::{BlockBuilder, Footer, Handle, internal_key, trailer};
use crate::checksum::key_hash;
use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::lsm::key::Version;
use bytes::Bytes;

/// Bytes gathered before a write.
const WRITE_BYTES: usize = 256 << 10;

/// What the manifest remembers of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    /// The file's number.
    pub number: u64,
    /// The file's length.
    pub bytes: u64,
    /// Its first user key.
    pub smallest: Bytes,
    /// Its last user key.
    pub largest: Bytes,
    /// Its newest timestamp.
    pub ts_max: u64,
}

/// A table under construction.
pub struct TableWriter {
    file: Box<dyn File>,
    path: String,
    number: u64,
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
    entries: u64,
    tombstones: u64,
    ts_max: u64,
}

impl TableWriter {
    /// Begins the table file `path` with the given number.
    pub fn create(disk: &dyn Disk, path: String, number: u64, limits: &Limits) -> Result<Self> {
        let file = disk.create(&path).map_err(Error::io("create", &path))?;
        Ok(Self {
            file,
            path,
            number,
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
            entries: 0,
            tombstones: 0,
            ts_max: 0,
        })
    }

    /// Adds a version; they come in [`Version::order`].
    pub fn add(&mut self, version: &Version) -> Result<()> {
        let internal = internal_key(&version.key, version.ts);
        match &version.value {
            Some(value) => self.data.add(&internal, &[&[1], value]),
            None => {
                self.data.add(&internal, &[&[0]]);
                self.tombstones += 1;
            }
        }
        if self.largest != version.key || self.smallest.is_none() {
            self.hashes.push(key_hash(&version.key));
        }
        self.smallest.get_or_insert_with(|| version.key.clone());
        self.largest = version.key.clone();
        self.entries += 1;
        self.ts_max = self.ts_max.max(version.ts);
        if self.data.len() >= self.block_bytes {
            self.cut_block()?;
        }
        Ok(())
    }

    /// Bytes so far, about.
    pub fn bytes(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    /// The last user key added.
    pub fn largest(&self) -> &Bytes {
        &self.largest
    }

    /// Writes the rest and syncs. The file's name is not durable until its directory is synced.
    pub fn finish(mut self) -> Result<TableMeta> {
        self.cut_block()?;
        self.cut_partition()?;
        let top = self.top.finish();
        let top = self.write_block(&top)?;
        let footer = Footer {
            number: self.number,
            top,
            entries: self.entries,
            tombstones: self.tombstones,
            ts_max: self.ts_max,
        };
        self.buffer.extend_from_slice(&footer.encode());
        self.drain()?;
        self.file.sync().map_err(Error::io("sync", &self.path))?;
        Ok(TableMeta {
            number: self.number,
            bytes: self.file.len().map_err(Error::io("measure", &self.path))?,
            smallest: self.smallest.unwrap_or_default(),
            largest: self.largest,
            ts_max: self.ts_max,
        })
    }

    fn cut_block(&mut self) -> Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        let last = self.data.last_key().to_vec();
        let content = self.data.finish();
        let handle = self.write_block(&content)?;
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
        let filter = self.write_block(&filter::build(&self.hashes))?;
        let index = self.write_block(&content)?;
        let mut value = Vec::with_capacity(2 * Handle::BYTES);
        index.encode(&mut value);
        filter.encode(&mut value);
        self.top.add(&last, &[&value]);
        self.index_blocks = 0;
        self.hashes.clear();
        // A key whose versions go on in the next partition must be in its filter too.
        self.hashes.push(key_hash(&self.largest));
        Ok(())
    }

    fn write_block(&mut self, content: &[u8]) -> Result<Handle> {
        let handle = Handle { offset: self.offset, len: content.len() as u32 };
        let trailer = trailer(self.number, handle.offset, content);
        self.buffer.extend_from_slice(content);
        self.buffer.extend_from_slice(&trailer);
        self.offset += (content.len() + trailer.len()) as u64;
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
