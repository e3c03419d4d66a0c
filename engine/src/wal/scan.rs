//! One segment, read block by block: what is in it, what is damaged, and where it ends.
//!
//! At each place without a sound block the question is whether something acknowledged is behind it.
//! Each block carries the LSN up to which the log was durable before it was written, so the answer
//! is in the bytes: see [`judge`].

use super::format::{Block, HeaderPage, SegmentHeader, VERSION, decode_block};
use super::segment::{LOG_DIR, slot_number, slot_path};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::limits::BLOCK_BYTES;
use bytes::Bytes;

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
    /// A later block or header promises that this place was durable. Blocks behind it count.
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

/// One thing after another in a segment.
pub enum Part {
    /// A block. One that is not whole had been durable.
    Block(Block),
    /// Blocks that had been durable are lost.
    Lost {
        /// LSN of the first byte.
        from: u64,
    },
}

/// A segment's blocks in order, and what stands at their end.
pub struct Scan {
    /// What was found before the end.
    pub parts: Vec<Part>,
    /// LSN of the end.
    pub end: u64,
    /// The header CRC of the last sound block; of the segment before when there is none.
    pub last_crc: u32,
    /// What stands at the end: never damage.
    pub verdict: Verdict,
}

impl Scan {
    /// The sound blocks, whole or not.
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

/// Reads the blocks of one segment up to where they end. `next` is the header of the segment that
/// followed on it.
pub fn scan(image: &SlotImage, header: &SegmentHeader, next: Option<&SegmentHeader>) -> Scan {
    let (seed, len) = (header.seed(), image.bytes.len());
    let base = header.sequence * len as u64;
    let sealed_at = next.map(|next| next.previous_end.clamp(base, base + len as u64));
    let limit = sealed_at.map_or(len, |end| (end - base) as usize);
    let (mut parts, mut at, mut last_crc) = (Vec::new(), BLOCK_BYTES, header.previous_crc);
    // After a loss nobody knows what the next block followed on.
    let mut follows = true;
    let mut durable = Durable { known: header.durable, looked_ahead: sealed_at.is_some() };
    let verdict = loop {
        let place = base + at as u64;
        let block = decode_block(&image.bytes.slice(at.min(limit)..limit), seed, place)
            .filter(|block| !follows || block.previous_crc == last_crc);
        if let Some(block) = block {
            let after = place + block.bytes as u64;
            durable.known = durable.known.max(block.durable);
            // One that is not whole counts if it had been durable.
            if block.is_whole()
                || after <= sealed_at.unwrap_or_else(|| durable.upto(image, header, at))
            {
                (at, last_crc, follows) = (at + block.bytes, block.crc, true);
                parts.push(Part::Block(block));
                continue;
            }
        }
        let names_itself = image.bytes.get(at + 8..at + 16) == Some(&place.to_le_bytes()[..]);
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

/// Up to where a segment was durable.
struct Durable {
    /// The greatest promise read so far.
    known: u64,
    /// It includes the promises of blocks after a place that is not sound.
    looked_ahead: bool,
}

impl Durable {
    fn upto(&mut self, image: &SlotImage, header: &SegmentHeader, at: usize) -> u64 {
        if !std::mem::replace(&mut self.looked_ahead, true) {
            self.known = self.known.max(promised_after(image, header, at));
        }
        self.known
    }
}

/// The greatest promise in the blocks from `at` on; 0 without one.
fn promised_after(image: &SlotImage, header: &SegmentHeader, at: usize) -> u64 {
    sound_blocks(image, header, at).map(|block| block.durable).max().unwrap_or(0)
}

/// The blocks of this life of the slot at or after `at`, whatever is between them.
fn sound_blocks<'a>(
    image: &'a SlotImage,
    header: &SegmentHeader,
    at: usize,
) -> impl Iterator<Item = Block> + 'a {
    let (seed, base) = (header.seed(), header.sequence * image.bytes.len() as u64);
    let places = (at..image.bytes.len()).step_by(BLOCK_BYTES);
    places.filter_map(move |at| decode_block(&image.bytes.slice(at..), seed, base + at as u64))
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
