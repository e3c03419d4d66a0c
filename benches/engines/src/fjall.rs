//! fjall, with its values in tables or separated from the keys.

use crate::store::{Setup, Store, background_threads, touch};
use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use std::path::Path;
use std::time::Duration;

const BLOOM_BITS: f32 = 10.0;
const BLOB_BYTES_MIN: u32 = 512;
const POLL: Duration = Duration::from_millis(10);
/// Number of consecutive idle polls after which compaction counts as settled.
const IDLE_POLLS: u32 = 5;

/// The place of values.
#[derive(Clone, Copy, PartialEq)]
pub enum Values {
    /// Beside their keys.
    InTables,
    /// In blob files, for values of [`BLOB_BYTES_MIN`] bytes or more.
    InBlobs,
}

/// The store, built without compression.
pub struct Fjall {
    db: Database,
    data: Keyspace,
}

impl Fjall {
    /// Opens or creates the store.
    pub fn open(dir: &Path, setup: Setup, values: Values) -> Self {
        let db = Database::builder(dir)
            .cache_size(setup.cache)
            .worker_threads(background_threads())
            .open()
            .expect("fjall opens");
        let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(BLOOM_BITS));
        let separation = KvSeparationOptions::default().separation_threshold(BLOB_BYTES_MIN);
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(setup.memtable)
                .filter_policy(FilterPolicy::all(bloom))
                .with_kv_separation((values == Values::InBlobs).then_some(separation))
        };
        let data = db.keyspace("data", options).expect("fjall opens its keyspace");
        Self { db, data }
    }
}

impl Store for Fjall {
    fn write(&self, batch: &[(&[u8], &[u8])], sync: bool) {
        let persist = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut changes = self.db.batch().durability(Some(persist));
        for &(key, value) in batch {
            changes.insert(&self.data, key, value);
        }
        changes.commit().expect("fjall writes");
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        self.data.get(key).expect("fjall reads").map(|value| touch(&value))
    }

    fn scan(&self, from: &[u8], count: usize) -> usize {
        let items = self.data.range(from..).take(count);
        items.map(|item| touch(&item.into_inner().expect("fjall scans").1)).sum()
    }

    fn flush(&self) {
        self.data.rotate_memtable_and_wait().expect("fjall flushes");
    }

    fn settle(&self) {
        let mut idle = 0;
        let mut completed = 0;
        while idle < IDLE_POLLS {
            let now = self.db.compactions_completed();
            let busy = self.db.outstanding_flushes() > 0
                || self.db.active_compactions() > 0
                || now != completed;
            completed = now;
            idle = if busy { 0 } else { idle + 1 };
            std::thread::sleep(POLL);
        }
    }
}
