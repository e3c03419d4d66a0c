//! The place of a value outside the tables.

use crate::checksum::{crc, key_hash};
use bytes::{Buf, BufMut};

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
