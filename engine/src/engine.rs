//! One disk: the log and the shards' trees, opened together.
//!
//! **`SUPER.0`, `SUPER.1`**: two copies of what is fixed when a store is made. Little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `BSUP` |
//! | 4 | 4 | format version |
//! | 8 | 4 | CRC of all after it, seeded with the version |
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

/// How to open an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sizes. The segment size of an existing store is the one it was made with.
    pub limits: Limits,
    /// How the log writes.
    pub write_mode: WriteMode,
    /// Block cache, in bytes.
    pub cache_bytes: u64,
    /// Whose data this is; a store made by another owner is refused.
    pub owner: String,
    /// The id of a store that is made now: random, unique.
    pub new_store_id: u128,
    /// Whether a [`Db`](crate::Db) has threads of its own for commits, flushes and compactions.
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
    /// For tests: small in everything.
    pub fn tiny() -> Self {
        let cache_bytes = 64 << 10;
        let (limits, write_mode) = (Limits::TINY, WriteMode::Pwrite);
        Self { limits, write_mode, cache_bytes, threads: false, ..Self::default() }
    }
}

/// What a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Names the store; in every segment header.
    pub store: u128,
    /// Size of a log slot.
    pub segment_bytes: u64,
    /// Whose it is.
    pub owner: String,
}

impl Superblock {
    /// Its bytes.
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

    /// Reads its bytes; the inner error is a version from the future.
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

    /// The superblock of a disk; `None` when it has none yet.
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
        // A store whose making was cut short has no log yet; then the superblock is made again.
        let used = !disk.list(crate::wal::segment::LOG_DIR).unwrap_or_default().is_empty();
        match damaged.filter(|_| used) {
            Some(name) => {
                let (expected, found) = ("a sound copy", "neither copy is sound");
                Err(Error::corrupt(name, 0, "the superblock", expected, found))
            }
            None => Ok(None),
        }
    }

    /// Names each copy that is not sound; one is enough to open the store.
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
    /// Opens the store on a disk, making it if there is none. Trees come back as of their last
    /// flush: the caller applies the log entries after it, if [`Log::check_entries`] says that
    /// the log has them all.
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
        // Before the first commit, which ends what is in doubt of shards that nobody named.
        engine.log.register_shards(Directories::read(&*engine.disk)?.live.into_keys());
        engine.open_shards()?;
        engine.pass_over_missing()?;
        // The trees hold what they need.
        engine.log.segments().reclaim();
        Ok(engine)
    }

    /// What a tree has flushed it does not need of the log.
    fn pass_over_missing(&self) -> Result<()> {
        for (shard, tree) in self.trees() {
            let upto = tree.flushed();
            if !self.log.missing(shard).is_empty() && self.log.base(shard).index < upto.index {
                self.log.commit(&[Record::Release { shard, upto }])?;
            }
        }
        Ok(())
    }

    /// The tree of a shard, made if there is none.
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

    /// A tree in any directory, which the engine does not count among its own.
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

    /// The open trees to which something happened since the last call that may have made a
    /// [job](Tree::job). Time makes jobs as well: what expired, or finds room at last.
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

    /// What all memtables take together.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Freezes the largest memtables until the others have room. For a background thread, which
    /// then flushes.
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

    /// The size of a log segment, fixed when the store was made.
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

    /// Decides which log segments and value files are to be collected, from what lives in each.
    /// The trees' compactions then move what lives, and the slots and files become free.
    pub fn plan_collection(&self) {
        let trees = self.trees();
        if trees.iter().any(|(_, tree)| tree.is_collecting()) {
            return; // one round at a time: a table is rewritten once for all that leave it
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

    /// Refuses what would grow the store while the disk is nearly full. Free bytes are as of the
    /// last [`Engine::measure_space`].
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

    /// Looks how much is free. For a background thread, now and then.
    pub fn measure_space(&self) -> Result<()> {
        self.free.store(self.free_bytes()?, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes free on the disk.
    pub fn free_bytes(&self) -> Result<u64> {
        self.disk.free_bytes().map_err(Error::io("measure", "."))
    }
}

/// Commits a few blocks in each write mode and takes the fastest. The mapped mode is not tried: on
/// file systems with large folios its smallest commit writes megabytes, which a probe this short
/// may miss.
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
