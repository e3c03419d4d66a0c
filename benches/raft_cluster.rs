//! Three replicas of a group in one thread and in memory: messages are handed over as they are,
//! nothing is encoded and nothing synced.

use bedstone_engine::LogId;
use bedstone_engine::wal::Entry;
use bedstone_node::raft::{Boot, Conf, Config, LogReader, Message, Raft};
use bytes::Bytes;

struct Nothing;

impl LogReader for Nothing {
    fn entries(&self, _: u64, _: u64, _: usize) -> Vec<Entry> {
        Vec::new()
    }
}

/// The replicas, with a leader.
pub struct Cluster {
    replicas: Vec<Raft>,
    leader: usize,
}

impl Cluster {
    /// Elects a leader.
    ///
    /// # Panics
    /// When nobody is elected.
    #[must_use]
    pub fn new() -> Cluster {
        let boot = |id| Boot::new(id, Conf::of([1, 2, 3]), id);
        // Memory is kept small, as with a driver that applies.
        let config = Config { recent_bytes_max: 1 << 20, quiet_after: None, ..Config::default() };
        let replicas = (1..=3).map(|id| Raft::new(config.clone(), boot(id))).collect();
        let mut cluster = Cluster { replicas, leader: 0 };
        while !cluster.replicas.iter().any(Raft::is_leader) {
            cluster.replicas[0].tick();
            cluster.settle();
        }
        cluster.leader = cluster.replicas.iter().position(Raft::is_leader).expect("elected");
        cluster
    }

    /// Proposes as many entries, together, and carries them until the leader knows them committed.
    ///
    /// # Panics
    /// When they are not.
    pub fn commit(&mut self, data: &Bytes, entries: u64) {
        let leader = &mut self.replicas[self.leader];
        let mut last = LogId::default();
        for _ in 0..entries {
            last = leader.propose(data.clone()).expect("it leads");
        }
        self.settle();
        assert!(self.replicas[self.leader].commit() >= last.index);
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

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}
