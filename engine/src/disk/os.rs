//! The real disk: one directory, ordinary files, and log slots written in one of three modes.

use super::mmap::SegmentMap;
use super::{Disk, File, Pages, Region, WriteMode};
use rustix::fs::{FallocateFlags, OFlags};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes per write while a slot is filled.
const FILL_CHUNK_BYTES: usize = 1 << 20;
/// Bytes after which a growing file is synced before its end: one sync of a large file at its end
/// would delay the log's next write.
const SYNC_STEP_BYTES: usize = 4 << 20;
/// Bytes that one read-ahead call reads.
const READ_AHEAD_BYTES: u64 = 1 << 20;

/// A directory, locked for this process while the value or a clone of the value exists.
#[derive(Clone)]
pub struct OsDisk {
    root: PathBuf,
    _lock: Arc<fs::File>,
}

impl OsDisk {
    /// Opens or creates the directory and locks it. Other users cannot enter a directory that this
    /// call creates.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::error::Error::Locked) when another process holds the lock.
    pub fn open(root: &Path) -> crate::error::Result<Self> {
        let name = root.display().to_string();
        let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
        created.map_err(crate::error::Error::io("create", &name))?;
        let path = root.join("LOCK");
        let lock = fs::File::create(&path).map_err(crate::error::Error::io("create", &name))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: Arc::new(lock) }),
            Err(fs::TryLockError::WouldBlock) => Err(crate::error::Error::Locked { dir: name }),
            Err(fs::TryLockError::Error(e)) => Err(crate::error::Error::io("lock", name)(e)),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Disk for OsDisk {
    fn make_dir(&self, dir: &str) -> io::Result<()> {
        fs::create_dir_all(self.path(dir))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(self.path(dir)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(names),
            Err(e) => return Err(e),
        };
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn File>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path(path))?;
        Ok(Box::new(OsFile { file, end: 0, unsynced: 0 }))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        let file = fs::File::open(self.path(path))?;
        let end = file.metadata()?.len();
        Ok(Box::new(OsFile { file, end, unsynced: 0 }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path(from), self.path(to))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        match fs::remove_dir(self.path(dir)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        fs::File::open(self.path(dir))?.sync_all()
    }

    fn allocate_region(&self, path: &str, bytes: u64) -> io::Result<()> {
        let full = self.path(path);
        let file = fs::File::options().write(true).create(true).truncate(true).open(&full)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => file.sync_all()?,
            Err(rustix::io::Errno::NOSPC) => return Err(rustix::io::Errno::NOSPC.into()),
            // Not every file system supports this call; written bytes have their space reserved as
            // well.
            Err(_) => self.fill_region(path, bytes)?,
        }
        match full.parent() {
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    fn fill_region(&self, path: &str, bytes: u64) -> io::Result<()> {
        let file = fs::File::options().write(true).open(self.path(path))?;
        let zeros = vec![0u8; FILL_CHUNK_BYTES.min(bytes as usize)];
        let mut offset = 0;
        while offset < bytes {
            let len = zeros.len().min((bytes - offset) as usize);
            file.write_all_at(&zeros[..len], offset)?;
            offset += len as u64;
        }
        file.sync_all()?;
        forget_cached(&file);
        Ok(())
    }

    fn open_region(&self, path: &str, write_mode: WriteMode) -> io::Result<Arc<dyn Region>> {
        let full = self.path(path);
        let file = fs::File::options().read(true).write(true).open(&full)?;
        let map = SegmentMap::new(&file)?;
        Ok(match write_mode {
            WriteMode::Mapped => Arc::new(MappedRegion { map, file }),
            WriteMode::Pwrite | WriteMode::Auto => {
                // The cache must hold small folios only, so the use of a slot begins with an empty
                // cache.
                forget_cached(&file);
                Arc::new(PwriteRegion { map, file })
            }
            WriteMode::Direct => {
                forget_cached(&file);
                let direct = fs::File::options()
                    .read(true)
                    .write(true)
                    .custom_flags((OFlags::DIRECT | OFlags::DSYNC).bits() as i32)
                    .open(&full)?;
                Arc::new(DirectRegion { map, direct, file, sealed: AtomicBool::new(false) })
            }
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

/// Drops the cached pages of a synced file, so that the next writes do not touch large cached
/// folios. The call is only advice: if the call fails, writes cost more, with no other effect.
fn forget_cached(file: &fs::File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// Reads a file into the page cache in order, one piece at a time. One read of the whole file would
/// delay the log's next write until the read ends. An error is ignored here: later reads report it.
fn read_ahead(file: &fs::File) {
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    let mut piece = vec![0; READ_AHEAD_BYTES as usize];
    for offset in (0..len).step_by(READ_AHEAD_BYTES as usize) {
        if file.read_at(&mut piece, offset).is_err() {
            return;
        }
    }
}

struct OsFile {
    file: fs::File,
    end: u64,
    unsynced: usize,
}

impl File for OsFile {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.end)?;
        self.end += data.len() as u64;
        self.unsynced += data.len();
        if self.unsynced >= SYNC_STEP_BYTES { self.sync() } else { Ok(()) }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.end)
    }
}

struct MappedRegion {
    map: SegmentMap,
    file: fs::File,
}

impl Region for MappedRegion {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn write(&self, offset: u64, pages: &Pages) -> io::Result<()> {
        self.map.write(offset as usize, pages.as_blocks())
    }

    fn sync(&self, offset: u64, len: usize) -> io::Result<()> {
        self.map.sync(offset as usize, len)
    }

    fn prefetch(&self) {
        read_ahead(&self.file);
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.map.read(offset as usize, buf)
    }
}

struct PwriteRegion {
    map: SegmentMap,
    file: fs::File,
}

impl Region for PwriteRegion {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn write(&self, offset: u64, pages: &Pages) -> io::Result<()> {
        self.file.write_all_at(pages.as_blocks(), offset)
    }

    fn sync(&self, _offset: u64, _len: usize) -> io::Result<()> {
        self.file.sync_data()
    }

    fn prefetch(&self) {
        read_ahead(&self.file);
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.map.read(offset as usize, buf)
    }

    fn unseal(&self) {
        forget_cached(&self.file);
    }
}

/// A region written without the page cache. While the slot is active, its reads also bypass the
/// cache, so the two views of one block are never mixed. A sealed slot is read through its memory
/// map.
struct DirectRegion {
    map: SegmentMap,
    direct: fs::File,
    file: fs::File,
    sealed: AtomicBool,
}

impl Region for DirectRegion {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn write(&self, offset: u64, pages: &Pages) -> io::Result<()> {
        self.direct.write_all_at(pages.as_blocks(), offset)
    }

    fn sync(&self, _offset: u64, _len: usize) -> io::Result<()> {
        Ok(()) // O_DSYNC: the write has returned, so the data is on the device
    }

    fn prefetch(&self) {
        read_ahead(&self.file);
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.sealed.load(Ordering::Acquire) {
            return self.map.read(offset as usize, buf);
        }
        let block = crate::limits::BLOCK_BYTES as u64;
        let start = offset / block * block;
        let skip = (offset - start) as usize;
        let mut pages = Pages::zeroed(skip + buf.len());
        let len = pages.len();
        self.direct.read_exact_at(&mut pages.content_mut()[..len], start)?;
        buf.copy_from_slice(&pages.as_blocks()[skip..skip + buf.len()]);
        Ok(())
    }

    fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    fn unseal(&self) {
        self.sealed.store(false, Ordering::Release);
        forget_cached(&self.file);
    }
}

/// Starts a timer for an operation of the device. The only clock in the engine: it compares write
/// modes at start-up and decides nothing else.
#[expect(clippy::disallowed_methods, reason = "the start-up probe times the write modes")]
pub(crate) fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}
