//! The adapter of the crate `raft`, which is configured like our core: with pre-vote, and with
//! leaders that step down without replies from a majority.

use super::cluster::{Id, Payload, Replica, Timing};
use raft::eraftpb::{Entry, HardState, Message, Snapshot};
use raft::storage::MemStorage;
use raft::{Config, NO_LIMIT, RawNode, StateRole};

/// A replica of raft-rs. All its pending writes complete at once, when `store` runs.
pub struct RaftRs {
    pub(super) node: RawNode<MemStorage>,
    config: Config,
    disk: MemStorage,
    sent: Vec<(Id, Message)>,
    applied: Vec<Payload>,
}

impl RaftRs {
    /// Starts a replica from a disk. Its first `applied` entries are applied.
    pub(super) fn start(id: Id, timing: Timing, disk: MemStorage, applied: u64) -> RaftRs {
        // raft-rs draws timeouts from a source that no seed reaches, so each node gets a fixed
        // timeout of its own.
        let timeout = (timing.election + 3 * id) as usize;
        let config = Config {
            id,
            applied,
            election_tick: timing.election as usize,
            heartbeat_tick: timing.heartbeat as usize,
            min_election_tick: timeout,
            max_election_tick: timeout + 1,
            max_size_per_msg: NO_LIMIT,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let node = Self::node(&config, &disk);
        RaftRs { node, config, disk, sent: Vec::new(), applied: Vec::new() }
    }

    fn node(config: &Config, disk: &MemStorage) -> RawNode<MemStorage> {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        RawNode::new(config, disk.clone(), &logger).expect("a valid configuration")
    }

    /// A disk with a log of entries of these terms, released up to `base`.
    pub(super) fn disk(nodes: u64, terms: &[u64], base: u64, hard: HardState) -> MemStorage {
        let disk = MemStorage::new_with_conf_state(((1..=nodes).collect::<Vec<_>>(), vec![]));
        let entries = terms.iter().zip(1..).map(|(&term, index)| Entry {
            term,
            index,
            data: vec![0; 8].into(),
            ..Entry::default()
        });
        if base > 0 {
            let mut snapshot = Snapshot::default();
            let meta = snapshot.mut_metadata();
            meta.index = base;
            meta.term = terms[base as usize - 1];
            meta.mut_conf_state().set_voters((1..=nodes).collect());
            disk.wl().apply_snapshot(snapshot).expect("an empty disk");
        }
        let entries: Vec<Entry> = entries.skip(base as usize).collect();
        disk.wl().append(&entries).expect("entries in order");
        disk.wl().set_hardstate(hard);
        disk
    }

    fn send(&mut self, messages: Vec<Message>) {
        self.sent.extend(messages.into_iter().map(|message| (message.to, message)));
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let payloads = entries.iter().filter(|entry| !entry.data.is_empty());
        self.applied.extend(payloads.map(|entry| {
            u64::from_le_bytes(entry.data[..].try_into().expect("a payload has 8 bytes"))
        }));
    }

    /// Delivers a message and completes all work that follows from it. Returns the messages that
    /// the replica sends.
    pub(super) fn ask(&mut self, message: Message) -> Vec<Message> {
        self.receive(message.from, message);
        while self.store() {}
        self.take_sent().into_iter().map(|(_, message)| message).collect()
    }
}

impl Replica for RaftRs {
    type Message = Message;
    const NAME: &'static str = "raft-rs";

    fn new(id: Id, nodes: u64, timing: Timing, _: u64) -> Self {
        Self::start(id, timing, Self::disk(nodes, &[], 0, HardState::default()), 0)
    }

    fn tick(&mut self) {
        self.node.tick();
    }

    fn propose(&mut self, payload: Payload) -> bool {
        // Followers of raft-rs forward proposals to the leader; followers of our core do not.
        self.leads().is_some()
            && self.node.propose(Vec::new(), payload.to_le_bytes().to_vec()).is_ok()
    }

    fn receive(&mut self, _: Id, message: Message) {
        // A message that raft-rs refuses is not an error.
        let _ = self.node.step(message);
    }

    fn store(&mut self) -> bool {
        if !self.node.has_ready() {
            return false;
        }
        let mut ready = self.node.ready();
        self.send(ready.take_messages());
        self.apply(ready.take_committed_entries());
        {
            let mut disk = self.disk.wl();
            disk.append(ready.entries()).expect("entries in order");
            if let Some(hard) = ready.hs() {
                disk.set_hardstate(hard.clone());
            }
        }
        self.send(ready.take_persisted_messages());
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.disk.wl().mut_hard_state().set_commit(commit);
        }
        self.send(light.take_messages());
        self.apply(light.take_committed_entries());
        self.node.advance_apply();
        true
    }

    fn take_sent(&mut self) -> Vec<(Id, Message)> {
        std::mem::take(&mut self.sent)
    }

    fn restart(&mut self) {
        self.node = Self::node(&self.config, &self.disk);
        (self.sent, self.applied) = Default::default();
    }

    fn leads(&self) -> Option<u64> {
        (self.node.raft.state == StateRole::Leader).then_some(self.node.raft.term)
    }

    fn commit(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    fn applied(&self) -> &[Payload] {
        &self.applied
    }
}
