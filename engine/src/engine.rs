//! The engine of one disk: the log and the trees of the shards.
//!
//! **`SUPER.0`, `SUPER.1`**: two copies of the superblock, the properties that are fixed when a
//! store is created. Little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `BSUP` |
//! | 4 | 4 | format version |
//! | 8 | 4 | CRC of all bytes after this field, seeded with the version |
//! | 12 | 16 | store id |
//! | 28 | 8 | segment bytes |
//! | 36 | 4 | owner length, then the owner's name in UTF-8 |

use crate::checksum::crc;
use crate::disk::{Disk, WriteMode};
use crate::error::{Error, Result};
use crate::ids::ShardId;
use crate::limits::Limits;
use crate::lsm::directories::Directories;
use crate::lsm::{Shared, Tree, TreeDir};
use crate::memory::Memory;
use crate::table::BlockCache;
use crate::values::Source;
use crate::values::pick::{Usage, pick};
use crate::wal::{Hold, Log, Record};
use bytes::{Buf, BufMut};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SUPER_MAGIC: [u8; 4] = *b"BSUP";
const SUPER_VERSION: u32 = 1;
const SUPER_COPIES: [&str; 2] = ["SUPER.0", "SUPER.1"];
/// Longest owner name.
const OWNER_BYTES_MAX: usize = 1024;
/// Commits that the start-up probe makes in each write mode.
const PROBE_COMMITS: u64 = 16;

/// Options for opening an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The sizes. An existing store keeps the segment size with which it was created.
    pub limits: Limits,
    /// The write mode of the log.
    pub write_mode: WriteMode,
    /// The size of the block cache in bytes.
    pub cache_bytes: u64,
    /// The owner of the data. A store that another owner created is refused.
    pub owner: String,
    /// The id of a store that this call creates. The id must be random and unique.
    pub new_store_id: u128,
    /// Whether a [`Db`](crate::Db) starts threads for commits, flushes and compactions.
    pub threads: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::DEFAULT,
            write_mode: WriteMode::Auto,
            cache_bytes: 64 << 20,
            owner: "embedded".to_owned(),
            new_store_id: 0,
            threads: true,
        }
    }
}

impl Options {
    /// Options for tests, with small sizes.
    pub fn tiny() -> Self {
        let cache_bytes = 64 << 10;
        let (limits, write_mode) = (Limits::TINY, WriteMode::Pwrite);
        Self { limits, write_mode, cache_bytes, threads: false, ..Self::default() }
    }
}

/// The fixed properties of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The id of the store, which every segment header contains.
    pub store: u128,
    /// The size of a log slot in bytes.
    pub segment_bytes: u64,
    /// The owner of the store.
    pub owner: String,
}

impl Superblock {
    /// Encodes the superblock.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        fields.put_u128_le(self.store);
        fields.put_u64_le(self.segment_bytes);
        fields.put_u32_le(self.owner.len() as u32);
        fields.put_slice(self.owner.as_bytes());
        let mut out = SUPER_MAGIC.to_vec();
        out.put_u32_le(SUPER_VERSION);
        out.put_u32_le(crc(SUPER_VERSION, &[&fields]));
        out.put_slice(&fields);
        out
    }

    /// Decodes a superblock. `None` for damaged bytes; the inner error is a version newer than this
    /// build reads.
    pub fn decode(mut bytes: &[u8]) -> Option<Result<Superblock, u32>> {
        if bytes.len() < 40 || bytes[..4] != SUPER_MAGIC {
            return None;
        }
        bytes.advance(4);
        let version = bytes.get_u32_le();
        if version > SUPER_VERSION {
            return Some(Err(version));
        }
        let expected = bytes.get_u32_le();
        if crc(version, &[bytes]) != expected {
            return None;
        }
        let store = bytes.get_u128_le();
        let segment_bytes = bytes.get_u64_le();
        let len = bytes.get_u32_le() as usize;
        let owner = String::from_utf8(bytes.get(..len)?.to_vec()).ok()?;
        Some(Ok(Superblock { store, segment_bytes, owner }))
    }

    /// Reads the superblock of a disk; `None` when the disk has no store yet.
    pub fn read(disk: &dyn Disk) -> Result<Option<Superblock>> {
        let mut damaged = None;
        for name in SUPER_COPIES {
            let file = match disk.open(name) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("open", name)(e)),
            };
            let len = file.len().map_err(Error::io("measure", name))?;
            let mut bytes = vec![0; len.min(OWNER_BYTES_MAX as u64 + 64) as usize];
            file.read_at(0, &mut bytes).map_err(Error::io("read", name))?;
            match Superblock::decode(&bytes) {
                Some(Ok(found)) => return Ok(Some(found)),
                Some(Err(found)) => {
                    let (file, supported) = (name.to_owned(), SUPER_VERSION);
                    return Err(Error::NewerFormat { file, found, supported });
                }
                None => damaged = Some(name),
            }
        }
        // If the creation of a store was interrupted, there is no log yet, and the superblock is
        // written again.
        let used = !disk.list(crate::wal::segment::LOG_DIR).unwrap_or_default().is_empty();
        match damaged.filter(|_| used) {
            Some(name) => {
                let (expected, found) = ("a sound copy", "neither copy is sound");
                Err(Error::corrupt(name, 0, "the superblock", expected, found))
            }
            None => Ok(None),
        }
    }

    /// Reports each damaged copy. One sound copy is enough to open the store.
    pub(crate) fn check_copies(
        disk: &dyn Disk,
        sound: &Superblock,
        damage: &mut Vec<Error>,
    ) -> Result<()> {
        for name in SUPER_COPIES {
            let mut bytes = Vec::new();
            if let Ok(file) = disk.open(name) {
                bytes.resize(file.len().map_err(Error::io("measure", name))? as usize, 0);
                file.read_at(0, &mut bytes).map_err(Error::io("read", name))?;
            }
            if bytes != sound.encode() {
                let (what, expected) = ("the superblock", "the bytes of its sound copy");
                damage.push(Error::corrupt(name, 0, what, expected, "others"));
            }
        }
        Ok(())
    }

    /// Writes both copies into a directory, one after the other.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &str) -> Result<()> {
        for name in SUPER_COPIES {
            let name = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
            let mut file = disk.create(&name).map_err(Error::io("create", &name))?;
            file.append(&self.encode()).map_err(Error::io("write", &name))?;
            file.sync().map_err(Error::io("sync", &name))?;
            disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        Ok(())
    }
}

/// The storage of one disk.
pub struct Engine {
    disk: Arc<dyn Disk>,
    options: Options,
    superblock: Superblock,
    log: Log,
    shared: Shared,
    trees: RwLock<BTreeMap<ShardId, Arc<Tree>>>,
    write_mode: WriteMode,
    free: AtomicU64,
}

impl Engine {
    /// Opens the store on a disk, or creates one. Each tree has the state of its last flush. The
    /// caller applies the log entries after the flush, if [`Log::check_entries`] reports none of
    /// them missing.
    ///
    /// # Errors
    /// [`Error::WrongOwner`], [`Error::NewerFormat`], [`Error::Corrupt`], [`Error::NoSpace`].
    pub fn open(disk: Arc<dyn Disk>, mut options: Options) -> Result<Engine> {
        let superblock = match Superblock::read(&*disk)? {
            Some(found) => found,
            None => {
                let need = options.limits.segment_bytes * (options.limits.spare_slots as u64 + 2);
                let free = disk.free_bytes().map_err(Error::io("measure", "."))?;
                if free < need {
                    return Err(Error::NoSpace { dir: disk.describe(), free, need });
                }
                let made = Superblock {
                    store: options.new_store_id,
                    segment_bytes: options.limits.segment_bytes,
                    owner: options.owner.clone(),
                };
                made.write(&*disk, "")?;
                made
            }
        };
        if superblock.owner != options.owner {
            let (expected, found) = (options.owner, superblock.owner.clone());
            return Err(Error::WrongOwner { expected, found });
        }
        options.limits.segment_bytes = superblock.segment_bytes;
        let write_mode = match options.write_mode {
            WriteMode::Auto => probe(&*disk)?,
            chosen => chosen,
        };
        let (log, _) = Log::open(disk.clone(), write_mode, superblock.store, options.limits)?;
        let cache = Arc::new(BlockCache::new(options.cache_bytes));
        let shared = Shared::new(disk.clone(), options.limits, cache, log.segments().clone());
        let trees = RwLock::default();
        let free = AtomicU64::new(u64::MAX);
        let engine = Engine { disk, options, superblock, log, shared, trees, write_mode, free };
        engine.measure_space()?;
        // The shards must be registered before the first commit. From that commit on, the log
        // treats a shard that is not registered and has no records as a shard that lost no data.
        engine.log.register_shards(Directories::read(&*engine.disk)?.live.into_keys());
        engine.open_shards()?;
        engine.release_flushed_missing()?;
        // The trees now hold the segments that they need.
        engine.log.segments().reclaim();
        Ok(engine)
    }

    /// Releases the log entries that each tree has flushed, if entries of its shard are missing: a
    /// tree does not need flushed entries.
    fn release_flushed_missing(&self) -> Result<()> {
        for (shard, tree) in self.trees() {
            let upto = tree.flushed();
            if !self.log.missing(shard).is_empty() && self.log.base(shard).index < upto.index {
                self.log.commit(&[Record::Release { shard, upto }])?;
            }
        }
        Ok(())
    }

    /// The tree of a shard. Creates the tree if the shard has none.
    pub fn open_shard(&self, shard: ShardId) -> Result<Arc<Tree>> {
        match self.tree(shard) {
            Some(tree) => Ok(tree),
            None => self.open_tree(&TreeDir { shard, generation: 0 }),
        }
    }

    /// The tree of a shard, if there is one.
    pub fn tree(&self, shard: ShardId) -> Option<Arc<Tree>> {
        self.trees.read().get(&shard).cloned()
    }

    pub(crate) fn open_tree(&self, dir: &TreeDir) -> Result<Arc<Tree>> {
        let mut trees = self.trees.write();
        if let Some(tree) = trees.get(&dir.shard) {
            return Ok(tree.clone());
        }
        let tree = self.open_elsewhere(dir.shard, &dir.path())?;
        let (base, flushed) = (self.log.base(dir.shard), tree.flushed());
        if base.index > flushed.index {
            let found = format!("flushed up to {flushed:?}");
            let (path, expected) = (dir.path(), format!("{base:?}"));
            return Err(Error::corrupt(path, 0, "the manifest", expected, found));
        }
        let tree = Arc::new(tree);
        trees.insert(dir.shard, tree.clone());
        Ok(tree)
    }

    /// Opens a tree in any directory, without adding it to the trees of the engine.
    pub(crate) fn open_elsewhere(&self, shard: ShardId, dir: &str) -> Result<Tree> {
        Tree::open(&self.shared, shard, dir)
    }

    pub(crate) fn forget_tree(&self, shard: ShardId) {
        self.trees.write().remove(&shard);
    }

    pub(crate) fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Every open tree.
    pub fn trees(&self) -> Vec<(ShardId, Arc<Tree>)> {
        self.trees.read().iter().map(|(&id, tree)| (id, tree.clone())).collect()
    }

    /// The open trees that had an event since the last call that may cause a [job](Tree::job). The
    /// passage of time also causes jobs, for example when values expire or space becomes free; this
    /// call does not report such trees.
    pub fn take_dirty_trees(&self) -> Vec<(ShardId, Arc<Tree>)> {
        let dirty = std::mem::take(&mut *self.shared.dirty.lock());
        dirty.into_iter().filter_map(|shard| Some((shard, self.tree(shard)?))).collect()
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The block cache, for its counters.
    pub fn cache(&self) -> &BlockCache {
        &self.shared.cache
    }

    /// The memory that all memtables use together.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Freezes the largest memtables until the remaining ones are within the budget. For a
    /// background thread, which then flushes the frozen memtables.
    pub fn relieve_memory(&self) {
        if self.memory().excess() == 0 {
            return;
        }
        let mut sizes: Vec<(usize, Arc<Tree>)> =
            self.trees().into_iter().map(|(_, tree)| (tree.active_bytes(), tree)).collect();
        sizes.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let frozen: usize =
            sizes.iter().map(|(bytes, tree)| tree.stats().memtable_bytes - bytes).sum();
        let mut excess = self.memory().excess().saturating_sub(frozen);
        for (bytes, tree) in sizes {
            if excess == 0 {
                return;
            }
            excess = excess.saturating_sub(bytes);
            tree.freeze();
        }
    }

    /// The size of a log segment, fixed when the store was created.
    pub fn segment_bytes(&self) -> u64 {
        self.options.limits.segment_bytes
    }

    /// The sizes in use.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The write mode in use.
    pub fn write_mode(&self) -> WriteMode {
        self.write_mode
    }

    /// Chooses the collection targets among the log segments and value files, from the live bytes
    /// of each. Compactions of the trees then move the live values, and the slots and files become
    /// free.
    pub fn plan_collection(&self) {
        let trees = self.trees();
        if trees.iter().any(|(_, tree)| tree.is_collecting()) {
            // One round at a time: then one rewrite of a table moves its values from all targets.
            return;
        }
        let limits = &self.options.limits;
        let mut live: BTreeMap<Source, u64> = BTreeMap::new();
        for (_, tree) in &trees {
            for (source, bytes) in tree.live() {
                *live.entry(source).or_default() += bytes;
            }
        }
        let segments = self.log.segments().holds();
        let held = segments.into_iter().filter(|(_, hold)| *hold == Hold::Values);
        let usages: Vec<Usage> = held
            .map(|(sequence, _)| {
                let source = Source::Log(sequence);
                let live = live.get(&source).copied().unwrap_or(0);
                Usage { source, total: limits.segment_bytes, live }
            })
            .collect();
        let targets = pick(&usages, limits);
        for (_, tree) in &trees {
            let mut targets = targets.clone();
            targets.extend(pick(&tree.value_files(), limits));
            tree.set_collection_targets(targets);
        }
    }

    /// Refuses writes that would grow the store while the disk is nearly full. The check uses the
    /// free bytes of the last [`Engine::measure_space`].
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub fn check_space(&self) -> Result<()> {
        let (free, need) = (self.free.load(Ordering::Relaxed), self.options.limits.reserve_bytes);
        if free < need {
            return Err(Error::NoSpace { dir: self.disk.describe(), free, need });
        }
        Ok(())
    }

    /// Measures the free space of the disk. For a background thread, at intervals.
    pub fn measure_space(&self) -> Result<()> {
        self.free.store(self.free_bytes()?, Ordering::Relaxed);
        Ok(())
    }

    /// The free bytes of the disk.
    pub fn free_bytes(&self) -> Result<u64> {
        self.disk.free_bytes().map_err(Error::io("measure", "."))
    }
}

/// Commits a few blocks in each write mode and returns the fastest mode. The mapped mode is not
/// tried: on file systems with large folios its smallest commit writes megabytes, and a probe this
/// short may not detect that.
fn probe(disk: &dyn Disk) -> Result<WriteMode> {
    use crate::disk::Pages;
    use crate::limits::BLOCK_BYTES;
    const PATH: &str = "PROBE";
    let bytes = (PROBE_COMMITS + 1) * BLOCK_BYTES as u64;
    let prepared = disk.allocate_region(PATH, bytes);
    prepared.and_then(|()| disk.fill_region(PATH, bytes)).map_err(Error::io("prepare", PATH))?;
    let mut block = Pages::default();
    block.extend(&[1; BLOCK_BYTES]);
    let mut best = (u128::MAX, WriteMode::Pwrite);
    for write_mode in [WriteMode::Pwrite, WriteMode::Direct] {
        let Ok(region) = disk.open_region(PATH, write_mode) else { continue };
        let mut times = Vec::new();
        for i in 0..PROBE_COMMITS {
            let offset = i * BLOCK_BYTES as u64;
            let begun = crate::disk::os::stopwatch();
            let written = region.write(offset, &block);
            if written.and_then(|()| region.sync(offset, BLOCK_BYTES)).is_err() {
                break;
            }
            times.push(begun.elapsed().as_nanos());
        }
        times.sort_unstable();
        if times.len() as u64 == PROBE_COMMITS {
            let median = times[times.len() / 2];
            if median < best.0 {
                best = (median, write_mode);
            }
        }
    }
    disk.remove(PATH).map_err(Error::io("remove", PATH))?;
    Ok(best.1)
}
