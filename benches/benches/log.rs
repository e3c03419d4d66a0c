//! The log: group commit at 1, 16 and 256 records per sync, in each write mode. The bare write and
//! sync of as many bytes into a recycled file is measured beside it: it is the limit of the
//! machine.

use bedstone_engine::disk::os::OsDisk;
use bedstone_engine::disk::{Disk, Pages};
use bedstone_engine::limits::{BLOCK_BYTES, Limits};
use bedstone_engine::wal::format::record_bytes;
use bedstone_engine::wal::{EntryKind, Log, Record};
use bedstone_engine::{Index, LogId, ShardId, Term, WriteMode};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::path::Path;
use std::sync::Arc;

const VALUE_BYTES: usize = 256;
const WRITE_MODES: [(&str, WriteMode); 3] =
    [("direct", WriteMode::Direct), ("pwrite", WriteMode::Pwrite), ("mapped", WriteMode::Mapped)];

/// A directory on the disk under test: BEDSTONE_BENCH_DIR, or the current directory.
fn directory() -> tempfile::TempDir {
    let dir = std::env::var("BEDSTONE_BENCH_DIR").unwrap_or_else(|_| ".".to_owned());
    tempfile::tempdir_in(Path::new(&dir)).expect("a directory for the log")
}

fn append(criterion: &mut Criterion) {
    for records in [1usize, 16, 256] {
        let mut group = criterion.benchmark_group(format!("log_commit/{records}"));
        group.throughput(Throughput::Elements(records as u64));
        for (name, write_mode) in WRITE_MODES {
            let dir = directory();
            let disk = Arc::new(OsDisk::open(dir.path()).expect("the directory opens"));
            let (log, _) = Log::open(disk, write_mode, 1, Limits::DEFAULT).expect("a new log");
            for _ in 0..3 {
                log.allocate_slot().expect("room for a slot");
                log.fill_slot().expect("room for a slot");
            }
            let data = bytes::Bytes::from_static(&[7; VALUE_BYTES]);
            let mut index = 0;
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                // Producers make records, and their checksums, on their own threads.
                let make = || {
                    let mut batch: Vec<Record> = (0..records)
                        .map(|_| {
                            index += 1;
                            let first = LogId { term: Term(1), index: Index(index) };
                            Record::entries(
                                ShardId(1),
                                first,
                                [(EntryKind::COMMANDS, data.clone())],
                            )
                            .expect("small")
                        })
                        .collect();
                    // Slots are reused: everything before the last 10,000 entries is released.
                    if index.is_multiple_of(4096) && index > 10_000 {
                        let upto = LogId { term: Term(1), index: Index(index - 10_000) };
                        batch.push(Record::Release { shard: ShardId(1), upto });
                    }
                    batch
                };
                let commit = |batch: &mut Vec<Record>| log.commit(batch).expect("the disk works");
                bencher.iter_batched_ref(make, commit, BatchSize::PerIteration);
            });
        }
        bare(&mut group, records);
        group.finish();
    }
}

/// Writes and syncs as many bytes into a prepared file, without a log around them.
fn bare(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    records: usize,
) {
    const FILE_BYTES: u64 = 32 << 20;
    let data = bytes::Bytes::from_static(&[7; VALUE_BYTES]);
    let record = Record::entries(
        ShardId(1),
        LogId { term: Term(1), index: Index(1) },
        [(EntryKind::COMMANDS, data.clone())],
    )
    .expect("small");
    let bytes = (64 + records * record_bytes(&record)).next_multiple_of(BLOCK_BYTES);
    let mut pages = Pages::default();
    pages.extend(&vec![7; bytes]);
    for (name, write_mode) in WRITE_MODES {
        let dir = directory();
        let disk = OsDisk::open(dir.path()).expect("the directory opens");
        disk.allocate_region("file", FILE_BYTES).expect("room for the file");
        disk.fill_region("file", FILE_BYTES).expect("room for the file");
        let region = disk.open_region("file", write_mode).expect("the region opens");
        let mut offset = 0;
        group.bench_function(BenchmarkId::new("bare", name), |bencher| {
            bencher.iter(|| {
                if offset + bytes as u64 > FILE_BYTES {
                    offset = 0;
                }
                region.write(offset, &pages).expect("the disk works");
                region.sync(offset, bytes).expect("the disk works");
                offset += bytes as u64;
            });
        });
    }
}

criterion_group!(benches, append);
criterion_main!(benches);
