//! The log's supply of slots: a slot is allocated before it is needed, filled in idle time, taken
//! for a segment, and removed when there are too many.

use super::Log;
use super::segment::{self, Slot};
use crate::disk::Pages;
use crate::error::{Error, Result};

/// Bytes of zeros that one step writes while the active slot is filled.
const FILL_STEP_BYTES: usize = 512 << 10;

impl Log {
    pub(super) fn take_slot(&self) -> Result<Slot> {
        if let Some(slot) = self.segments.take_free() {
            return Ok(slot);
        }
        self.segments.reclaim();
        self.segments.take_free().map_or_else(|| self.new_slot(), Ok)
    }

    fn new_slot(&self) -> Result<Slot> {
        let number = self.segments.new_number();
        segment::allocate(&*self.disk, self.write_mode, number, self.limits.segment_bytes)
    }

    /// Whether a slot should be allocated now, so that no commit has to wait for an allocation.
    pub fn wants_slot(&self) -> bool {
        self.poison.get().is_none() && self.segments.free() < self.limits.spare_slots
    }

    /// Allocates one more slot. For a background thread.
    pub fn allocate_slot(&self) -> Result<()> {
        let slot = self.new_slot()?;
        self.segments.add_free(slot);
        Ok(())
    }

    /// Whether a part of the active slot or a free slot is allocated but not filled.
    pub fn wants_fill(&self) -> bool {
        let writer = self.writer.lock();
        let active = writer.active.as_ref();
        let rest = active.is_some_and(|(_, at)| writer.filled.max(*at) < self.limits.segment_bytes);
        rest || self.segments.unfilled()
    }

    /// Writes zeros to the unfilled part of the active slot, or to an unfilled free slot. Returns
    /// false when there is neither. For a background thread that has nothing else to do.
    pub fn fill_slot(&self) -> Result<bool> {
        if self.fill_active()? {
            return Ok(true);
        }
        let Some(slot) = self.segments.take_unfilled() else { return Ok(false) };
        let path = segment::slot_path(slot.number);
        let filled = self.disk.fill_region(&path, self.limits.segment_bytes);
        // After a failed fill the slot is as usable as before, and the log does not try to fill it
        // again.
        self.segments.add_filled(slot);
        filled.map(|()| true).map_err(Error::io("fill", path))
    }

    /// Removes free slots that the log will probably not need soon, which returns their space to
    /// the file system. For a background thread. A removed file that reappears after a power loss
    /// is a free slot.
    pub fn trim_slots(&self) -> Result<()> {
        self.segments.reclaim();
        while let Some(slot) = self.segments.take_surplus(self.limits.spare_slots) {
            let path = segment::slot_path(slot.number);
            self.disk.remove(&path).map_err(Error::io("remove", path))?;
        }
        Ok(())
    }

    /// Fills the active slot in small steps, so that a commit waits for at most one step. Returns
    /// false when nothing is left to fill.
    fn fill_active(&self) -> Result<bool> {
        let mut zeros = Pages::default();
        let mut any = false;
        loop {
            let mut writer = self.writer.lock();
            self.check()?;
            let Some((active, at)) = writer.active.clone() else { return Ok(any) };
            let from = writer.filled.max(at);
            let len = (FILL_STEP_BYTES as u64).min(self.limits.segment_bytes.saturating_sub(from));
            if len == 0 {
                return Ok(any);
            }
            if zeros.len() != len as usize {
                zeros.clear();
                zeros.extend(&vec![0; len as usize]);
            }
            let region = &active.slot.region;
            let filled = region.write(from, &zeros).and_then(|()| region.sync(from, zeros.len()));
            filled.map_err(Error::io("fill", active.path()))?;
            writer.filled = from + len;
            any = true;
        }
    }
}
