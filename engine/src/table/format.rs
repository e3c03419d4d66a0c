//! A table file's bytes. All numbers are little-endian; varints are LEB128.
//!
//! ```text
//! data block … filter block, index block   (one partition) … top index block, footer
//! ```
//!
//! **Block**: content, then a trailer of 5 bytes: codec u8 (0: none), CRC u32 of content and codec,
//! seeded with the file's number and the block's offset, so that a misdirected read never passes.
//!
//! **Data and index content**: entries, then restart offsets u32 each, then their count u32. Entry:
//! varint shared, varint unshared, varint value length, unshared key bytes, value bytes. The key is
//! internal: user key, then 8 bytes of inverted timestamp, big-endian. A data value begins with
//! its kind (0 delete, 1 put); an index value is a handle: offset u64, length u32. A top index
//! value is two handles: index block, filter block. An index entry's key is the last of its block.
//!
//! **Filter content**: a Bloom filter, see [`super::filter`].
//!
//! **Footer**, the last 64 bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | file number |
//! | 8 | 12 | handle of the top index |
//! | 20 | 8 | entries |
//! | 28 | 8 | tombstones |
//! | 36 | 8 | greatest timestamp |
//! | 44 | 4 | CRC of bytes 0..44, seeded with the version |
//! | 48 | 8 | zero |
//! | 56 | 4 | format version |
//! | 60 | 4 | magic `BSST` |

use crate::checksum::{crc, seed};
use crate::limits::TABLE_BLOCK_BYTES_MAX;
use bytes::{Buf, BufMut, Bytes};
use std::cmp::Ordering;

/// Last bytes of a table file.
pub const MAGIC: [u8; 4] = *b"BSST";
/// Version of everything in this file.
pub const VERSION: u32 = 1;
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 64;
/// Bytes behind each block.
pub const TRAILER_BYTES: usize = 5;
/// Entries between restarts.
const RESTART_INTERVAL: usize = 16;
/// Bytes of the inverted timestamp behind a user key.
const TS_BYTES: usize = 8;

/// Where a block lies: offset and content length, without the trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Byte offset in the file.
    pub offset: u64,
    /// Content bytes.
    pub len: u32,
}

impl Handle {
    /// Bytes of an encoded handle.
    pub const BYTES: usize = 12;

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.offset);
        out.put_u32_le(self.len);
    }

    /// Takes one off the front.
    pub fn decode(from: &mut &[u8]) -> Option<Handle> {
        let offset = from.try_get_u64_le().ok()?;
        let len = from.try_get_u32_le().ok()?;
        (len as usize <= TABLE_BLOCK_BYTES_MAX).then_some(Handle { offset, len })
    }
}

/// What the end of a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The file's number, unique in its shard.
    pub number: u64,
    /// The block that everything is found from.
    pub top: Handle,
    /// Versions in the table.
    pub entries: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// The newest version's timestamp.
    pub ts_max: u64,
}

impl Footer {
    /// Its 64 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.put_u64_le(self.number);
        self.top.encode(&mut out);
        out.put_u64_le(self.entries);
        out.put_u64_le(self.tombstones);
        out.put_u64_le(self.ts_max);
        out.put_u32_le(crc(VERSION, &[&out]));
        out.put_u64_le(0);
        out.put_u32_le(VERSION);
        out.put_slice(&MAGIC);
        out
    }

    /// The version in 64 footer bytes, if they are a footer.
    pub fn version(bytes: &[u8]) -> Option<u32> {
        let mut tail = bytes.get(56..FOOTER_BYTES)?;
        let version = tail.get_u32_le();
        (tail == MAGIC).then_some(version)
    }

    /// Reads 64 bytes of this version.
    pub fn decode(bytes: &[u8]) -> Option<Footer> {
        if Self::version(bytes)? != VERSION {
            return None;
        }
        let expected = (&bytes[44..48]).get_u32_le();
        let mut fields = &bytes[..44];
        if crc(VERSION, &[fields]) != expected {
            return None;
        }
        Some(Footer {
            number: fields.get_u64_le(),
            top: Handle::decode(&mut fields)?,
            entries: fields.get_u64_le(),
            tombstones: fields.get_u64_le(),
            ts_max: fields.get_u64_le(),
        })
    }
}

/// The trailer of a block at `offset` of file `number`.
pub fn trailer(number: u64, offset: u64, content: &[u8]) -> [u8; TRAILER_BYTES] {
    let codec = 0u8;
    let sum = crc(seed(number, offset), &[content, &[codec]]);
    let mut out = [0; TRAILER_BYTES];
    out[0] = codec;
    out[1..].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Checks a block with its trailer and gives its content.
pub fn open_block(number: u64, offset: u64, mut block: Bytes) -> Option<Bytes> {
    let len = block.len().checked_sub(TRAILER_BYTES)?;
    let sealed = block.split_off(len);
    (sealed == trailer(number, offset, &block)[..]).then_some(block)
}

/// A user key with its inverted timestamp.
pub fn internal_key(key: &[u8], ts: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + TS_BYTES);
    out.put_slice(key);
    out.put_u64(!ts);
    out
}

/// The user key and the timestamp of an internal key.
pub fn split_key(internal: &[u8]) -> Option<(&[u8], u64)> {
    let (key, ts) = internal.split_at_checked(internal.len().checked_sub(TS_BYTES)?)?;
    Some((key, !u64::from_be_bytes(ts.try_into().ok()?)))
}

/// The order of internal keys: user key, then newest first.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    match (a.split_last_chunk::<TS_BYTES>(), b.split_last_chunk::<TS_BYTES>()) {
        (Some((a, a_ts)), Some((b, b_ts))) => a.cmp(b).then(a_ts.cmp(b_ts)),
        _ => a.cmp(b),
    }
}

/// Builds the content of a data or index block from sorted keys.
#[derive(Default)]
pub struct BlockBuilder {
    out: Vec<u8>,
    restarts: Vec<u32>,
    last: Vec<u8>,
    count: usize,
}

impl BlockBuilder {
    /// Adds an entry; keys ascend.
    pub fn add(&mut self, key: &[u8], value: &[&[u8]]) {
        let shared = if self.count.is_multiple_of(RESTART_INTERVAL) {
            self.restarts.push(self.out.len() as u32);
            0
        } else {
            self.last.iter().zip(key).take_while(|(a, b)| a == b).count()
        };
        put_varint(&mut self.out, shared as u64);
        put_varint(&mut self.out, (key.len() - shared) as u64);
        put_varint(&mut self.out, value.iter().map(|part| part.len() as u64).sum());
        self.out.put_slice(&key[shared..]);
        value.iter().for_each(|part| self.out.put_slice(part));
        self.last.clear();
        self.last.extend_from_slice(key);
        self.count += 1;
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.out.len() + 4 * self.restarts.len() + 4
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The last key added.
    pub fn last_key(&self) -> &[u8] {
        &self.last
    }

    /// The content; the builder begins anew.
    pub fn finish(&mut self) -> Vec<u8> {
        for &restart in &self.restarts {
            self.out.put_u32_le(restart);
        }
        self.out.put_u32_le(self.restarts.len() as u32);
        self.restarts.clear();
        self.last.clear();
        self.count = 0;
        std::mem::take(&mut self.out)
    }
}

/// Walks the entries of a block.
pub struct BlockCursor {
    content: Bytes,
    restarts: usize,
    end: usize,
    next: usize,
    key: Vec<u8>,
    value: std::ops::Range<usize>,
}

impl BlockCursor {
    /// At the front of a block's content; `None` when that is not laid out as a block.
    pub fn new(content: Bytes) -> Option<BlockCursor> {
        let count_at = content.len().checked_sub(4)?;
        let restarts = (&content[count_at..]).get_u32_le() as usize;
        let end = count_at.checked_sub(restarts.checked_mul(4)?)?;
        Some(BlockCursor { content, restarts, end, next: 0, key: Vec::new(), value: 0..0 })
    }

    /// Steps to the next entry. `Ok(false)` at the end, `Err` when the bytes are no entry.
    pub fn advance(&mut self) -> Result<bool, Malformed> {
        if self.next >= self.end {
            return Ok(false);
        }
        let mut rest = &self.content[self.next..self.end];
        let before = rest.len();
        let shared = get_varint(&mut rest)?;
        let unshared = get_varint(&mut rest)?;
        let value = get_varint(&mut rest)?;
        let total = unshared.checked_add(value).ok_or(Malformed)?;
        if shared > self.key.len() || total > rest.len() {
            return Err(Malformed);
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(&rest[..unshared]);
        let value_at = self.next + (before - rest.len()) + unshared;
        self.value = value_at..value_at + value;
        self.next = self.value.end;
        Ok(true)
    }

    /// The entry's key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The entry's value, sharing the block's memory.
    pub fn value(&self) -> Bytes {
        self.content.slice(self.value.clone())
    }

    /// Steps to the first entry at or after `key`; `Ok(false)` when there is none.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool, Malformed> {
        let (mut low, mut high) = (0, self.restarts);
        while low + 1 < high {
            let middle = low.midpoint(high);
            self.restart(middle)?;
            if !self.advance()? || compare(&self.key, key) != Ordering::Less {
                high = middle;
            } else {
                low = middle;
            }
        }
        if self.restarts > 0 {
            self.restart(low)?;
        }
        while self.advance()? {
            if compare(&self.key, key) != Ordering::Less {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn restart(&mut self, number: usize) -> Result<(), Malformed> {
        let at = self.end + 4 * number;
        let offset = (&self.content[at..at + 4]).get_u32_le() as usize;
        if offset > self.end {
            return Err(Malformed);
        }
        self.next = offset;
        self.key.clear();
        Ok(())
    }
}

/// Bytes that are no block, though their checksum holds: a bug or a forgery.
#[derive(Debug)]
pub struct Malformed;

/// Appends a LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 number off the front.
pub fn get_varint(from: &mut &[u8]) -> Result<usize, Malformed> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = from.try_get_u8().map_err(|_| Malformed)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value as usize);
        }
    }
    Err(Malformed)
}
