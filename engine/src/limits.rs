//! The engine's limits, named with their units, and the relations between them.

/// The compression of table blocks. A block that does not become smaller by an eighth is stored
/// uncompressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// No compression.
    None = 0,
    /// LZ4: fast, about half the size for text.
    #[default]
    Lz4 = 1,
    /// Zstandard, level 1: slower than LZ4, with a smaller result.
    Zstd = 2,
}

/// The unit of the log's writes. Every commit block begins at a multiple of this size.
pub const BLOCK_BYTES: usize = 4096;
/// Longest user key.
pub const USER_KEY_BYTES_MAX: usize = 16 << 10;
/// Longest stored key: a user key, and room for the space byte and for the ids of a system record
/// about that key.
pub const KEY_BYTES_MAX: usize = USER_KEY_BYTES_MAX + 256;
/// Longest value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest payload of one log record, and therefore of one Raft entry with its framing.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Most bytes of records that one commit block carries.
pub const COMMIT_BYTES_MAX: usize = 6 << 20;
/// Most records in one commit block.
pub const COMMIT_RECORDS_MAX: usize = 1 << 16;
/// Entries of a shard at most this far apart in the log are read with one read.
pub const LOG_GAP_BYTES_MAX: usize = 16 << 10;
/// Longest manifest record.
pub const EDIT_BYTES_MAX: usize = 64 << 20;
/// Longest block of a table file, before its trailer.
pub const TABLE_BLOCK_BYTES_MAX: usize = 4 << 20;

/// The sizes of an engine. [`Limits::DEFAULT`] is for servers; [`Limits::TINY`] makes tests
/// reach every boundary (segment rolls, flushes, compactions, splits) within a few hundred writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The size of one log segment file, fixed when the store is created.
    pub segment_bytes: u64,
    /// A memtable is frozen at this size.
    pub memtable_bytes: usize,
    /// The memory limit of the memtables of all shards of a disk. The largest memtables are flushed
    /// before the limit is reached. If these flushes are not enough, writers are delayed.
    pub memtables_bytes: usize,
    /// A memtable is frozen when it points to this many bytes of values in the log.
    pub memtable_value_bytes: u64,
    /// A memtable is frozen when its range tombstones reach this size, because one manifest record
    /// contains all of them.
    pub memtable_range_bytes: usize,
    /// The number of range tombstones above the bottom run at which the upper runs are merged into
    /// the bottom run.
    pub range_tombstones_max: usize,
    /// The number of frozen memtables at which writers must wait.
    pub memtables_frozen_max: usize,
    /// A value of this size or more stays in the log, and the tree contains a pointer to it.
    pub value_bytes_separate: usize,
    /// The approximate size of the files to which compaction moves values.
    pub value_file_bytes: u64,
    /// The dead bytes tolerated in log segments and value files, per 100 live bytes. Above this,
    /// the live values of the segments and files with the smallest live share are moved.
    pub garbage_percent: u64,
    /// Dead bytes tolerated in addition.
    pub garbage_bytes: u64,
    /// Most bytes that one round of collection moves.
    pub collect_bytes: u64,
    /// Target size of a data block in a table, uncompressed.
    pub table_block_bytes: usize,
    /// Data blocks under one index partition and its filter.
    pub table_partition_blocks: usize,
    /// A compaction cuts its output at this size.
    pub table_bytes: u64,
    /// The number of sorted runs above the bottom run at which these runs are merged.
    pub runs_max: usize,
    /// The upper runs are merged into the bottom run when the bottom run is at most this many times
    /// as large as all upper runs together. Otherwise the upper runs are merged with each other.
    pub bottom_ratio: u64,
    /// The compression of the blocks of the upper runs.
    pub compression: Codec,
    /// The compression of the blocks of the bottom run.
    pub bottom_compression: Codec,
    /// The manifest is rewritten when its file exceeds this size.
    pub manifest_bytes: u64,
    /// Puts are refused while the disk has fewer free bytes than this. The reserve is for deletes,
    /// flushes and compactions, which free space.
    pub reserve_bytes: u64,
    /// The number of free log slots to keep in reserve.
    pub spare_slots: usize,
}

impl Limits {
    /// For servers.
    pub const DEFAULT: Limits = Limits {
        segment_bytes: 32 << 20,
        memtable_bytes: 32 << 20,
        memtables_bytes: 256 << 20,
        memtable_value_bytes: 64 << 20,
        memtable_range_bytes: 1 << 20,
        range_tombstones_max: 4096,
        memtables_frozen_max: 4,
        value_bytes_separate: 1 << 10,
        value_file_bytes: 64 << 20,
        garbage_percent: 25,
        garbage_bytes: 32 << 20,
        collect_bytes: 256 << 20,
        table_block_bytes: 8 << 10,
        table_partition_blocks: 64,
        table_bytes: 16 << 20,
        runs_max: 4,
        bottom_ratio: 4,
        compression: Codec::Lz4,
        bottom_compression: Codec::Lz4,
        manifest_bytes: 1 << 20,
        reserve_bytes: 512 << 20,
        spare_slots: 2,
    };
    /// For tests and simulations.
    pub const TINY: Limits = Limits {
        segment_bytes: 64 << 10,
        memtable_bytes: 4 << 10,
        memtables_bytes: 64 << 10,
        memtable_value_bytes: 16 << 10,
        memtable_range_bytes: 2 << 10,
        range_tombstones_max: 12,
        memtables_frozen_max: 4,
        value_bytes_separate: 256,
        value_file_bytes: 8 << 10,
        garbage_percent: 30,
        garbage_bytes: 64 << 10,
        collect_bytes: 64 << 10,
        table_block_bytes: 512,
        table_partition_blocks: 4,
        table_bytes: 8 << 10,
        runs_max: 3,
        bottom_ratio: 2,
        compression: Codec::Lz4,
        bottom_compression: Codec::Zstd,
        manifest_bytes: 2 << 10,
        reserve_bytes: 256 << 10,
        spare_slots: 1,
    };

    /// The most record bytes that one commit block can carry in a segment of this size.
    pub fn commit_bytes_max(&self) -> usize {
        let room = self.segment_bytes as usize - 3 * BLOCK_BYTES;
        room.min(COMMIT_BYTES_MAX)
    }
}

const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX < COMMIT_BYTES_MAX);
const _: () = assert!((COMMIT_BYTES_MAX as u64) < Limits::DEFAULT.segment_bytes / 2);
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX + 64 < TABLE_BLOCK_BYTES_MAX);
