//! The format of a table file. All numbers are little-endian except where noted; varints are
//! LEB128.
//!
//! ```text
//! data block … filter block, index block   (one partition) … properties, top index block, footer
//! ```
//!
//! **Block**: content, then a trailer of 5 bytes: codec u8, CRC u32 of the stored content and the
//! codec. The CRC is seeded with the file's number and the block's offset, so that a misdirected
//! read never passes. Codec 0 is uncompressed content; 1 is LZ4, 2 is Zstandard. Compressed content
//! follows its uncompressed length u32.
//!
//! **Data and index content**: entries, then restart offsets u32 each, then their count u32. Entry:
//! varint shared, varint unshared, varint value length, unshared key bytes, value bytes. The key is
//! internal: user key, then 8 bytes of inverted timestamp, big-endian. A data value begins with
//! its kind u8: 0 tombstone; 1 the value; 2 a pointer into a log segment; 3 a pointer into a value
//! file, see [`crate::values::Pointer`]. The kind of a value that expires has 4 added, and the
//! deadline u64 follows the kind. An index value is a handle: offset u64, length on disk u32. A top
//! index value is two handles: index block, filter block. The key of an index entry is the last key
//! of the block.
//!
//! **Filter content**: a binary fuse filter, see [`super::filter`].
//!
//! **Properties content**: entries u64, tombstones u64, least timestamp u64, greatest timestamp
//! u64, time from which on every value in the table has expired u64 (2^64-1: never), count of
//! sources u32, then the sources in ascending order: kind u8 (2 log segment, 3 value file), id u64,
//! bytes of values u64, values u64.
//!
//! **Footer**, the last 64 bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | file number |
//! | 8 | 12 | handle of the top index |
//! | 20 | 12 | handle of the properties |
//! | 32 | 20 | zero |
//! | 52 | 4 | CRC of bytes 0..52, seeded with the version |
//! | 56 | 4 | format version |
//! | 60 | 4 | magic `BSST` |

use crate::checksum::{crc, seed};
use crate::limits::{Codec, TABLE_BLOCK_BYTES_MAX};
use crate::values::{Share, Source};
use bytes::{Buf, BufMut, Bytes};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The last bytes of a table file.
pub const MAGIC: [u8; 4] = *b"BSST";
/// The version of the table format.
pub const VERSION: u32 = 5;
/// Kinds of stored values.
pub mod kind {
    /// The key was deleted.
    pub const TOMBSTONE: u8 = 0;
    /// The value follows.
    pub const INLINE: u8 = 1;
    /// A pointer into a log segment follows.
    pub const IN_LOG: u8 = 2;
    /// A pointer into a value file follows.
    pub const IN_FILE: u8 = 3;
    /// Added to the kind of a value that expires: the deadline follows the kind.
    pub const EXPIRES: u8 = 4;
}
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 64;
/// Bytes of the trailer behind each block.
pub const TRAILER_BYTES: usize = 5;
/// Entries between restarts.
const RESTART_INTERVAL: usize = 16;
/// Bytes of the inverted timestamp behind a user key.
pub const TS_BYTES: usize = 8;

/// The position and length of a block in a table file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes on disk, without the trailer.
    pub len: u32,
}

impl Handle {
    /// Bytes of an encoded handle.
    pub const BYTES: usize = 12;

    /// Appends the encoded handle.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.offset);
        out.put_u32_le(self.len);
    }

    /// Reads a handle and advances `from` past it. `None` for too few bytes or a length over
    /// [`TABLE_BLOCK_BYTES_MAX`].
    pub fn decode(from: &mut &[u8]) -> Option<Handle> {
        let offset = from.try_get_u64_le().ok()?;
        let len = from.try_get_u32_le().ok()?;
        (len as usize <= TABLE_BLOCK_BYTES_MAX).then_some(Handle { offset, len })
    }
}

/// The footer of a table file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The file's number, unique in its shard.
    pub number: u64,
    /// The top index block, from which all data blocks are found.
    pub top: Handle,
    /// The block of [`Properties`].
    pub properties: Handle,
}

impl Footer {
    /// The 64 bytes of the footer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.put_u64_le(self.number);
        self.top.encode(&mut out);
        self.properties.encode(&mut out);
        out.put_bytes(0, 20);
        out.put_u32_le(crc(VERSION, &[&out]));
        out.put_u32_le(VERSION);
        out.put_slice(&MAGIC);
        out
    }

    /// The version in 64 footer bytes. `None` if the bytes are no footer, or if the version differs
    /// although the CRC matches this version: then the footer has this version and its version
    /// field is damaged.
    pub fn version(bytes: &[u8]) -> Option<u32> {
        let mut tail = bytes.get(56..FOOTER_BYTES)?;
        let version = tail.get_u32_le();
        let is_ours = || (&bytes[52..56]).get_u32_le() == crc(VERSION, &[&bytes[..52]]);
        (tail == MAGIC && (version == VERSION || !is_ours())).then_some(version)
    }

    /// Decodes 64 footer bytes of this version. `None` for damaged bytes or another version.
    pub fn decode(bytes: &[u8]) -> Option<Footer> {
        if Self::version(bytes)? != VERSION {
            return None;
        }
        let expected = (&bytes[52..56]).get_u32_le();
        let mut fields = &bytes[..52];
        if crc(VERSION, &[fields]) != expected {
            return None;
        }
        let number = fields.get_u64_le();
        let (top, properties) = (Handle::decode(&mut fields)?, Handle::decode(&mut fields)?);
        Some(Footer { number, top, properties })
    }
}

/// Counts of the contents of a table, made when the table was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Versions in the table.
    pub entries: u64,
    /// Tombstones among the versions.
    pub tombstones: u64,
    /// The oldest version's timestamp; 0 in an empty table.
    pub ts_min: u64,
    /// The newest version's timestamp.
    pub ts_max: u64,
    /// The time from which on every value in the table has expired.
    pub expired_by: u64,
    /// The values that the table points to, by log segment or value file.
    pub shares: BTreeMap<Source, Share>,
}

impl Properties {
    /// The content of the properties block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64_le(self.entries);
        out.put_u64_le(self.tombstones);
        out.put_u64_le(self.ts_min);
        out.put_u64_le(self.ts_max);
        out.put_u64_le(self.expired_by);
        out.put_u32_le(self.shares.len() as u32);
        for (source, share) in &self.shares {
            let (kind, id) = match source {
                Source::Log(id) => (2, *id),
                Source::File(id) => (3, *id),
            };
            out.put_u8(kind);
            out.put_u64_le(id);
            out.put_u64_le(share.bytes);
            out.put_u64_le(share.values);
        }
        out
    }

    /// Decodes the content of the properties block.
    pub fn decode(mut from: &[u8]) -> Option<Properties> {
        let mut properties = Properties {
            entries: from.try_get_u64_le().ok()?,
            tombstones: from.try_get_u64_le().ok()?,
            ts_min: from.try_get_u64_le().ok()?,
            ts_max: from.try_get_u64_le().ok()?,
            expired_by: from.try_get_u64_le().ok()?,
            shares: BTreeMap::new(),
        };
        for _ in 0..from.try_get_u32_le().ok()? {
            let kind = from.try_get_u8().ok()?;
            let id = from.try_get_u64_le().ok()?;
            let source = match kind {
                2 => Source::Log(id),
                3 => Source::File(id),
                _ => return None,
            };
            let bytes = from.try_get_u64_le().ok()?;
            let values = from.try_get_u64_le().ok()?;
            properties.shares.insert(source, Share { bytes, values });
        }
        from.is_empty().then_some(properties)
    }
}

/// Appends a block that lies at `offset` of file `number`, with its trailer. The block is
/// compressed if compression makes it smaller by an eighth. Returns the length without the trailer.
pub fn seal_block(
    out: &mut Vec<u8>,
    number: u64,
    offset: u64,
    content: &[u8],
    codec: Codec,
) -> u32 {
    let start = out.len();
    let codec = compress(out, content, codec);
    let len = out.len() - start;
    out.put_u8(codec as u8);
    let sum = crc(seed(number, offset), &[&out[start..]]);
    out.put_u32_le(sum);
    len as u32
}

fn compress(out: &mut Vec<u8>, content: &[u8], codec: Codec) -> Codec {
    let start = out.len();
    let limit = content.len() - content.len() / 8;
    out.put_u32_le(content.len() as u32);
    let written = match codec {
        Codec::None => None,
        Codec::Lz4 => {
            let at = out.len();
            out.resize(at + lz4_flex::block::get_maximum_output_size(content.len()), 0);
            lz4_flex::block::compress_into(content, &mut out[at..]).ok()
        }
        Codec::Zstd => {
            let at = out.len();
            out.resize(at + zstd::zstd_safe::compress_bound(content.len()), 0);
            zstd::bulk::compress_to_buffer(content, &mut out[at..], 1).ok()
        }
    };
    match written.filter(|written| written + 4 < limit) {
        Some(written) => {
            out.truncate(start + 4 + written);
            codec
        }
        None => {
            out.truncate(start);
            out.put_slice(content);
            Codec::None
        }
    }
}

/// Checks a block with its trailer and returns its content; `None` when the block is damaged.
pub fn open_block(number: u64, offset: u64, mut block: Bytes) -> Option<Bytes> {
    let len = block.len().checked_sub(TRAILER_BYTES)?;
    let expected = (&block[len + 1..]).get_u32_le();
    if crc(seed(number, offset), &[&block[..=len]]) != expected {
        return None;
    }
    let codec = block[len];
    block.truncate(len);
    if codec == Codec::None as u8 {
        return Some(block);
    }
    let size = block.try_get_u32_le().ok()? as usize;
    if size > TABLE_BLOCK_BYTES_MAX {
        return None;
    }
    let mut content = vec![0; size];
    let written = match codec {
        1 => lz4_flex::block::decompress_into(&block, &mut content).ok()?,
        2 => zstd::bulk::decompress_to_buffer(&block[..], &mut content[..]).ok()?,
        _ => return None,
    };
    (written == size).then(|| content.into())
}

/// Replaces the content of `out` with a user key and its inverted timestamp.
pub fn internal_key(out: &mut Vec<u8>, key: &[u8], ts: u64) {
    out.clear();
    out.put_slice(key);
    out.put_u64(!ts);
}

/// The user key and the timestamp of an internal key.
pub fn split_key(internal: &[u8]) -> Option<(&[u8], u64)> {
    let (key, ts) = internal.split_at_checked(internal.len().checked_sub(TS_BYTES)?)?;
    Some((key, !u64::from_be_bytes(ts.try_into().ok()?)))
}

/// The order of internal keys: by user key, then the newest version first.
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
    /// Adds an entry. Keys must ascend.
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

    /// The length of the content so far.
    pub fn len(&self) -> usize {
        self.out.len() + 4 * self.restarts.len() + 4
    }

    /// Whether no entry was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The last key added.
    pub fn last_key(&self) -> &[u8] {
        &self.last
    }

    /// Returns the content and empties the builder.
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
    /// A cursor before the first entry of a block; `None` when the content is too short for the
    /// restarts that it counts.
    pub fn new(content: Bytes) -> Option<BlockCursor> {
        let count_at = content.len().checked_sub(4)?;
        let restarts = (&content[count_at..]).get_u32_le() as usize;
        let end = count_at.checked_sub(restarts.checked_mul(4)?)?;
        Some(BlockCursor { content, restarts, end, next: 0, key: Vec::new(), value: 0..0 })
    }

    /// Steps to the next entry. `Ok(false)` at the end, `Err` when the bytes are not an entry.
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

/// The bytes are not a valid block although the checksum matches: a bug or a forgery.
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

/// Reads a LEB128 number and advances `from` past it.
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
