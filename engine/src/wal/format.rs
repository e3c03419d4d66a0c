//! The format of the log's bytes. All numbers are little-endian.
//!
//! **Segment header**, the first 4096 bytes of a slot, written together with its first block:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `BWAL` |
//! | 4 | 4 | format version |
//! | 8 | 4 | CRC of bytes 16..80, seeded with the version |
//! | 12 | 4 | zero |
//! | 16 | 16 | store id |
//! | 32 | 8 | segment sequence, never reused; base LSN is sequence × segment size |
//! | 40 | 8 | salt, new for each segment in the slot; seeds every block CRC |
//! | 48 | 8 | LSN at which the previous segment ends (0: none) |
//! | 56 | 8 | header CRC of the previous segment's last block (chain) |
//! | 64 | 8 | durable LSN |
//! | 72 | 8 | sequence of the oldest segment whose entries were still needed |
//!
//! **Commit block**, at a multiple of 4096, padded with zeros; one per group commit:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC of bytes 4..64 and of every record header, seeded with the salt |
//! | 4 | 4 | record count |
//! | 8 | 8 | LSN of this block |
//! | 16 | 8 | durable LSN: everything below was synced before this block was written |
//! | 24 | 4 | body length: bytes after these 64 |
//! | 28 | 4 | header CRC of the previous block (chain; the segment header's for the first) |
//! | 32 | 32 | zero |
//!
//! **Record**, at a multiple of 8 in the body: a 40-byte header, then the payload.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | payload length |
//! | 4 | 1 | kind, see below |
//! | 5 | 3 | zero |
//! | 8 | 8 | shard |
//! | 16 | 8 | index (first; commit; released; reset; last; 0; the segment of the loss; as of) |
//! | 24 | 8 | term; of a possible loss 1 for entries, plus 2 for the hard state |
//! | 32 | 4 | count of entries; 0 for the other kinds |
//! | 36 | 4 | CRC of the payload; of entries: of their headers |
//!
//! Kinds: 1 entries, 2 hard state, 3 release, 4 reset, 5 bounds, 6 forget, 7 possible loss, 8
//! members.
//!
//! The payload of an entries record holds, for each entry, a header of 12 bytes and the entry's
//! data. The header is: length u32, CRC u32 of kind and data, seeded with shard and index, kind u8,
//! zero u8 ×3. So each entry is read and checked by itself, and a value in an entry can be read in
//! place. The payload of a hard state is the vote, u64, 0 for none. The payload of bounds is the
//! released term and index, u64 each. The payload of a possible-loss record is the commit index
//! before the loss, u64. The payload of members is opaque to the log. The other kinds have no
//! payload.
//!
//! A segment's first block begins with the hard state, the bounds and the members of every shard,
//! so that no older segment is needed for them, and so that recovery knows when entries are
//! missing. If a damaged block may have held more records of a shard, a possible-loss record
//! follows the bounds of that shard.

use super::record::{EntryKind, HardState, LogEntry, Record, Vote};
use crate::checksum::{crc, seed};
use crate::disk::Pages;
use crate::error::{Error, Result};
use crate::ids::{Index, LogId, Lsn, ShardId, Term};
use crate::limits::{BLOCK_BYTES, COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, RECORD_BYTES_MAX};
use bytes::{Buf, BufMut, Bytes};
use smallvec::SmallVec;
use std::ops::Range;

/// The first bytes of a segment.
pub const MAGIC: [u8; 4] = *b"BWAL";
/// The format version of everything in this file.
pub const VERSION: u32 = 5;
/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 64;
/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 40;
/// Bytes in front of each entry of an entries payload.
pub const ENTRY_HEADER_BYTES: usize = 12;
/// Bytes of the segment header, from the magic to the last field.
const SEGMENT_HEADER_BYTES: usize = 80;

/// The head of a slot that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store this slot belongs to.
    pub store: u128,
    /// The segment's sequence in the log.
    pub sequence: u64,
    /// Seeds the block CRCs of this segment.
    pub salt: u64,
    /// The LSN at which the previous segment ended; 0 for the first segment.
    pub previous_end: Lsn,
    /// The header CRC of the previous segment's last block.
    pub previous_crc: u32,
    /// Everything below this LSN was synced before this header was written.
    pub durable: Lsn,
    /// When the header was written, no entry of a segment before this sequence was needed; values
    /// may have been.
    pub needed: u64,
}

/// The result of reading a slot's first page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderPage {
    /// A sound header.
    Sound(SegmentHeader),
    /// A sound magic with another version.
    Version(u32),
    /// A page that was never used, or is torn or damaged.
    Unreadable,
}

impl SegmentHeader {
    /// Makes the header of a new segment. The salt is computed from the store and the sequence. A
    /// sequence is never reused, so a salt is never reused either.
    pub fn new(
        store: u128,
        sequence: u64,
        previous_end: Lsn,
        previous_crc: u32,
        needed: u64,
    ) -> Self {
        let salt = crate::checksum::key_hash(
            &[store.to_le_bytes().as_slice(), &sequence.to_le_bytes()].concat(),
        );
        let durable = previous_end;
        Self { store, sequence, salt, previous_end, previous_crc, durable, needed }
    }

    /// The seed of block CRCs in this segment.
    pub fn seed(&self) -> u32 {
        self.salt as u32 ^ (self.salt >> 32) as u32
    }

    /// Appends the header page.
    pub fn encode(&self, out: &mut Pages) {
        let mut fields = Vec::with_capacity(64);
        fields.put_u128_le(self.store);
        fields.put_u64_le(self.sequence);
        fields.put_u64_le(self.salt);
        fields.put_u64_le(self.previous_end.0);
        fields.put_u64_le(u64::from(self.previous_crc));
        fields.put_u64_le(self.durable.0);
        fields.put_u64_le(self.needed);
        out.extend(&MAGIC);
        out.extend(&VERSION.to_le_bytes());
        out.extend(&crc(VERSION, &[&fields]).to_le_bytes());
        out.extend(&[0; 4]);
        out.extend(&fields);
        out.align(BLOCK_BYTES);
    }

    /// Whether the unused parts of a header page are zeros, as they were written.
    pub fn is_clean(page: &[u8]) -> bool {
        page.get(12..16).is_some_and(is_zero)
            && page.get(SEGMENT_HEADER_BYTES..BLOCK_BYTES).is_some_and(is_zero)
    }

    /// Reads a header page.
    pub fn decode(page: &[u8]) -> HeaderPage {
        let Some(mut head) = page.get(..SEGMENT_HEADER_BYTES) else {
            return HeaderPage::Unreadable;
        };
        if head[..4] != MAGIC {
            return HeaderPage::Unreadable;
        }
        head.advance(4);
        let version = head.get_u32_le();
        let expected = head.get_u32_le();
        head.advance(4);
        // The CRC distinguishes a header of another version from a damaged header of this version.
        let sound = crc(VERSION, &[head]) == expected;
        if version != VERSION && !sound {
            return HeaderPage::Version(version);
        }
        if version != VERSION || !sound {
            return HeaderPage::Unreadable;
        }
        let header = Self {
            store: head.get_u128_le(),
            sequence: head.get_u64_le(),
            salt: head.get_u64_le(),
            previous_end: Lsn(head.get_u64_le()),
            previous_crc: head.get_u64_le() as u32,
            durable: Lsn(head.get_u64_le()),
            needed: head.get_u64_le(),
        };
        // A position keeps only 32 bits of a sequence.
        match u32::try_from(header.sequence) {
            Ok(_) => HeaderPage::Sound(header),
            Err(_) => HeaderPage::Unreadable,
        }
    }
}

impl Record {
    /// Builds a record of entries of one term from the kind and the data of each entry.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`RECORD_BYTES_MAX`].
    pub fn entries(
        shard: ShardId,
        first: LogId,
        entries: impl IntoIterator<Item = (EntryKind, Bytes)>,
    ) -> Result<Record> {
        let LogId { term, index: first } = first;
        let entry = |(index, (kind, data)): (Index, (EntryKind, Bytes))| {
            let crc = entry_crc(shard, index, kind, &data);
            LogEntry { kind, crc, data }
        };
        let entries: SmallVec<_> = first.until(Index::END).zip(entries).map(entry).collect();
        let record = Record::Entries { shard, first, term, entries };
        let found = record_bytes(&record);
        if found > RECORD_BYTES_MAX {
            return Err(Error::TooLarge { what: "a log record", found, limit: RECORD_BYTES_MAX });
        }
        Ok(record)
    }

    /// Rejects an entry of `bytes` bytes if it does not fit a record of `limit` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn check_size(bytes: usize, limit: usize) -> Result<()> {
        let found = bytes + ENTRY_HEADER_BYTES + RECORD_HEADER_BYTES + 8;
        if found > limit {
            return Err(Error::TooLarge { what: "the batch", found, limit });
        }
        Ok(())
    }

    /// Splits entries into lists, each of which fits a record of `limit` bytes.
    pub fn split(entries: &[Bytes], limit: usize) -> impl Iterator<Item = &[Bytes]> {
        let mut rest = entries;
        std::iter::from_fn(move || {
            let mut bytes = RECORD_HEADER_BYTES;
            let fits = rest.iter().take_while(|entry| {
                bytes += ENTRY_HEADER_BYTES + entry.len();
                bytes + 8 <= limit
            });
            let (now, later) = rest.split_at(fits.count().max(rest.len().min(1)));
            rest = later;
            (!now.is_empty()).then_some(now)
        })
    }
}

/// Appends one block: its header, then its records. Returns the block's header CRC and, for each
/// record, the offset of the record's header from the start of `out`.
pub fn encode_block(
    out: &mut Pages,
    seed: u32,
    lsn: Lsn,
    durable: Lsn,
    previous_crc: u32,
    records: &[Record],
) -> (u32, Vec<usize>) {
    debug_assert!(records.len() <= COMMIT_RECORDS_MAX);
    let start = out.len();
    let body = start + BLOCK_HEADER_BYTES;
    out.extend(&[0; BLOCK_HEADER_BYTES]);
    let mut places = Vec::with_capacity(records.len());
    for record in records {
        out.align(8);
        places.push(out.len());
        encode_record(record, out);
    }
    let mut header = [0u8; BLOCK_HEADER_BYTES];
    let mut fields = &mut header[4..];
    fields.put_u32_le(records.len() as u32);
    fields.put_u64_le(lsn.0);
    fields.put_u64_le(durable.0);
    fields.put_u32_le((out.len() - body) as u32);
    fields.put_u32_le(previous_crc);
    let bytes = out.content_mut();
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&header[4..]);
    places.iter().for_each(|&at| hasher.update(&bytes[at..at + RECORD_HEADER_BYTES]));
    let sum = hasher.finalize();
    header[..4].copy_from_slice(&sum.to_le_bytes());
    bytes[start..body].copy_from_slice(&header);
    out.align(BLOCK_BYTES);
    (sum, places)
}

/// Bytes that a record occupies in a block, alignment included.
pub fn record_bytes(record: &Record) -> usize {
    let payload = match record {
        Record::Entries { entries, .. } => {
            entries.iter().map(|entry| ENTRY_HEADER_BYTES + entry.data.len()).sum()
        }
        Record::HardState { .. } | Record::PossibleLoss { .. } => 8,
        Record::Bounds { .. } => 16,
        Record::Members { members, .. } => members.len(),
        Record::Release { .. } | Record::Reset { .. } | Record::Forget { .. } => 0,
    };
    (RECORD_HEADER_BYTES + payload).next_multiple_of(8)
}

/// Appends a record: its header, then its payload.
fn encode_record(record: &Record, out: &mut Pages) {
    let mut own = [0u8; 16];
    let (kind, shard, index, term, payload): (_, _, _, _, &[u8]) = match record {
        Record::Entries { shard, first, term, entries } => {
            return encode_entries(*shard, LogId { term: *term, index: *first }, entries, out);
        }
        Record::HardState { shard, state } => {
            let vote = &mut own[..8];
            vote.copy_from_slice(&state.vote.to_number().to_le_bytes());
            (RecordKind::HardState, *shard, state.commit, state.term, vote)
        }
        Record::Release { shard, upto } => {
            (RecordKind::Release, *shard, upto.index, upto.term, &[])
        }
        Record::Reset { shard, at } => (RecordKind::Reset, *shard, at.index, at.term, &[]),
        Record::Forget { shard } => (RecordKind::Forget, *shard, Index(0), Term(0), &[]),
        Record::Bounds { shard, base, last } => {
            own[..8].copy_from_slice(&base.term.0.to_le_bytes());
            own[8..].copy_from_slice(&base.index.0.to_le_bytes());
            (RecordKind::Bounds, *shard, last.index, last.term, &own)
        }
        Record::Members { shard, index, members } => {
            (RecordKind::Members, *shard, *index, Term(0), members)
        }
        Record::PossibleLoss { shard, segment, commit, entries, state } => {
            own[..8].copy_from_slice(&commit.0.to_le_bytes());
            let flags = u64::from(*entries) | u64::from(*state) << 1;
            (RecordKind::PossibleLoss, *shard, Index(*segment), Term(flags), &own[..8])
        }
    };
    let at = LogId { term, index };
    out.extend(&record_header(payload.len(), kind, shard, at, 0, crc(0, &[payload])));
    out.extend(payload);
}

fn encode_entries(shard: ShardId, first: LogId, entries: &[LogEntry], out: &mut Pages) {
    let mut headers: SmallVec<[[u8; ENTRY_HEADER_BYTES]; 4]> = SmallVec::new();
    let mut hasher = crc32fast::Hasher::new();
    let mut len = 0;
    for entry in entries {
        let header = entry_header(entry);
        hasher.update(&header);
        headers.push(header);
        len += ENTRY_HEADER_BYTES + entry.data.len();
    }
    out.extend(&record_header(
        len,
        RecordKind::Entries,
        shard,
        first,
        entries.len() as u32,
        hasher.finalize(),
    ));
    for (header, entry) in headers.iter().zip(entries) {
        out.extend(header);
        out.extend(&entry.data);
    }
}

fn record_header(
    len: usize,
    kind: RecordKind,
    shard: ShardId,
    at: LogId,
    count: u32,
    sum: u32,
) -> [u8; RECORD_HEADER_BYTES] {
    let mut header = [0u8; RECORD_HEADER_BYTES];
    let mut fields = &mut header[..];
    fields.put_u32_le(len as u32);
    fields.put_u32_le(kind as u32);
    fields.put_u64_le(shard.0);
    fields.put_u64_le(at.index.0);
    fields.put_u64_le(at.term.0);
    fields.put_u32_le(count);
    fields.put_u32_le(sum);
    header
}

fn entry_header(entry: &LogEntry) -> [u8; ENTRY_HEADER_BYTES] {
    let mut header = [0u8; ENTRY_HEADER_BYTES];
    let mut fields = &mut header[..];
    fields.put_u32_le(entry.data.len() as u32);
    fields.put_u32_le(entry.crc);
    fields.put_u8(entry.kind.0);
    header
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// The CRC of one entry, seeded with its shard and index, so that no other entry passes the check.
pub fn entry_crc(shard: ShardId, index: Index, kind: EntryKind, data: &[u8]) -> u32 {
    crc(seed(shard.0, index.0), &[&[kind.0], data])
}

/// Removes one entry from the front of `bytes` and checks it; `None` when the bytes are not that
/// entry.
pub fn decode_entry(shard: ShardId, index: Index, bytes: &mut Bytes) -> Option<LogEntry> {
    let (len, crc, kind) = decode_entry_header(bytes)?;
    if len > bytes.len() - ENTRY_HEADER_BYTES {
        return None;
    }
    bytes.advance(ENTRY_HEADER_BYTES);
    let data = bytes.split_to(len);
    (entry_crc(shard, index, kind, &data) == crc).then_some(LogEntry { kind, crc, data })
}

/// Returns the length, CRC and kind in an entry's header.
pub fn decode_entry_header(bytes: &[u8]) -> Option<(usize, u32, EntryKind)> {
    let mut header = bytes.get(..ENTRY_HEADER_BYTES)?;
    let (len, crc) = (header.get_u32_le() as usize, header.get_u32_le());
    let kind = EntryKind(header.get_u8());
    (len <= RECORD_BYTES_MAX && header == [0; 3]).then_some((len, crc, kind))
}

/// The kind of a [`Record`], with its number on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// [`Record::Entries`].
    Entries = 1,
    /// [`Record::HardState`].
    HardState = 2,
    /// [`Record::Release`].
    Release = 3,
    /// [`Record::Reset`].
    Reset = 4,
    /// [`Record::Bounds`].
    Bounds = 5,
    /// [`Record::Forget`].
    Forget = 6,
    /// [`Record::PossibleLoss`].
    PossibleLoss = 7,
    /// [`Record::Members`].
    Members = 8,
}

impl RecordKind {
    fn from_number(number: u32) -> Option<RecordKind> {
        Some(match number {
            1 => RecordKind::Entries,
            2 => RecordKind::HardState,
            3 => RecordKind::Release,
            4 => RecordKind::Reset,
            5 => RecordKind::Bounds,
            6 => RecordKind::Forget,
            7 => RecordKind::PossibleLoss,
            8 => RecordKind::Members,
            _ => return None,
        })
    }
}

/// A record's header as found on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Payload length in bytes.
    pub len: usize,
    /// The record's kind.
    pub kind: RecordKind,
    /// The shard.
    pub shard: ShardId,
    /// The index. Its meaning depends on the kind; in a record of a possible loss the segment.
    pub index: Index,
    /// The term; in a record of a possible loss the two flags.
    pub term: Term,
    /// The number of entries in the payload.
    pub count: u32,
    /// CRC of the payload.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads a record header; `None` when the bytes cannot be a record header.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.get(..RECORD_HEADER_BYTES)?;
        let len = fields.get_u32_le() as usize;
        let header = Self {
            len,
            kind: RecordKind::from_number(fields.get_u32_le())?,
            shard: ShardId(fields.get_u64_le()),
            index: Index(fields.get_u64_le()),
            term: Term(fields.get_u64_le()),
            count: fields.get_u32_le(),
            crc: fields.get_u32_le(),
        };
        // No log reaches such an index. With this bound no sum overflows.
        let possible = len <= RECORD_BYTES_MAX
            && header.index.0 < u64::MAX / 2
            && header.count as usize <= len / ENTRY_HEADER_BYTES;
        possible.then_some(header)
    }

    /// Checks the payload and returns the record that header and payload form.
    pub fn record(&self, payload: Bytes) -> Option<Record> {
        if payload.len() != self.len {
            return None;
        }
        let (shard, at) = (self.shard, LogId { term: self.term, index: self.index });
        if self.kind == RecordKind::Entries {
            let entries = self.entries(payload)?;
            return Some(Record::Entries { shard, first: at.index, term: at.term, entries });
        }
        if crc(0, &[&payload]) != self.crc || self.count != 0 {
            return None;
        }
        Some(match self.kind {
            RecordKind::Entries => return None,
            RecordKind::HardState => {
                let vote = Vote::from_number(payload.as_ref().try_get_u64_le().ok()?);
                let state = HardState { term: at.term, vote, commit: at.index };
                Record::HardState { shard, state }
            }
            RecordKind::Release => Record::Release { shard, upto: at },
            RecordKind::Reset => Record::Reset { shard, at },
            RecordKind::Forget => Record::Forget { shard },
            RecordKind::Members => Record::Members { shard, index: at.index, members: payload },
            RecordKind::PossibleLoss => {
                let commit = Index(payload.as_ref().try_get_u64_le().ok()?);
                let (segment, flags) = (self.index.0, self.term.0);
                let (entries, state) = (flags & 1 != 0, flags & 2 != 0);
                Record::PossibleLoss { shard, segment, commit, entries, state }
            }
            RecordKind::Bounds => {
                let mut fields = payload.as_ref();
                let term = Term(fields.try_get_u64_le().ok()?);
                let index = Index(fields.try_get_u64_le().ok()?);
                (index <= at.index).then_some(())?;
                Record::Bounds { shard, base: LogId { term, index }, last: at }
            }
        })
    }

    fn entries(&self, mut payload: Bytes) -> Option<SmallVec<[LogEntry; 1]>> {
        if self.count as usize > payload.len() / ENTRY_HEADER_BYTES {
            return None;
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut entries = SmallVec::new();
        for i in 0..u64::from(self.count) {
            hasher.update(payload.get(..ENTRY_HEADER_BYTES)?);
            entries.push(decode_entry(self.shard, self.index + i, &mut payload)?);
        }
        (payload.is_empty() && hasher.finalize() == self.crc).then_some(entries)
    }
}

/// A block with a sound header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The LSN in the block's header.
    pub lsn: Lsn,
    /// Everything below this LSN was synced before the block was written.
    pub durable: Lsn,
    /// The block's header CRC, for the chain.
    pub crc: u32,
    /// The header CRC of the previous block.
    pub previous_crc: u32,
    /// Bytes that the block occupies on disk, padding included.
    pub bytes: usize,
    /// The padding is zeros, as it was written. Only the check of a store uses this field.
    pub clean: bool,
    /// The block's records, in order.
    pub records: Vec<FoundRecord>,
}

/// A record of a block whose header is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    /// The offset of the record's header from the start of the block.
    pub offset: usize,
    /// The record's header.
    pub header: RecordHeader,
    /// The record; `None` when its payload is damaged.
    pub record: Option<Record>,
}

impl Block {
    /// Whether the payload of every record is sound.
    pub fn is_whole(&self) -> bool {
        self.records.iter().all(|found| found.record.is_some())
    }
}

/// Reads the block that should be at the start of `bytes`, at log address `lsn`. `None` unless the
/// bytes begin with a sound block header of this segment, with sound headers of the block's
/// records; payloads may be damaged. Never allocates more than the size of `bytes`.
pub fn decode_block(bytes: &Bytes, seed: u32, lsn: Lsn) -> Option<Block> {
    let header = bytes.get(..BLOCK_HEADER_BYTES)?;
    let mut fields = header;
    let expected = fields.get_u32_le();
    let count = fields.get_u32_le() as usize;
    let own_lsn = Lsn(fields.get_u64_le());
    let durable = Lsn(fields.get_u64_le());
    let body_len = fields.get_u32_le() as usize;
    let previous_crc = fields.get_u32_le();
    if own_lsn != lsn || count > COMMIT_RECORDS_MAX || body_len > COMMIT_BYTES_MAX {
        return None;
    }
    let end = BLOCK_HEADER_BYTES + body_len;
    if end > bytes.len() || count > body_len / RECORD_HEADER_BYTES {
        return None;
    }
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&header[4..]);
    let mut found = Vec::with_capacity(count);
    let mut at = BLOCK_HEADER_BYTES;
    let mut clean = true;
    for _ in 0..count {
        let aligned = at.next_multiple_of(8);
        clean &= bytes.get(at..aligned).is_some_and(is_zero);
        at = aligned;
        let header = RecordHeader::decode(bytes.get(at..end)?)?;
        hasher.update(&bytes[at..at + RECORD_HEADER_BYTES]);
        let payload = at + RECORD_HEADER_BYTES..at + RECORD_HEADER_BYTES + header.len;
        if payload.end > end {
            return None;
        }
        found.push((at, header, payload.clone()));
        at = payload.end;
    }
    if hasher.finalize() != expected || at != end {
        return None;
    }
    let padded = end.next_multiple_of(BLOCK_BYTES);
    clean &= bytes.get(end..padded).is_some_and(is_zero);
    let record = |(offset, header, payload): (usize, RecordHeader, Range<usize>)| FoundRecord {
        offset,
        header,
        record: header.record(bytes.slice(payload)),
    };
    let records = found.into_iter().map(record).collect();
    Some(Block { lsn, durable, crc: expected, previous_crc, bytes: padded, clean, records })
}
