//! The filter of tables, binary fuse, beside Bloom filters of 10 bits per key: building, and
//! lookups as a point read does them, in one filter of many at a time. Sizes and false-positive
//! rates are printed first.

use bedstone_engine::checksum::key_hash;
use bedstone_engine::table::filter;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

/// Keys of one partition: 512 KiB of entries of 128 bytes each.
const KEYS: u64 = 3_600;
/// Partitions that hold a million keys together.
const PARTITIONS: u64 = 280;

fn hash(number: u64) -> u64 {
    key_hash(format!("{number:016}").as_bytes())
}

/// Even numbers are present, odd ones are absent.
fn hashes(partition: u64, odd: u64) -> Vec<u64> {
    (0..KEYS).map(|number| hash((partition * KEYS + number) * 2 + odd)).collect()
}

fn fuse(hashes: &[u64]) -> Vec<u8> {
    filter::build(hashes.to_vec())
}

/// A plain Bloom filter, which finds its bits by multiplication.
mod bloom {
    const BITS_PER_KEY: usize = 10;
    const PROBES: u64 = 6;

    pub(super) fn build(hashes: &[u64]) -> Vec<u8> {
        let mut out = vec![0; (hashes.len() * BITS_PER_KEY).div_ceil(8)];
        for &hash in hashes {
            for bit in probes(hash, out.len()) {
                out[bit / 8] |= 1 << (bit % 8);
            }
        }
        out
    }

    pub(super) fn may_contain(bits: &[u8], hash: u64) -> bool {
        probes(hash, bits.len()).all(|bit| bits[bit / 8] & (1 << (bit % 8)) != 0)
    }

    fn probes(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
        let bits = bytes as u128 * 8;
        let step = hash.rotate_left(32) | 1;
        (0..PROBES).map(move |i| {
            ((u128::from(hash.wrapping_add(i.wrapping_mul(step))) * bits) >> 64) as usize
        })
    }
}

fn report(name: &str, filters: &[Vec<u8>], ask: fn(&[u8], u64) -> bool) {
    let bytes: usize = filters.iter().map(Vec::len).sum();
    let keys = (KEYS * PARTITIONS) as f64;
    let wrong: usize = (0..)
        .zip(filters)
        .map(|(p, filter)| hashes(p, 1).into_iter().filter(|&hash| ask(filter, hash)).count())
        .sum();
    eprintln!(
        "{name}: {:.2} bits per key, {:.2}% false positives",
        bytes as f64 * 8.0 / keys,
        wrong as f64 * 100.0 / keys
    );
}

fn filters(c: &mut Criterion) {
    let sets: Vec<Vec<u64>> = (0..PARTITIONS).map(|partition| hashes(partition, 0)).collect();
    let bloom: Vec<Vec<u8>> = sets.iter().map(|set| bloom::build(set)).collect();
    let fuses: Vec<Vec<u8>> = sets.iter().map(|set| fuse(set)).collect();
    report("bloom", &bloom, bloom::may_contain);
    report("binary_fuse", &fuses, filter::may_contain);

    let mut group = c.benchmark_group("filter_build");
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("bloom", |b| b.iter(|| bloom::build(black_box(&sets[0]))));
    group.bench_function("binary_fuse", |b| b.iter(|| fuse(black_box(&sets[0]))));
    group.finish();

    let mut group = c.benchmark_group("filter_ask");
    for (name, odd) in [("present", 0), ("absent", 1)] {
        // Lookups go to one partition after the other, as far apart as random reads are.
        let asked: Vec<(usize, u64)> = (0..KEYS * 4)
            .map(|i| {
                let partition = (i * 7919) % PARTITIONS;
                (partition as usize, hash((partition * KEYS + i % KEYS) * 2 + odd))
            })
            .collect();
        group.throughput(Throughput::Elements(asked.len() as u64));
        group.bench_function(BenchmarkId::new("bloom", name), |b| {
            b.iter(|| {
                asked.iter().filter(|(p, hash)| bloom::may_contain(&bloom[*p], *hash)).count()
            });
        });
        group.bench_function(BenchmarkId::new("binary_fuse", name), |b| {
            b.iter(|| {
                asked.iter().filter(|(p, hash)| filter::may_contain(&fuses[*p], *hash)).count()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, filters);
criterion_main!(benches);
