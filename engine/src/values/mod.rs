//! Values that are stored outside the tables. A large value is written once, in the log entry that
//! set it; the tree holds a [`Pointer`]. When a log segment is collected, its live values move to a
//! value file of their shard, in key order ([`mod@file`]). The choice of the sources to collect is
//! a pure function ([`pick`]).

pub mod file;
pub mod pick;
mod pointer;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ids::ShardId;
use crate::wal::{Segment, Segments};
use bytes::Bytes;
use file::ValueFile;
use parking_lot::Mutex;
pub use pointer::{POINTER_BYTES, Pointer, Source, value_crc};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

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
