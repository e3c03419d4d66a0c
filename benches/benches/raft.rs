//! The Raft core: from proposal to commit on three cores in memory, 128-byte entries, in batches.

use bedstone_benches::raft_cluster::Cluster;
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn propose_to_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft_propose_to_commit");
    let data = Bytes::from(vec![7; 128]);
    for batch in [1u64, 64, 1024] {
        let mut cluster = Cluster::new();
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| cluster.commit(&data, batch));
        });
    }
    group.finish();
}

criterion_group!(raft, propose_to_commit);
criterion_main!(raft);
