//! Memory maps of log segments: the only `unsafe` code of the workspace.
//!
//! All blocks of a segment file are allocated before the file is mapped. The file has a fixed size,
//! is never truncated while a process runs, and belongs to one process by the directory's lock. So
//! every mapped page is backed by a block, and no other process changes it.

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::ops::Range;

/// A whole segment, mapped shared. Bytes are copied in and out; no reference into the map is
/// returned.
pub(super) struct SegmentMap {
    map: MmapRaw,
}

impl SegmentMap {
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let map = MmapOptions::new().map_raw(file)?;
        // Readahead would build large folios, and a store into a large folio makes the whole folio
        // dirty.
        map.advise(memmap2::Advice::Random)?;
        Ok(Self { map })
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Faults the range in, so that a media error causes an error in this call and not a SIGBUS
    /// later.
    fn populate(&self, range: &Range<usize>) -> io::Result<()> {
        let page = crate::limits::BLOCK_BYTES;
        let start = range.start / page * page;
        let len = range.end - start;
        if len == 0 {
            return Ok(());
        }
        self.map.advise_range(memmap2::Advice::PopulateRead, start, len)
    }

    fn check(&self, offset: usize, len: usize) -> io::Result<Range<usize>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.map.len() => Ok(offset..end),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(super) fn read(&self, offset: usize, buf: &mut [u8]) -> io::Result<()> {
        let range = self.check(offset, buf.len())?;
        self.populate(&range)?;
        // SAFETY: the range is inside the map (checked above), the map lives as long as `self`, and
        // `buf` is the caller's exclusive memory, so the two do not overlap. The committer may
        // store to other blocks at the same time, never to a block that a reader was given.
        unsafe {
            let from = self.map.as_ptr().add(range.start);
            std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len());
        }
        Ok(())
    }

    pub(super) fn write(&self, offset: usize, data: &[u8]) -> io::Result<()> {
        let range = self.check(offset, data.len())?;
        self.populate(&range)?;
        // SAFETY: the range is inside the map (checked above), the map lives as long as `self`, and
        // `data` does not overlap the map. The log has one writer at a time (the commit lock), and
        // readers are only given blocks whose commit has ended.
        unsafe {
            let to = self.map.as_mut_ptr().add(range.start);
            std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
        }
        Ok(())
    }

    pub(super) fn sync(&self, offset: usize, len: usize) -> io::Result<()> {
        self.map.flush_range(offset, len)
    }
}
