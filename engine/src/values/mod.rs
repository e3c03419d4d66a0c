//! Values that lie outside the tables. A large value is written once, in the log entry that brought
//! it; the tree holds a [`Pointer`]. What is still alive when its log segment is collected moves
//! to a value file of its shard, in key order ([`mod@file`]). Which sources to collect is a pure
//! choice ([`pick`]).

pub mod file;
pub mod pick;

use crate::ShardId;
use crate::checksum::{crc, key_hash};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::wal::{Segment, Segments};
use bytes::{Buf, BufMut, Bytes};
use file::ValueFile;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Bytes of an encoded pointer, without the kind that stands before it.
pub const POINTER_BYTES: usize = 20;

/// What holds values besides tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A log segment, by sequence.
    Log(u64),
    /// A value file of the shard, by number.
    File(u64),
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The segment or file.
    pub source: Source,
    /// Byte offset of the value in it.
    pub offset: u32,
    /// Length of the value.
    pub len: u32,
    /// CRC of the value, seeded with its key: another key's value never passes for it. It stays
    /// the same when the value moves.
    pub crc: u32,
}

impl Pointer {
    /// A pointer to `value`, which lies at `offset` of `source`.
    pub fn to(key: &[u8], value: &[u8], source: Source, offset: u32) -> Pointer {
        Pointer { source, offset, len: value.len() as u32, crc: value_crc(key, value) }
    }

    /// Its bytes: source u64, offset u32, length u32, CRC u32. The kind of source stands outside.
    pub fn encode(&self) -> [u8; POINTER_BYTES] {
        let (Source::Log(id) | Source::File(id)) = self.source;
        let mut out = [0; POINTER_BYTES];
        let mut fields = &mut out[..];
        fields.put_u64_le(id);
        fields.put_u32_le(self.offset);
        fields.put_u32_le(self.len);
        fields.put_u32_le(self.crc);
        out
    }

    /// Reads its bytes.
    pub fn decode(mut bytes: &[u8], source: fn(u64) -> Source) -> Option<Pointer> {
        let pointer = Pointer {
            source: source(bytes.try_get_u64_le().ok()?),
            offset: bytes.try_get_u32_le().ok()?,
            len: bytes.try_get_u32_le().ok()?,
            crc: bytes.try_get_u32_le().ok()?,
        };
        let sound = pointer.len as usize <= crate::limits::VALUE_BYTES_MAX && bytes.is_empty();
        sound.then_some(pointer)
    }
}

/// The CRC of a value, bound to its key.
pub fn value_crc(key: &[u8], value: &[u8]) -> u32 {
    crc(key_hash(key) as u32, &[value])
}

/// A source, held: while it lives the bytes stay where they are.
#[derive(Clone)]
pub enum Holder {
    /// A log segment.
    Log(Arc<Segment>),
    /// A value file.
    File(Arc<ValueFile>),
}

impl Holder {
    /// Which it is.
    pub fn source(&self) -> Source {
        match self {
            Holder::Log(segment) => Source::Log(segment.sequence()),
            Holder::File(file) => Source::File(file.number()),
        }
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        match self {
            Holder::Log(segment) => segment.bytes(),
            Holder::File(file) => file.bytes(),
        }
    }

    fn path(&self) -> String {
        match self {
            Holder::Log(segment) => segment.path(),
            Holder::File(file) => file.path().to_owned(),
        }
    }

    /// Reads and checks a value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes there are not the key's value.
    pub fn read(&self, key: &[u8], pointer: &Pointer) -> Result<Bytes> {
        let mut value = vec![0; pointer.len as usize];
        let offset = u64::from(pointer.offset);
        if offset + u64::from(pointer.len) <= self.bytes() {
            match self {
                Holder::Log(segment) => segment.read(offset, &mut value)?,
                Holder::File(file) => file.read(offset, &mut value)?,
            }
            if value_crc(key, &value) == pointer.crc {
                return Ok(value.into());
            }
        }
        let (what, expected) = ("a value", format!("CRC {:08x}", pointer.crc));
        Err(Error::corrupt(self.path(), offset, what, expected, "another"))
    }
}

/// Bytes and number of values that a table has in one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of values.
    pub bytes: u64,
    /// Values.
    pub values: u64,
}

/// Finds and opens the sources of one shard.
pub struct Sources {
    disk: Arc<dyn Disk>,
    shard: ShardId,
    dir: String,
    segments: Arc<Segments>,
    files: Mutex<BTreeMap<u64, Weak<ValueFile>>>,
}

impl Sources {
    /// The sources of the shard in `dir`.
    pub fn new(disk: Arc<dyn Disk>, shard: ShardId, dir: String, segments: Arc<Segments>) -> Self {
        Self { disk, shard, dir, segments, files: Mutex::default() }
    }

    /// The same log, and the value files of another directory.
    pub(crate) fn in_dir(&self, dir: &str) -> Sources {
        Sources::new(self.disk.clone(), self.shard, dir.to_owned(), self.segments.clone())
    }

    /// Whose they are.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Holds a source.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is missing or damaged.
    pub fn hold(&self, source: Source) -> Result<Holder> {
        match source {
            Source::Log(sequence) => match self.segments.pin(sequence) {
                Some(segment) => Ok(Holder::Log(segment)),
                None => {
                    let expected = format!("segment {sequence} with values of {}", self.dir);
                    Err(Error::corrupt("log", 0, "a segment", expected, "none"))
                }
            },
            Source::File(number) => {
                let files = &mut *self.files.lock();
                if let Some(file) = files.get(&number).and_then(Weak::upgrade) {
                    return Ok(Holder::File(file));
                }
                let file = Arc::new(ValueFile::open(self.disk.clone(), self.path(number), number)?);
                files.insert(number, Arc::downgrade(&file));
                Ok(Holder::File(file))
            }
        }
    }

    /// The path of a value file.
    pub fn path(&self, number: u64) -> String {
        format!("{}/{number:06}.val", self.dir)
    }

    /// Lets go of value files: the last user of each removes it.
    pub fn retire_files<'a>(&self, gone: impl Iterator<Item = &'a u64>) {
        let files = &mut *self.files.lock();
        for number in gone {
            if let Some(file) = files.remove(number).and_then(|file| file.upgrade()) {
                file.retire();
            }
        }
    }

    /// The segments of the log.
    pub fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }
}
