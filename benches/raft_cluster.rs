//! Three replicas of a group in one thread and in memory: messages are handed over as values,
//! nothing is encoded and nothing is synced.

use bedstone_engine::wal::Entry;
use bedstone_engine::{Index, LogId, ReplicaId};
use bedstone_node::raft::{Boot, Conf, Config, Effects, LogReader, Message, Raft};
use bytes::Bytes;

struct Nothing;

impl LogReader for Nothing {
    fn entries(&self, _: Index, _: Index, _: usize) -> Vec<Entry> {
        Vec::new()
    }
}

/// The replicas, one of which leads.
pub struct Cluster {
    replicas: [Raft; 3],
    leader: usize,
    /// The replicas that received something since their last call.
    asked: [bool; 3],
    effects: Effects,
}

impl Cluster {
    /// Elects a leader.
    ///
    /// # Panics
    /// When no replica is elected.
    #[must_use]
    pub fn new() -> Cluster {
        let boot = |id| Boot::new(ReplicaId(id), Conf::of([1, 2, 3].map(ReplicaId)), id);
        // The entries in memory are few, as with a worker that applies entries.
        let config = Config { recent_bytes_max: 1 << 20, quiesce_after: None, ..Config::default() };
        let replicas = [1, 2, 3].map(|id| Raft::new(config.clone(), boot(id)));
        let (asked, effects) = ([true; 3], Effects::default());
        let mut cluster = Cluster { replicas, leader: 0, asked, effects };
        while !cluster.replicas.iter().any(Raft::is_leader) {
            cluster.replicas[0].tick();
            cluster.asked[0] = true;
            cluster.settle();
        }
        cluster.leader = cluster.replicas.iter().position(Raft::is_leader).expect("elected");
        cluster
    }

    /// Proposes `entries` entries together, and carries messages until the leader has committed
    /// them.
    ///
    /// # Panics
    /// When the leader has not committed the entries.
    pub fn commit(&mut self, data: &Bytes, entries: u64) {
        let leader = &mut self.replicas[self.leader];
        let mut last = LogId::default();
        for _ in 0..entries {
            last = leader.propose(data.clone()).expect("it leads");
        }
        self.asked[self.leader] = true;
        self.settle();
        assert!(self.replicas[self.leader].commit() >= last.index);
    }

    /// Carries messages and completes writes until nothing is left to do. Like a worker, this calls
    /// only the replicas that received something.
    fn settle(&mut self) {
        while self.asked.contains(&true) {
            for at in 0..self.replicas.len() {
                if std::mem::take(&mut self.asked[at]) {
                    self.execute(at);
                }
            }
        }
    }

    fn execute(&mut self, at: usize) {
        let (replica, effects) = (&mut self.replicas[at], &mut self.effects);
        replica.effects_into(&Nothing, effects);
        if let Some(write) = effects.write.take() {
            replica.persisted(write.seq);
            self.asked[at] = true;
        }
        replica.applied(effects.commit);
        // The messages leave in order, and the list keeps its capacity.
        effects.send.reverse();
        while let Some(Message { peer, term, body }) = effects.send.pop() {
            let to = peer.0 as usize - 1;
            self.replicas[to].step(Message { peer: ReplicaId(at as u64 + 1), term, body });
            self.asked[to] = true;
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}
