//! RocksDB, with its values in tables or in blob files.

use crate::store::{Setup, Store, background_threads, touch};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, FlushOptions, Options,
    ReadOptions, WriteBatch, WriteOptions, properties,
};
use std::path::Path;
use std::time::Duration;

const BLOOM_BITS: f64 = 10.0;
const BLOB_BYTES_MIN: u64 = 512;
const RECYCLED_LOGS: usize = 4;
const POLL: Duration = Duration::from_millis(10);
/// Number of consecutive idle polls after which compaction counts as settled.
const IDLE_POLLS: u32 = 5;

/// The place of values.
#[derive(Clone, Copy, PartialEq)]
pub enum Values {
    /// Beside their keys.
    InTables,
    /// In BlobDB's files, for values of [`BLOB_BYTES_MIN`] bytes or more.
    InBlobs,
}

/// The store.
pub struct Rocks {
    db: DB,
    synced: WriteOptions,
    unsynced: WriteOptions,
    reading: ReadOptions,
}

impl Rocks {
    /// Opens or creates the store.
    pub fn open(dir: &Path, setup: Setup, values: Values) -> Self {
        let db = DB::open(&options(setup, values), dir).expect("rocksdb opens");
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let (unsynced, reading) = Default::default();
        Self { db, synced, unsynced, reading }
    }

    fn is_idle(&self) -> bool {
        let zero = |name| self.db.property_int_value(name).expect("a property") == Some(0);
        zero(properties::MEM_TABLE_FLUSH_PENDING)
            && zero(properties::NUM_RUNNING_FLUSHES)
            && zero(properties::COMPACTION_PENDING)
            && zero(properties::NUM_RUNNING_COMPACTIONS)
    }
}

fn options(setup: Setup, values: Values) -> Options {
    let mut table = BlockBasedOptions::default();
    let cache = Cache::new_lru_cache(setup.cache as usize).expect("a cache");
    table.set_block_cache(&cache);
    // Index and filters stay outside the cache, where no block can evict them.
    table.set_bloom_filter(BLOOM_BITS, false);
    table.set_format_version(5);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(setup.memtable as usize);
    options.set_max_write_buffer_number(2);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_max_background_jobs(background_threads() as i32);
    options.set_bytes_per_sync(1 << 20);
    if setup.for_sync {
        // Recycled logs make syncs cheaper. RocksDB 7.8 recycles logs in this recovery mode only.
        // In this mode the next opening may never return, so the other workloads do not recycle
        // logs.
        options.set_recycle_log_file_num(RECYCLED_LOGS);
        options.set_wal_recovery_mode(DBRecoveryMode::SkipAnyCorruptedRecord);
    }
    if values == Values::InBlobs {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_BYTES_MIN);
        options.set_blob_compression_type(DBCompressionType::None);
        options.set_enable_blob_gc(true);
    }
    options
}

impl Store for Rocks {
    fn write(&self, batch: &[(&[u8], &[u8])], sync: bool) {
        let mut changes = WriteBatch::default();
        for (key, value) in batch {
            changes.put(key, value);
        }
        let how = if sync { &self.synced } else { &self.unsynced };
        self.db.write_opt(changes, how).expect("rocksdb writes");
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        self.db
            .get_pinned_opt(key, &self.reading)
            .expect("rocksdb reads")
            .map(|value| touch(&value))
    }

    fn scan(&self, from: &[u8], count: usize) -> usize {
        let mut cursor = self.db.raw_iterator();
        cursor.seek(from);
        let mut sum = 0;
        for _ in 0..count {
            let Some(value) = cursor.value() else { break };
            sum += touch(value);
            cursor.next();
        }
        cursor.status().expect("rocksdb scans");
        sum
    }

    fn flush(&self) {
        self.db.flush_opt(&FlushOptions::default()).expect("rocksdb flushes");
    }

    fn settle(&self) {
        let mut idle = 0;
        while idle < IDLE_POLLS {
            idle = if self.is_idle() { idle + 1 } else { 0 };
            std::thread::sleep(POLL);
        }
    }
}
