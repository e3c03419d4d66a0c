//! The adapter of our core.

use super::cluster::{Id, Payload, Replica, Timing};
use crate::raft_world::disk::{Disk, Job};
use bedstone_engine::wal::{Entry, EntryKind, HardState};
use bedstone_engine::{Index, LogId, ReplicaId, Term};
use bedstone_node::raft::{Body, Conf, Config, Message, Raft, Write};
use bytes::Bytes;
use std::collections::VecDeque;

/// A replica of our core. Its writes complete one at a time.
pub struct Ours {
    pub(super) raft: Raft,
    config: Config,
    id: Id,
    seed: u64,
    disk: Disk,
    writing: VecDeque<Write>,
    sent: Vec<(Id, Message)>,
    applied_index: Index,
    applied: Vec<Payload>,
}

impl Ours {
    /// Starts a replica from a disk.
    pub(super) fn start(id: Id, timing: Timing, seed: u64, mut disk: Disk) -> Ours {
        let Timing { election, heartbeat } = timing;
        let config = Config {
            election: election..2 * election,
            heartbeat,
            quiesce_after: None,
            ..Config::DEFAULT
        };
        let boot = disk.boot(ReplicaId(id), seed);
        let applied_index = boot.applied.index;
        Ours {
            raft: Raft::new(config.clone(), boot),
            config,
            id,
            seed,
            disk,
            writing: VecDeque::new(),
            sent: Vec::new(),
            applied_index,
            applied: Vec::new(),
        }
    }

    /// A disk with a log of entries of these terms, released up to `base`.
    pub(super) fn disk(nodes: u64, terms: &[u64], base: u64, hard: HardState) -> Disk {
        let mut disk = Disk::new(Conf::of((1..=nodes).map(ReplicaId)));
        let entry = |(&term, index): (&u64, u64)| {
            let kind = if index == 1 { EntryKind::NOOP } else { EntryKind::COMMANDS };
            Entry {
                id: LogId { term: Term(term), index: Index(index) },
                kind,
                data: Bytes::copy_from_slice(&[0; 8]),
            }
        };
        let entries = terms.iter().zip(1..).map(entry).collect();
        disk.take(Job::Write(Write { seq: 1, hard, entries }));
        if base > 0 {
            let term = Term(terms[base as usize - 1]);
            let at = LogId { term, index: Index(base) };
            disk.tree.applied = at;
            disk.take(Job::Release(at));
        }
        disk
    }

    fn gather(&mut self) {
        let effects = self.raft.effects(&self.disk);
        assert_eq!(effects.committed_conflict, None, "a leader contradicts a committed entry");
        self.writing.extend(effects.write);
        self.sent.extend(effects.send.into_iter().map(|message| (message.peer.0, message)));
        while self.applied_index < effects.commit {
            let entries = self.raft.entries(self.applied_index + 1, usize::MAX, &self.disk);
            assert!(!entries.is_empty(), "a committed entry is in the log");
            for entry in entries.iter().filter(|entry| entry.id.index <= effects.commit) {
                self.applied_index = entry.id.index;
                if entry.kind == EntryKind::COMMANDS {
                    let payload = entry.data[..].try_into().expect("a payload has 8 bytes");
                    self.applied.push(u64::from_le_bytes(payload));
                }
            }
        }
        self.raft.applied(self.applied_index);
    }

    /// The vote on the disk.
    pub(super) fn vote(&self) -> Option<Id> {
        self.disk.hard.vote.peer().map(|peer| peer.0)
    }

    /// Delivers a message and completes all work that follows from it. Returns the messages that
    /// the replica sends.
    pub(super) fn ask(&mut self, from: Id, term: u64, body: Body) -> Vec<Message> {
        self.receive(from, Message { peer: ReplicaId(from), term: Term(term), body });
        while self.store() {}
        self.take_sent().into_iter().map(|(_, message)| message).collect()
    }
}

impl Replica for Ours {
    type Message = Message;
    const NAME: &'static str = "ours";

    fn new(id: Id, nodes: u64, timing: Timing, seed: u64) -> Self {
        Self::start(id, timing, seed, Disk::new(Conf::of((1..=nodes).map(ReplicaId))))
    }

    fn tick(&mut self) {
        self.raft.tick();
        self.gather();
    }

    fn propose(&mut self, payload: Payload) -> bool {
        let taken = self.raft.propose(Bytes::copy_from_slice(&payload.to_le_bytes())).is_ok();
        self.gather();
        taken
    }

    fn receive(&mut self, from: Id, message: Message) {
        self.raft.step(Message { peer: ReplicaId(from), ..message });
        self.gather();
    }

    fn store(&mut self) -> bool {
        let Some(write) = self.writing.pop_front() else { return false };
        let seq = write.seq;
        self.disk.take(Job::Write(write));
        self.raft.persisted(seq);
        self.gather();
        true
    }

    fn take_sent(&mut self) -> Vec<(Id, Message)> {
        std::mem::take(&mut self.sent)
    }

    fn restart(&mut self) {
        self.seed = self.seed.wrapping_add(1);
        self.raft = Raft::new(self.config.clone(), self.disk.boot(ReplicaId(self.id), self.seed));
        (self.writing, self.sent) = Default::default();
        (self.applied_index, self.applied) = Default::default();
    }

    fn leads(&self) -> Option<u64> {
        self.raft.is_leader().then_some(self.raft.term().0)
    }

    fn commit(&self) -> u64 {
        self.raft.commit().0
    }

    fn applied(&self) -> &[Payload] {
        &self.applied
    }
}
