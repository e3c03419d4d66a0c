//! The embedded store with its threads on real files. Writers share commits, each writer sees its
//! own writes, values move while they are read, and all data is there after reopening. Submitted
//! writes take effect in order, and the writes that were waited for survive.

use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::{Batch, Db, Error, Options, Pending};
use bedstone_tests::rng::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const WRITERS: u64 = 8;
const WRITES: u64 = 600;

fn options() -> Options {
    Options { threads: true, ..Options::tiny() }
}

fn key(writer: u64, number: u64) -> Vec<u8> {
    format!("w{writer}-{number:02}").into_bytes()
}

/// Overwrites its own keys and reads them back. Returns their last values.
fn writer(db: &Db, writer: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rng = Rng::new(writer);
    let mut model = BTreeMap::new();
    for _ in 0..WRITES {
        let key = key(writer, rng.below(40));
        let mut batch = Batch::new();
        if rng.one_in(6) {
            batch.delete(&key);
            model.remove(&key);
        } else {
            // A value of 256 bytes or more stays in the log.
            let len = rng.below(1200) as usize;
            let value = rng.bytes(len);
            batch.put(&key, &value);
            model.insert(key.clone(), value);
        }
        db.write(batch).unwrap();
        assert_eq!(db.get(&key).unwrap().as_deref(), model.get(&key).map(|value| &value[..]));
    }
    model
}

fn dump(db: &Db) -> BTreeMap<Vec<u8>, Vec<u8>> {
    db.scan(..).map(|item| item.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect()
}

#[test]
fn writers_share_commits_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(Db::open(dir.path(), options()).unwrap());
    let threads: Vec<_> = (0..WRITERS)
        .map(|id| {
            let db = db.clone();
            std::thread::spawn(move || writer(&db, id))
        })
        .collect();
    let model: BTreeMap<_, _> =
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(dump(&db), model);
    let snapshot = db.snapshot();
    db.flush().unwrap();
    db.settle().unwrap();
    assert_eq!(dump(&db), model);
    {
        let (_, tree) = &db.engine().trees()[0];
        assert!(tree.stats().file_value_bytes > 0, "values moved: {:?}", tree.stats());
        tree.verify().unwrap();
    }
    let seen: usize = snapshot.scan(..).map(|item| item.map(|_| 1).unwrap()).sum();
    assert_eq!(seen, model.len());
    drop(snapshot);
    drop(db);
    let db = Db::open(dir.path(), options()).unwrap();
    assert_eq!(dump(&db), model);
}

/// Submits writes, each with its number as a value, and waits for all but the last few. Returns how
/// many writes it waited for.
fn submitter(db: &Db, writer: u64) -> u64 {
    let mut rng = Rng::new(writer);
    let mut pending = VecDeque::new();
    let mut settled = 0;
    for number in 1..=WRITES {
        let mut batch = Batch::new();
        let len = rng.below(5000) as usize;
        batch.put(&key(writer, number % 40), &rng.bytes(len));
        batch.put(&last_key(writer), &number.to_le_bytes());
        let Ok(submitted) = db.submit(batch) else { return settled };
        pending.push_back(submitted);
        while pending.len() > 20 || pending.front().is_some_and(Pending::is_settled) {
            if pending.pop_front().unwrap().wait().is_err() {
                return settled;
            }
            settled += 1;
            assert!(last_of(db, writer) >= settled, "a write that was waited for is visible");
        }
    }
    settled
}

fn last_key(writer: u64) -> Vec<u8> {
    format!("w{writer}-last").into_bytes()
}

fn last_of(db: &Db, writer: u64) -> u64 {
    let value = db.get(&last_key(writer)).unwrap();
    value.map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()))
}

#[test]
fn submitted_writes_survive_a_power_failure_once_waited_for() {
    let mut cut_short = 0;
    for seed in 0..60 {
        let disk = MemoryDisk::new();
        let db = Arc::new(Db::open_on(Arc::new(disk.clone()), options()).unwrap());
        disk.crash_after(seed * 40);
        let threads: Vec<_> = (0..3)
            .map(|id| {
                let db = db.clone();
                std::thread::spawn(move || submitter(&db, id))
            })
            .collect();
        let settled: Vec<u64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        drop(db);
        let db = Db::open_on(Arc::new(disk.power_loss(seed)), options()).unwrap();
        for (writer, settled) in (0..).zip(settled) {
            let last = last_of(&db, writer);
            assert!(last >= settled, "seed {seed}: {last} of {settled} writes by {writer}");
            cut_short += u64::from(settled < WRITES - 20);
            // A write that was not waited for may be there without an earlier one: the earlier
            // write found no slot and failed, while a shorter write was already on its way to the
            // disk.
            for number in settled.saturating_sub(39).max(1)..=settled {
                assert!(db.get(&key(writer, number % 40)).unwrap().is_some(), "seed {seed}");
            }
        }
    }
    assert!(cut_short > 50, "the power failed early {cut_short} times");
}

#[test]
fn a_flush_during_writes_loses_no_write() {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(Db::open(dir.path(), options()).unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let flusher = {
        let (db, over) = (db.clone(), over.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                db.flush().unwrap();
            }
        })
    };
    let value = |number: u64| vec![number as u8; 20];
    for number in 0..100u64 {
        let mut batch = Batch::new();
        for part in 0..1_000 {
            batch.put(&key(part, number), &value(number));
        }
        db.submit(batch).unwrap().wait().unwrap();
        assert_eq!(db.get(&key(999, number)).unwrap().as_deref(), Some(&value(number)[..]));
    }
    over.store(true, Ordering::Relaxed);
    flusher.join().unwrap();
    drop(db);
    let db = Db::open(dir.path(), options()).unwrap();
    for number in 0..100 {
        for part in 0..1_000 {
            let found = db.get(&key(part, number)).unwrap();
            assert_eq!(found.as_deref(), Some(&value(number)[..]), "write {number}, part {part}");
        }
    }
}

#[test]
fn a_batch_larger_than_a_segment_is_refused_without_effect() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let limit = db.engine().log().record_bytes_max();
    let batch = |bytes: usize| {
        let mut batch = Batch::new();
        batch.put(b"key", &vec![7; bytes]);
        batch
    };
    for bytes in [limit, 3 * limit] {
        let refused = db.submit(batch(bytes)).map(drop).unwrap_err();
        assert!(matches!(refused, Error::TooLarge { what: "the batch", .. }), "{refused}");
    }
    let pending: Vec<Pending> = (0..20).map(|_| db.submit(batch(limit - 100)).unwrap()).collect();
    pending.iter().for_each(|pending| pending.wait().unwrap());
    assert_eq!(db.get(b"key").unwrap().map(|value| value.len()), Some(limit - 100));
}

#[test]
fn dropping_the_store_completes_submitted_writes() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let pending: Vec<Pending> = (1..=100u64)
        .map(|number| {
            let mut batch = Batch::new();
            batch.put(&last_key(0), &number.to_le_bytes());
            db.submit(batch).unwrap()
        })
        .collect();
    drop(db);
    assert!(pending.iter().all(|pending| pending.is_settled() && pending.wait().is_ok()));
    assert_eq!(last_of(&Db::open(dir.path(), options()).unwrap(), 0), 100);
}
