//! The engine's limits, named with their units, and how they relate.

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
pub const EDIT_BYTES_MAX: usize = 16 << 20;
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
    /// Frozen memtables at which the tree asks its caller to slow down.
    pub memtables_frozen_max: usize,
    /// Target size of a data block in a table, uncompressed.
    pub table_block_bytes: usize,
    /// Data blocks under one index partition and its filter.
    pub table_partition_blocks: usize,
    /// A compaction cuts its output at this size.
    pub table_bytes: u64,
    /// Level 0 is compacted at this many tables.
    pub level0_tables: usize,
    /// Level 1 is compacted at this size.
    pub level1_bytes: u64,
    /// Each level is this many times the one above.
    pub level_ratio: u64,
    /// The manifest is rewritten when its file passes this size.
    pub manifest_bytes: u64,
    /// Free prepared log slots to keep ahead of need.
    pub spare_slots: usize,
}

impl Limits {
    /// For servers.
    pub const DEFAULT: Limits = Limits {
        segment_bytes: 32 << 20,
        memtable_bytes: 32 << 20,
        memtables_frozen_max: 4,
        table_block_bytes: 8 << 10,
        table_partition_blocks: 64,
        table_bytes: 16 << 20,
        level0_tables: 4,
        level1_bytes: 64 << 20,
        level_ratio: 8,
        manifest_bytes: 1 << 20,
        spare_slots: 1,
    };
    /// For tests and simulations.
    pub const TINY: Limits = Limits {
        segment_bytes: 64 << 10,
        memtable_bytes: 4 << 10,
        memtables_frozen_max: 4,
        table_block_bytes: 512,
        table_partition_blocks: 4,
        table_bytes: 8 << 10,
        level0_tables: 3,
        level1_bytes: 16 << 10,
        level_ratio: 4,
        manifest_bytes: 2 << 10,
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
