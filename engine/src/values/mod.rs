//! Values that are stored outside the tables. A large value is written once, in the log entry that
//! set it; the tree holds a [`Pointer`]. When a log segment is collected, its live values move to a
//! value file of their shard, in key order ([`mod@file`]). The choice of the sources to collect is
//! a pure function ([`pick`]).

pub mod file;
pub mod pick;

use crate::checksum::{crc, key_hash};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ids::ShardId;
use crate::wal::{Segment, Segments};
use bytes::{Buf, BufMut, Bytes};
use file::ValueFile;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Bytes of an encoded pointer, without the kind byte before it.
pub const POINTER_BYTES: usize = 20;

/// A container of values outside the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A log segment, by sequence.
    Log(u64),
    /// A value file of the shard, by number.
    File(u64),
}

/// The location of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The segment or file.
    pub source: Source,
    /// Byte offset of the value in the segment or file.
    pub offset: u32,
    /// Length of the value.
    pub len: u32,
    /// CRC of the value, seeded with its key, so that the value of another key does not pass the
    /// check. The CRC stays equal when the value moves.
    pub crc: u32,
}

impl Pointer {
    /// Returns a pointer to `value`, which is stored at `offset` of `source`.
    pub fn to(key: &[u8], value: &[u8], source: Source, offset: u32) -> Pointer {
        Pointer { source, offset, len: value.len() as u32, crc: value_crc(key, value) }
    }

    /// Encodes the pointer: source u64, offset u32, length u32, CRC u32. The kind of source is
    /// stored outside.
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

    /// Decodes a pointer of the given kind of source.
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

/// The CRC of a value, seeded with its key.
pub fn value_crc(key: &[u8], value: &[u8]) -> u32 {
    crc(key_hash(key) as u32, &[value])
}

/// A held source: its bytes stay in place while the holder exists.
#[derive(Clone)]
pub enum Holder {
    /// A log segment.
    Log(Arc<Segment>),
    /// A value file.
    File(Arc<ValueFile>),
}

impl Holder {
    /// The held source.
    pub fn source(&self) -> Source {
        match self {
            Holder::Log(segment) => Source::Log(segment.sequence()),
            Holder::File(file) => Source::File(file.number()),
        }
    }

    /// The source's bytes on disk.
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
    /// [`Error::Corrupt`] when the bytes at the pointer are not the key's value.
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

/// The bytes and the number of a table's values in one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of the values.
    pub bytes: u64,
    /// Number of values.
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

    /// Returns sources with this log and with the value files of another directory.
    pub(crate) fn in_dir(&self, dir: &str) -> Sources {
        Sources::new(self.disk.clone(), self.shard, dir.to_owned(), self.segments.clone())
    }

    /// The shard of the sources.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Opens a source and holds it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the source is missing or damaged.
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

    /// Marks value files obsolete: the last holder of each file removes it.
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
