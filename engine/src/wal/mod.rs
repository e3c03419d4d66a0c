//! The log: one per disk, for every shard on it, and the only write-ahead log there is.
//!
//! [`Log::commit`] takes the records of many shards, writes them as one block and syncs once.
//! When it returns they are durable. Entries are found again by shard and index.

pub mod format;
mod index;
pub mod recovery;
pub(crate) mod segment;

use crate::checksum::crc;
use crate::disk::{Disk, Pages, WriteDoor};
use crate::error::{Error, Result};
use crate::limits::{BLOCK_BYTES, COMMIT_RECORDS_MAX, Limits, RECORD_BYTES_MAX};
use crate::{LogId, ShardId};
use bytes::Bytes;
use format::{BLOCK_HEADER_BYTES, RECORD_HEADER_BYTES, RecordHeader, SegmentHeader};
use index::{Index, Position};
use parking_lot::{Mutex, RwLock};
use segment::{Segment, Slot, Slots};
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
        /// The term of them all.
        term: u64,
        /// How many.
        count: u32,
        /// Packed by [`format::encode_entries`].
        payload: Bytes,
        /// CRC of the payload, computed by whoever made it, so that the committer need not.
        crc: u32,
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
    /// What the log holds of a shard, repeated at the head of each segment by the log itself.
    Bounds {
        /// The shard.
        shard: ShardId,
        /// The last entry released.
        base: LogId,
        /// The last entry.
        last: LogId,
    },
}

impl Record {
    /// A record of entries of one term.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`RECORD_BYTES_MAX`].
    pub fn entries<'a>(
        shard: ShardId,
        first: LogId,
        entries: impl IntoIterator<Item = (u8, &'a [u8])>,
    ) -> Result<Record> {
        let mut count = 0;
        let payload = format::encode_entries(entries.into_iter().inspect(|_| count += 1));
        if payload.len() > RECORD_BYTES_MAX {
            let found = payload.len();
            return Err(Error::TooLarge { what: "a log record", found, limit: RECORD_BYTES_MAX });
        }
        let crc = crc(0, &[&payload]);
        let LogId { term, index: first } = first;
        Ok(Record::Entries { shard, first, term, count, payload, crc })
    }

    /// The shard it belongs to.
    pub fn shard(&self) -> ShardId {
        match self {
            Record::Entries { shard, .. }
            | Record::HardState { shard, .. }
            | Record::Release { shard, .. }
            | Record::Reset { shard, .. }
            | Record::Bounds { shard, .. } => *shard,
        }
    }
}

/// The log of one disk. Shared between threads; commits are serialised inside.
pub struct Log {
    disk: Arc<dyn Disk>,
    door: WriteDoor,
    limits: Limits,
    store: u128,
    writer: Mutex<Writer>,
    index: RwLock<Index>,
    slots: Mutex<Slots>,
    poison: OnceLock<String>,
}

struct Writer {
    /// Offset of the next block in the active segment; `None` until the first commit after a
    /// start, which begins a fresh segment so that nothing in an old one can revive.
    offset: Option<u64>,
    end: Lsn,
    durable: Lsn,
    last_crc: u32,
    next_sequence: u64,
    pages: Pages,
}

impl Log {
    /// Opens the log in `disk`, making it if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when something that had been durable cannot be read.
    pub fn open(
        disk: Arc<dyn Disk>,
        door: WriteDoor,
        store: u128,
        limits: Limits,
    ) -> Result<(Log, bool)> {
        disk.make_dir(segment::LOG_DIR).map_err(Error::io("create", segment::LOG_DIR))?;
        let found = recovery::recover(&*disk, door, store, limits.segment_bytes)?;
        if let Some(newest) = found.segments.back() {
            // A killed process leaves blocks that only the page cache has. They are read now, so
            // they must survive a power loss from now on.
            let path = segment::slot_path(newest.slot.number);
            newest.slot.region.sync_all().map_err(Error::io("sync", path))?;
        }
        found.segments.iter().for_each(|segment| segment.slot.region.seal());
        let torn = found.torn;
        let writer = Writer {
            offset: None,
            end: found.end,
            durable: found.end,
            last_crc: found.last_crc,
            next_sequence: found.next_sequence.max(1),
            pages: Pages::default(),
        };
        let slots =
            Slots { segments: found.segments, free: found.free, next_number: found.next_number };
        let log = Log {
            disk,
            door,
            limits,
            store,
            writer: Mutex::new(writer),
            index: RwLock::new(found.index),
            slots: Mutex::new(slots),
            poison: OnceLock::new(),
        };
        Ok((log, torn))
    }

    /// Writes the records and makes them durable, with one sync for as many as fit a block.
    /// An empty list writes an empty block, which promises that all before it is durable.
    ///
    /// # Errors
    /// Any failure poisons the log: this and every later call returns [`Error::Poisoned`], since
    /// after a failed sync nobody knows what the disk has, and a retry may claim success for
    /// data that is gone.
    pub fn commit(&self, records: &[Record]) -> Result<Lsn> {
        let mut writer = self.writer.lock();
        self.check()?;
        let mut rest = records;
        loop {
            let (now, later) = rest.split_at(self.fits(rest)?);
            let bytes = BLOCK_HEADER_BYTES + now.iter().map(format::record_bytes).sum::<usize>();
            let written = match writer.offset {
                Some(offset) if offset + padded(bytes) <= self.limits.segment_bytes => {
                    self.append(&mut writer, offset, now)
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

    /// Fails once the log is poisoned.
    pub fn check(&self) -> Result<()> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
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

    fn append(&self, writer: &mut Writer, offset: u64, records: &[Record]) -> Result<()> {
        let segment = self.slots.lock().segments.back().cloned();
        let segment = segment.expect("an offset goes with an active segment");
        writer.pages.clear();
        self.write_block(writer, &segment, offset, records)
    }

    /// Begins a new segment with the records as its first block. What every shard needs from the
    /// segments before goes in front of them, so that those can be recycled.
    fn roll(&self, writer: &mut Writer, slot: Slot, records: &[Record]) -> Result<()> {
        let (end, crc) = (writer.end, writer.last_crc);
        let header = SegmentHeader::new(self.store, writer.next_sequence, end, crc);
        writer.next_sequence += 1;
        slot.region.unseal();
        writer.pages.clear();
        header.encode(&mut writer.pages);
        let segment = Segment { slot, header };
        {
            let mut slots = self.slots.lock();
            if let Some(old) = slots.segments.back() {
                old.slot.region.seal();
            }
            slots.segments.push_back(segment.clone());
        }
        let mut all = self.index.read().checkpoint();
        all.extend_from_slice(records);
        self.write_block(writer, &segment, 0, &all)
    }

    /// Writes one block, behind a header if `pages` holds one, and takes it into the index.
    fn write_block(
        &self,
        writer: &mut Writer,
        segment: &Segment,
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
        let path = || segment::slot_path(segment.slot.number);
        let len = writer.pages.len();
        segment.slot.region.write(offset, &writer.pages).map_err(Error::io("write", path()))?;
        segment.slot.region.sync(offset, len).map_err(Error::io("sync", path()))?;
        writer.last_crc = crc;
        writer.offset = Some(offset + len as u64);
        writer.end = base + offset + len as u64;
        writer.durable = writer.end;
        let mut released = false;
        let mut index = self.index.write();
        for (record, place) in records.iter().zip(places) {
            released |= matches!(record, Record::Release { .. } | Record::Reset { .. });
            let segment = segment.header.sequence as u32;
            index.apply(record, Position { segment, offset: offset as u32 + place as u32 });
        }
        if released {
            self.slots.lock().recycle(index.oldest());
        }
        Ok(())
    }

    fn take_slot(&self) -> Result<Slot> {
        if let Some(slot) = self.slots.lock().free.pop_front() {
            return Ok(slot);
        }
        self.new_slot()
    }

    fn new_slot(&self) -> Result<Slot> {
        let number = {
            let mut slots = self.slots.lock();
            slots.next_number += 1;
            slots.next_number - 1
        };
        segment::prepare(&*self.disk, self.door, number, self.limits.segment_bytes)
    }

    /// Whether a slot should be prepared now, so that no commit has to wait for it.
    pub fn wants_slot(&self) -> bool {
        self.poison.get().is_none() && self.slots.lock().free.len() < self.limits.spare_slots
    }

    /// Prepares one more slot: writes a whole segment of zeros. For a background thread.
    pub fn prepare_slot(&self) -> Result<()> {
        let slot = self.new_slot()?;
        self.slots.lock().free.push_back(slot);
        Ok(())
    }

    /// Segments in use. Each is one slot file.
    pub fn segments(&self) -> usize {
        self.slots.lock().segments.len()
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
    /// [`Error::Compacted`] when `first` was released, [`Error::Corrupt`] on damage.
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
            let run = self.entries_at(shard, next, end)?;
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

    /// The entries from `first` on that lie in one record.
    fn entries_at(&self, shard: ShardId, first: u64, end: u64) -> Result<Vec<Entry>> {
        let (position, count) = {
            let index = self.index.read();
            let Some(log) = index.shard(shard) else { return Ok(Vec::new()) };
            if first < log.first() {
                return Err(Error::Compacted { shard, upto: log.base.index });
            }
            let Some(position) = log.position(first) else { return Ok(Vec::new()) };
            let same = |&i: &u64| log.position(i) == Some(position);
            (position, (first..end).take_while(same).count())
        };
        let segment = self.slots.lock().segment(position.segment).cloned();
        let Some(Segment { slot, .. }) = segment else {
            return Err(Error::Compacted { shard, upto: first });
        };
        let record = read_record(&slot, position)?;
        let entries = match record {
            Some(Record::Entries { shard: s, first: f, term, count, payload, .. })
                if s == shard && f <= first =>
            {
                format::decode_entries(f, term, count, &payload)
            }
            _ => None,
        };
        let Some(entries) = entries else {
            if self.bounds(shard).0 > first {
                return Err(Error::Compacted { shard, upto: first });
            }
            let (path, offset) = (segment::slot_path(slot.number), u64::from(position.offset));
            let what = "a log record";
            return Err(Error::corrupt(path, offset, what, "its checksum", "another"));
        };
        Ok(entries.into_iter().skip_while(|e| e.id.index < first).take(count).collect())
    }
}

/// Bytes that a block of this content takes in a segment.
fn padded(bytes: usize) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES) as u64
}

fn read_record(slot: &Slot, position: Position) -> Result<Option<Record>> {
    let path = || segment::slot_path(slot.number);
    let mut header = [0; RECORD_HEADER_BYTES];
    let offset = u64::from(position.offset);
    slot.region.read(offset, &mut header).map_err(Error::io("read", path()))?;
    let Some(header) = RecordHeader::decode(&header) else { return Ok(None) };
    let start = offset + RECORD_HEADER_BYTES as u64;
    if start + header.len as u64 > slot.region.len() {
        return Ok(None);
    }
    let mut payload = vec![0; header.len];
    slot.region.read(start, &mut payload).map_err(Error::io("read", path()))?;
    Ok(header.record(payload.into()))
}
