//! Reads one segment block by block, and finds its records, its damage and its end.
//!
//! At each place without a sound block the scan must decide whether acknowledged data follows. Each
//! block carries the LSN up to which the log was durable before the block was written, so the bytes
//! contain the answer: see [`judge`].

use super::format::{Block, HeaderPage, SegmentHeader, VERSION, decode_block};
use super::segment::{LOG_DIR, slot_number, slot_path};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::limits::BLOCK_BYTES;
use bytes::Bytes;

/// The finding at the end of the readable blocks of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The segment ends where the header of the next segment states.
    Sealed,
    /// Zeros, or blocks of an earlier segment in the slot: the log ended here.
    CleanEnd,
    /// An incomplete block of this segment, and no later block states that this block was durable.
    /// A power loss cut this write short, and the write was never acknowledged.
    TornTail,
    /// A later block or header states that this place was durable. The blocks after this place
    /// count.
    DamagedDurable,
}

/// The decision table (protocol-aware recovery, FAST'18, by way of Pebble's sync offsets).
///
/// - `stop`: the LSN of the first place without a whole block,
/// - `sealed_at`: the end of this segment according to the header of the next segment,
/// - `durable`: the greatest durable LSN in any sound block of this segment,
/// - `begun`: the bytes at `stop` identify themselves as the expected block, by its LSN or by the
///   CRC of the previous block.
pub fn judge(stop: Lsn, sealed_at: Option<Lsn>, durable: Lsn, begun: bool) -> Verdict {
    match sealed_at {
        Some(end) if stop >= end => Verdict::Sealed,
        Some(_) => Verdict::DamagedDurable,
        None if stop < durable => Verdict::DamagedDurable,
        None if begun => Verdict::TornTail,
        None => Verdict::CleanEnd,
    }
}

/// One slot file, described by its first pages.
pub struct SlotHead {
    /// The slot's number.
    pub number: u32,
    /// The segment header, when the slot is in use.
    pub header: Option<SegmentHeader>,
    /// The header page holds only zeros besides the header.
    pub clean: bool,
    /// The segment that the first block's LSN names, when the header names another or cannot be
    /// read: perhaps a segment whose first write was cut short.
    pub claimed: Option<u64>,
    /// The file's length.
    pub len: u64,
}

/// One segment, read completely.
pub struct SlotImage {
    /// The slot's number.
    pub number: u32,
    /// All bytes of the slot.
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

/// One part of a segment: the parts follow each other.
pub enum Part {
    /// A block. A block that is not whole had been durable.
    Block(Block),
    /// Blocks that had been durable are lost.
    Lost {
        /// The LSN of the first lost byte.
        from: Lsn,
    },
}

/// A segment's blocks in order, and the finding at their end.
pub struct Scan {
    /// The parts before the end.
    pub parts: Vec<Part>,
    /// The LSN of the end.
    pub end: Lsn,
    /// The header CRC of the last sound block, or the previous segment's last header CRC when there
    /// is none.
    pub last_crc: u32,
    /// The finding at the end: never damage.
    pub verdict: Verdict,
}

impl Scan {
    /// The blocks with a sound header, whole or not.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.parts.iter().filter_map(|part| match part {
            Part::Block(block) => Some(block),
            Part::Lost { .. } => None,
        })
    }

    /// Whether nothing that had been durable is damaged.
    pub fn is_sound(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Block(block) if block.is_whole()))
    }
}

/// Reads the first page of every slot file of a disk.
///
/// # Errors
/// [`Error::NewerFormat`] for a segment of a newer version; [`Error::Corrupt`] for a segment of
/// another store.
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

/// The segment that the LSN of a slot's first block names.
fn claimed(page: &[u8], segment_bytes: u64) -> Option<u64> {
    let lsn = page.get(BLOCK_BYTES + 8..BLOCK_BYTES + 16)?;
    let lsn = u64::from_le_bytes(lsn.try_into().ok()?);
    (lsn % segment_bytes == BLOCK_BYTES as u64).then_some(lsn / segment_bytes)
}

/// Reads the blocks of one segment up to their end. `next` is the header of the segment that
/// followed this segment.
pub fn scan(image: &SlotImage, header: &SegmentHeader, next: Option<&SegmentHeader>) -> Scan {
    let (seed, len) = (header.seed(), image.bytes.len());
    let base = Lsn::of_segment(header.sequence, len as u64);
    let sealed_at = next.map(|next| next.previous_end.clamp(base, base + len as u64));
    let limit = sealed_at.map_or(len, |end| (end - base) as usize);
    let (mut parts, mut at, mut last_crc) = (Vec::new(), BLOCK_BYTES, header.previous_crc);
    // After a loss the CRC of the block before the next sound block is unknown.
    let mut follows = true;
    let mut durable = Durable { known: header.durable, looked_ahead: sealed_at.is_some() };
    let verdict = loop {
        let place = base + at as u64;
        let block = decode_block(&image.bytes.slice(at.min(limit)..limit), seed, place)
            .filter(|block| !follows || block.previous_crc == last_crc);
        if let Some(block) = block {
            let after = place + block.bytes as u64;
            durable.known = durable.known.max(block.durable);
            // A block that is not whole counts if it had been durable.
            if block.is_whole()
                || after <= sealed_at.unwrap_or_else(|| durable.upto(image, header, at))
            {
                at += block.bytes;
                last_crc = block.crc;
                follows = true;
                parts.push(Part::Block(block));
                continue;
            }
        }
        let names_itself = image.bytes.get(at + 8..at + 16) == Some(&place.0.to_le_bytes()[..]);
        let follows_on = image.bytes.get(at + 28..at + 32) == Some(&last_crc.to_le_bytes()[..]);
        let begun = names_itself || follows_on && last_crc != 0;
        let promised = durable.upto(image, header, at).min(base + limit as u64);
        let verdict = judge(place, sealed_at, promised, begun);
        if verdict != Verdict::DamagedDurable {
            break verdict;
        }
        parts.push(Part::Lost { from: place });
        let sound = sound_blocks(image, header, at + BLOCK_BYTES).next().map(|block| block.lsn);
        let end = sealed_at.unwrap_or(promised);
        at = (sound.unwrap_or(end).min(end) - base) as usize;
        follows = false;
    };
    let end = base + at as u64;
    if let Some(next) = next
        && (next.previous_end != end || follows && next.previous_crc != last_crc)
    {
        parts.push(Part::Lost { from: end });
    }
    Scan { parts, end, last_crc, verdict }
}

/// The LSN up to which a segment was durable.
struct Durable {
    /// The greatest durable LSN read so far.
    known: Lsn,
    /// `known` includes the durable LSNs of blocks after a place that is not sound.
    looked_ahead: bool,
}

impl Durable {
    fn upto(&mut self, image: &SlotImage, header: &SegmentHeader, at: usize) -> Lsn {
        if !std::mem::replace(&mut self.looked_ahead, true) {
            self.known = self.known.max(greatest_durable_after(image, header, at));
        }
        self.known
    }
}

/// The greatest durable LSN in the blocks from `at` on; 0 without a block.
fn greatest_durable_after(image: &SlotImage, header: &SegmentHeader, at: usize) -> Lsn {
    sound_blocks(image, header, at).map(|block| block.durable).max().unwrap_or_default()
}

/// The sound blocks of this segment at or after `at`, regardless of the bytes between them.
fn sound_blocks<'a>(
    image: &'a SlotImage,
    header: &SegmentHeader,
    at: usize,
) -> impl Iterator<Item = Block> + 'a {
    let (seed, base) = (header.seed(), Lsn::of_segment(header.sequence, image.bytes.len() as u64));
    let places = (at..image.bytes.len()).step_by(BLOCK_BYTES);
    places.filter_map(move |at| decode_block(&image.bytes.slice(at..), seed, base + at as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judge_follows_the_decision_table() {
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
            let found = judge(Lsn(stop), sealed_at.map(Lsn), Lsn(durable), begun);
            assert_eq!(found, expected, "{stop} {sealed_at:?} {durable} {begun}");
        }
    }
}
