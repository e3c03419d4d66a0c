//! raft-engine, alone and as the first of two logs: an entry is synced into it and then applied to
//! RocksDB, whose own log is not synced.

use crate::rocks::{Rocks, Values};
use crate::store::{AppendLog, Setup, Store};
use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Greatest number of threads that write at a time.
const SHARDS: u64 = 64;
/// Entries of a shard after which the earlier entries are released.
const RELEASE_EVERY: u64 = 256;
const PURGE_EVERY: Duration = Duration::from_millis(500);

/// The message of protobuf itself that has a number and bytes, which is all that a Raft entry needs
/// here.
struct Entry;

impl MessageExt for Entry {
    type Entry = UninterpretedOption;

    fn index(entry: &UninterpretedOption) -> u64 {
        entry.get_positive_int_value()
    }
}

/// The log.
pub struct RaftLog {
    engine: Arc<Engine>,
    purge: Option<(Sender<()>, JoinHandle<()>)>,
}

impl RaftLog {
    /// Opens or creates the log: log files are written before use and recycled, without
    /// compression.
    pub fn open(dir: &Path) -> Self {
        let config = Config {
            dir: dir.to_str().expect("a path in UTF-8").to_owned(),
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize::mb(64),
            purge_threshold: ReadableSize::gb(1),
            enable_log_recycle: true,
            prefill_for_recycle: true,
            prefill_limit: Some(ReadableSize::mb(512)),
            ..Config::default()
        };
        let engine = Arc::new(Engine::open(config).expect("raft-engine opens"));
        let (stop, stopped) = channel();
        let worker = engine.clone();
        let purge = std::thread::spawn(move || {
            while stopped.recv_timeout(PURGE_EVERY) == Err(RecvTimeoutError::Timeout) {
                worker.purge_expired_files().expect("raft-engine purges");
            }
        });
        Self { engine, purge: Some((stop, purge)) }
    }

    fn write(&self, shard: u64, index: u64, payload: Vec<u8>, release: Option<u64>, sync: bool) {
        let mut entry = UninterpretedOption::new();
        entry.set_positive_int_value(index);
        entry.set_string_value(payload);
        let mut batch = LogBatch::with_capacity(2);
        batch.add_entries::<Entry>(shard, &[entry]).expect("a small entry");
        if let Some(upto) = release {
            batch.add_command(shard, Command::Compact { index: upto + 1 });
        }
        self.engine.write(&mut batch, sync).expect("raft-engine writes");
    }
}

impl AppendLog for RaftLog {
    fn append(&self, shard: u64, index: u64, payload: &[u8], release: Option<u64>) {
        self.write(shard, index, payload.to_vec(), release, true);
    }
}

impl Drop for RaftLog {
    fn drop(&mut self) {
        if let Some((stop, purge)) = self.purge.take() {
            drop(stop);
            purge.join().expect("the purge thread ends");
        }
    }
}

/// A store behind two logs.
pub struct TwoLogs {
    log: RaftLog,
    tree: Rocks,
    /// The last index of each shard.
    shards: Vec<Mutex<u64>>,
}

static NEXT_THREAD: AtomicU64 = AtomicU64::new(0);
thread_local! {
    static THREAD: u64 = NEXT_THREAD.fetch_add(1, Ordering::Relaxed);
}

impl TwoLogs {
    /// Opens or creates the store.
    pub fn open(dir: &Path, setup: Setup) -> Self {
        let log = RaftLog::open(&dir.join("log"));
        let tree = Rocks::open(&dir.join("tree"), setup, Values::InTables);
        let last = |shard| Mutex::new(log.engine.last_index(shard + 1).unwrap_or(0));
        let shards = (0..SHARDS).map(last).collect();
        Self { log, tree, shards }
    }
}

impl Store for TwoLogs {
    fn write(&self, batch: &[(&[u8], &[u8])], sync: bool) {
        // Each thread has its own shard, as if it led its own Raft group.
        let shard = THREAD.with(|thread| thread % SHARDS);
        let mut payload = Vec::new();
        for (key, value) in batch {
            payload.extend_from_slice(&(key.len() as u32).to_le_bytes());
            payload.extend_from_slice(key);
            payload.extend_from_slice(&(value.len() as u32).to_le_bytes());
            payload.extend_from_slice(value);
        }
        let mut last = self.shards[shard as usize].lock().expect("no panic");
        *last += 1;
        // A real user would wait for the flush of RocksDB before a release, so this favours the
        // peer.
        let release = last.is_multiple_of(RELEASE_EVERY).then(|| *last - RELEASE_EVERY / 2);
        self.log.write(shard + 1, *last, payload, release, sync);
        self.tree.write(batch, false);
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        self.tree.get(key)
    }

    fn scan(&self, from: &[u8], count: usize) -> usize {
        self.tree.scan(from, count)
    }

    fn flush(&self) {
        self.tree.flush();
    }

    fn settle(&self) {
        self.tree.settle();
    }
}
