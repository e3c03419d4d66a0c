//! Value files: the values of one shard that are still live when their log segment is collected, in
//! key order. A value file is written once and never changed. All numbers are little-endian.
//!
//! **Record**, one after the other from the start of the file:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | CRC of the next 12 bytes and the key, seeded with the file's number and this offset |
//! | 4 | key length |
//! | 4 | value length |
//! | 4 | CRC of the value, seeded with its key; equal to the pointer's CRC |
//! | | key, value |
//!
//! **Footer**, the last 32 bytes: file number u64, records u64, zero u32, CRC u32 of the fields
//! before it, seeded with the version; format version u32, magic `BVAL`.

use super::pointer::{Pointer, Source, value_crc};
use crate::checksum::{crc, seed};
use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use bytes::{Buf, BufMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The last bytes of a value file.
pub const MAGIC: [u8; 4] = *b"BVAL";
/// The format version of everything in this file.
pub const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const FOOTER_BYTES: usize = 32;
/// Bytes gathered before a write; also the initial read buffer of a check.
const BUFFER_BYTES: usize = 256 << 10;

/// An open value file. If the file is marked obsolete, the last holder removes it.
pub struct ValueFile {
    disk: Arc<dyn Disk>,
    file: Box<dyn File>,
    path: String,
    number: u64,
    records: u64,
    bytes: u64,
    obsolete: AtomicBool,
}

impl ValueFile {
    /// Opens the file and checks its footer.
    pub(super) fn open(disk: Arc<dyn Disk>, path: String, number: u64) -> Result<Self> {
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::corrupt(path, 0, "a value file", "the file", "none"));
            }
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        let bytes = file.len().map_err(Error::io("measure", &path))?;
        let mut footer = [0; FOOTER_BYTES];
        let at = bytes.saturating_sub(FOOTER_BYTES as u64);
        if bytes >= FOOTER_BYTES as u64 {
            file.read_at(at, &mut footer).map_err(Error::io("read", &path))?;
        }
        let (claimed, version) = ((&footer[20..]).get_u32_le(), (&footer[24..]).get_u32_le());
        // The CRC distinguishes a footer of another version from a damaged footer of this version.
        let is_ours = claimed == crc(VERSION, &[&footer[..20]]);
        if footer[28..] == MAGIC && version > VERSION && !is_ours {
            return Err(Error::NewerFormat { file: path, found: version, supported: VERSION });
        }
        let mut fields = &footer[..];
        let (found, records, zero) =
            (fields.get_u64_le(), fields.get_u64_le(), fields.get_u32_le());
        let sound = footer == encode_footer(number, records) && zero == 0;
        if !sound {
            let expected = format!("the footer of value file {number}");
            return Err(Error::corrupt(path, at, "a value file's footer", expected, found));
        }
        let obsolete = AtomicBool::new(false);
        Ok(Self { disk, file, path, number, records, bytes, obsolete })
    }

    /// The file's number, unique in its shard.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The file's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file's path, relative to the disk's directory.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buf).map_err(Error::io("read", &self.path))
    }

    /// Marks the file obsolete: the last holder removes it.
    pub(super) fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    /// Reads and checks every record, and returns the number of records.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the first damaged record.
    pub fn verify(&self) -> Result<u64> {
        let end = self.bytes - FOOTER_BYTES as u64;
        let (mut at, mut records) = (0, 0);
        let mut body = Vec::with_capacity(BUFFER_BYTES);
        while at < end {
            let damaged = |what| Error::corrupt(&self.path, at, what, "its checksum", "another");
            let mut header = [0; HEADER_BYTES];
            if at + HEADER_BYTES as u64 > end {
                return Err(damaged("a value's header"));
            }
            self.read(at, &mut header)?;
            let mut fields = &header[..];
            let expected = fields.get_u32_le();
            let (key, value) = (fields.get_u32_le() as usize, fields.get_u32_le() as usize);
            let sum = fields.get_u32_le();
            let next = at + (HEADER_BYTES + key + value) as u64;
            if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX || next > end {
                return Err(damaged("a value's header"));
            }
            body.resize(key + value, 0);
            self.read(at + HEADER_BYTES as u64, &mut body)?;
            let (key, value) = body.split_at(key);
            if crc(seed(self.number, at), &[&header[4..], key]) != expected {
                return Err(damaged("a value's header"));
            }
            if value_crc(key, value) != sum {
                return Err(damaged("a value"));
            }
            at = next;
            records += 1;
        }
        if records != self.records {
            return Err(Error::corrupt(&self.path, end, "the values", self.records, records));
        }
        Ok(records)
    }
}

impl Drop for ValueFile {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            // A file that is not removed here is removed at the next start.
            let _ = self.disk.remove(&self.path);
        }
    }
}

fn encode_footer(number: u64, records: u64) -> [u8; FOOTER_BYTES] {
    let mut out = Vec::with_capacity(FOOTER_BYTES);
    out.put_u64_le(number);
    out.put_u64_le(records);
    out.put_u32_le(0);
    out.put_u32_le(crc(VERSION, &[&out]));
    out.put_u32_le(VERSION);
    out.put_slice(&MAGIC);
    let mut footer = [0; FOOTER_BYTES];
    footer.copy_from_slice(&out);
    footer
}

/// A value file under construction.
pub struct ValueWriter {
    file: Box<dyn File>,
    path: String,
    number: u64,
    buffer: Vec<u8>,
    offset: u64,
    records: u64,
}

impl ValueWriter {
    /// Creates the file `path` with the given number.
    pub fn create(disk: &dyn Disk, path: String, number: u64) -> Result<Self> {
        let file = disk.create(&path).map_err(Error::io("create", &path))?;
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Ok(Self { file, path, number, buffer, offset: 0, records: 0 })
    }

    /// Adds a value whose CRC is known and returns the pointer to the value.
    pub fn add(&mut self, key: &[u8], value: &[u8], sum: u32) -> Result<Pointer> {
        let mut fields = [0u8; HEADER_BYTES];
        let mut rest = &mut fields[4..];
        rest.put_u32_le(key.len() as u32);
        rest.put_u32_le(value.len() as u32);
        rest.put_u32_le(sum);
        let head = crc(seed(self.number, self.offset), &[&fields[4..], key]);
        fields[..4].copy_from_slice(&head.to_le_bytes());
        for part in [&fields[..], key, value] {
            self.buffer.extend_from_slice(part);
        }
        let at = self.offset + (HEADER_BYTES + key.len()) as u64;
        self.offset = at + value.len() as u64;
        self.records += 1;
        if self.buffer.len() >= BUFFER_BYTES {
            self.drain()?;
        }
        let (source, len) = (Source::File(self.number), value.len() as u32);
        let offset = u32::try_from(at).expect("a value file is cut long before 4 GiB");
        Ok(Pointer { source, offset, len, crc: sum })
    }

    /// The bytes of records so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Writes the buffered records and the footer, and syncs. The file's name is not durable until
    /// its directory is synced.
    pub fn finish(mut self) -> Result<()> {
        self.buffer.extend_from_slice(&encode_footer(self.number, self.records));
        self.drain()?;
        self.file.sync().map_err(Error::io("sync", &self.path))
    }

    fn drain(&mut self) -> Result<()> {
        self.file.append(&self.buffer).map_err(Error::io("write", &self.path))?;
        self.buffer.clear();
        Ok(())
    }
}
