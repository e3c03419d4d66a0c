//! Memory maps of log segments: the only `unsafe` of the workspace.
//!
//! A segment file has all of its blocks before it is mapped, has a fixed size, is never truncated
//! while a process runs, and belongs to one process by the directory's lock. So a mapped page
//! always has a block behind it, and no other process changes it.

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::ops::Range;

/// A whole segment, mapped shared. Bytes are copied in and out; no reference into the map leaves.
pub(super) struct SegmentMap {
    map: MmapRaw,
}

impl SegmentMap {
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let map = MmapOptions::new().map_raw(file)?;
        // Readahead would build large folios, and a store into one dirties all of it.
        map.advise(memmap2::Advice::Random)?;
        Ok(Self { map })
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Faults the range in, so that a media error is an error here and not a SIGBUS later.
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
        // SAFETY: the range lies in the map (checked above), the map lives as long as `self`, and
        // `buf` is our caller's exclusive memory, so the two do not overlap. The committer may
        // store to other blocks at the same time, never to one that a reader was given.
        unsafe {
            let from = self.map.as_ptr().add(range.start);
            std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len());
        }
        Ok(())
    }

    pub(super) fn write(&self, offset: usize, data: &[u8]) -> io::Result<()> {
        let range = self.check(offset, data.len())?;
        self.populate(&range)?;
        // SAFETY: as in `read`; the log has one writer at a time (the commit lock), and readers
        // are only given blocks whose commit has ended.
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
