//! The tree: put, get (found and not found) and scans of 100, over 200,000 keys of 128 bytes.

use bedstone_engine::disk::os::OsDisk;
use bedstone_engine::limits::Limits;
use bedstone_engine::lsm::Shared;
use bedstone_engine::table::BlockCache;
use bedstone_engine::{Index, LogId, Op, ShardId, Term, Tree};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;

const KEYS: u64 = 200_000;
const VALUE_BYTES: usize = 128;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key:{:012}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS))
}

fn tree(dir: &std::path::Path) -> Tree {
    let disk = Arc::new(OsDisk::open(dir).expect("the directory opens"));
    let cache = Arc::new(BlockCache::new(256 << 20));
    let limits = Limits { memtable_bytes: 8 << 20, ..Limits::DEFAULT };
    let shared = Shared::new(disk, limits, cache, Arc::default());
    Tree::open(&shared, ShardId(1), "shards/1").expect("a new tree")
}

fn work(tree: &Tree) {
    while let Some(job) = tree.job() {
        tree.run(job).expect("the disk works");
    }
}

fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = tree(dir.path());
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    let mut index = 0;
    let mut put = || {
        index += 1;
        tree.apply(
            LogId { term: Term(1), index: Index(index) },
            index,
            None,
            [Op::Put(key(index), value.clone())],
        );
        index
    };
    for _ in 0..KEYS {
        if put().is_multiple_of(10_000) {
            work(&tree);
        }
    }
    let mut group = criterion.benchmark_group("lsm");
    group.throughput(Throughput::Elements(1));
    group.bench_function("put_with_flush_and_compaction", |bencher| {
        bencher.iter(|| {
            if put().is_multiple_of(10_000) {
                work(&tree);
            }
        });
    });
    tree.freeze();
    work(&tree);
    let mut number = 0u64;
    group.bench_function("get_found", |bencher| {
        bencher.iter(|| {
            number += 7919;
            tree.get(&key(number)).expect("sound")
        });
    });
    group.bench_function("get_missing", |bencher| {
        bencher.iter(|| {
            number += 7919;
            tree.get(format!("key:{:012}x", number % KEYS).as_bytes()).expect("sound")
        });
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("scan_100", |bencher| {
        bencher.iter(|| {
            number += 7919;
            tree.scan(key(number).to_vec()..)
                .take(100)
                .map(|item| item.expect("sound").1.len())
                .sum::<usize>()
        });
    });
    group.finish();
}

criterion_group!(lsm, benches);
criterion_main!(lsm);
