//! Explores every behaviour of three replicas within small bounds. The bounds limit the
//! candidacies, proposals, crashes and duplicated messages. Within the bounds the search covers
//! every order in which messages arrive, or do not arrive, and writes complete. Every state is
//! checked for the properties of figure 3 of the paper.
//!
//! Time passes only with a candidacy, and no leader sends heartbeats or retries: a lost message
//! stays lost. Election timeouts have no length, so no replica refuses a vote because it has a
//! leader. Every candidate receives granted pre-votes without a request. Safety may depend on
//! neither.

use crate::raft_world::disk::{Disk, Job};
use bedstone_engine::wal::{Entry, EntryKind, HardState};
use bedstone_engine::{Index, LogId, Term};
use bedstone_node::raft::{Body, Conf, Config, Message, Raft, ReplicaId, Role, Write};
use bytes::Bytes;
use std::collections::{HashSet, VecDeque, hash_map::DefaultHasher};
use std::fmt::{self, Debug, Write as _};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

const NODES: u64 = 3;

/// Fields of the core that hold times or random draws. States that differ only in these fields are
/// one state.
const TIMES: &[&str] = &[
    "now",
    "deadline",
    "heard_leader",
    "next_heartbeat",
    "heard",
    "waiting_since",
    "rng_state",
    // These fields are equal in all states between two inputs, or follow from other fields.
    "config",
    "written",
];
/// Fields that count writes. While no write is pending, states that differ only in these fields are
/// one state.
const COUNTS: &[&str] = &["last_write", "durable_write", "vote_write"];

/// The initial state of the replicas, and limits on the events.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The terms of the entries in each replica's log.
    pub logs: [&'static [u64]; NODES as usize],
    /// The initial term of all replicas.
    pub term: u64,
    /// How often a replica becomes a candidate.
    pub campaigns: u8,
    /// The number of proposed commands.
    pub proposals: u8,
    /// The number of crashes. The replica restarts at once.
    pub crashes: u8,
    /// The number of messages that arrive twice.
    pub doubles: u8,
    /// Writes complete in a separate step. If false, writes complete at once.
    pub slow_disks: bool,
}

/// The extent of an exploration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Distinct states.
    pub states: usize,
    /// Steps from one state to another.
    pub steps: usize,
    /// The length of the longest path.
    pub depth: usize,
    /// The largest number of committed entries in a state.
    pub committed: usize,
    /// The largest number of terms with a leader on one path.
    pub leaders: usize,
}

/// A step from one state to the next.
#[derive(Clone, Debug)]
enum Action {
    /// A replica becomes a candidate in the next term.
    Campaign(ReplicaId),
    /// A leader receives a command.
    Propose(ReplicaId),
    /// A message arrives. If the flag is true, the message stays in flight and can arrive once
    /// more.
    Deliver(Rc<Packet>, bool),
    /// A replica's oldest write completes.
    Store(ReplicaId),
    /// A replica loses its memory and all writes under way.
    Crash(ReplicaId),
}

/// A message under way.
#[derive(Debug)]
struct Packet {
    from: ReplicaId,
    to: ReplicaId,
    message: Message,
    digest: u64,
}

#[derive(Clone)]
struct Node {
    raft: Raft,
    disk: Disk,
    writing: VecDeque<Write>,
    /// The whole log: the term and the command of each entry.
    log: Vec<(Term, Bytes)>,
    /// No event has happened at this replica yet.
    is_fresh: bool,
    /// The hard state that no further crash can undo.
    settled: HardState,
    digest: u64,
}

/// A committed entry, and the term of the leader that committed it.
#[derive(Clone, Hash)]
struct Committed {
    entry: (Term, Bytes),
    by: Term,
}

#[derive(Clone)]
struct State {
    nodes: [Rc<Node>; NODES as usize],
    network: Vec<Rc<Packet>>,
    left: Bounds,
    leaders: Vec<(Term, ReplicaId)>,
    committed: Vec<Committed>,
}

/// Visits all states, depth first.
struct Explorer {
    visited: HashSet<u64>,
    trail: Vec<Action>,
    seen: Seen,
}

/// Explores all behaviours within the bounds.
///
/// # Panics
/// When a state violates a property. The actions that lead to this state are printed.
pub fn explore(bounds: Bounds) -> Seen {
    let mut explorer =
        Explorer { visited: HashSet::new(), trail: Vec::new(), seen: Seen::default() };
    let explored = catch_unwind(AssertUnwindSafe(|| explorer.visit(State::new(bounds))));
    if let Err(panic) = explored {
        explorer.trail.iter().for_each(|action| eprintln!("{action:?}"));
        eprintln!("these actions lead to the failed state, within {bounds:?}");
        resume_unwind(panic);
    }
    explorer.seen
}

impl Explorer {
    fn visit(&mut self, state: State) {
        if !self.visited.insert(state.digest()) {
            return;
        }
        let seen = &mut self.seen;
        seen.states += 1;
        seen.depth = seen.depth.max(self.trail.len());
        seen.committed = seen.committed.max(state.committed.len());
        seen.leaders = seen.leaders.max(state.leaders.len());
        for action in state.actions() {
            let mut next = state.clone();
            self.trail.push(action.clone());
            if next.take(action) {
                self.seen.steps += 1;
                self.visit(next);
            }
            self.trail.pop();
        }
    }
}

/// The replicas.
fn ids() -> impl Iterator<Item = ReplicaId> {
    (1..=NODES).map(ReplicaId)
}

/// The position of a replica in the list of replicas.
fn slot(id: ReplicaId) -> usize {
    id.0 as usize - 1
}

impl State {
    fn new(bounds: Bounds) -> State {
        assert_fields_exist();
        let node = |(terms, id): (&&[u64], ReplicaId)| {
            let mut disk = Disk::new(Conf::of(ids()));
            let entry = |(&term, index)| Entry {
                id: LogId { term: Term(term), index: Index(index) },
                kind: EntryKind::NOOP,
                data: Bytes::new(),
            };
            let entries = terms.iter().zip(1..).map(entry).collect();
            let hard = HardState { term: Term(bounds.term), ..HardState::default() };
            disk.take(Job::Write(Write { seq: 1, hard, entries }));
            Rc::new(Node::start(id, disk, &bounds))
        };
        let nodes: Vec<_> = bounds.logs.iter().zip(ids()).map(node).collect();
        State {
            nodes: nodes.try_into().unwrap_or_else(|_| unreachable!("as many as there are logs")),
            network: Vec::new(),
            left: bounds,
            leaders: Vec::new(),
            committed: Vec::new(),
        }
    }

    /// A digest that identifies the state. Messages in flight have no order. Disks count only while
    /// a crash is possible.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.nodes.iter().for_each(|node| node.digest.hash(&mut hasher));
        let sum = |sum: u64, packet: &Rc<Packet>| sum.wrapping_add(packet.digest);
        self.network.iter().fold(0, sum).hash(&mut hasher);
        let Bounds { campaigns, proposals, crashes, doubles, .. } = self.left;
        (campaigns, proposals, crashes, doubles).hash(&mut hasher);
        (&self.leaders, &self.committed).hash(&mut hasher);
        hasher.finish()
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let alike = self.alike();
        for (node, id) in self.nodes.iter().zip(ids()).filter(|(_, id)| !alike.contains(id)) {
            if !node.writing.is_empty() {
                actions.push(Action::Store(id));
            }
            if node.raft.is_leader() && self.left.proposals > 0 {
                actions.push(Action::Propose(id));
            }
            if !node.raft.is_leader() && self.left.campaigns > 0 {
                actions.push(Action::Campaign(id));
            }
            // A crash also affects a replica whose state is all on disk: the replica loses its
            // role.
            if self.left.crashes > 0 {
                actions.push(Action::Crash(id));
            }
        }
        for (at, packet) in self.network.iter().enumerate() {
            // Equal messages in flight are one choice.
            let same = |other: &Rc<Packet>| other.digest == packet.digest;
            if self.network[..at].iter().any(same) || alike.contains(&packet.to) {
                continue;
            }
            actions.push(Action::Deliver(packet.clone(), false));
            if self.left.doubles > 0 {
                actions.push(Action::Deliver(packet.clone(), true));
            }
        }
        actions
    }

    /// Replicas at which no event has happened yet and that differ only by their number from such a
    /// replica with a lower number. Events at the replica with the lower number represent the
    /// events at these replicas.
    fn alike(&self) -> Vec<ReplicaId> {
        let logs = &self.left.logs;
        let fresh = |id: &ReplicaId| self.nodes[slot(*id)].is_fresh;
        let twins = |id: &ReplicaId| {
            let twin = |other: &ReplicaId| logs[slot(*other)] == logs[slot(*id)];
            ids().take_while(|other| other < id).any(|other| fresh(&other) && twin(&other))
        };
        ids().filter(fresh).filter(twins).collect()
    }

    /// Takes an action. Returns false when the action changes nothing: the search then needs only
    /// the case in which the message never arrives.
    fn take(&mut self, action: Action) -> bool {
        let (before, sent) = (self.nodes.clone().map(|node| node.digest), self.network.len());
        let arrives = matches!(action, Action::Deliver(_, again) if !again);
        let id = match action {
            Action::Campaign(id) => {
                self.left.campaigns -= 1;
                self.change(id, Node::start_pre_vote);
                id
            }
            Action::Propose(id) => {
                self.left.proposals -= 1;
                let command = Bytes::copy_from_slice(&[self.left.proposals]);
                self.change(id, |node| assert!(node.raft.propose(command).is_ok()));
                id
            }
            Action::Deliver(packet, again) => {
                if again {
                    self.left.doubles -= 1;
                } else {
                    let at = self.network.iter().position(|other| other.digest == packet.digest);
                    at.map(|at| self.network.swap_remove(at));
                }
                let message = Message { peer: packet.from, ..packet.message.clone() };
                self.change(packet.to, |node| node.raft.step(message));
                packet.to
            }
            Action::Store(id) => {
                self.change(id, Node::store);
                id
            }
            Action::Crash(id) => {
                self.left.crashes -= 1;
                let left = self.left;
                self.change(id, |node| *node = Node::start(id, node.disk.clone(), &left));
                if left.crashes == 0 {
                    // No further crash is possible, so the disks no longer count.
                    self.nodes.iter_mut().for_each(|node| Rc::make_mut(node).look(&left));
                }
                id
            }
        };
        let nodes = &self.nodes;
        if nodes[slot(id)].digest == before[slot(id)]
            && self.network.len() + usize::from(arrives) == sent
        {
            return false;
        }
        self.network.retain(|packet| !packet.is_dead(&nodes[slot(packet.to)]));
        self.check(id);
        true
    }

    /// Gives an input to a node, and collects the messages that the node sends.
    fn change(&mut self, id: ReplicaId, input: impl FnOnce(&mut Node)) {
        let left = self.left;
        let node = Rc::make_mut(&mut self.nodes[slot(id)]);
        input(node);
        node.is_fresh = false;
        let mut sent = node.gather();
        while !left.slow_disks && !node.writing.is_empty() {
            node.store();
            sent.extend(node.gather());
        }
        node.look(&left);
        self.network.extend(sent.into_iter().map(|message| Packet::new(id, message)));
    }

    /// Checks the properties of figure 3 after a node changed.
    fn check(&mut self, id: ReplicaId) {
        let node = self.nodes[slot(id)].clone();
        let (term, commit) = (node.raft.term(), node.raft.commit().0 as usize);
        if node.raft.is_leader() {
            match self.leaders.iter().find(|(of, _)| *of == term) {
                Some((_, leader)) => assert_eq!(*leader, id, "election safety in term {term}"),
                None => self.leaders.push((term, id)),
            }
        }
        for (entry, index) in node.log[..commit].iter().zip(0..) {
            match self.committed.get(index) {
                Some(known) => assert_eq!(
                    known.entry,
                    *entry,
                    "state machine safety at {}: {id} has committed another entry",
                    index + 1
                ),
                // The leader that commits an entry is the first node to know that it is committed.
                None => self.committed.push(Committed { entry: entry.clone(), by: term }),
            }
        }
        for (other, peer) in self.nodes.iter().zip(1..) {
            if other.raft.is_leader() {
                let of = other.raft.term();
                for (committed, at) in self.committed.iter().zip(0..) {
                    let has = committed.by >= of || other.log.get(at) == Some(&committed.entry);
                    assert!(has, "leader completeness: {peer} leads in {of} and lacks {}", at + 1);
                }
            }
            let both = node.log.iter().zip(&other.log);
            let agree = both.clone().rposition(|(own, others)| own.0 == others.0);
            let same = |upto| both.take(upto + 1).all(|(own, others)| own == others);
            assert!(agree.is_none_or(same), "log matching of {id} and {peer}");
        }
    }
}

impl Packet {
    fn new(from: ReplicaId, message: Message) -> Rc<Packet> {
        let to = message.peer;
        let digest = digest(&(from, &message), &[]);
        Rc::new(Packet { from, to, message, digest })
    }

    /// Whether the message has no effect any more, whenever it arrives: a reply of a term that the
    /// receiver has durably left, or a reply to a replica that no longer leads.
    fn is_dead(&self, to: &Node) -> bool {
        match self.message.body {
            Body::VoteReply { committed, .. } => {
                let candidate = to.raft.status().role == Role::Candidate;
                let knows = committed.index <= to.settled.commit;
                self.message.term < to.settled.term + u64::from(knows && !candidate)
            }
            Body::AppendReply { .. } | Body::AppendRefused { .. } => {
                !to.raft.is_leader() && self.message.term <= to.settled.term
            }
            _ => false,
        }
    }
}

impl Node {
    fn start(id: ReplicaId, mut disk: Disk, left: &Bounds) -> Node {
        let config = Config {
            election: 0..1,
            disk_hangs: 1 << 30,
            quiesce_after: None,
            append_bytes_max: 1,
            ..Config::DEFAULT
        };
        let raft = Raft::new(config, disk.boot(id, 1));
        let (writing, log, settled) = Default::default();
        let mut node = Node { raft, disk, writing, log, is_fresh: true, settled, digest: 0 };
        node.look(left);
        node
    }

    fn start_pre_vote(&mut self) {
        self.raft.tick();
        // Every replica grants the pre-vote. These replies were sent before all events of the
        // exploration.
        let term = self.raft.term() + 1;
        for peer in 1..=NODES {
            let body = Body::PreVoteReply { granted: true, committed: LogId::default() };
            self.raft.step(Message { peer: ReplicaId(peer), term, body });
        }
        assert_eq!(self.raft.status().role, Role::Candidate);
    }

    fn store(&mut self) {
        if let Some(write) = self.writing.pop_front() {
            let seq = write.seq;
            self.disk.take(Job::Write(write));
            self.raft.persisted(seq);
        }
    }

    /// Collects the effects of the core. Returns the messages to send, without pre-votes.
    fn gather(&mut self) -> Vec<Message> {
        let effects = self.raft.effects(&self.disk);
        assert_eq!(effects.committed_conflict, None, "a leader contradicts a committed entry");
        self.writing.extend(effects.write);
        let mut sent = effects.send;
        sent.retain(|message| !matches!(message.body, Body::PreVote { .. }));
        sent
    }

    /// Updates the copy of the log, and the digest.
    fn look(&mut self, left: &Bounds) {
        self.log.clear();
        while self.log.len() < self.raft.last().index.0 as usize {
            let entries =
                self.raft.entries(Index(self.log.len() as u64 + 1), usize::MAX, &self.disk);
            assert!(!entries.is_empty(), "the log has no gap");
            self.log.extend(entries.iter().map(|entry| (entry.id.term, entry.data.clone())));
        }
        let mut hasher = DefaultHasher::new();
        let quiet = self.writing.is_empty();
        digest(&self.raft, if quiet { COUNTS } else { &[] }).hash(&mut hasher);
        if left.crashes > 0 {
            self.settled = self.disk.hard;
            digest(&(&self.disk, &self.writing), &[]).hash(&mut hasher);
        } else {
            self.settled.term = self.raft.term();
            self.settled.commit = self.raft.commit();
            self.writing.len().hash(&mut hasher);
        }
        self.log.hash(&mut hasher);
        self.digest = hasher.finish();
    }
}

/// Fails when the core has no field of a name in the lists any more. A follower shows no progress,
/// so the names of fields of a progress are not looked for.
fn assert_fields_exist() {
    let disk = Disk::new(Conf::of(ids())).boot(ReplicaId(1), 1);
    let shown = format!("{:?}", Raft::new(Config::default(), disk));
    let of_progress = ["heard", "waiting_since"];
    for name in TIMES.iter().chain(COUNTS).filter(|name| !of_progress.contains(name)) {
        assert!(shown.contains(&format!("{name}: ")), "the core has no field `{name}`");
    }
}

/// A digest of the `Debug` output of a value, without the fields in `TIMES` and `without`.
fn digest(value: &impl Debug, without: &[&str]) -> u64 {
    let text = String::with_capacity(2048);
    let mut shown = Shown { text, without, skips: None, name_next: false };
    let _ = write!(shown, "{value:?}");
    let mut hasher = DefaultHasher::new();
    hasher.write(shown.text.as_bytes());
    hasher.finish()
}

/// Receives the pieces that a derived `Debug` writes. A field's name is a piece of its own, and so
/// is the separator before it.
struct Shown<'a> {
    text: String,
    without: &'a [&'a str],
    /// Set while the value of an omitted field is skipped: the nesting depth inside that value.
    skips: Option<u32>,
    /// The next piece may be the name of a field.
    name_next: bool,
}

impl fmt::Write for Shown<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let parts = matches!(piece, ", " | " { ");
        match (&mut self.skips, piece) {
            (Some(0), ", " | " }") => self.skips = None,
            (Some(depth), " { ") => *depth += 1,
            (Some(depth), " }") => *depth -= 1,
            _ => {}
        }
        if self.skips.is_none() {
            let left_out = |names: &[&str]| self.name_next && names.contains(&piece);
            if left_out(TIMES) || left_out(self.without) {
                self.skips = Some(0)
            } else {
                self.text.push_str(piece)
            }
            self.name_next = parts;
        }
        Ok(())
    }
}
