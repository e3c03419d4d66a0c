//! One kind of operation, many times on one thread, and its allocations. `count.py` runs this
//! program under tools that count system calls and copied bytes.

use bedstone_engine::disk::os::OsDisk;
use bedstone_engine::wal::{EntryKind, Record};
use bedstone_engine::{Batch, Db, Engine, Index, LogId, Options, ShardId, Term};
use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Keys in the store before the count begins.
const KEYS: u64 = 4000;
/// Records of a group commit.
const GROUP: u64 = 64;

fn main() {
    let mut args = std::env::args().skip(1);
    let operation = args.next().expect("an operation: put, get, scan or commit");
    let value: usize = args.next().and_then(|arg| arg.parse().ok()).expect("bytes of a value");
    let count: u64 = args.next().and_then(|arg| arg.parse().ok()).expect("how many operations");
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let mut run: Box<dyn FnMut(u64)> = match operation.as_str() {
        "put" => put(dir.path(), value),
        "get" => get(dir.path(), value),
        "scan" => scan(dir.path(), value),
        "commit" => commit(dir.path(), value),
        other => panic!("there is no operation {other}: put, get, scan, commit"),
    };
    run(0);
    let region = Region::new(ALLOCATOR);
    (1..=count).for_each(&mut run);
    let change = region.change();
    let calls = change.allocations + change.reallocations;
    let (calls, bytes) =
        (calls as f64 / count as f64, change.bytes_allocated as f64 / count as f64);
    writeln!(std::io::stdout(), "{calls} {bytes}").expect("standard output is open");
}

fn key(at: u64) -> [u8; 16] {
    u128::from(at.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_be_bytes()
}

fn put(dir: &Path, value: usize) -> Box<dyn FnMut(u64)> {
    let db = Db::open(dir, Options::default()).expect("the store opens");
    let value = vec![7; value];
    Box::new(move |at| {
        let mut batch = Batch::new();
        batch.put(&key(at), &value);
        db.write(batch).expect("the store writes");
    })
}

/// A store whose keys are all in tables and were read once.
fn loaded(dir: &Path, value: usize) -> Db {
    let db = Db::open(dir, Options::default()).expect("the store opens");
    for from in (0..KEYS).step_by(100) {
        let mut batch = Batch::new();
        (from..from + 100).for_each(|at| batch.put(&key(at), &vec![7; value]));
        db.write(batch).expect("the store writes");
    }
    db.flush().expect("the store flushes");
    db.settle().expect("the store settles");
    assert_eq!(db.scan(..).count() as u64, KEYS);
    (0..KEYS).for_each(|at| assert!(db.get(&key(at)).expect("the store reads").is_some()));
    db
}

fn get(dir: &Path, value: usize) -> Box<dyn FnMut(u64)> {
    let db = loaded(dir, value);
    Box::new(move |at| {
        black_box(db.get(&key(at * 7 % KEYS)).expect("the store reads"));
    })
}

/// Steps of scans over all keys.
fn scan(dir: &Path, value: usize) -> Box<dyn FnMut(u64)> {
    let db = loaded(dir, value);
    let mut scan = db.scan(..);
    Box::new(move |_| match scan.next() {
        Some(item) => drop(black_box(item.expect("the store scans"))),
        None => scan = db.scan(..),
    })
}

/// Group commits with one record from each of 64 shards.
fn commit(dir: &Path, value: usize) -> Box<dyn FnMut(u64)> {
    let disk = Arc::new(OsDisk::open(dir).expect("the directory opens"));
    let engine = Engine::open(disk, Options::default()).expect("the engine opens");
    let data = Bytes::from(vec![7; value]);
    Box::new(move |at| {
        let first = LogId { term: Term(1), index: Index(at + 1) };
        let record = |shard| {
            Record::entries(shard, first, [(EntryKind::COMMANDS, data.clone())])
                .expect("a small record")
        };
        let records: Vec<Record> = (0..GROUP).map(ShardId).map(record).collect();
        engine.log().commit(&records).expect("the log commits");
    })
}
