//! Slots: files of one size, each of which holds one segment of the log at a time. Slots are
//! allocated before they are needed, so that no commit waits for an allocation. Slots are filled
//! with zeros in idle time, so that a commit costs the file system no work of its own. A log that
//! grows fast uses unfilled slots: filling would write the same amount again.
//!
//! A segment is kept for a stated reason ([`Hold`]): it is the active segment, entries in it are
//! not released, or a holder keeps its `Arc` because values in it are alive. The slot of a segment
//! without such a reason is reused.

use super::format::SegmentHeader;
use crate::disk::{Disk, Region, WriteMode};
use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The directory of the slots.
pub(crate) const LOG_DIR: &str = "log";

/// The file of a slot.
pub(crate) fn slot_path(slot: u32) -> String {
    format!("{LOG_DIR}/slot-{slot:05}.seg")
}

/// The slot number in a file name.
pub(crate) fn slot_number(name: &str) -> Option<u32> {
    name.strip_prefix("slot-")?.strip_suffix(".seg")?.parse().ok()
}

/// An open slot.
#[derive(Clone)]
pub(super) struct Slot {
    pub number: u32,
    pub region: Arc<dyn Region>,
    /// The slot was filled with zeros, or it held a segment before.
    pub filled: bool,
}

/// A slot in use. The slot is not reused while a clone of its `Arc` exists, so the holder of a
/// clone can read it.
pub struct Segment {
    pub(super) slot: Slot,
    pub(super) header: SegmentHeader,
}

impl Segment {
    /// The segment's sequence in the log.
    pub fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// The segment's file, relative to the disk's directory.
    pub fn path(&self) -> String {
        slot_path(self.slot.number)
    }

    /// The segment's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.slot.region.len()
    }

    /// Announces that values from all parts of the segment will be read soon.
    pub fn prefetch(&self) {
        self.slot.region.prefetch();
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`Error::Io`]; a bad sector causes this error, never a signal.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.slot.region.read(offset, buf).map_err(Error::io("read", self.path()))
    }
}

/// The reason why a segment is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The log writes to this segment.
    Active,
    /// Entries in this segment or in an older one are not released: a tree has not flushed them, or
    /// a follower may need them.
    Entries,
    /// Tables, memtables or readers point to values in this segment.
    Values,
}

/// The segments in use and the free slots. The log, which writes the segments, and the trees, which
/// hold the segments with live values, share this set.
#[derive(Default)]
pub struct Segments {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    used: BTreeMap<u64, Arc<Segment>>,
    /// The free slots, the filled ones first.
    free: VecDeque<Slot>,
    /// The number of free slots that are being filled.
    filling: usize,
    next_number: u32,
    /// All entries of segments before this one are released.
    entries_from: u64,
}

impl Segments {
    pub(super) fn new(
        used: Vec<Segment>,
        free: VecDeque<Slot>,
        next_number: u32,
        entries_from: u64,
    ) -> Self {
        let used = used.into_iter().map(|s| (s.header.sequence, Arc::new(s))).collect();
        Self { inner: Mutex::new(Inner { used, free, filling: 0, next_number, entries_from }) }
    }

    /// Returns a clone of a segment's `Arc`; `None` when its slot was given up.
    pub fn pin(&self, sequence: u64) -> Option<Arc<Segment>> {
        self.inner.lock().used.get(&sequence).cloned()
    }

    /// Every segment in use, oldest first, and why it is kept.
    pub fn holds(&self) -> Vec<(u64, Hold)> {
        let inner = self.inner.lock();
        let last = inner.used.keys().next_back().copied();
        let why = |sequence| match sequence {
            _ if Some(sequence) == last => Hold::Active,
            _ if sequence >= inner.entries_from => Hold::Entries,
            _ => Hold::Values,
        };
        inner.used.keys().map(|&sequence| (sequence, why(sequence))).collect()
    }

    /// The number of free slots, those being filled included.
    pub fn free(&self) -> usize {
        let inner = self.inner.lock();
        inner.free.len() + inner.filling
    }

    /// Records that all entries of segments before `oldest` are released.
    pub(super) fn release_entries(&self, oldest: u64) {
        self.inner.lock().entries_from = oldest;
        self.reclaim();
    }

    /// Frees the slots of segments that have no reason to be kept.
    pub fn reclaim(&self) {
        let inner = &mut *self.inner.lock();
        let Some((&last, _)) = inner.used.last_key_value() else { return };
        let end = inner.entries_from.min(last);
        // No thread can make a new clone of these meanwhile: clones are made from this map, under
        // this lock, or from another clone, and then the count is at least two.
        let gone = inner.used.extract_if(..end, |_, segment| Arc::strong_count(segment) == 1);
        for (_, segment) in gone {
            // A segment that was never full counts as filled too: the next segment in the slot
            // fills it.
            inner.free.push_front(Slot { filled: true, ..segment.slot.clone() });
        }
    }

    pub(super) fn begin(&self, segment: Arc<Segment>) {
        let used = &mut self.inner.lock().used;
        if let Some((_, old)) = used.last_key_value() {
            old.slot.region.seal();
        }
        used.insert(segment.header.sequence, segment);
    }

    pub(super) fn take_free(&self) -> Option<Slot> {
        self.inner.lock().free.pop_front()
    }

    pub(super) fn add_free(&self, slot: Slot) {
        self.inner.lock().free.push_back(slot);
    }

    /// Whether any free slot is not filled yet.
    pub(super) fn unfilled(&self) -> bool {
        let inner = self.inner.lock();
        inner.filling > 0 || inner.free.back().is_some_and(|slot| !slot.filled)
    }

    /// Removes an unfilled free slot from the set, so that the caller can fill it.
    pub(super) fn take_unfilled(&self) -> Option<Slot> {
        let inner = &mut *self.inner.lock();
        let slot = inner.free.pop_back_if(|slot| !slot.filled)?;
        inner.filling += 1;
        Some(slot)
    }

    /// Returns a slot to the set after filling.
    pub(super) fn add_filled(&self, slot: Slot) {
        let inner = &mut *self.inner.lock();
        inner.filling -= 1;
        inner.free.push_front(Slot { filled: true, ..slot });
    }

    /// Removes a free slot from the set if there are more free slots than `spare` plus a
    /// thirty-second of the segments in use: the log was larger once.
    pub(super) fn take_surplus(&self, spare: usize) -> Option<Slot> {
        let inner = &mut *self.inner.lock();
        let keep = spare + inner.used.len() / 32;
        (inner.free.len() > keep).then(|| inner.free.pop_back()).flatten()
    }

    pub(super) fn new_number(&self) -> u32 {
        let inner = &mut *self.inner.lock();
        inner.next_number += 1;
        inner.next_number - 1
    }
}

/// Creates and opens one more slot file.
pub(super) fn allocate(
    disk: &dyn Disk,
    write_mode: WriteMode,
    number: u32,
    bytes: u64,
) -> Result<Slot> {
    let path = slot_path(number);
    let free = disk.free_bytes().map_err(Error::io("measure", &path))?;
    if free < bytes {
        return Err(Error::NoSpace { dir: disk.describe(), free, need: bytes });
    }
    disk.allocate_region(&path, bytes).map_err(Error::io("allocate", &path))?;
    // A store through a memory map leaves the file system no opportunity for work of its own.
    let filled = write_mode == WriteMode::Mapped;
    if filled {
        disk.fill_region(&path, bytes).map_err(Error::io("fill", &path))?;
    }
    let region = disk.open_region(&path, write_mode).map_err(Error::io("open", &path))?;
    Ok(Slot { number, region, filled })
}
