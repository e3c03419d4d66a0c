//! The seam to storage. Everything above it names files relative to one directory and knows
//! nothing of system calls; [`os`] is the real disk, [`memory`] one that can lose power.
//!
//! What a caller may rely on after a power loss:
//! - bytes of a [`File`] or [`Region`] are there once `sync` returned, and perhaps before;
//! - a created, renamed or removed name is settled once `sync_dir` returned.

pub mod memory;
#[expect(unsafe_code, reason = "the one address of unsafe: memory maps of log segments")]
mod mmap;
pub mod os;

use std::io;
use std::sync::Arc;

/// One directory tree on one disk. Paths are relative, with `/` between parts.
pub trait Disk: Send + Sync {
    /// Makes a directory and its parents; fine when it exists.
    fn make_dir(&self, dir: &str) -> io::Result<()>;
    /// Names in a directory, sorted; empty when there is no such directory.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Creates an empty file, replacing any of that name.
    fn create(&self, path: &str) -> io::Result<Box<dyn File>>;
    /// Opens an existing file for reading.
    fn open(&self, path: &str) -> io::Result<Box<dyn File>>;
    /// Renames, replacing the target.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a second name, in a directory that is there. Both stay equal: files do not
    /// change once they are synced.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes an empty directory; fine when there is none.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Creates a file of exactly `bytes` that reads as zeros, durable with its name. The disk has
    /// given it room: no later write in it finds the disk full.
    fn allocate_region(&self, path: &str, bytes: u64) -> io::Result<()>;
    /// Writes every byte of an allocated file, durably. A later sync in it is cheaper: the file
    /// system has nothing of its own to write then.
    fn fill_region(&self, path: &str, bytes: u64) -> io::Result<()>;
    /// Opens an allocated file for positioned writes, in the given write mode.
    fn open_region(&self, path: &str, write_mode: WriteMode) -> io::Result<Arc<dyn Region>>;
    /// Bytes that can still be written here.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Where this is, for messages.
    fn describe(&self) -> String;
}

/// A file that is written once, front to back, and then read.
pub trait File: Send + Sync {
    /// Appends at the end.
    fn append(&mut self, data: &[u8]) -> io::Result<()>;
    /// Fills `buf` from `offset`; an error of kind `UnexpectedEof` when the file is shorter.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Makes everything appended durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A fixed-size file, all of its room taken before use: one slot of the log. Its only writer writes
/// whole blocks. The only way to durability: `write`, then `sync` of the same range.
pub trait Region: Send + Sync {
    /// Bytes in the region.
    fn len(&self) -> u64;
    /// Whether the region has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Writes whole blocks of [`BLOCK_BYTES`](crate::limits::BLOCK_BYTES) at a multiple of it.
    fn write(&self, offset: u64, pages: &Pages) -> io::Result<()>;
    /// Makes what was written in the range durable.
    fn sync(&self, offset: u64, len: usize) -> io::Result<()>;
    /// Makes everything in the region durable, whoever wrote it in whatever write mode.
    fn sync_all(&self) -> io::Result<()>;
    /// Fills `buf` from `offset`.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// All of it will be read soon, in any order.
    fn prefetch(&self) {}
    /// No more writes will come until the slot is recycled: reads may go through the map.
    fn seal(&self) {}
    /// Writes will come again.
    fn unseal(&self) {}
}

/// How the log writes its blocks. All three pass the same tests; which is fastest depends on the
/// kernel, the file system and the device (`benches/log.rs` compares them).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Tries the modes on a fresh slot at start and takes the fastest.
    #[default]
    Auto,
    /// `O_DIRECT` and `O_DSYNC`: one call that returns when the device has it.
    Direct,
    /// `pwrite`, then `fdatasync`.
    Pwrite,
    /// Copy into the memory map, then `msync`. Beware file systems with large folios: there the
    /// smallest commit writes up to 2 MiB.
    Mapped,
}

impl std::str::FromStr for WriteMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "direct" => Ok(Self::Direct),
            "pwrite" => Ok(Self::Pwrite),
            "mapped" => Ok(Self::Mapped),
            other => Err(format!("`{other}` is none of auto, direct, pwrite, mapped")),
        }
    }
}

/// One block, aligned as direct I/O wants it.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; crate::limits::BLOCK_BYTES]);

/// A growable buffer of whole, aligned blocks. Reused from commit to commit.
#[derive(Default)]
pub struct Pages {
    pages: Vec<Page>,
    len: usize,
}

impl Pages {
    /// Bytes appended so far, before padding.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends bytes.
    pub fn extend(&mut self, data: &[u8]) {
        let start = self.grow(self.len + data.len());
        self.content_mut()[start..].copy_from_slice(data);
    }

    /// Appends zeros up to a multiple of `align`.
    pub fn align(&mut self, align: usize) {
        let start = self.grow(self.len.next_multiple_of(align));
        self.content_mut()[start..].fill(0);
    }

    /// Makes the content end at `end`; where it ended before. Memory is only zeroed when it is new.
    fn grow(&mut self, end: usize) -> usize {
        let pages = end.div_ceil(crate::limits::BLOCK_BYTES);
        if pages > self.pages.len() {
            self.pages.resize(pages, bytemuck::Zeroable::zeroed());
        }
        std::mem::replace(&mut self.len, end)
    }

    /// The content, which must have been aligned to whole blocks.
    pub fn as_blocks(&self) -> &[u8] {
        debug_assert!(self.len.is_multiple_of(crate::limits::BLOCK_BYTES));
        &bytemuck::cast_slice(&self.pages)[..self.len]
    }

    /// The bytes appended, to be patched in place.
    pub fn content_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.pages)[..self.len]
    }

    /// `len` zero bytes, to be read into.
    pub fn zeroed(len: usize) -> Pages {
        let mut pages = Pages { pages: Vec::new(), len };
        pages.align(crate::limits::BLOCK_BYTES);
        pages
    }
}
