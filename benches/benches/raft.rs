//! The Raft core: from proposal to commit on three cores in memory, 128-byte entries, in batches.
//! Messages are handed over as they are; nothing is encoded and nothing synced.

use bedstone_engine::LogId;
use bedstone_engine::wal::{Entry, HardState};
use bedstone_node::raft::{Boot, Config, LogReader, Message, Raft};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

struct Nothing;

impl LogReader for Nothing {
    fn entries(&self, _: u64, _: u64, _: usize) -> Vec<Entry> {
        Vec::new()
    }
}

struct Cluster {
    replicas: Vec<Raft>,
    leader: usize,
}

impl Cluster {
    fn new() -> Cluster {
        let boot = |id| Boot {
            id,
            voters: vec![1, 2, 3],
            hard: HardState::default(),
            applied: LogId::default(),
            base: LogId::default(),
            runs: Vec::new(),
            last: 0,
            seed: id,
        };
        // Memory is kept small, as with a driver that applies.
        let config = Config { recent_bytes_max: 1 << 20, ..Config::default() };
        let replicas = (1..=3).map(|id| Raft::new(config.clone(), boot(id))).collect();
        let mut cluster = Cluster { replicas, leader: 0 };
        while !cluster.replicas.iter().any(Raft::is_leader) {
            cluster.replicas[0].tick();
            cluster.settle();
        }
        cluster.leader = cluster.replicas.iter().position(Raft::is_leader).expect("elected");
        cluster
    }

    /// Carries messages and completes writes until nothing is left to do.
    fn settle(&mut self) {
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for at in 0..self.replicas.len() {
                let effects = self.replicas[at].effects(&Nothing);
                if let Some(write) = effects.write {
                    self.replicas[at].persisted(write.seq);
                    quiet = false;
                }
                self.replicas[at].applied(effects.commit);
                for Message { peer, term, body } in effects.send {
                    let message = Message { peer: at as u64 + 1, term, body };
                    self.replicas[peer as usize - 1].step(message);
                    quiet = false;
                }
            }
        }
    }
}

fn propose_to_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft_propose_to_commit");
    let data = Bytes::from(vec![7; 128]);
    for batch in [1u64, 64, 1024] {
        let mut cluster = Cluster::new();
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                let leader = &mut cluster.replicas[cluster.leader];
                let mut last = LogId::default();
                for _ in 0..batch {
                    last = leader.propose(data.clone()).expect("it leads");
                }
                cluster.settle();
                assert!(cluster.replicas[cluster.leader].status().commit >= last.index);
            });
        });
    }
    group.finish();
}

criterion_group!(raft, propose_to_commit);
criterion_main!(raft);
