//! Slots: files of one size, prepared ahead of need, each holding one segment of the log at a time.

use super::format::SegmentHeader;
use crate::disk::{Disk, Region, WriteDoor};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;

/// The directory of the slots.
pub(crate) const LOG_DIR: &str = "log";

/// The file of a slot.
pub(crate) fn slot_path(slot: u32) -> String {
    format!("{LOG_DIR}/slot-{slot:05}.seg")
}

/// The slot that a file name stands for.
pub(crate) fn slot_number(name: &str) -> Option<u32> {
    name.strip_prefix("slot-")?.strip_suffix(".seg")?.parse().ok()
}

/// A slot, open.
#[derive(Clone)]
pub(super) struct Slot {
    pub number: u32,
    pub region: Arc<dyn Region>,
}

/// A slot in use.
#[derive(Clone)]
pub(super) struct Segment {
    pub slot: Slot,
    pub header: SegmentHeader,
}

/// The segments in use, oldest first, and the slots that wait for their next life.
pub(super) struct Slots {
    pub segments: VecDeque<Segment>,
    pub free: VecDeque<Slot>,
    pub next_number: u32,
}

impl Slots {
    pub(super) fn segment(&self, sequence: u32) -> Option<&Segment> {
        let at = self.segments.partition_point(|s| (s.header.sequence as u32) < sequence);
        self.segments.get(at).filter(|s| s.header.sequence as u32 == sequence)
    }

    /// Frees every segment older than `oldest`, but never the active one.
    pub(super) fn recycle(&mut self, oldest: Option<u32>) {
        while self.segments.len() > 1 {
            let first = self.segments[0].header.sequence as u32;
            if oldest.is_some_and(|oldest| oldest <= first) {
                return;
            }
            let segment = self.segments.pop_front().expect("two segments at least");
            self.free.push_back(segment.slot);
        }
    }
}

/// Creates and opens one more slot file, every byte of it written.
pub(super) fn prepare(disk: &dyn Disk, door: WriteDoor, number: u32, bytes: u64) -> Result<Slot> {
    let path = slot_path(number);
    let free = disk.free_bytes().map_err(Error::io("measure", &path))?;
    if free < bytes {
        return Err(Error::NoSpace { dir: disk.describe(), free, need: bytes });
    }
    disk.prepare_region(&path, bytes).map_err(Error::io("prepare", &path))?;
    let region = disk.open_region(&path, door).map_err(Error::io("open", &path))?;
    Ok(Slot { number, region })
}
