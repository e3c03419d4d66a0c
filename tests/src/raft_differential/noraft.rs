//! The adapter of the crate `noraft`. The crate knows positions of entries, not their content: the
//! content travels beside its messages.

use super::cluster::{Id, Payload, Replica, Timing};
use crate::rng::Rng;
use noraft::{
    Action, ClusterConfig, Log, LogEntries, LogEntry, LogIndex, LogPosition, Message, Node, NodeId,
    Role, Term,
};
use std::collections::BTreeMap;

/// The content of entries, by term and index. In a correct implementation these two identify one
/// entry.
type Payloads = BTreeMap<(u64, u64), Payload>;

/// A replica of noraft. All its pending writes complete at once, when `store` runs.
pub struct Noraft {
    pub(super) node: Node,
    nodes: u64,
    timing: Timing,
    rng: Rng,
    now: u64,
    deadline: u64,
    term: Term,
    vote: Option<NodeId>,
    entries: LogEntries,
    payloads: Payloads,
    sent: Vec<(Id, (Message, Payloads))>,
    applied_index: u64,
    applied: Vec<Payload>,
}

/// The voters from 1 to `nodes`.
fn voters(nodes: u64) -> ClusterConfig {
    let mut config = ClusterConfig::new();
    config.voters.extend((1..=nodes).map(NodeId::new));
    config
}

/// The position of an entry.
pub(super) fn position(term: u64, index: u64) -> LogPosition {
    LogPosition::new(Term::new(term), LogIndex::new(index))
}

/// Entries of these terms that follow `previous`. Each term begins with an entry that names the
/// term.
pub(super) fn entries(previous: (u64, u64), terms: &[u64]) -> LogEntries {
    let mut last = previous.0;
    let entry = |&term: &u64| {
        if std::mem::replace(&mut last, term) == term {
            LogEntry::Command
        } else {
            LogEntry::Term(Term::new(term))
        }
    };
    LogEntries::from_iter(position(previous.0, previous.1), terms.iter().map(entry))
}

impl Noraft {
    /// Starts a replica with this log, and with a snapshot up to the position before the log.
    pub(super) fn start(
        (id, nodes): (Id, u64),
        timing: Timing,
        seed: u64,
        (term, vote): (u64, Option<Id>),
        entries: LogEntries,
    ) -> Noraft {
        let (term, vote) = (Term::new(term), vote.map(NodeId::new));
        let log = Log::new(voters(nodes), entries.clone());
        let mut started = Noraft {
            node: Node::restart(NodeId::new(id), term, vote, log),
            nodes,
            timing,
            rng: Rng::new(seed ^ (id << 32)),
            now: 0,
            deadline: 0,
            term,
            vote,
            applied_index: entries.prev_position().index.get(),
            entries,
            payloads: Payloads::new(),
            sent: Vec::new(),
            applied: Vec::new(),
        };
        started.wait();
        started
    }

    fn wait(&mut self) {
        let Timing { election, heartbeat } = self.timing;
        self.deadline = self.now
            + match self.node.role() {
                Role::Leader => heartbeat,
                _ => election + self.rng.below(election),
            };
    }

    fn send(&mut self, to: NodeId, message: Message) {
        let mut carried = Payloads::new();
        if let Message::AppendEntriesCall { entries, .. } = &message {
            for (at, entry) in entries.iter_with_positions() {
                let at = (at.term.get(), at.index.get());
                if entry == LogEntry::Command {
                    carried.extend(self.payloads.get(&at).map(|payload| (at, *payload)));
                }
            }
        }
        self.sent.push((to.get(), (message, carried)));
    }

    fn apply(&mut self) {
        let commit = self.node.commit_index().get();
        while self.applied_index < commit.min(self.entries.last_position().index.get()) {
            self.applied_index += 1;
            let index = LogIndex::new(self.applied_index);
            let term = self.entries.get_term(index).expect("a committed entry is in the log");
            if self.entries.get_entry(index) == Some(LogEntry::Command) {
                let payload = self.payloads.get(&(term.get(), index.get()));
                self.applied.push(*payload.unwrap_or(&0));
            }
        }
    }

    /// Delivers a message and completes all work that follows from it. Returns the messages that
    /// the replica sends.
    pub(super) fn ask(&mut self, message: Message) -> Vec<Message> {
        self.receive(message.from().get(), (message, Payloads::new()));
        while self.store() {}
        self.take_sent().into_iter().map(|(_, (message, _))| message).collect()
    }
}

impl Replica for Noraft {
    type Message = (Message, Payloads);
    const NAME: &'static str = "noraft";

    fn new(id: Id, nodes: u64, timing: Timing, seed: u64) -> Self {
        Self::start((id, nodes), timing, seed, (0, None), LogEntries::new(LogPosition::ZERO))
    }

    fn tick(&mut self) {
        self.now += 1;
        if self.now >= self.deadline {
            self.node.handle_election_timeout();
            self.wait();
        }
    }

    fn propose(&mut self, payload: Payload) -> bool {
        let at = self.node.propose_command();
        let taken = at != LogPosition::INVALID;
        if taken {
            self.payloads.insert((at.term.get(), at.index.get()), payload);
        }
        taken
    }

    fn receive(&mut self, _: Id, (message, payloads): Self::Message) {
        self.payloads.extend(payloads);
        self.node.handle_message(&message).expect("no snapshot, so no contradiction");
    }

    fn store(&mut self) -> bool {
        let mut any = false;
        while let Some(action) = self.node.actions_mut().next() {
            any = true;
            match action {
                Action::SetElectionTimeout => self.wait(),
                Action::SaveCurrentTerm => self.term = self.node.current_term(),
                Action::SaveVotedFor => self.vote = self.node.voted_for(),
                Action::AppendLogEntries(entries) => {
                    assert!(self.entries.append_suffix(&entries), "entries in order");
                }
                Action::SendMessage(to, message) => self.send(to, message),
                Action::BroadcastMessage(message) => {
                    let own = self.node.id();
                    let peers = (1..=self.nodes).map(NodeId::new).filter(|&peer| peer != own);
                    peers.for_each(|peer| self.send(peer, message.clone()));
                }
                Action::InstallSnapshot(_) => unreachable!("no log is released"),
            }
        }
        self.apply();
        any
    }

    fn take_sent(&mut self) -> Vec<(Id, Self::Message)> {
        std::mem::take(&mut self.sent)
    }

    fn restart(&mut self) {
        let log = Log::new(voters(self.nodes), self.entries.clone());
        self.node = Node::restart(self.node.id(), self.term, self.vote, log);
        self.wait();
        self.sent.clear();
        (self.applied_index, self.applied) = Default::default();
    }

    fn leads(&self) -> Option<u64> {
        matches!(self.node.role(), Role::Leader).then_some(self.node.current_term().get())
    }

    fn commit(&self) -> u64 {
        self.node.commit_index().get()
    }

    fn applied(&self) -> &[Payload] {
        &self.applied
    }
}
