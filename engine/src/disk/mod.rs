//! The interface to storage. All code above this interface names files relative to one directory
//! and makes no system calls. [`os`] is the real disk; [`memory`] is a simulated disk that can lose
//! power.
//!
//! Guarantees to a caller after a power loss:
//! - bytes of a [`File`] or [`Region`] are durable once `sync` has returned, and perhaps before;
//! - a created, renamed or removed name is durable once `sync_dir` has returned.

pub mod memory;
#[expect(unsafe_code, reason = "the one address of unsafe: memory maps of log segments")]
mod mmap;
pub mod os;

use std::io;
use std::sync::Arc;

/// One directory tree on one disk. Paths are relative, with `/` between parts.
pub trait Disk: Send + Sync {
    /// Makes a directory and its parents; succeeds if the directory exists.
    fn make_dir(&self, dir: &str) -> io::Result<()>;
    /// Names in a directory, sorted; empty when there is no such directory.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Creates an empty file; replaces an existing file of that name.
    fn create(&self, path: &str) -> io::Result<Box<dyn File>>;
    /// Opens an existing file for reading.
    fn open(&self, path: &str) -> io::Result<Box<dyn File>>;
    /// Renames a file; replaces the target.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a second name, in a directory that exists. Both names keep equal content: files
    /// do not change once they are synced.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes an empty directory; succeeds if there is none.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Creates a file of exactly `bytes` bytes that reads as zeros, durable with its name. The disk
    /// has reserved the file's space: no later write to the file fails because the disk is full.
    fn allocate_region(&self, path: &str, bytes: u64) -> io::Result<()>;
    /// Writes every byte of an allocated file, durably. A later sync of the file is cheaper,
    /// because the file system then has no writes of its own.
    fn fill_region(&self, path: &str, bytes: u64) -> io::Result<()>;
    /// Opens an allocated file for positioned writes, in the given write mode.
    fn open_region(&self, path: &str, write_mode: WriteMode) -> io::Result<Arc<dyn Region>>;
    /// Bytes that can still be written to the disk.
    fn free_bytes(&self) -> io::Result<u64>;
    /// The location of the directory, for messages.
    fn describe(&self) -> String;
}

/// A file that is written once, front to back, and then read.
pub trait File: Send + Sync {
    /// Appends data at the end.
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

/// A fixed-size file whose space is reserved before use: one slot of the log. The only writer of
/// the file writes whole blocks. Data becomes durable only by `write`, then `sync` of the same
/// range.
pub trait Region: Send + Sync {
    /// Bytes in the region.
    fn len(&self) -> u64;
    /// Whether the region has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Writes whole blocks of [`BLOCK_BYTES`](crate::limits::BLOCK_BYTES) at a multiple of that
    /// size.
    fn write(&self, offset: u64, pages: &Pages) -> io::Result<()>;
    /// Makes the bytes written in the range durable.
    fn sync(&self, offset: u64, len: usize) -> io::Result<()>;
    /// Makes everything in the region durable, regardless of the process and the write mode that
    /// wrote the bytes.
    fn sync_all(&self) -> io::Result<()>;
    /// Fills `buf` from `offset`.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Announces that the whole region will be read soon, in any order.
    fn prefetch(&self) {}
    /// Announces that no more writes come until the slot is reused: reads may use the memory map.
    fn seal(&self) {}
    /// Announces that writes come again.
    fn unseal(&self) {}
}

/// The mode in which the log writes its blocks. All three modes pass the same tests. The fastest
/// mode depends on the kernel, the file system and the device (`benches/log.rs` compares the
/// modes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Measures the modes on a new slot at start and uses the fastest.
    #[default]
    Auto,
    /// `O_DIRECT` and `O_DSYNC`: one call, which returns when the data is on the device.
    Direct,
    /// `pwrite`, then `fdatasync`.
    Pwrite,
    /// Copy into the memory map, then `msync`. On file systems with large folios, the smallest
    /// commit in this mode writes up to 2 MiB.
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

/// One block, aligned as direct I/O requires.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; crate::limits::BLOCK_BYTES]);

/// A growable buffer of whole, aligned blocks. The log reuses one buffer for many commits.
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

    /// Discards the content and keeps the memory.
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

    /// Makes the content end at `end` and returns the previous end. Only new memory is zeroed.
    fn grow(&mut self, end: usize) -> usize {
        let pages = end.div_ceil(crate::limits::BLOCK_BYTES);
        if pages > self.pages.len() {
            self.pages.resize(pages, bytemuck::Zeroable::zeroed());
        }
        std::mem::replace(&mut self.len, end)
    }

    /// The content, which must be aligned to whole blocks.
    pub fn as_blocks(&self) -> &[u8] {
        debug_assert!(self.len.is_multiple_of(crate::limits::BLOCK_BYTES));
        &bytemuck::cast_slice(&self.pages)[..self.len]
    }

    /// The appended bytes, for changes in place.
    pub fn content_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.pages)[..self.len]
    }

    /// A buffer of `len` zero bytes, for a read into it.
    pub fn zeroed(len: usize) -> Pages {
        let mut pages = Pages { pages: Vec::new(), len };
        pages.align(crate::limits::BLOCK_BYTES);
        pages
    }
}
