//! The Raft core: from proposal to commit on three cores in memory, with 128-byte entries in
//! batches.

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

/// One entry after the other: in one group alone, in a thousand groups in turn, and in one group
/// beside 999 quiescent groups.
fn groups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft_groups");
    let data = Bytes::from(vec![7; 128]);
    group.throughput(Throughput::Elements(1));
    for (name, groups, active) in [("1", 1, 1), ("1000_active", 1000, 1000), ("1000_idle", 1000, 1)]
    {
        let mut clusters: Vec<Cluster> = (0..groups).map(|_| Cluster::new()).collect();
        let mut next = (0..active).cycle();
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| clusters[next.next().unwrap_or(0)].commit(&data, 1));
        });
    }
    group.finish();
}

criterion_group!(raft, propose_to_commit, groups);
criterion_main!(raft);
