//! The log: one per disk, for every shard on it, and the only write-ahead log there is.
//!
//! [`Log::commit`] takes the records of many shards, writes them as one block and syncs once.
//! When it returns they are durable. Entries are found again by shard and index.

pub mod format;
mod group_commit;
mod index;
mod missing;
pub(crate) mod recovery;
pub mod scan;
pub(crate) mod segment;
mod slots;

use crate::disk::{Disk, Pages, WriteMode};
use crate::error::{Error, Result};
use crate::limits::{BLOCK_BYTES, COMMIT_RECORDS_MAX, LOG_GAP_BYTES_MAX, Limits, RECORD_BYTES_MAX};
use crate::{LogId, ShardId};
use bytes::Bytes;
use format::{BLOCK_HEADER_BYTES, ENTRY_HEADER_BYTES, RECORD_HEADER_BYTES, SegmentHeader};
pub use group_commit::{GroupCommit, Pending};
use index::{Index, Position};
use missing::Damage;
pub use missing::Missing;
use parking_lot::{Mutex, RwLock};
use segment::Slot;
pub use segment::{Hold, Segment, Segments};
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// A byte position in the log. Grows for ever; the segment is `lsn / segment_bytes`.
pub type Lsn = u64;

/// One log entry of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its term and index.
    pub id: LogId,
    /// What the layer above makes of it.
    pub kind: u8,
    /// Its content.
    pub data: Bytes,
}

/// An entry on its way into the log; its shard, index and term are its record's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// What the layer above makes of it.
    pub kind: u8,
    /// [`format::entry_crc`], computed by whoever made it, so that the committer need not.
    pub crc: u32,
    /// Its content.
    pub data: Bytes,
}

/// Where an entry's data lies in the log.
#[derive(Clone)]
pub struct Place {
    /// The segment, held.
    pub segment: Arc<Segment>,
    /// Byte offset in the segment.
    pub offset: u32,
}

/// What a Raft group must not forget besides its entries (Raft, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub term: u64,
    /// Who got this node's vote in that term.
    pub vote: Option<u64>,
    /// The greatest index known to be committed.
    pub commit: u64,
}

/// What the log stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Entries of one term. Entries of the shard from `first` on that were there before are gone.
    Entries {
        /// The shard.
        shard: ShardId,
        /// Index of the first.
        first: u64,
        /// The term of them all, at least 1.
        term: u64,
        /// The entries.
        entries: SmallVec<[LogEntry; 1]>,
    },
    /// A new hard state.
    HardState {
        /// The shard.
        shard: ShardId,
        /// The state.
        state: HardState,
    },
    /// Entries up to here are no longer needed: the tree holds their effect.
    Release {
        /// The shard.
        shard: ShardId,
        /// The last entry given up.
        upto: LogId,
    },
    /// The shard's log begins anew after this place, because a snapshot took the entries' place.
    Reset {
        /// The shard.
        shard: ShardId,
        /// What the snapshot covers.
        at: LogId,
    },
    /// The shard is gone from this disk, with its entries and its hard state.
    Forget {
        /// The shard.
        shard: ShardId,
    },
    /// What the log holds of a shard, repeated at the head of each segment by the log itself.
    Bounds {
        /// The shard.
        shard: ShardId,
        /// The last entry released.
        base: LogId,
        /// The last entry.
        last: LogId,
    },
    /// A damaged block may have held more of the shard; repeated by the log itself until a reset.
    Unsure {
        /// The shard.
        shard: ShardId,
        /// The segment of the damaged block.
        segment: u64,
        /// The commit index before it: what was committed was not replaced.
        commit: u64,
        /// Entries may be lost.
        entries: bool,
        /// A hard state may be lost.
        state: bool,
    },
}

impl Record {
    /// A record of entries of one term, each a kind and its data.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`RECORD_BYTES_MAX`].
    pub fn entries(
        shard: ShardId,
        first: LogId,
        entries: impl IntoIterator<Item = (u8, Bytes)>,
    ) -> Result<Record> {
        let LogId { term, index: first } = first;
        let entry = |(index, (kind, data)): (u64, (u8, Bytes))| {
            let crc = format::entry_crc(shard, index, kind, &data);
            LogEntry { kind, crc, data }
        };
        let entries: SmallVec<_> = (first..).zip(entries).map(entry).collect();
        let record = Record::Entries { shard, first, term, entries };
        let found = format::record_bytes(&record);
        if found > RECORD_BYTES_MAX {
            return Err(Error::TooLarge { what: "a log record", found, limit: RECORD_BYTES_MAX });
        }
        Ok(record)
    }

    /// Refuses an entry that does not fit a record of so many bytes.
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

    /// Cuts entries into lists that fit a record of so many bytes each.
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

    /// The shard it belongs to.
    pub fn shard(&self) -> ShardId {
        match self {
            Record::Entries { shard, .. }
            | Record::HardState { shard, .. }
            | Record::Release { shard, .. }
            | Record::Reset { shard, .. }
            | Record::Forget { shard }
            | Record::Unsure { shard, .. }
            | Record::Bounds { shard, .. } => *shard,
        }
    }
}

/// The log of one disk. Shared between threads; commits are serialised inside.
pub struct Log {
    disk: Arc<dyn Disk>,
    write_mode: WriteMode,
    limits: Limits,
    store: u128,
    writer: Mutex<Writer>,
    index: RwLock<Index>,
    segments: Arc<Segments>,
    /// Nothing was missing when it was opened.
    whole: bool,
    /// What recovery found damaged that may have taken away what is missing.
    damage: Vec<Damage>,
    poison: OnceLock<String>,
}

struct Writer {
    /// The active segment and the offset of the next block in it; `None` until the first commit
    /// after a start, which begins a fresh segment so that nothing in an old one can revive.
    active: Option<(Arc<Segment>, u64)>,
    end: Lsn,
    durable: Lsn,
    last_crc: u32,
    next_sequence: u64,
    /// The active slot is filled up to here.
    filled: u64,
    /// Something is in the last block: no later one promises yet that it was durable.
    unmarked: bool,
    pages: Pages,
}

impl Log {
    /// Opens the log in `disk`, making it if there is none. What had been durable and cannot be
    /// read keeps no log from opening: ask [`Log::missing`] of each shard.
    ///
    /// # Errors
    /// [`Error::NewerFormat`]; [`Error::Corrupt`] when the slots are not this store's.
    pub fn open(
        disk: Arc<dyn Disk>,
        write_mode: WriteMode,
        store: u128,
        limits: Limits,
    ) -> Result<(Log, bool)> {
        disk.make_dir(segment::LOG_DIR).map_err(Error::io("create", segment::LOG_DIR))?;
        let found = recovery::recover(&*disk, write_mode, store, limits.segment_bytes)?;
        if let Some(newest) = found.segments.last() {
            // A killed process leaves blocks that only the page cache has. They are read now, so
            // they must survive a power loss from now on.
            let path = segment::slot_path(newest.slot.number);
            newest.slot.region.sync_all().map_err(Error::io("sync", path))?;
        }
        found.segments.iter().for_each(|segment| segment.slot.region.seal());
        let (torn, whole) = (found.torn, found.index.is_whole());
        let writer = Writer {
            active: None,
            end: found.end,
            durable: found.end,
            last_crc: found.last_crc,
            next_sequence: found.next_sequence.max(1),
            filled: 0,
            unmarked: false,
            pages: Pages::default(),
        };
        let needed = found.index.oldest().unwrap_or(found.next_sequence);
        let segments = Segments::new(found.segments, found.free, found.next_number, needed);
        let log = Log {
            disk,
            write_mode,
            limits,
            store,
            writer: Mutex::new(writer),
            index: RwLock::new(found.index),
            segments: Arc::new(segments),
            whole,
            damage: found.damage,
            poison: OnceLock::new(),
        };
        Ok((log, torn))
    }

    /// Writes the records and makes them durable, with one sync for as many as fit a block.
    /// An empty list writes an empty block, which promises that all before it is durable.
    ///
    /// # Errors
    /// [`Error::Missing`] for entries of a shard of which nobody knows where its log ends.
    /// Any other failure poisons the log: this and every later call returns
    /// [`Error::Poisoned`], since after a failed sync nobody knows what the disk has, and a retry
    /// may claim success for data that is gone.
    pub fn commit(&self, records: &[Record]) -> Result<Lsn> {
        let mut writer = self.writer.lock();
        self.check()?;
        self.check_ends(records)?;
        let mut rest = records;
        loop {
            let (now, later) = rest.split_at(self.fits(rest)?);
            let bytes = BLOCK_HEADER_BYTES + now.iter().map(format::record_bytes).sum::<usize>();
            let written = match writer.active.clone() {
                Some((active, at)) if at + padded(bytes) <= self.limits.segment_bytes => {
                    writer.pages.clear();
                    self.write_block(&mut writer, active, at, now)
                }
                // Without a slot nothing was written yet, so this failure does not poison.
                _ => self.take_slot().map(|slot| self.roll(&mut writer, slot, now))?,
            };
            if let Err(error) = written {
                let cause = self.poison.get_or_init(|| error.to_string()).clone();
                return Err(Error::Poisoned { cause });
            }
            rest = later;
            if rest.is_empty() {
                return Ok(writer.durable);
            }
        }
    }

    /// Durability that the last commit was durable, with an empty block, if no later one does.
    /// Without it, damage to that commit looks like a write that the power cut. For an idle moment.
    pub fn write_sync_marker(&self) -> Result<()> {
        let unmarked = self.writer.lock().unmarked;
        if unmarked { self.commit(&[]).map(drop) } else { Ok(()) }
    }

    /// Fails once the log is poisoned.
    pub fn check(&self) -> Result<()> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Refuses entries where it is not known what they would follow on.
    fn check_ends(&self, records: &[Record]) -> Result<()> {
        if self.whole {
            return Ok(());
        }
        let mut anew = BTreeSet::new();
        for record in records {
            let shard = record.shard();
            match record {
                Record::Reset { .. } => drop(anew.insert(shard)),
                Record::Entries { .. } if !anew.contains(&shard) => {
                    let missing = self.missing(shard);
                    if missing.entries.last().is_some_and(|range| range.end == u64::MAX) {
                        return Err(self.missing_error(shard, missing));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What was durable of a shard and cannot be read any more. Nothing, for a sound disk.
    pub fn missing(&self, shard: ShardId) -> Missing {
        self.index.read().missing(shard)
    }

    /// Fails when entries are missing.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn check_entries(&self, shard: ShardId) -> Result<()> {
        let missing = self.missing(shard);
        if missing.entries.is_empty() { Ok(()) } else { Err(self.missing_error(shard, missing)) }
    }

    /// Fails when entries or the newest hard state are missing.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn check_whole(&self, shard: ShardId) -> Result<()> {
        let missing = self.missing(shard);
        if missing.is_empty() { Ok(()) } else { Err(self.missing_error(shard, missing)) }
    }

    /// The error that names what a shard misses.
    fn missing_error(&self, shard: ShardId, missing: Missing) -> Error {
        let lost_in = self.index.read().shard(shard).and_then(|log| log.oldest());
        let damage = self.damage.iter().find(|damage| Some(damage.segment) >= lost_in);
        let cause = damage.or(self.damage.last()).map_or_else(
            || Error::corrupt(segment::LOG_DIR, 0, "the log", "a segment", "none").into(),
            |damage| damage.error.clone(),
        );
        Error::Missing { shard, missing, cause }
    }

    /// The longest record that a segment takes.
    pub fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX.min(self.limits.commit_bytes_max() - BLOCK_HEADER_BYTES)
    }

    /// Names shards that this disk has, by their trees: if all records of one are lost, the log
    /// must still not take it for new.
    pub fn know(&self, shards: impl IntoIterator<Item = ShardId>) {
        self.index.write().know(shards);
    }

    /// How many of the records go into one block.
    fn fits(&self, records: &[Record]) -> Result<usize> {
        let limit = self.limits.commit_bytes_max();
        let mut bytes = BLOCK_HEADER_BYTES;
        for (i, record) in records.iter().enumerate() {
            let size = format::record_bytes(record);
            if BLOCK_HEADER_BYTES + size > limit {
                return Err(Error::TooLarge { what: "a log record", found: size, limit });
            }
            bytes += size;
            if bytes > limit || i == COMMIT_RECORDS_MAX / 2 {
                return Ok(i);
            }
        }
        Ok(records.len())
    }

    /// Begins a new segment with the records as its first block. What every shard needs from the
    /// segments before goes in front of them, so that those can be recycled.
    fn roll(&self, writer: &mut Writer, slot: Slot, records: &[Record]) -> Result<()> {
        let (sequence, end, crc) = (writer.next_sequence, writer.end, writer.last_crc);
        let needed = self.index.read().oldest().unwrap_or(sequence);
        let header = SegmentHeader::new(self.store, sequence, end, crc, needed);
        writer.next_sequence += 1;
        writer.filled = if slot.filled { self.limits.segment_bytes } else { 0 };
        slot.region.unseal();
        writer.pages.clear();
        header.encode(&mut writer.pages);
        let segment = Arc::new(Segment { slot, header });
        self.segments.begin(segment.clone());
        let mut all = self.index.read().checkpoint();
        all.extend_from_slice(records);
        self.write_block(writer, segment, 0, &all)?;
        if !self.whole {
            self.index.write().begin_anew();
        }
        Ok(())
    }

    /// Writes one block, behind a header if `pages` holds one, and takes it into the index.
    fn write_block(
        &self,
        writer: &mut Writer,
        segment: Arc<Segment>,
        offset: u64,
        records: &[Record],
    ) -> Result<()> {
        let base = segment.header.sequence * self.limits.segment_bytes;
        let lsn = base + offset + writer.pages.len() as u64;
        let (crc, places) = format::encode_block(
            &mut writer.pages,
            segment.header.seed(),
            lsn,
            writer.durable,
            writer.last_crc,
            records,
        );
        let len = writer.pages.len();
        let region = &segment.slot.region;
        region.write(offset, &writer.pages).map_err(Error::io("write", segment.path()))?;
        region.sync(offset, len).map_err(Error::io("sync", segment.path()))?;
        let sequence = segment.header.sequence;
        writer.unmarked = !records.is_empty();
        writer.last_crc = crc;
        writer.active = Some((segment, offset + len as u64));
        writer.end = base + offset + len as u64;
        writer.durable = writer.end;
        let mut released = false;
        let mut index = self.index.write();
        for (record, place) in records.iter().zip(places) {
            released |= matches!(
                record,
                Record::Release { .. } | Record::Reset { .. } | Record::Forget { .. }
            );
            let offset = offset as u32 + place as u32;
            index.apply(record, Position { segment: sequence as u32, offset });
        }
        if released {
            self.segments.release_entries(index.oldest().unwrap_or(sequence));
        }
        Ok(())
    }

    /// The slots, and why each is kept.
    pub fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Segments that are kept for their entries, the active one included.
    pub fn entry_segments(&self) -> usize {
        self.segments.holds().iter().filter(|(_, hold)| *hold != Hold::Values).count()
    }

    /// Where an entry's data lies, so that a value in it can be pointed to; `None` when the log
    /// does not have that entry, perhaps not yet.
    pub fn place(&self, shard: ShardId, id: LogId) -> Option<Place> {
        let position = {
            let index = self.index.read();
            let log = index.shard(shard)?;
            // Another entry may stand there, which a new leader's has yet to replace.
            log.position(id.index).filter(|_| log.term(id.index) == Some(id.term))?
        };
        let segment = self.segments.pin(u64::from(position.segment))?;
        Some(Place { segment, offset: position.offset + ENTRY_HEADER_BYTES as u32 })
    }

    /// The shards that the log knows.
    pub fn shards(&self) -> Vec<ShardId> {
        self.index.read().shards().map(|(id, _)| id).collect()
    }

    /// First index held and last entry of a shard. The entry before the first is the base.
    pub fn bounds(&self, shard: ShardId) -> (u64, LogId) {
        let index = self.index.read();
        index.shard(shard).map_or((1, LogId::default()), |log| (log.first(), log.last()))
    }

    /// The last entry that was released, or that a snapshot covers.
    pub fn base(&self, shard: ShardId) -> LogId {
        self.index.read().shard(shard).map_or(LogId::default(), |log| log.base)
    }

    /// The durable hard state of a shard.
    pub fn hard_state(&self, shard: ShardId) -> HardState {
        self.index.read().shard(shard).map_or(HardState::default(), |log| log.hard)
    }

    /// The term of an entry, or of the base; `None` outside.
    pub fn term(&self, shard: ShardId, index: u64) -> Option<u64> {
        let shards = self.index.read();
        match shards.shard(shard) {
            Some(log) => log.term(index),
            None => (index == 0).then_some(0),
        }
    }

    /// The first entry of each run of one term, ascending.
    pub fn terms(&self, shard: ShardId) -> Vec<LogId> {
        self.index.read().shard(shard).map_or(Vec::new(), |log| log.terms())
    }

    /// Durable entries from `first` on, below `end`: at least one, then until `max_bytes`.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `first` was released, [`Error::Missing`] on damage.
    pub fn entries(
        &self,
        shard: ShardId,
        first: u64,
        end: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>> {
        let mut out: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = first;
        while next < end && bytes < max_bytes {
            let run = match self.run(shard, next, end, max_bytes - bytes) {
                // What comes before the damage is sound.
                Err(_) if !out.is_empty() => break,
                run => run?,
            };
            if run.is_empty() {
                break;
            }
            for entry in run {
                if !out.is_empty() && bytes + entry.data.len() > max_bytes {
                    return Ok(out);
                }
                bytes += entry.data.len();
                next = entry.id.index + 1;
                out.push(entry);
            }
        }
        Ok(out)
    }

    /// Entries from `first` on that lie close together, with one read.
    fn run(&self, shard: ShardId, first: u64, end: u64, max_bytes: usize) -> Result<Vec<Entry>> {
        let mut ends: Vec<(u32, u64)> = Vec::new();
        let start = {
            let index = self.index.read();
            let Some(log) = index.shard(shard) else { return Ok(Vec::new()) };
            if first < log.first() {
                return Err(Error::Compacted { shard, upto: log.base.index });
            }
            let Some(start) = log.position(first) else {
                if first > log.last().index {
                    return Ok(Vec::new());
                }
                let missing = log.missing();
                drop(index);
                return Err(self.missing_error(shard, missing));
            };
            let mut last = start.offset;
            for at in first + 1..end {
                // An entry is read by the way if the next one lies shortly behind it.
                let Some(next) = log.position(at) else { break };
                let near = next.segment == start.segment
                    && next.offset > last
                    && (next.offset - last) as usize <= LOG_GAP_BYTES_MAX
                    && (next.offset - start.offset) as usize <= max_bytes;
                if !near {
                    break;
                }
                ends.push((next.offset - start.offset, log.term(at - 1).unwrap_or(0)));
                last = next.offset;
            }
            if ends.is_empty() {
                ends.push((0, log.term(first).unwrap_or(0)));
            }
            start
        };
        let Some(segment) = self.segments.pin(u64::from(start.segment)) else {
            return Err(Error::Compacted { shard, upto: first });
        };
        let mut len = ends[ends.len() - 1].0 as usize;
        let offset = u64::from(start.offset);
        if len == 0 {
            let mut header = [0; ENTRY_HEADER_BYTES];
            segment.read(offset, &mut header)?;
            len = format::decode_entry_header(&header).map_or(0, |(len, ..)| len);
            len = (ENTRY_HEADER_BYTES + len).min((segment.bytes() - offset) as usize);
        }
        let mut bytes = vec![0; len];
        segment.read(offset, &mut bytes)?;
        let bytes = Bytes::from(bytes);
        let mut entries = Vec::with_capacity(ends.len());
        let mut at = 0;
        for (i, (end, term)) in ends.into_iter().enumerate() {
            let index = first + i as u64;
            let Some(entry) = format::decode_entry(shard, index, &mut bytes.slice(at..)) else {
                if !entries.is_empty() {
                    break; // those before it are sound
                }
                if self.bounds(shard).0 > first {
                    return Err(Error::Compacted { shard, upto: first });
                }
                let (offset, what) = (offset + at as u64, "a log entry");
                let cause = Error::corrupt(segment.path(), offset, what, "its CRC", "another");
                let entries = std::iter::once(index..index + 1).collect();
                let missing = Missing { entries, state: false };
                return Err(Error::Missing { shard, missing, cause: cause.into() });
            };
            let id = LogId { term, index };
            entries.push(Entry { id, kind: entry.kind, data: entry.data });
            at = end as usize;
        }
        Ok(entries)
    }
}

/// Bytes that a block of this content takes in a segment.
fn padded(bytes: usize) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES) as u64
}
