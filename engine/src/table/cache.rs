//! The block cache of a disk: bounded in bytes, shared by all shards, scan-resistant (S3-FIFO).

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::atomic::{AtomicU64, Ordering};

/// Typical bytes of a cached block, for sizing the cache's index.
const BLOCK_BYTES_TYPICAL: u64 = 8 << 10;

/// Blocks by (table, offset). A table receives a new identity each time it is opened.
pub struct BlockCache {
    cache: Cache<(u64, u64), Bytes, ByBytes>,
    tables: AtomicU64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<(u64, u64), Bytes> for ByBytes {
    fn weight(&self, _: &(u64, u64), block: &Bytes) -> u64 {
        block.len() as u64 + 64
    }
}

impl BlockCache {
    /// A cache of at most `bytes`.
    pub fn new(bytes: u64) -> Self {
        let items = (bytes / BLOCK_BYTES_TYPICAL).max(16) as usize;
        Self { cache: Cache::with_weighter(items, bytes, ByBytes), tables: AtomicU64::new(0) }
    }

    pub(super) fn identity(&self) -> u64 {
        self.tables.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn get(&self, table: u64, offset: u64) -> Option<Bytes> {
        self.cache.get(&(table, offset))
    }

    pub(super) fn insert(&self, table: u64, offset: u64, block: Bytes) {
        self.cache.insert((table, offset), block);
    }

    /// The numbers of lookups that found their block and of lookups that did not, since the cache
    /// was created.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.cache.hits(), self.cache.misses())
    }
}
