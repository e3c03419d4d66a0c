//! Recovery of the log from disk. Recovery never truncates anything: the bytes that recovery
//! rejects stay on disk as evidence, and the next segment records where the log continued.
//!
//! Recovery determines for each shard which durable data cannot be read
//! ([`Missing`](super::Missing)). Later records of the shard, and the bounds at the head of the
//! next segment, show which records were between (protocol-aware recovery, FAST'18). After damage
//! in the newest segment no later record shows this, so the log writes a record of the loss into
//! the next segment ([`Record::PossibleLoss`](super::Record::PossibleLoss)).

use super::format::{SegmentHeader, decode_block};
use super::index::LogIndex;
use super::scan::{Part, Scan, SlotHead, Verdict, read_heads, scan};
use super::segment::{LOG_DIR, Segment, Segments, Slot, slot_path};
use crate::disk::{Disk, WriteMode};
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::limits::BLOCK_BYTES;
use std::collections::VecDeque;
use std::sync::Arc;

/// Damage that made durable data unreadable.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    /// The segment.
    pub segment: u64,
    /// The place of the damage and the structure expected there.
    pub error: Arc<Error>,
}

/// The log as found on disk.
pub(super) struct Recovered {
    /// The segments, oldest first: segments with entries, and segments that may hold only values.
    pub segments: Vec<Segment>,
    pub free: VecDeque<Slot>,
    pub next_number: u32,
    pub index: LogIndex,
    /// The LSN at which the log continues; `last_crc` is the header CRC of the log's last block.
    pub end: Lsn,
    pub last_crc: u32,
    pub next_sequence: u64,
    /// Whether an unacknowledged, torn write was ignored at the end.
    pub torn: bool,
    /// The damage that made the missing data unreadable.
    pub damage: Vec<Damage>,
}

/// Returns the greatest sequence of any header or first block in the slots. A first write that a
/// power loss cut short may have left its block without its header. If that sequence were used
/// again, its salt would be used again too, and that block would count as valid.
fn greatest_sequence(disk: &dyn Disk, heads: &[SlotHead], store: u128) -> Result<u64> {
    let used = heads.iter().filter_map(|head| head.header).map(|header| header.sequence);
    let mut greatest = used.max().unwrap_or(0);
    for head in heads {
        let claimed = head.claimed.filter(|&claimed| claimed > greatest);
        let Some(claimed) = claimed.filter(|&claimed| claimed <= u32::MAX.into()) else { continue };
        let image = head.load(disk)?;
        let seed = SegmentHeader::new(store, claimed, Lsn(0), 0, 0).seed();
        let base = Lsn::of_segment(claimed, head.len);
        let block = image.bytes.slice(BLOCK_BYTES..);
        if decode_block(&block, seed, base + BLOCK_BYTES as u64).is_some() {
            greatest = claimed;
        }
    }
    Ok(greatest)
}

/// Returns the segments that recovery reads: all segments from the oldest needed one on, which the
/// newest valid header names.
fn chain<'a>(
    disk: &dyn Disk,
    heads: &'a [SlotHead],
    segment_bytes: u64,
) -> Result<Vec<(&'a SlotHead, SegmentHeader)>> {
    let mut used: Vec<_> = heads.iter().filter_map(|head| Some((head, head.header?))).collect();
    used.sort_by_key(|(_, header)| header.sequence);
    let mut needed = 0;
    for (head, header) in used.iter().rev() {
        // A header is valid only if the block written with it is whole, because that block repeats
        // the state in older segments.
        let image = head.load(disk)?;
        let base = Lsn::of_segment(header.sequence, segment_bytes) + BLOCK_BYTES as u64;
        let first = decode_block(&image.bytes.slice(BLOCK_BYTES..), header.seed(), base);
        if first.is_some_and(|block| block.is_whole()) {
            needed = header.needed;
            break;
        }
    }
    used.retain(|(_, header)| header.sequence >= needed);
    Ok(used)
}

/// Returns the slots that have no readable header but hold blocks of a segment, each with the
/// sequence of that segment. A segment newer than `newest` counts only if the durable LSN of one of
/// its blocks is beyond `end`, so that a torn first write of a segment does not count. An older
/// segment is an earlier use of the slot, and a torn first write may have destroyed its header.
fn headless(
    disk: &dyn Disk,
    heads: &[SlotHead],
    store: u128,
    newest: u64,
    end: Lsn,
) -> Result<Vec<(u32, u64)>> {
    let mut found = Vec::new();
    for head in heads.iter().filter(|head| head.header.is_none() && head.len > 0) {
        let image = head.load(disk)?;
        let block = |at: usize| {
            let lsn = image.bytes.get(at + 8..at + 16)?;
            let lsn = u64::from_le_bytes(lsn.try_into().ok()?);
            let sequence = (lsn % head.len == at as u64).then_some(lsn / head.len)?;
            let sequence = u64::from(u32::try_from(sequence).ok()?);
            let seed = SegmentHeader::new(store, sequence, Lsn(0), 0, 0).seed();
            let block = decode_block(&image.bytes.slice(at..), seed, Lsn(lsn))?;
            let own = if sequence > newest { end } else { Lsn::of_segment(sequence, head.len) };
            (block.durable > own).then_some(sequence)
        };
        let places = (BLOCK_BYTES..image.bytes.len()).step_by(BLOCK_BYTES);
        found.extend(places.filter_map(block).max().map(|sequence| (head.number, sequence)));
    }
    Ok(found)
}

/// The combined result of reading the segments.
pub(crate) struct Replayed {
    pub(super) index: LogIndex,
    /// Damage inside segments.
    pub damage: Vec<Damage>,
    /// Segments that were not found. If the index is whole, the log may have released these
    /// segments and reused their slots.
    pub gaps: Vec<Damage>,
    /// A power loss cut the last write short.
    pub torn: bool,
    pub end: Lsn,
    pub last_crc: u32,
    pub next_sequence: u64,
    /// Slots that have no readable header but hold blocks of a segment.
    headless: Vec<(u32, u64)>,
}

/// Reads the needed segments and combines the entries and the missing data of each shard. Calls
/// `visit` for each segment that was read.
pub(crate) fn replay(
    disk: &dyn Disk,
    heads: &[SlotHead],
    store: u128,
    segment_bytes: u64,
    mut visit: impl FnMut(&SlotHead, &SegmentHeader, &Scan),
) -> Result<Replayed> {
    let used = chain(disk, heads, segment_bytes)?;
    let mut found = Replayed {
        index: LogIndex::default(),
        damage: Vec::new(),
        gaps: Vec::new(),
        torn: false,
        end: Lsn(0),
        last_crc: 0,
        next_sequence: greatest_sequence(disk, heads, store)? + 2,
        headless: Vec::new(),
    };
    for (i, (head, header)) in used.iter().enumerate() {
        let sequence = header.sequence;
        let successor = |header: &SegmentHeader, after: u64| {
            // A full segment ends where the next address range begins, so this looks at the byte
            // before.
            header.previous_end > Lsn(0)
                && (header.previous_end - 1).segment(segment_bytes) == after
        };
        if let Some((_, before)) = i.checked_sub(1).map(|i| &used[i])
            && !successor(header, before.sequence)
        {
            let (what, expected) = ("the log", format!("the segment before segment {sequence}"));
            found.lose_segment(sequence - 1, Error::corrupt(LOG_DIR, 0, what, expected, "none"));
        }
        let next = used.get(i + 1).map(|(_, next)| next).filter(|next| successor(next, sequence));
        let scan = scan(&head.load(disk)?, header, next);
        let base = Lsn::of_segment(sequence, segment_bytes);
        let damage = |lsn: Lsn, what, expected| {
            let path = slot_path(head.number);
            let error = Error::corrupt(path, lsn - base, what, expected, "other bytes");
            Damage { segment: sequence, error: error.into() }
        };
        for part in &scan.parts {
            match part {
                Part::Lost { from } => {
                    found.index.record_loss(sequence);
                    found.damage.push(damage(*from, "a commit block", "a sound block"));
                }
                Part::Block(block) => {
                    found.index.apply_block(block, sequence, (block.lsn - base) as u32);
                    for record in block.records.iter().filter(|found| found.record.is_none()) {
                        let lsn = block.lsn + record.offset as u64;
                        found.damage.push(damage(lsn, "a log record", "its checksum"));
                    }
                }
            }
        }
        found.end = scan.end;
        found.last_crc = scan.last_crc;
        found.torn = scan.verdict == Verdict::TornTail;
        visit(head, header, &scan);
    }
    let newest = used.last().map_or(0, |(_, header)| header.sequence);
    found.headless = headless(disk, heads, store, newest, found.end)?;
    for &(slot, sequence) in found.headless.clone().iter().filter(|(_, lost)| *lost > newest) {
        let (what, path) = ("the segment header", slot_path(slot));
        found.lose_segment(sequence, Error::corrupt(path, 0, what, sequence, "an unreadable page"));
        found.end = Lsn::of_segment(sequence + 1, segment_bytes);
        found.next_sequence = found.next_sequence.max(sequence + 1);
    }
    Ok(found)
}

impl Replayed {
    /// Whether no shard misses anything.
    pub(crate) fn is_whole(&self) -> bool {
        self.index.is_whole()
    }

    /// The missing data of each shard, as errors.
    pub(crate) fn missing(&self) -> Vec<Error> {
        let shards = self.index.shards().map(|(shard, _)| (shard, self.index.missing(shard)));
        let cause = || Error::corrupt(LOG_DIR, 0, "the log", "a segment", "none").into();
        let error = |(shard, missing)| Error::Missing { shard, missing, cause: cause() };
        shards.filter(|(_, missing)| !missing.is_empty()).map(error).collect()
    }

    fn lose_segment(&mut self, segment: u64, error: Error) {
        self.index.record_loss(segment);
        self.gaps.push(Damage { segment, error: error.into() });
    }
}

pub(super) fn recover(
    disk: &dyn Disk,
    write_mode: WriteMode,
    store: u128,
    segment_bytes: u64,
) -> Result<Recovered> {
    let heads = read_heads(disk, store, segment_bytes)?;
    let mut replayed = replay(disk, &heads, store, segment_bytes, |_, _, _| {})?;
    let mut found = Recovered {
        segments: Vec::new(),
        free: VecDeque::new(),
        next_number: heads.iter().map(|head| head.number + 1).max().unwrap_or(0),
        index: replayed.index,
        end: replayed.end,
        last_crc: replayed.last_crc,
        next_sequence: replayed.next_sequence,
        torn: replayed.torn,
        damage: Vec::new(),
    };
    if found.index.is_whole() {
        replayed.headless.clear();
    } else {
        // The evidence is kept while any data is missing.
        found.damage = replayed.damage;
        found.damage.extend(replayed.gaps);
    }
    let aside = |slot| replayed.headless.iter().any(|(number, _)| *number == slot);
    let heads = heads.iter().filter(|head| !aside(head.number));
    open_slots(disk, write_mode, segment_bytes, heads, &mut found)?;
    Ok(found)
}

/// Opens every slot. A slot with a sound header stays in use until the trees have reported which
/// values they need. The other slots are free.
fn open_slots<'a>(
    disk: &dyn Disk,
    write_mode: WriteMode,
    segment_bytes: u64,
    heads: impl Iterator<Item = &'a SlotHead>,
    found: &mut Recovered,
) -> Result<()> {
    for head in heads {
        let path = slot_path(head.number);
        if head.len != segment_bytes {
            // A crash interrupted the creation of this slot.
            disk.allocate_region(&path, segment_bytes).map_err(Error::io("allocate", &path))?;
        }
        let region = disk.open_region(&path, write_mode).map_err(Error::io("open", &path))?;
        // It is unknown whether a free slot is filled.
        let slot = Slot { number: head.number, region, filled: head.header.is_some() };
        match head.header {
            Some(header) => found.segments.push(Segment { slot, header }),
            None => found.free.push_back(slot),
        }
    }
    found.segments.sort_by_key(|segment| segment.header.sequence);
    Ok(())
}

/// Opens the slots in use, for reading only.
pub(crate) fn open_segments(disk: &dyn Disk, heads: &[SlotHead]) -> Result<Segments> {
    let mut segments = Vec::new();
    for head in heads {
        let Some(header) = head.header else { continue };
        let path = slot_path(head.number);
        let region = disk.open_region(&path, WriteMode::Pwrite);
        let region = region.map_err(Error::io("open", path))?;
        let slot = Slot { number: head.number, region, filled: true };
        segments.push(Segment { slot, header });
    }
    Ok(Segments::new(segments, VecDeque::new(), 0, u64::MAX))
}
