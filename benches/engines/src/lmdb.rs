//! LMDB: a memory-mapped copy-on-write B-tree with one writer. Its cache is the page cache, so its
//! memory is neither limited nor counted.

use crate::store::{Store, touch};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, FlagSetMode};
use std::path::Path;
use std::sync::Mutex;

const MAP_BYTES: usize = 1 << 38;
const READERS_MAX: u32 = 256;

/// The store.
pub struct Lmdb {
    env: Env,
    data: Database<'static, Bytes, Bytes>,
    /// Whether commits sync at present.
    syncs: Mutex<bool>,
}

impl Lmdb {
    /// Opens or creates the store.
    pub fn open(dir: &Path) -> Self {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(READERS_MAX);
        // SAFETY: the directory is this process's own, and nothing else changes the mapped file.
        let env = unsafe { options.open(dir) }.expect("lmdb opens");
        let writing = env.write_txn().expect("lmdb begins");
        let data = env.create_databases_and_commit(writing, |opener, writing| {
            opener.create_database(writing, None).map(CommitOrAbort::<_, ()>::Commit)
        });
        let data = data.expect("lmdb opens its database").unwrap_commit();
        Self { env, data, syncs: Mutex::new(true) }
    }
}

impl Store for Lmdb {
    fn write(&self, batch: &[(&[u8], &[u8])], sync: bool) {
        // LMDB runs one writer at a time anyway; the lock lets a writer change the flag.
        let mut syncs = self.syncs.lock().expect("no panic");
        if *syncs != sync {
            let mode = if sync { FlagSetMode::Disable } else { FlagSetMode::Enable };
            // SAFETY: the lock admits one thread at a time; the files of a benchmark may be lost.
            unsafe { self.env.set_flags(EnvFlags::NO_SYNC, mode) }.expect("a known flag");
            *syncs = sync;
        }
        let mut writing = self.env.write_txn().expect("lmdb begins");
        for (key, value) in batch {
            self.data.put(&mut writing, key, value).expect("lmdb writes");
        }
        writing.commit().expect("lmdb commits");
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        let reading = self.env.read_txn().expect("lmdb begins");
        self.data.get(&reading, key).expect("lmdb reads").map(touch)
    }

    fn scan(&self, from: &[u8], count: usize) -> usize {
        let reading = self.env.read_txn().expect("lmdb begins");
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Unbounded);
        let items = self.data.range(&reading, &range).expect("lmdb scans").take(count);
        items.map(|item| touch(item.expect("lmdb scans").1)).sum()
    }

    fn flush(&self) {
        self.env.force_sync().expect("lmdb syncs");
    }

    fn settle(&self) {}
}
