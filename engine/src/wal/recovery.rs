//! Reading the log back. Nothing is ever truncated here: what is not taken over stays on disk as
//! evidence, and the next segment records where the log went on.
//!
//! The question at each end of readable blocks is whether something acknowledged is behind it.
//! Each block carries the LSN up to which the log was durable before it was written, so the answer
//! is in the bytes: see [`Verdict`].

use super::format::{Block, HeaderPage, SegmentHeader, VERSION, decode_block};
use super::index::{Index, Position};
use super::segment::{LOG_DIR, Segment, Segments, Slot, slot_number, slot_path};
use crate::disk::{Disk, WriteDoor};
use crate::error::{Error, Result};
use crate::limits::BLOCK_BYTES;
use bytes::Bytes;
use std::collections::VecDeque;

/// What stands at the end of the readable blocks of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The segment ends where its successor says it does.
    Sealed,
    /// Zeros, or blocks of a former life: the log ended here.
    CleanEnd,
    /// A block of this life that is not whole, and nothing after it was promised: the write that
    /// the power cut. It was never acknowledged.
    TornTail,
    /// A later block or header promises that this place was durable.
    DamagedDurable,
}

/// The decision table (protocol-aware recovery, FAST'18, by way of Pebble's sync offsets).
///
/// - `stop`: LSN of the first place without a whole block,
/// - `sealed_at`: where the next segment says that this one ends,
/// - `durable`: the greatest promise in any sound block of this segment,
/// - `begun`: the bytes at `stop` name themselves as the block that comes there, by their LSN or by
///   the block that they follow on.
pub fn judge(stop: u64, sealed_at: Option<u64>, durable: u64, begun: bool) -> Verdict {
    match sealed_at {
        Some(end) if stop >= end => Verdict::Sealed,
        Some(_) => Verdict::DamagedDurable,
        None if stop < durable => Verdict::DamagedDurable,
        None if begun => Verdict::TornTail,
        None => Verdict::CleanEnd,
    }
}

/// The log as found on disk.
pub(super) struct Recovered {
    /// Oldest first: those with entries, and those that may only hold values.
    pub segments: Vec<Segment>,
    pub free: VecDeque<Slot>,
    pub next_number: u32,
    pub index: Index,
    /// Where the log goes on, and the header CRC of its last block.
    pub end: u64,
    pub last_crc: u32,
    pub next_sequence: u64,
    /// Bytes of an unacknowledged, torn write that were left out.
    pub torn: bool,
}

/// One slot file, known by its first page.
pub struct SlotHead {
    /// Its number.
    pub number: u32,
    /// Its header, when it is in use.
    pub header: Option<SegmentHeader>,
    /// The header page carries nothing but its header.
    pub clean: bool,
    /// The segment that the first block says it is of, when that is not the header's: a segment
    /// whose first write was cut short.
    pub claimed: Option<u64>,
    /// The file's length.
    pub len: u64,
}

/// One segment, read whole.
pub struct SlotImage {
    /// Its slot's number.
    pub number: u32,
    /// All its bytes.
    pub bytes: Bytes,
}

impl SlotHead {
    /// Reads the whole slot.
    pub fn load(&self, disk: &dyn Disk) -> Result<SlotImage> {
        let path = slot_path(self.number);
        let file = disk.open(&path).map_err(Error::io("open", &path))?;
        let mut bytes = vec![0; self.len as usize];
        file.read_at(0, &mut bytes).map_err(Error::io("read", &path))?;
        Ok(SlotImage { number: self.number, bytes: bytes.into() })
    }
}

/// A segment's blocks in order, and what stands at their end.
pub struct Scan {
    /// The sound blocks before the end.
    pub blocks: Vec<Block>,
    /// LSN of the end.
    pub end: u64,
    /// What stands there.
    pub verdict: Verdict,
}

/// Reads the first page of every slot file of a disk.
///
/// # Errors
/// [`Error::NewerFormat`] for a segment from the future; [`Error::Corrupt`] for one of another
/// store.
pub fn read_heads(disk: &dyn Disk, store: u128, segment_bytes: u64) -> Result<Vec<SlotHead>> {
    let mut heads = Vec::new();
    for name in disk.list(LOG_DIR).map_err(Error::io("list", LOG_DIR))? {
        let Some(number) = slot_number(&name) else { continue };
        let path = slot_path(number);
        let file = disk.open(&path).map_err(Error::io("open", &path))?;
        let len = file.len().map_err(Error::io("measure", &path))?;
        let mut page = vec![0; len.min(2 * BLOCK_BYTES as u64) as usize];
        file.read_at(0, &mut page).map_err(Error::io("read", &path))?;
        let header = match SegmentHeader::decode(&page) {
            HeaderPage::Version(found) if found > VERSION => {
                return Err(Error::NewerFormat { file: path, found, supported: VERSION });
            }
            HeaderPage::Version(found) if found > 0 => {
                return Err(Error::OlderFormat { file: path, found, supported: VERSION });
            }
            HeaderPage::Sound(header) if header.store != store => {
                let (expected, found) = (format!("{store:032x}"), format!("{:032x}", header.store));
                return Err(Error::corrupt(path, 16, "the store id", expected, found));
            }
            HeaderPage::Sound(header) if len == segment_bytes => Some(header),
            HeaderPage::Sound(_) => {
                return Err(Error::corrupt(path, len, "the segment", segment_bytes, len));
            }
            HeaderPage::Version(_) | HeaderPage::Unreadable => None,
        };
        let clean = header.is_none() || SegmentHeader::is_clean(&page);
        let own = header.map(|header| header.sequence);
        let claimed = claimed(&page, segment_bytes).filter(|&claimed| Some(claimed) != own);
        heads.push(SlotHead { number, header, clean, claimed, len: len.min(segment_bytes) });
    }
    Ok(heads)
}

/// The segment that a slot's first block says it is of, by its LSN.
fn claimed(page: &[u8], segment_bytes: u64) -> Option<u64> {
    let lsn = page.get(BLOCK_BYTES + 8..BLOCK_BYTES + 16)?;
    let lsn = u64::from_le_bytes(lsn.try_into().ok()?);
    (lsn % segment_bytes == BLOCK_BYTES as u64).then_some(lsn / segment_bytes)
}

/// The greatest sequence that any block in the slots is of. A first write that the power cut may
/// have left its block without its header; were its sequence used again, so would be its salt, and
/// that block would count.
fn greatest_sequence(disk: &dyn Disk, heads: &[SlotHead], store: u128) -> Result<u64> {
    let used = heads.iter().filter_map(|head| head.header).map(|header| header.sequence);
    let mut greatest = used.max().unwrap_or(0);
    for head in heads {
        let Some(claimed) = head.claimed.filter(|&claimed| claimed > greatest) else { continue };
        let image = head.load(disk)?;
        let seed = SegmentHeader::new(store, claimed, 0, 0, 0).seed();
        let base = claimed * head.len;
        let block = image.bytes.slice(BLOCK_BYTES..);
        if decode_block(&block, seed, base + BLOCK_BYTES as u64).is_some() {
            greatest = claimed;
        }
    }
    Ok(greatest)
}

/// Reads the blocks of one segment up to where they end.
pub fn scan(image: &SlotImage, header: &SegmentHeader, next: Option<&SegmentHeader>) -> Scan {
    let base = header.sequence * image.bytes.len() as u64;
    let sealed_at = next.map(|next| next.previous_end);
    let limit = sealed_at.map_or(image.bytes.len(), |end| {
        usize::try_from(end.saturating_sub(base)).unwrap_or(usize::MAX).min(image.bytes.len())
    });
    let mut blocks: Vec<Block> = Vec::new();
    let mut at = BLOCK_BYTES;
    let mut chain = header.previous_crc;
    let mut durable = header.durable;
    while at < limit {
        let block = decode_block(&image.bytes.slice(at..limit), header.seed(), base + at as u64);
        let Some(block) = block.filter(|block| block.previous_crc == chain) else { break };
        at += block.bytes;
        chain = block.crc;
        durable = durable.max(block.durable);
        blocks.push(block);
    }
    let end = base + at as u64;
    if sealed_at.is_none() {
        durable = durable.max(promised_after(image, header, at));
    }
    let names_itself = image.bytes.get(at + 8..at + 16) == Some(&end.to_le_bytes()[..]);
    let follows_on = image.bytes.get(at + 28..at + 32) == Some(&chain.to_le_bytes()[..]);
    let begun = names_itself || follows_on && chain != 0;
    let mut verdict = judge(end, sealed_at, durable, begun);
    let chain_broken = next.is_some_and(|next| next.previous_crc != chain);
    if verdict == Verdict::Sealed && (chain_broken || sealed_at != Some(end)) {
        verdict = Verdict::DamagedDurable;
    }
    Scan { blocks, end, verdict }
}

/// The greatest promise in the sound blocks after `from`.
fn promised_after(image: &SlotImage, header: &SegmentHeader, from: usize) -> u64 {
    let base = header.sequence * image.bytes.len() as u64;
    let places = (from..image.bytes.len()).step_by(BLOCK_BYTES);
    let block = |at| decode_block(&image.bytes.slice(at..), header.seed(), base + at as u64);
    places.filter_map(block).map(|block| block.durable).max().unwrap_or(0)
}

/// The segments that recovery reads: the newest, and before it each that its successor names, as
/// far back as the newest says that entries were needed. What is older than a break in that chain
/// was released; if it was not, a shard shows a gap.
pub fn chain<'a>(
    disk: &dyn Disk,
    heads: &'a [SlotHead],
    segment_bytes: u64,
) -> Result<Vec<(&'a SlotHead, SegmentHeader)>> {
    let mut used: Vec<_> = heads.iter().filter_map(|head| Some((head, head.header?))).collect();
    used.sort_by_key(|(_, header)| header.sequence);
    let mut needed = 0;
    for (head, header) in used.iter().rev() {
        // A header counts from when the block written with it counts: that block repeats what
        // older segments said.
        let image = head.load(disk)?;
        let base = header.sequence * segment_bytes + BLOCK_BYTES as u64;
        if decode_block(&image.bytes.slice(BLOCK_BYTES..), header.seed(), base).is_some() {
            needed = header.needed;
            break;
        }
    }
    let mut start = used.len().saturating_sub(1);
    while start > 0 && used[start - 1].1.sequence >= needed {
        // A full segment ends where the next address range begins: look one byte before.
        let before = used[start].1.previous_end.checked_sub(1).map(|byte| byte / segment_bytes);
        if before != Some(used[start - 1].1.sequence) {
            break;
        }
        start -= 1;
    }
    Ok(used.split_off(start))
}

/// An unreadable header whose segment holds blocks that were built on each other: it had been
/// durable, so it is damage and not the first write of a segment, torn.
pub fn lost_header(
    disk: &dyn Disk,
    heads: &[SlotHead],
    store: u128,
    newest: u64,
) -> Result<Option<u32>> {
    for head in heads.iter().filter(|head| head.header.is_none() && head.len > 0) {
        let image = head.load(disk)?;
        let claimed = head.claimed.filter(|&claimed| claimed > newest);
        let lost = [newest + 1, newest + 2].into_iter().chain(claimed).any(|sequence| {
            let header = SegmentHeader::new(store, sequence, 0, 0, 0);
            promised_after(&image, &header, BLOCK_BYTES) > sequence.saturating_mul(head.len)
        });
        if lost {
            return Ok(Some(head.number));
        }
    }
    Ok(None)
}

pub(super) fn recover(
    disk: &dyn Disk,
    door: WriteDoor,
    store: u128,
    segment_bytes: u64,
) -> Result<Recovered> {
    let heads = read_heads(disk, store, segment_bytes)?;
    let used = chain(disk, &heads, segment_bytes)?;
    let newest = used.last().map_or(0, |(_, header)| header.sequence);
    if let Some(slot) = lost_header(disk, &heads, store, newest)? {
        let sequence = newest + 1;
        let what = "the segment header";
        return Err(Error::corrupt(slot_path(slot), 0, what, sequence, "an unreadable page"));
    }
    let mut found = Recovered {
        segments: Vec::new(),
        free: VecDeque::new(),
        next_number: heads.iter().map(|head| head.number + 1).max().unwrap_or(0),
        index: Index::default(),
        end: 0,
        last_crc: 0,
        next_sequence: greatest_sequence(disk, &heads, store)? + 2,
        torn: false,
    };
    let mut damaged = None;
    for (i, (head, header)) in used.iter().enumerate() {
        let image = head.load(disk)?;
        let scan = scan(&image, header, used.get(i + 1).map(|(_, next)| next));
        match scan.verdict {
            Verdict::Sealed | Verdict::CleanEnd => {}
            Verdict::TornTail => found.torn = true,
            Verdict::DamagedDurable => {
                let offset = scan.end - header.sequence * segment_bytes;
                let (what, expected) = ("a commit block", "a sound block");
                let path = slot_path(head.number);
                let error = Error::corrupt(path, offset, what, expected, "other bytes");
                if i + 1 == used.len() {
                    return Err(error);
                }
                // Perhaps a released slot whose next life was cut short: then no entry in it or
                // before it is needed. The next segment's checkpoint tells.
                damaged = Some(error);
                found.index = Index::default();
                continue;
            }
        }
        replay(&scan, header, segment_bytes, &mut found.index);
        found.end = scan.end;
        found.last_crc = scan.blocks.last().map_or(header.previous_crc, |block| block.crc);
    }
    if let Some((shard, before)) = found.index.gap() {
        if let Some(error) = damaged {
            return Err(error);
        }
        let missing = format!("entries of shard {shard} before index {before}");
        return Err(Error::corrupt(LOG_DIR, 0, "a segment", missing, "none"));
    }
    open_slots(disk, door, segment_bytes, &heads, &mut found)?;
    Ok(found)
}

/// Opens every slot. One with a sound header stays in use until the trees have said which values
/// they need; the others are free.
fn open_slots(
    disk: &dyn Disk,
    door: WriteDoor,
    segment_bytes: u64,
    heads: &[SlotHead],
    found: &mut Recovered,
) -> Result<()> {
    for head in heads {
        let path = slot_path(head.number);
        if head.len != segment_bytes {
            // A crash left it half prepared.
            disk.prepare_region(&path, segment_bytes).map_err(Error::io("prepare", &path))?;
        }
        let region = disk.open_region(&path, door).map_err(Error::io("open", &path))?;
        let slot = Slot { number: head.number, region };
        match head.header {
            Some(header) => found.segments.push(Segment { slot, header }),
            None => found.free.push_back(slot),
        }
    }
    found.segments.sort_by_key(|segment| segment.header.sequence);
    Ok(())
}

/// The slots in use, for reading only.
pub fn open_segments(disk: &dyn Disk, heads: &[SlotHead]) -> Result<Segments> {
    let mut segments = Vec::new();
    for head in heads {
        let Some(header) = head.header else { continue };
        let path = slot_path(head.number);
        let region = disk.open_region(&path, WriteDoor::Pwrite);
        let slot = Slot { number: head.number, region: region.map_err(Error::io("open", path))? };
        segments.push(Segment { slot, header });
    }
    Ok(Segments::new(segments, VecDeque::new(), 0, u64::MAX))
}

fn replay(scan: &Scan, header: &SegmentHeader, segment_bytes: u64, index: &mut Index) {
    let base = header.sequence * segment_bytes;
    for block in &scan.blocks {
        for (offset, record) in &block.records {
            let offset = (block.lsn - base) as u32 + *offset as u32;
            index.apply(record, Position { segment: header.sequence as u32, offset });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_table() {
        use Verdict::{CleanEnd, DamagedDurable, Sealed, TornTail};
        for (stop, sealed_at, durable, begun, expected) in [
            (100, Some(100), 90, false, Sealed),
            (80, Some(100), 90, false, DamagedDurable),
            (80, Some(100), 0, true, DamagedDurable),
            (80, None, 90, false, DamagedDurable),
            (80, None, 90, true, DamagedDurable),
            (90, None, 90, true, TornTail),
            (90, None, 90, false, CleanEnd),
        ] {
            let found = judge(stop, sealed_at, durable, begun);
            assert_eq!(found, expected, "{stop} {sealed_at:?} {durable} {begun}");
        }
    }
}
