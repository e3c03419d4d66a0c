//! The log. There is one log per disk, for all shards of the disk, and no other write-ahead log.
//!
//! [`Log::commit`] accepts the records of many shards, writes them as one block and syncs once. The
//! records are durable when the call returns. An entry is found again by its shard and index.

pub mod format;
mod group_commit;
mod index;
pub mod record;
pub(crate) mod recovery;
pub mod scan;
pub(crate) mod segment;
mod slots;

use crate::disk::{Disk, Pages, WriteMode};
use crate::error::{Error, Result};
use crate::ids::{Index, LogId, Lsn, ShardId, Term};
use crate::limits::{BLOCK_BYTES, COMMIT_RECORDS_MAX, LOG_GAP_BYTES_MAX, Limits, RECORD_BYTES_MAX};
pub use crate::missing::Missing;
use bytes::Bytes;
use format::{BLOCK_HEADER_BYTES, ENTRY_HEADER_BYTES, SegmentHeader};
pub use group_commit::{GroupCommit, Pending};
use index::{LogIndex, Position};
use parking_lot::{Mutex, RwLock};
pub use record::{Entry, EntryKind, HardState, LogEntry, Record, Vote};
use recovery::Damage;
use segment::Slot;
pub use segment::{Hold, Segment, Segments};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// The location of an entry's data in the log.
#[derive(Clone)]
pub struct Place {
    /// The segment. This `Arc` keeps the segment from being reused.
    pub segment: Arc<Segment>,
    /// Byte offset in the segment.
    pub offset: u32,
}

/// The log of one disk. Threads share the log; its commits are serialised internally.
pub struct Log {
    disk: Arc<dyn Disk>,
    write_mode: WriteMode,
    limits: Limits,
    store: u128,
    writer: Mutex<Writer>,
    index: RwLock<LogIndex>,
    segments: Arc<Segments>,
    /// No data of any shard was missing when the log was opened.
    whole: bool,
    /// The damage found by recovery that may explain the missing data.
    damage: Vec<Damage>,
    poison: OnceLock<String>,
}

struct Writer {
    /// The active segment and the offset of its next block. `None` until the first commit after a
    /// start. That commit begins a new segment, so that no block in an old segment can become valid
    /// again.
    active: Option<(Arc<Segment>, u64)>,
    end: Lsn,
    durable: Lsn,
    last_crc: u32,
    next_sequence: u64,
    /// The active slot is filled up to this offset.
    filled: u64,
    /// The last block holds records, and no later block records yet that this block was synced.
    unmarked: bool,
    pages: Pages,
}

impl Log {
    /// Opens the log in `disk`, or creates it. The log opens even if durable data cannot be read:
    /// [`Log::missing`] returns the missing data of each shard.
    ///
    /// # Errors
    /// [`Error::NewerFormat`]; [`Error::Corrupt`] when a slot belongs to another store.
    pub fn open(
        disk: Arc<dyn Disk>,
        write_mode: WriteMode,
        store: u128,
        limits: Limits,
    ) -> Result<(Log, bool)> {
        disk.make_dir(segment::LOG_DIR).map_err(Error::io("create", segment::LOG_DIR))?;
        let found = recovery::recover(&*disk, write_mode, store, limits.segment_bytes)?;
        if let Some(newest) = found.segments.last() {
            // A killed process leaves blocks that are only in the page cache. Recovery has read
            // these blocks, so they must survive a power loss from now on.
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

    /// Writes the records and makes them durable, with one sync per block of records. An empty list
    /// writes an empty block, which records that everything before it was synced.
    ///
    /// # Errors
    /// [`Error::Missing`] for entries of a shard whose log end is unknown. A failed write or sync
    /// poisons the log: this and every later call returns [`Error::Poisoned`], because after a
    /// failed sync the content of the disk is unknown, and a retry could report success for data
    /// that is lost.
    pub fn commit(&self, records: &[Record]) -> Result<Lsn> {
        let mut writer = self.writer.lock();
        self.check()?;
        self.check_log_ends(records)?;
        let mut rest = records;
        loop {
            let (now, later) = rest.split_at(self.fits(rest)?);
            let bytes = BLOCK_HEADER_BYTES + now.iter().map(format::record_bytes).sum::<usize>();
            let written = match writer.active.clone() {
                Some((active, at)) if at + padded(bytes) <= self.limits.segment_bytes => {
                    writer.pages.clear();
                    self.write_block(&mut writer, active, at, now)
                }
                // Without a slot these records are not written yet, so this failure does not poison
                // the log.
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

    /// Writes a sync marker: an empty block which records that the last commit was synced, unless a
    /// later block already does. Without the marker, damage to that commit looks like a write that
    /// a power loss cut short. Intended for a time when the log is idle.
    pub fn write_sync_marker(&self) -> Result<()> {
        let unmarked = self.writer.lock().unmarked;
        if unmarked { self.commit(&[]).map(drop) } else { Ok(()) }
    }

    /// Fails if the log is poisoned.
    pub fn check(&self) -> Result<()> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Rejects entries of a shard if the entry before them is unknown.
    fn check_log_ends(&self, records: &[Record]) -> Result<()> {
        if self.whole {
            return Ok(());
        }
        let mut reset_shards = BTreeSet::new();
        for record in records {
            let shard = record.shard();
            match record {
                Record::Reset { .. } => drop(reset_shards.insert(shard)),
                Record::Entries { .. } if !reset_shards.contains(&shard) => {
                    let missing = self.missing(shard);
                    if missing.entries.last().is_some_and(|range| range.end == Index::END) {
                        return Err(self.missing_error(shard, missing));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the durable data of a shard that cannot be read any more. Empty for a sound disk.
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

    /// The error that names the missing data of a shard.
    fn missing_error(&self, shard: ShardId, missing: Missing) -> Error {
        let lost_in = self.index.read().shard(shard).and_then(|log| log.oldest());
        let damage = self.damage.iter().find(|damage| Some(damage.segment) >= lost_in);
        let cause = damage.or(self.damage.last()).map_or_else(
            || Error::corrupt(segment::LOG_DIR, 0, "the log", "a segment", "none").into(),
            |damage| damage.error.clone(),
        );
        Error::Missing { shard, missing, cause }
    }

    /// The longest record that fits a segment.
    pub fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX.min(self.limits.commit_bytes_max() - BLOCK_HEADER_BYTES)
    }

    /// Registers shards whose trees are on this disk. If all records of such a shard are lost, the
    /// log must not treat the shard as new.
    pub fn register_shards(&self, shards: impl IntoIterator<Item = ShardId>) {
        self.index.write().register_shards(shards);
    }

    /// The number of leading records that fit one block.
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

    /// Begins a new segment with the records in its first block. In front of them the block repeats
    /// the state of every shard that recovery would otherwise need from older segments, so that
    /// those segments can be reused.
    fn roll(&self, writer: &mut Writer, slot: Slot, records: &[Record]) -> Result<()> {
        let (sequence, end, crc) = (writer.next_sequence, writer.end, writer.last_crc);
        let needed = self.index.read().oldest().unwrap_or(sequence);
        let header = SegmentHeader::new(self.store, sequence, end, crc, needed);
        let base = Lsn::of_segment(sequence, self.limits.segment_bytes);
        assert!(base >= end, "a segment begins after the last one");
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
            self.index.write().begin_segment();
        }
        Ok(())
    }

    /// Writes one block, after the segment header if `pages` holds one, and applies its records to
    /// the index.
    fn write_block(
        &self,
        writer: &mut Writer,
        segment: Arc<Segment>,
        offset: u64,
        records: &[Record],
    ) -> Result<()> {
        let base = Lsn::of_segment(segment.header.sequence, self.limits.segment_bytes);
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
        assert!(lsn >= writer.end, "a block is written after the last block");
        assert!(offset + len as u64 <= self.limits.segment_bytes, "a block fits its segment");
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
            if let Record::HardState { shard, state } = record {
                let term = index.shard(*shard).map_or(Term(0), |log| log.hard.term);
                assert!(state.term >= term, "the term of a replica never decreases");
            }
            index.apply(record, Position { segment: sequence as u32, offset });
        }
        if released {
            self.segments.release_entries(index.oldest().unwrap_or(sequence));
        }
        Ok(())
    }

    /// The segments and slots of the log.
    pub fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// The number of segments that are kept for their entries, the active segment included.
    pub fn entry_segments(&self) -> usize {
        self.segments.holds().iter().filter(|(_, hold)| *hold != Hold::Values).count()
    }

    /// Returns the location of an entry's data, so that a pointer can refer to a value in it;
    /// `None` when the log does not have that entry, perhaps not yet.
    pub fn place(&self, shard: ShardId, id: LogId) -> Option<Place> {
        let position = {
            let index = self.index.read();
            let log = index.shard(shard)?;
            // The log may hold an entry of another term at this index, which the entry of a new
            // leader has yet to replace.
            log.position(id.index).filter(|_| log.term(id.index) == Some(id.term))?
        };
        let segment = self.segments.pin(u64::from(position.segment))?;
        Some(Place { segment, offset: position.offset + ENTRY_HEADER_BYTES as u32 })
    }

    /// The shards that the log's index knows.
    pub fn shards(&self) -> Vec<ShardId> {
        self.index.read().shards().map(|(id, _)| id).collect()
    }

    /// The first index held and the last entry of a shard. The entry before the first index is the
    /// base.
    pub fn bounds(&self, shard: ShardId) -> (Index, LogId) {
        let index = self.index.read();
        index.shard(shard).map_or((Index(1), LogId::default()), |log| (log.first(), log.last()))
    }

    /// The last entry that was released, or that a snapshot covers.
    pub fn base(&self, shard: ShardId) -> LogId {
        self.index.read().shard(shard).map_or(LogId::default(), |log| log.base)
    }

    /// The durable hard state of a shard.
    pub fn hard_state(&self, shard: ShardId) -> HardState {
        self.index.read().shard(shard).map_or(HardState::default(), |log| log.hard)
    }

    /// The members of a shard that the log records, and the index of the entry as of which they are
    /// the members. A copy: the tree holds the members too.
    pub fn members(&self, shard: ShardId) -> Option<(Index, Bytes)> {
        self.index.read().shard(shard)?.members.clone()
    }

    /// The term of an entry or of the base; `None` for any other index.
    pub fn term(&self, shard: ShardId, index: Index) -> Option<Term> {
        let shards = self.index.read();
        match shards.shard(shard) {
            Some(log) => log.term(index),
            None => (index == Index(0)).then_some(Term(0)),
        }
    }

    /// The first entry of each run of one term, ascending.
    pub fn terms(&self, shard: ShardId) -> Vec<LogId> {
        self.index.read().shard(shard).map_or(Vec::new(), |log| log.terms())
    }

    /// Returns durable entries from `first` on, below `end`: at least one, then more up to
    /// `max_bytes`.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `first` was released, [`Error::Missing`] on damage.
    pub fn entries(
        &self,
        shard: ShardId,
        first: Index,
        end: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>> {
        let mut out: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = first;
        while next < end && bytes < max_bytes {
            let run = match self.run(shard, next, end, max_bytes - bytes) {
                // The entries before the damage are sound.
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

    /// Reads entries from `first` on that are close together in a segment, with one read.
    fn run(
        &self,
        shard: ShardId,
        first: Index,
        end: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>> {
        let mut ends: Vec<(u32, Term)> = Vec::new();
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
            for at in (first + 1).until(end) {
                // This read includes an entry if the next entry begins shortly after that entry.
                let Some(next) = log.position(at) else { break };
                let near = next.segment == start.segment
                    && next.offset > last
                    && (next.offset - last) as usize <= LOG_GAP_BYTES_MAX
                    && (next.offset - start.offset) as usize <= max_bytes;
                if !near {
                    break;
                }
                ends.push((next.offset - start.offset, log.term(at - 1).unwrap_or(Term(0))));
                last = next.offset;
            }
            if ends.is_empty() {
                ends.push((0, log.term(first).unwrap_or(Term(0))));
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
                    break; // the entries before the damaged entry are sound
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

/// Bytes that a block with this many bytes of content occupies in a segment.
fn padded(bytes: usize) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES) as u64
}
