//! redb: a copy-on-write B-tree with one writer.

use crate::store::{Setup, Store, touch};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const DATA: TableDefinition<&[u8], &[u8]> = TableDefinition::new("data");

/// The store.
pub struct Redb {
    db: Database,
    /// Bytes since the last durable commit. Without a durable commit redb cannot reuse a page.
    unsynced: AtomicU64,
    unsynced_max: u64,
}

impl Redb {
    /// Opens or creates the store. redb has no memtable, so its cache gets that share too.
    pub fn open(dir: &Path, setup: Setup) -> Self {
        let cache = (setup.cache + setup.memtable) as usize;
        let file = dir.join("data.redb");
        let db = Database::builder().set_cache_size(cache).create(file).expect("redb opens");
        let store = Self { db, unsynced: AtomicU64::new(0), unsynced_max: setup.memtable };
        store.write(&[], true);
        store
    }
}

impl Store for Redb {
    fn write(&self, batch: &[(&[u8], &[u8])], sync: bool) {
        let bytes: usize = batch.iter().map(|(key, value)| key.len() + value.len()).sum();
        let unsynced = self.unsynced.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let durable = sync || unsynced > self.unsynced_max;
        let mut writing = self.db.begin_write().expect("redb begins");
        let how = if durable { Durability::Immediate } else { Durability::None };
        writing.set_durability(how).expect("no savepoint");
        {
            let mut table = writing.open_table(DATA).expect("the table");
            for &(key, value) in batch {
                table.insert(key, value).expect("redb writes");
            }
        }
        writing.commit().expect("redb commits");
        if durable {
            self.unsynced.store(0, Ordering::Relaxed);
        }
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        let reading = self.db.begin_read().expect("redb begins");
        let table = reading.open_table(DATA).expect("the table");
        table.get(key).expect("redb reads").map(|value| touch(value.value()))
    }

    fn scan(&self, from: &[u8], count: usize) -> usize {
        let reading = self.db.begin_read().expect("redb begins");
        let table = reading.open_table(DATA).expect("the table");
        let items = table.range(from..).expect("redb scans").take(count);
        items.map(|item| touch(item.expect("redb scans").1.value())).sum()
    }

    fn flush(&self) {
        self.write(&[], true);
    }

    fn settle(&self) {
        // A second durable commit frees the pages that the first one released.
        self.write(&[], true);
    }
}
