//! A store beside a sorted map as its model: random operations of every kind must have equal
//! results.

use crate::rng::Rng;
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::{Batch, Db, Error, Options, Snapshot, WriteMode};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// The content of a store: each key with its value and its deadline.
pub type Model = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// Keys with their values, ascending.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The number of keys that operations choose from.
const KEYS: u64 = 120;
/// The deadline of values that do not expire.
const NEVER: u64 = u64::MAX;

/// One operation on a store.
#[derive(Clone, Debug)]
pub enum Op {
    /// Several changes at once.
    Write(Vec<Change>),
    /// Many keys at once, ascending.
    Ingest(Vec<(Vec<u8>, Vec<u8>)>),
    /// All memtables are flushed into tables.
    Flush,
    /// The time advances.
    Advance(u64),
    /// Older versions are kept from now on.
    KeepHistory,
    /// Only the newest versions are kept.
    DropHistory,
}

/// One change of a batch.
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets a key until a deadline.
    Put(Vec<u8>, Vec<u8>, u64),
    /// Deletes a key.
    Delete(Vec<u8>),
    /// Deletes a range.
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// Draws a key.
pub fn key(rng: &mut Rng) -> Vec<u8> {
    format!("key{:03}", rng.below(KEYS)).into_bytes()
}

/// Draws a value. Four in ten values have 256 bytes or more, and one in ten has 3000 bytes.
fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(10) {
        0 => 3000,
        1..4 => 256 + rng.below(400) as usize,
        _ => rng.below(60) as usize,
    };
    rng.bytes(len)
}

/// Draws an operation.
pub fn draw(rng: &mut Rng, now: u64) -> Op {
    match rng.below(60) {
        0 => Op::Flush,
        1 => Op::Advance(now + rng.below(4)),
        2 => Op::KeepHistory,
        3 => Op::DropHistory,
        4 => {
            let pairs: BTreeMap<_, _> =
                (0..rng.below(30)).map(|_| (key(rng), value(rng))).collect();
            Op::Ingest(pairs.into_iter().collect())
        }
        _ => Op::Write((0..=rng.below(4)).map(|_| change(rng, now)).collect()),
    }
}

fn change(rng: &mut Rng, now: u64) -> Change {
    match rng.below(40) {
        0..10 => Change::Delete(key(rng)),
        10 => {
            let (a, b) = (key(rng), key(rng));
            Change::DeleteRange(a.clone().min(b.clone()), a.max(b))
        }
        11..15 => Change::Put(key(rng), value(rng), now + rng.below(12)),
        _ => Change::Put(key(rng), value(rng), NEVER),
    }
}

/// A store and its model.
pub struct Pair {
    /// The store.
    pub db: Db,
    /// The expected content of the store.
    pub model: Model,
    /// The time that was set last.
    pub now: u64,
    /// Moments that can still be read: timestamp and content.
    history: Vec<(u64, Model)>,
    keeps: bool,
    held: Option<(Snapshot, Model)>,
}

impl Pair {
    /// Opens the store on a disk. The expected content is `model`.
    pub fn open(
        disk: &MemoryDisk,
        options: Options,
        model: Model,
        now: u64,
    ) -> Result<Self, Error> {
        let db = Db::open_on(Arc::new(disk.clone()), options)?;
        db.advance(now);
        Ok(Self { db, model, now, history: Vec::new(), keeps: false, held: None })
    }

    /// The model and the time after the operation.
    pub fn expect(&self, op: &Op) -> (Model, u64) {
        let (mut next, mut now) = (self.model.clone(), self.now);
        match op {
            Op::Write(changes) => {
                for change in changes {
                    match change.clone() {
                        Change::Put(key, value, deadline) => {
                            next.insert(key, (value, deadline));
                        }
                        Change::Delete(key) => drop(next.remove(&key)),
                        Change::DeleteRange(from, to) => {
                            next.retain(|key, _| *key < from || *key >= to);
                        }
                    }
                }
            }
            Op::Ingest(pairs) => {
                next.extend(pairs.iter().map(|(k, v)| (k.clone(), (v.clone(), NEVER))));
            }
            Op::Advance(to) => now = now.max(*to),
            Op::Flush | Op::KeepHistory | Op::DropHistory => {}
        }
        (next, now)
    }

    /// Runs the operation on the store.
    pub fn run(&self, op: &Op) -> Result<(), Error> {
        match op {
            Op::Write(changes) => {
                let mut batch = Batch::new();
                for change in changes {
                    match change {
                        Change::Put(key, value, NEVER) => batch.put(key, value),
                        Change::Put(key, value, deadline) => batch.put_until(key, value, *deadline),
                        Change::Delete(key) => batch.delete(key),
                        Change::DeleteRange(from, to) => batch.delete_range(from, to),
                    }
                }
                self.db.write(batch)
            }
            Op::Ingest(pairs) => {
                let mut ingest = self.db.ingest()?;
                for (key, value) in pairs {
                    ingest.put(key, value)?;
                }
                ingest.finish()
            }
            Op::Flush => self.db.flush(),
            Op::Advance(to) => {
                self.db.advance(*to);
                Ok(())
            }
            Op::KeepHistory => {
                self.db.keep_history_from(self.db.snapshot().ts());
                Ok(())
            }
            Op::DropHistory => {
                self.db.keep_history_from(u64::MAX);
                Ok(())
            }
        }
    }

    /// Runs the operation on the store and on the model.
    pub fn step(&mut self, op: &Op) -> Result<(), Error> {
        let next = self.expect(op);
        self.run(op)?;
        (self.model, self.now) = next;
        match op {
            Op::KeepHistory => {
                self.keeps = true;
                self.history.clear();
            }
            Op::DropHistory => self.keeps = false,
            _ => {}
        }
        if self.keeps {
            self.history.push((self.db.snapshot().ts(), self.model.clone()));
        }
        Ok(())
    }

    /// Compares some reads with the model: keys, ranges in both directions, a held snapshot, and a
    /// moment of the past.
    ///
    /// # Errors
    /// When a read fails. A wrong result panics.
    pub fn check(&mut self, rng: &mut Rng) -> Result<(), Error> {
        let snapshot = self.db.snapshot();
        for _ in 0..6 {
            let key = key(rng);
            let expected = visible(&self.model, self.now, &key);
            assert_eq!(self.db.get(&key)?.as_deref(), expected, "{key:?}");
            assert_eq!(snapshot.get(&key)?.as_deref(), expected, "{key:?} in a snapshot");
        }
        let (from, to) = (bound(rng), bound(rng));
        let range = (from, to);
        let inside: Vec<(Vec<u8>, Vec<u8>)> =
            shown(&self.model, self.now).into_iter().filter(|(k, _)| contains(&range, k)).collect();
        let found = collect(snapshot.scan(range.clone()))?;
        same(&found, &inside, "ascending");
        let mut found = collect(snapshot.scan_back(range.clone()))?;
        found.reverse();
        same(&found, &inside, "descending");
        if let Some((snapshot, then)) = &self.held {
            same(&collect(snapshot.scan(..))?, &shown(then, 0), "a held snapshot");
        }
        if rng.one_in(4) {
            let then = shown(&self.model, self.now);
            let then = then.into_iter().map(|(k, v)| (k, (v, NEVER))).collect();
            self.held = Some((self.db.snapshot(), then));
        }
        if let Some((ts, then)) = pick(rng, &self.history) {
            match self.db.snapshot_at(*ts) {
                Ok(past) => {
                    let what = format!("at {ts}, now {}", self.db.snapshot().ts());
                    same(&collect(past.scan(..))?, &shown(then, self.now), &what);
                }
                Err(Error::HistoryGone { .. }) => assert!(!self.keeps, "history is kept"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All keys and values that the store shows.
    ///
    /// # Errors
    /// When a read fails.
    pub fn dump(&self) -> Result<Pairs, Error> {
        collect(self.db.scan(..))
    }
}

/// The keys and values of a model that a reader sees.
pub fn shown(model: &Model, now: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let alive = model.iter().filter(|(_, (_, deadline))| *deadline > now);
    alive.map(|(key, (value, _))| (key.clone(), value.clone())).collect()
}

fn visible<'a>(model: &'a Model, now: u64, key: &[u8]) -> Option<&'a [u8]> {
    model.get(key).filter(|(_, deadline)| *deadline > now).map(|(value, _)| &value[..])
}

/// Asserts that two lists of pairs are equal. The message names the first difference.
pub fn same(found: &[(Vec<u8>, Vec<u8>)], expected: &[(Vec<u8>, Vec<u8>)], what: &str) {
    let first = found.iter().zip(expected).find(|(a, b)| a != b);
    let text = |(key, value): &(Vec<u8>, Vec<u8>)| {
        format!("{} ({} bytes)", String::from_utf8_lossy(key), value.len())
    };
    let first = first.map(|(a, b)| format!("found {}, expected {}", text(a), text(b)));
    let (len, wanted) = (found.len(), expected.len());
    assert!(
        found == expected,
        "{what}: {len} found, {wanted} expected; first difference: {first:?}"
    );
}

fn collect(scan: bedstone_engine::lsm::Scan) -> Result<Pairs, Error> {
    scan.map(|item| item.map(|(k, v)| (k.to_vec(), v.to_vec()))).collect()
}

fn bound(rng: &mut Rng) -> Bound<Vec<u8>> {
    match rng.below(4) {
        0 => Bound::Unbounded,
        1 => Bound::Excluded(key(rng)),
        _ => Bound::Included(key(rng)),
    }
}

fn contains(range: &(Bound<Vec<u8>>, Bound<Vec<u8>>), key: &Vec<u8>) -> bool {
    let late = match &range.0 {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    };
    let early = match &range.1 {
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
        Bound::Unbounded => true,
    };
    late && early
}

fn pick<'a, T>(rng: &mut Rng, list: &'a [T]) -> Option<&'a T> {
    let at = rng.below(list.len().max(1) as u64) as usize;
    list.get(at)
}

/// Options that may change the speed and the layout, but no result.
pub fn any_options(rng: &mut Rng) -> Options {
    use bedstone_engine::limits::{Codec, Limits};
    let codecs = [Codec::None, Codec::Lz4, Codec::Zstd];
    let mut options = Options::tiny();
    let tiny = Limits::TINY;
    options.cache_bytes = [0, 4 << 10, 1 << 20][rng.below(3) as usize];
    options.write_mode = WriteMode::Pwrite;
    options.limits = Limits {
        memtable_bytes: (1 << 10) << rng.below(6),
        memtable_value_bytes: (4 << 10) << rng.below(4),
        value_bytes_separate: [16, 100, 256, 1 << 20][rng.below(4) as usize],
        value_file_bytes: (1 << 10) << rng.below(6),
        garbage_percent: rng.below(60),
        garbage_bytes: (8 << 10) << rng.below(5),
        collect_bytes: (8 << 10) << rng.below(5),
        table_block_bytes: 64 << rng.below(6),
        table_partition_blocks: 1 + rng.below(8) as usize,
        table_bytes: (1 << 10) << rng.below(6),
        runs_max: 2 + rng.below(4) as usize,
        bottom_ratio: 1 + rng.below(6),
        range_tombstones_max: 1 + rng.below(30) as usize,
        compression: codecs[rng.below(3) as usize],
        bottom_compression: codecs[rng.below(3) as usize],
        ..tiny
    };
    options
}
