//! The embedded store with its threads on real files: writers share commits, each sees its own
//! writes, values move while they are read, and everything is there after reopening.

use bedstone_engine::{Batch, Db, Options};
use bedstone_tests::rng::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

const WRITERS: u64 = 8;
const WRITES: u64 = 600;

fn options() -> Options {
    Options { threads: true, ..Options::tiny() }
}

fn key(writer: u64, number: u64) -> Vec<u8> {
    format!("w{writer}-{number:02}").into_bytes()
}

/// Overwrites its own keys and reads them back; what they hold in the end.
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
            // From 256 bytes on a value stays in the log.
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
