//! A simulated disk in memory that can lose power.
//!
//! The disk keeps written bytes and durable bytes apart. [`MemoryDisk::power_loss`] returns the
//! disk in a state that is possible after a power loss. Each unsynced page is kept, lost or torn at
//! 512 bytes. Each unsynced change of a length or a name happened or did not, independently of the
//! others.

use super::{Disk, File, Pages, Region, WriteMode};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// The unit that a device writes atomically.
const SECTOR_BYTES: usize = 512;
const SECTORS_PER_PAGE: usize = crate::limits::BLOCK_BYTES / SECTOR_BYTES;

/// A simulated disk. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, Arc<Mutex<Inode>>>,
    durable_names: BTreeMap<String, Arc<Mutex<Inode>>>,
    /// Changes of names since the last `sync_dir` of their directory.
    pending: Vec<(String, NameChange)>,
    faults: Faults,
    samples: Vec<MemoryDisk>,
}

enum NameChange {
    Set(String, Arc<Mutex<Inode>>),
    Unset(String),
}

#[derive(Default)]
struct Inode {
    written: Vec<u8>,
    durable: Vec<u8>,
    dirty_sectors: BTreeSet<usize>,
}

/// The injected faults and their times.
#[derive(Default)]
struct Faults {
    /// Writes, syncs and name changes so far.
    operations: u64,
    /// After this many operations every operation fails: a simulated power loss.
    crash_at: Option<u64>,
    /// Syncs succeed and make nothing durable.
    ignores_syncs: bool,
    /// After this many operations every sync fails with EIO.
    sync_fails_at: Option<u64>,
    /// Bytes that may still be written, when the disk has limited space.
    room: Option<u64>,
    /// After every this many operations, the state after a possible power loss is kept as a sample.
    sample_every: Option<u64>,
    /// One read in this many fails with EIO.
    reads_fail: Option<u64>,
    draw: Draw,
}

impl Faults {
    fn enter(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.crash_at {
            Some(at) if self.operations > at => Err(io::Error::other("simulated power loss")),
            _ => Ok(()),
        }
    }

    fn check_sync(&self) -> io::Result<()> {
        match self.sync_fails_at {
            Some(at) if self.operations > at => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }

    fn take_room(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(room) = &mut self.room {
            *room = room.checked_sub(bytes).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(())
    }

    fn enter_read(&mut self) -> io::Result<()> {
        match self.reads_fail {
            Some(one_in) if self.draw.below(one_in) == 0 => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of operations so far: the range from which a test draws a crash point.
    pub fn operations(&self) -> u64 {
        self.state.lock().faults.operations
    }

    /// Makes every operation fail after `operations` more operations.
    pub fn crash_after(&self, operations: u64) {
        let faults = &mut self.state.lock().faults;
        faults.crash_at = Some(faults.operations + operations);
    }

    /// Whether the requested crash has happened: an operation has failed.
    pub fn is_down(&self) -> bool {
        let faults = &self.state.lock().faults;
        faults.crash_at.is_some_and(|at| faults.operations > at)
    }

    /// Removes the faults and the limit on space. Syncs that make nothing durable remain.
    pub fn clear_faults(&self) {
        let faults = &mut self.state.lock().faults;
        let Faults { operations, ignores_syncs, .. } = *faults;
        *faults = Faults { operations, ignores_syncs, ..Faults::default() };
    }

    /// From now on, until a power loss, syncs succeed and make nothing durable.
    pub fn ignore_syncs(&self) {
        self.state.lock().faults.ignores_syncs = true;
    }

    /// Whether syncs succeed and make nothing durable.
    pub fn ignores_syncs(&self) -> bool {
        self.state.lock().faults.ignores_syncs
    }

    /// Makes every sync fail with EIO after `operations` more operations.
    pub fn fail_syncs_after(&self, operations: u64) {
        let faults = &mut self.state.lock().faults;
        faults.sync_fails_at = Some(faults.operations + operations);
    }

    /// Limits the disk's space: `bytes` more bytes can be written.
    pub fn limit_space(&self, bytes: u64) {
        self.state.lock().faults.room = Some(bytes);
    }

    /// Makes one read in `one_in` fail with EIO, drawn from `seed`; 0 for none.
    pub fn fail_reads(&self, one_in: u64, seed: u64) {
        let faults = &mut self.state.lock().faults;
        faults.reads_fail = (one_in > 0).then_some(one_in);
        faults.draw = Draw(seed);
    }

    /// At every `count`th operation, keeps a state of the disk that is possible after a power loss
    /// at this moment; see [`MemoryDisk::take_samples`].
    pub fn sample_every(&self, count: u64) {
        self.state.lock().faults.sample_every = Some(count);
    }

    /// Returns the samples that were kept since the last call.
    pub fn take_samples(&self) -> Vec<MemoryDisk> {
        std::mem::take(&mut self.state.lock().samples)
    }

    /// Returns a state of the disk that is possible after a power loss, drawn from `seed`.
    pub fn power_loss(&self, seed: u64) -> MemoryDisk {
        self.state.lock().power_loss(seed)
    }

    /// A separate disk with the written bytes of every file, all of them durable.
    pub fn copy(&self) -> MemoryDisk {
        let copy = MemoryDisk::new();
        for (path, inode) in &self.state.lock().names {
            copy.place(path, &inode.lock().written);
        }
        copy
    }

    /// The files below a directory, as a separate disk.
    pub fn below(&self, dir: &str) -> MemoryDisk {
        let state = self.state.lock();
        let part = |names: &BTreeMap<String, Arc<Mutex<Inode>>>| {
            let inside = names.iter().filter_map(|(path, inode)| {
                let path = path.strip_prefix(dir)?.strip_prefix('/')?;
                Some((path.to_owned(), inode.clone()))
            });
            inside.collect()
        };
        let (names, durable_names) = (part(&state.names), part(&state.durable_names));
        let state = State { names, durable_names, ..State::default() };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Changes one byte of a file, written and durable, without an operation of the disk.
    pub fn flip(&self, path: &str, offset: u64, mask: u8) {
        let inode = self.inode(path).expect("the file to damage exists");
        let mut inode = inode.lock();
        inode.written[offset as usize] ^= mask;
        inode.durable[offset as usize] ^= mask;
    }

    /// The written bytes of a file, synced or not.
    pub fn bytes(&self, path: &str) -> io::Result<Vec<u8>> {
        Ok(self.inode(path)?.lock().written.clone())
    }

    /// Creates a durable file with the given bytes.
    pub fn place(&self, path: &str, bytes: &[u8]) {
        let inode = Inode {
            written: bytes.to_vec(),
            durable: bytes.to_vec(),
            dirty_sectors: BTreeSet::new(),
        };
        let inode = Arc::new(Mutex::new(inode));
        let mut state = self.state.lock();
        state.names.insert(path.to_owned(), inode.clone());
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// The names of all files.
    pub fn files(&self) -> Vec<String> {
        self.state.lock().names.keys().cloned().collect()
    }

    fn inode(&self, path: &str) -> io::Result<Arc<Mutex<Inode>>> {
        let state = self.state.lock();
        state.names.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// SplitMix64: a sufficient generator to draw the sectors and names that survive.
#[derive(Default)]
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

impl Inode {
    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if end > self.written.len() {
            self.written.resize(end, 0);
        }
        self.written[offset..end].copy_from_slice(data);
        if !data.is_empty() {
            self.dirty_sectors.extend(offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
    }

    fn sync(&mut self, sectors: std::ops::Range<usize>) {
        self.durable.resize(self.written.len(), 0);
        let synced: Vec<usize> = self.dirty_sectors.range(sectors).copied().collect();
        for sector in synced {
            self.dirty_sectors.remove(&sector);
            copy_sector(&self.written, &mut self.durable, sector);
        }
    }

    /// Returns a state of this file that is possible after a power loss.
    fn survivor(&self, draw: &mut Draw) -> Inode {
        let mut bytes = self.durable.clone();
        let length_survives = bytes.len() == self.written.len() || draw.below(2) == 0;
        if length_survives {
            bytes.resize(self.written.len(), 0);
        }
        let mut page_fate = (usize::MAX, 0);
        for &sector in &self.dirty_sectors {
            let page = sector / SECTORS_PER_PAGE;
            if page_fate.0 != page {
                page_fate = (page, draw.below(3));
            }
            let kept = match page_fate.1 {
                0 => false,
                1 => true,
                _ => draw.below(2) == 0,
            };
            if kept {
                copy_sector(&self.written, &mut bytes, sector);
            }
        }
        Inode { written: bytes.clone(), durable: bytes, dirty_sectors: BTreeSet::new() }
    }
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let start = sector * SECTOR_BYTES;
    let end = (start + SECTOR_BYTES).min(from.len()).min(to.len());
    if start < end {
        to[start..end].copy_from_slice(&from[start..end]);
    }
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or_else(String::new, |(dir, _)| dir.to_owned())
}

impl State {
    /// Begins an operation that changes the disk.
    fn enter(&mut self) -> io::Result<()> {
        self.faults.enter()?;
        let operations = self.faults.operations;
        if self.faults.sample_every.is_some_and(|every| operations.is_multiple_of(every)) {
            let sample = self.power_loss(operations);
            self.samples.push(sample);
        }
        Ok(())
    }

    /// Begins a sync and returns whether the sync makes anything durable.
    fn enter_sync(&mut self) -> io::Result<bool> {
        self.enter()?;
        self.faults.check_sync()?;
        Ok(!self.faults.ignores_syncs)
    }

    fn power_loss(&self, seed: u64) -> MemoryDisk {
        let mut draw = Draw(seed);
        let mut names = self.durable_names.clone();
        for (_, change) in &self.pending {
            if draw.below(2) == 0 {
                continue;
            }
            match change {
                NameChange::Set(path, inode) => drop(names.insert(path.clone(), inode.clone())),
                NameChange::Unset(path) => drop(names.remove(path)),
            }
        }
        let names: BTreeMap<_, _> = names
            .into_iter()
            .map(|(path, inode)| (path, Arc::new(Mutex::new(inode.lock().survivor(&mut draw)))))
            .collect();
        let durable_names = names.clone();
        let state = State { names, durable_names, ..State::default() };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn change(&mut self, path: &str, change: NameChange) {
        match &change {
            NameChange::Set(path, inode) => drop(self.names.insert(path.clone(), inode.clone())),
            NameChange::Unset(path) => drop(self.names.remove(path)),
        }
        self.pending.push((parent(path), change));
    }

    fn sync_dir(&mut self, dir: &str) {
        for (parent, change) in std::mem::take(&mut self.pending) {
            if parent != dir {
                self.pending.push((parent, change));
                continue;
            }
            match change {
                NameChange::Set(path, inode) => drop(self.durable_names.insert(path, inode)),
                NameChange::Unset(path) => drop(self.durable_names.remove(&path)),
            }
        }
    }
}

impl Disk for MemoryDisk {
    fn make_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let state = self.state.lock();
        let names = state.names.keys().filter_map(|path| path.strip_prefix(&prefix));
        let first = names.map(|rest| rest.split('/').next().unwrap_or(rest).to_owned());
        Ok(first.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state.lock();
        state.enter()?;
        let inode = Arc::new(Mutex::new(Inode::default()));
        state.change(path, NameChange::Set(path.to_owned(), inode.clone()));
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(MemoryFile { disk: self.clone(), inode: self.inode(path)? }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.inode(from)?;
        let mut state = self.state.lock();
        state.enter()?;
        state.change(from, NameChange::Unset(from.to_owned()));
        state.change(to, NameChange::Set(to.to_owned(), inode));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.inode(from)?;
        let mut state = self.state.lock();
        state.enter()?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change(to, NameChange::Set(to.to_owned(), inode));
        Ok(())
    }

    fn remove_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.inode(path)?;
        let mut state = self.state.lock();
        state.enter()?;
        state.change(path, NameChange::Unset(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.enter_sync()? {
            state.sync_dir(dir);
        }
        Ok(())
    }

    fn allocate_region(&self, path: &str, bytes: u64) -> io::Result<()> {
        let mut file = self.create(path)?;
        file.append(&vec![0; bytes as usize])?;
        file.sync()?;
        self.sync_dir(&parent(path))
    }

    fn fill_region(&self, _path: &str, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn open_region(&self, path: &str, _mode: WriteMode) -> io::Result<Arc<dyn Region>> {
        Ok(Arc::new(MemoryRegion { disk: self.clone(), inode: self.inode(path)? }))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.state.lock().faults.room.unwrap_or(u64::MAX))
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: Arc<Mutex<Inode>>,
}

impl File for MemoryFile {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        {
            let mut state = self.disk.state.lock();
            state.enter()?;
            state.faults.take_room(data.len() as u64)?;
        }
        let mut inode = self.inode.lock();
        let end = inode.written.len();
        inode.write(end, data);
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.state.lock().faults.enter_read()?;
        read(&self.inode.lock().written, offset, buf)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.disk.state.lock().enter_sync()? {
            self.inode.lock().sync(0..usize::MAX);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.lock().written.len() as u64)
    }
}

struct MemoryRegion {
    disk: MemoryDisk,
    inode: Arc<Mutex<Inode>>,
}

impl Region for MemoryRegion {
    fn len(&self) -> u64 {
        self.inode.lock().written.len() as u64
    }

    fn write(&self, offset: u64, pages: &Pages) -> io::Result<()> {
        let entered = self.disk.state.lock().enter();
        let mut inode = self.inode.lock();
        let blocks = pages.as_blocks();
        if offset as usize + blocks.len() > inode.written.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // A write that a power loss cut short may still have reached the cache of the device.
        inode.write(offset as usize, blocks);
        entered
    }

    fn sync(&self, offset: u64, len: usize) -> io::Result<()> {
        if self.disk.state.lock().enter_sync()? {
            let first = offset as usize / SECTOR_BYTES;
            self.inode.lock().sync(first..first + len.div_ceil(SECTOR_BYTES));
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        if self.disk.state.lock().enter_sync()? {
            self.inode.lock().sync(0..usize::MAX);
        }
        Ok(())
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.state.lock().faults.enter_read()?;
        read(&self.inode.lock().written, offset, buf)
    }
}

fn read(bytes: &[u8], offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let range = start..start.saturating_add(buf.len());
    let found = bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
    buf.copy_from_slice(found);
    Ok(())
}
