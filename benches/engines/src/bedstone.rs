//! Bedstone's engine, as an embedded store and as a log. This file holds all that the harness knows
//! of the engine.

use crate::store::{AppendLog, Setup, Store, touch};
use bedstone_engine::disk::os::OsDisk;
use bedstone_engine::limits::{Codec, Limits};
use bedstone_engine::wal::{EntryKind, GroupCommit, Record};
use bedstone_engine::{Batch, Db, Engine, Index, LogId, Options, Pending, ShardId, Term};
use bytes::Bytes;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const TERM: Term = Term(1);
/// Greatest number of unsynced writes under way at a time.
const PENDING_MAX: usize = 64;
/// Log slots that are prepared before the measurement: 512 MiB, as in the log of the peer.
const SLOTS_PREPARED: usize = 16;

fn options(setup: Setup) -> Options {
    let limits = Limits {
        memtable_bytes: setup.memtable as usize,
        value_bytes_separate: setup.separate as usize,
        // No compression, as for the peers: values are incompressible.
        compression: Codec::None,
        bottom_compression: Codec::None,
        ..Limits::DEFAULT
    };
    Options { limits, cache_bytes: setup.cache, new_store_id: 1, ..Options::default() }
}

/// The embedded store.
pub struct Bedstone {
    db: Db,
    /// Writes that no caller has waited for yet.
    pending: Mutex<VecDeque<Pending>>,
}

impl Bedstone {
    /// Opens or creates the store.
    pub fn open(dir: &Path, setup: Setup) -> Self {
        let db = Db::open(dir, options(setup)).expect("bedstone opens");
        Self { db, pending: Mutex::default() }
    }

    /// Waits until at most `left` unsynced writes are under way.
    fn wait_for_all_but(&self, left: usize) {
        let mut pending = self.pending.lock().expect("no thread panicked");
        while pending.len() > left {
            pending.pop_front().expect("one more").wait().expect("bedstone writes");
        }
    }
}

impl Store for Bedstone {
    fn write(&self, batch: &[(&[u8], &[u8])], sync: bool) {
        let mut changes = Batch::new();
        for (key, value) in batch {
            changes.put(key, value);
        }
        if sync {
            return self.db.write(changes).expect("bedstone writes");
        }
        // The engine has no unsynced write. Where the peers do not sync, this call does not wait at
        // once.
        let written = self.db.submit(changes).expect("bedstone writes");
        self.pending.lock().expect("no thread panicked").push_back(written);
        self.wait_for_all_but(PENDING_MAX);
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        self.db.get(key).expect("bedstone reads").map(|value| touch(&value))
    }

    fn scan(&self, from: &[u8], count: usize) -> usize {
        let items = self.db.scan(from.to_vec()..).take(count);
        items.map(|item| touch(&item.expect("bedstone scans").1)).sum()
    }

    fn flush(&self) {
        self.wait_for_all_but(0);
        self.db.flush().expect("bedstone flushes");
    }

    fn settle(&self) {
        self.db.settle().expect("bedstone compacts");
    }
}

/// The log alone, with the engine's group commit in front of it.
pub struct BedstoneLog {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    engine: Engine,
    commits: GroupCommit<Vec<Record>>,
    closed: AtomicBool,
}

impl BedstoneLog {
    /// Opens or creates the log, with a thread that commits and one that prepares slots in advance.
    pub fn open(dir: &Path, setup: Setup) -> Self {
        let disk = Arc::new(OsDisk::open(dir).expect("the directory opens"));
        let engine = Engine::open(disk, options(setup)).expect("bedstone opens");
        for _ in 0..SLOTS_PREPARED {
            engine.log().allocate_slot().expect("room for a slot");
            engine.log().fill_slot().expect("room for a slot");
        }
        let shared = Shared { engine, commits: GroupCommit::default(), closed: false.into() };
        let shared = Arc::new(shared);
        let (committer, preparer) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || {
                committer.commits.run(|records| committer.commit(&records.concat()));
            }),
            std::thread::spawn(move || preparer.prepare_slots()),
        ];
        Self { shared, threads }
    }
}

impl Shared {
    fn commit(&self, records: &[Record]) -> bedstone_engine::Result<()> {
        self.engine.log().commit(records).map(drop)
    }

    fn prepare_slots(&self) {
        while !self.closed.load(Ordering::Relaxed) {
            if self.engine.log().wants_slot() {
                self.engine.log().allocate_slot().expect("room for a slot");
            } else {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

impl AppendLog for BedstoneLog {
    fn append(&self, shard: u64, index: u64, payload: &[u8], release: Option<u64>) {
        let shard = ShardId(shard);
        let at = |index| LogId { term: TERM, index: Index(index) };
        let entry = (EntryKind::COMMANDS, Bytes::copy_from_slice(payload));
        let mut records = vec![Record::entries(shard, at(index), [entry]).expect("a small record")];
        if let Some(index) = release {
            records.push(Record::Release { shard, upto: at(index) });
        }
        let commit = |records: Vec<Vec<Record>>| self.shared.commit(&records.concat());
        self.shared.commits.write(records, true, commit).expect("bedstone commits");
    }
}

impl Drop for BedstoneLog {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.commits.close();
        for thread in self.threads.drain(..) {
            thread.join().expect("the log's threads end");
        }
    }
}
