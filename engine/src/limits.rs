//! The engine's limits, named with their units, and how they relate.

/// How a block of a table is compressed. A block that does not get smaller is stored as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// LZ4: fast, about half the size for text.
    #[default]
    Lz4 = 1,
    /// Zstandard, level 1: slower, smaller.
    Zstd = 2,
}

/// The unit of the log's writes; every commit block begins on such a boundary.
pub const BLOCK_BYTES: usize = 4096;
/// Longest user key.
pub const KEY_BYTES_MAX: usize = 16 << 10;
/// Longest value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest payload of one log record, and so of one Raft entry with its framing.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Most bytes of records that one commit block carries.
pub const COMMIT_BYTES_MAX: usize = 6 << 20;
/// Most records in one commit block.
pub const COMMIT_RECORDS_MAX: usize = 1 << 16;
/// Entries of a shard that lie at most this far apart in the log are read with one read.
pub const LOG_GAP_BYTES_MAX: usize = 16 << 10;
/// Longest manifest record.
pub const EDIT_BYTES_MAX: usize = 64 << 20;
/// Longest block of a table file, before its trailer.
pub const TABLE_BLOCK_BYTES_MAX: usize = 4 << 20;

/// Sizes that shape an engine. [`Limits::DEFAULT`] is for servers; [`Limits::TINY`] makes tests
/// meet every edge (segment rolls, flushes, compactions, splits) within a few hundred writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of one log segment file, fixed when the store is made.
    pub segment_bytes: u64,
    /// A memtable is frozen at this size.
    pub memtable_bytes: usize,
    /// What the memtables of all shards of a disk may take. The largest are flushed in time, and
    /// writers are slowed down when that is not enough.
    pub memtables_bytes: usize,
    /// A memtable is frozen when it points to this many bytes of values in the log.
    pub memtable_value_bytes: u64,
    /// A memtable is frozen when its range tombstones take this much: a manifest record takes them
    /// whole.
    pub memtable_range_bytes: usize,
    /// Range tombstones above the bottom run at which the runs are merged into it.
    pub range_tombstones_max: usize,
    /// Frozen memtables at which the tree asks its caller to slow down.
    pub memtables_frozen_max: usize,
    /// A value of this size or more stays in the log and the tree points to it.
    pub value_bytes_separate: usize,
    /// Values that move are written to files of about this size.
    pub value_file_bytes: u64,
    /// Dead bytes in log segments and value files that are tolerated, per 100 that live, before
    /// what lives in the sparsest moves.
    pub garbage_percent: u64,
    /// Dead bytes that are tolerated besides.
    pub garbage_bytes: u64,
    /// Most bytes that one round of collection moves.
    pub collect_bytes: u64,
    /// Target size of a data block in a table, uncompressed.
    pub table_block_bytes: usize,
    /// Data blocks under one index partition and its filter.
    pub table_partition_blocks: usize,
    /// A compaction cuts its output at this size.
    pub table_bytes: u64,
    /// Sorted runs above the bottom one at which they are merged.
    pub runs_max: usize,
    /// The upper runs are merged into the bottom one when it is at most this many times as large
    /// as they are together; before, with each other.
    pub bottom_ratio: u64,
    /// How the blocks of the upper runs are compressed.
    pub compression: Codec,
    /// How the blocks of the bottom run are compressed.
    pub bottom_compression: Codec,
    /// The manifest is rewritten when its file passes this size.
    pub manifest_bytes: u64,
    /// Puts are refused while the disk has less than this free: what is left is for deletes,
    /// flushes and compactions, which make room.
    pub reserve_bytes: u64,
    /// Free log slots to keep ahead of need.
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
