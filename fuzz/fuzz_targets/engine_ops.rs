//! A store and a sorted map hold the same pairs after any operations, also after a power loss.
//!
//! Input: three bytes per operation: the kind, the key, and the length of the value.
#![no_main]

use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::{Batch, Db, Options, Snapshot};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::sync::Arc;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(disk: &MemoryDisk) -> Db {
    Db::open_on(Arc::new(disk.clone()), Options::tiny()).expect("a sound disk opens")
}

fn pairs(items: bedstone_engine::lsm::Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    items.map(|item| item.map(|(k, v)| (k.to_vec(), v.to_vec())).expect("sound data")).collect()
}

fn check(items: bedstone_engine::lsm::Scan, model: &Model) {
    assert!(pairs(items).into_iter().eq(model.clone()), "the store and the map differ");
}

fuzz_target!(|input: &[u8]| {
    let mut disk = MemoryDisk::new();
    let mut model = Model::new();
    let mut db = open(&disk);
    let mut held: Option<(Snapshot, Model)> = None;
    let mut now = 0;
    for (i, op) in input.chunks_exact(3).take(120).enumerate() {
        let key = vec![b'k', op[1] % 32];
        let other = vec![b'k', op[2] % 32];
        let value = vec![i as u8; usize::from(op[2]) * 4];
        let mut batch = Batch::new();
        match op[0] % 16 {
            0..6 => {
                batch.put(&key, &value);
                model.insert(key, value);
            }
            6 => {
                batch.delete(&key);
                model.remove(&key);
            }
            7 => db.flush().expect("memory works"),
            8 => db.settle().expect("memory works"),
            9 => held = Some((db.snapshot(), model.clone())),
            10 => {
                if let Some((snapshot, then)) = held.take() {
                    check(snapshot.scan(..), &then);
                }
            }
            11 => {
                // The range deletion also removes pairs that the same batch set before.
                batch.put(&key, &value);
                batch.delete_range(&key, &other);
                batch.put(&other, &value);
                model.insert(key.clone(), value.clone());
                model.retain(|k, _| *k < key || *k >= other);
                model.insert(other, value);
            }
            12 => {
                // At time 1, the deadlines 0 and 1 have passed and the deadline 2 has not.
                now = 1;
                db.advance(now);
                batch.put_until(&key, &value, u64::from(op[2] % 3));
                match op[2] % 3 {
                    2 => drop(model.insert(key, value)),
                    _ => drop(model.remove(&key)),
                }
            }
            13 => {
                let mut ingest = db.ingest().expect("memory works");
                ingest.put(&key, &value).expect("the first key");
                model.insert(key.clone(), value.clone());
                if other > key {
                    ingest.put(&other, &[]).expect("keys ascend");
                    model.insert(other, Vec::new());
                }
                ingest.finish().expect("memory works");
            }
            14 => {
                let range = key.clone()..;
                let mut found = pairs(db.scan_back(range.clone()));
                found.reverse();
                let expected = model.range(range).map(|(k, v)| (k.clone(), v.clone()));
                assert!(found.into_iter().eq(expected), "a backward scan differs");
            }
            _ => {
                held = None;
                drop(db);
                disk = disk.power_loss(u64::from(op[1]) << 8 | u64::from(op[2]));
                db = open(&disk);
                // The owner of the clock sets the time again.
                db.advance(now);
            }
        }
        db.write(batch).expect("memory works");
        let expected = model.get(&[b'k', op[2] % 32][..]).map(|v| &v[..]);
        assert_eq!(db.get(&[b'k', op[2] % 32]).expect("sound data").as_deref(), expected);
    }
    check(db.scan(..), &model);
    if let Some((snapshot, then)) = held {
        check(snapshot.scan(..), &then);
    }
});
