//! Every behaviour of three replicas within small bounds: so many candidates, proposals, crashes
//! and doubled messages, and then every order in which messages arrive, or do not, and writes
//! complete. The paper's five properties are checked in every state.
//!
//! No time passes but by a candidacy, and no leader sends heartbeats or tries again: what
//! was lost stays so. Election timeouts have no length, so nobody refuses a vote because it hears a
//! leader, and pre-votes are granted by nobody in particular: safety may rest on neither.

use crate::raft_world::disk::{Disk, Job};
use bedstone_engine::LogId;
use bedstone_engine::wal::{Entry, HardState};
use bedstone_node::raft::{Body, Conf, Config, Message, PeerId, Raft, Role, Write, kind};
use bytes::Bytes;
use std::collections::{HashSet, VecDeque, hash_map::DefaultHasher};
use std::fmt::{self, Debug, Write as _};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

const NODES: u64 = 3;

/// Fields of the core that count time, or draw it: no state differs by them alone.
const TIMES: &[&str] = &[
    "now",
    "deadline",
    "heard_leader",
    "next_heartbeat",
    "heard",
    "waiting_since",
    "draw",
    // These are the same in all states between two inputs, or follow from others.
    "config",
    "hard_written",
];
/// Fields that count writes: while none is under way, no state differs by them alone.
const COUNTS: &[&str] = &["seq", "seq_durable", "hard_seq"];

/// Where the replicas begin, and what may happen.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The terms of each replica's log.
    pub logs: [&'static [u64]; NODES as usize],
    /// Everybody's term at first.
    pub term: u64,
    /// How often somebody becomes a candidate.
    pub campaigns: u8,
    /// Commands that are proposed.
    pub proposals: u8,
    /// Replicas that crash and restart.
    pub crashes: u8,
    /// Messages that arrive twice.
    pub doubles: u8,
    /// Writes take a while. If not, they complete at once.
    pub slow_disks: bool,
}

/// How much there was to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Distinct states.
    pub states: usize,
    /// Ways from one to the next.
    pub steps: usize,
    /// The longest way that was gone.
    pub depth: usize,
    /// The most entries committed in a state.
    pub committed: usize,
    /// The most terms with a leader on one way.
    pub leaders: usize,
}

/// A step from one state to the next.
#[derive(Clone, Debug)]
enum Action {
    /// A replica becomes a candidate in the next term.
    Campaign(PeerId),
    /// A leader takes a command.
    Propose(PeerId),
    /// A message arrives; and stays under way, if it will arrive once more.
    Deliver(Rc<Packet>, bool),
    /// A replica's oldest write completes.
    Store(PeerId),
    /// A replica loses its memory and all writes under way.
    Crash(PeerId),
}

/// A message under way.
#[derive(Debug)]
struct Packet {
    from: PeerId,
    to: PeerId,
    message: Message,
    digest: u64,
}

#[derive(Clone)]
struct Node {
    raft: Raft,
    disk: Disk,
    writing: VecDeque<Write>,
    /// The whole log: of each entry the term and the command.
    log: Vec<(u64, Bytes)>,
    /// Nothing happened to it yet.
    is_fresh: bool,
    /// What no crash takes from it.
    settled: HardState,
    digest: u64,
}

/// A committed entry, and the term of the leader that committed it.
#[derive(Clone, Hash)]
struct Committed {
    entry: (u64, Bytes),
    by: u64,
}

#[derive(Clone)]
struct State {
    nodes: [Rc<Node>; NODES as usize],
    network: Vec<Rc<Packet>>,
    left: Bounds,
    leaders: Vec<(u64, PeerId)>,
    committed: Vec<Committed>,
}

/// Goes every way.
struct Explorer {
    visited: HashSet<u64>,
    trail: Vec<Action>,
    seen: Seen,
}

/// Explores everything within bounds.
///
/// # Panics
/// When a state breaks a property; the way to it is printed.
pub fn explore(bounds: Bounds) -> Seen {
    let mut explorer =
        Explorer { visited: HashSet::new(), trail: Vec::new(), seen: Seen::default() };
    let explored = catch_unwind(AssertUnwindSafe(|| explorer.visit(State::new(bounds))));
    if let Err(panic) = explored {
        explorer.trail.iter().for_each(|action| eprintln!("{action:?}"));
        eprintln!("the way to it, within {bounds:?}");
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

impl State {
    fn new(bounds: Bounds) -> State {
        let node = |(terms, id): (&&[u64], PeerId)| {
            let mut disk = Disk::new(Conf::of(1..=NODES));
            let entry = |(&term, index)| Entry {
                id: LogId { term, index },
                kind: kind::NOOP,
                data: Bytes::new(),
            };
            let entries = terms.iter().zip(1..).map(entry).collect();
            let hard = HardState { term: bounds.term, ..HardState::default() };
            disk.take(Job::Write(Write { seq: 1, hard, entries }));
            Rc::new(Node::start(id, disk, &bounds))
        };
        let nodes: Vec<_> = bounds.logs.iter().zip(1..).map(node).collect();
        State {
            nodes: nodes.try_into().unwrap_or_else(|_| unreachable!("as many as there are logs")),
            network: Vec::new(),
            left: bounds,
            leaders: Vec::new(),
            committed: Vec::new(),
        }
    }

    /// Names the state. What is under way has no order, and disks matter to who may crash.
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
        for (node, id) in self.nodes.iter().zip(1..).filter(|(_, id)| !alike.contains(id)) {
            if !node.writing.is_empty() {
                actions.push(Action::Store(id));
            }
            if node.raft.is_leader() && self.left.proposals > 0 {
                actions.push(Action::Propose(id));
            }
            if !node.raft.is_leader() && self.left.campaigns > 0 {
                actions.push(Action::Campaign(id));
            }
            // Who has nothing in memory but what is on its disk loses no more than its role.
            if self.left.crashes > 0 {
                actions.push(Action::Crash(id));
            }
        }
        for (at, packet) in self.network.iter().enumerate() {
            // The same message under way twice is one choice.
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

    /// Replicas that nothing happened to yet, and that differ from another such by their number
    /// alone: what could happen to them is what could happen to that one.
    fn alike(&self) -> Vec<PeerId> {
        let logs = &self.left.logs;
        let fresh = |id: &PeerId| self.nodes[*id as usize - 1].is_fresh;
        let twins = |id: &PeerId| {
            let twin = |other: &PeerId| logs[*other as usize - 1] == logs[*id as usize - 1];
            (1..*id).any(|other| fresh(&other) && twin(&other))
        };
        (1..=NODES).filter(fresh).filter(twins).collect()
    }

    /// False when nothing comes of it: then a message had better never arrive.
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
                    // From now on, no disk matters.
                    self.nodes.iter_mut().for_each(|node| Rc::make_mut(node).look(&left));
                }
                id
            }
        };
        let nodes = &self.nodes;
        if nodes[id as usize - 1].digest == before[id as usize - 1]
            && self.network.len() + usize::from(arrives) == sent
        {
            return false;
        }
        self.network.retain(|packet| !packet.is_dead(&nodes[packet.to as usize - 1]));
        self.check(id);
        true
    }

    /// Gives a node an input, and takes what comes of it.
    fn change(&mut self, id: PeerId, input: impl FnOnce(&mut Node)) {
        let left = self.left;
        let node = Rc::make_mut(&mut self.nodes[id as usize - 1]);
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

    /// The five properties of figure 3, after a node changed.
    fn check(&mut self, id: PeerId) {
        let node = self.nodes[id as usize - 1].clone();
        let (term, commit) = (node.raft.term(), node.raft.commit() as usize);
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
                    "state machine safety at {}: {id} takes another entry for committed",
                    index + 1
                ),
                // Nobody knows it before the leader that committed it.
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
    fn new(from: PeerId, message: Message) -> Rc<Packet> {
        let to = message.peer;
        let digest = digest(&(from, &message), &[]);
        Rc::new(Packet { from, to, message, digest })
    }

    /// Whether it changes nothing any more, whenever it arrives: an answer of a term that its
    /// receiver durably left, or to a leader that is none any more.
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
    fn start(id: PeerId, mut disk: Disk, left: &Bounds) -> Node {
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
        // What it asks is answered with yes by others whose answers are older than all that happens
        // here.
        let term = self.raft.term() + 1;
        for peer in 1..=NODES {
            let body = Body::PreVoteReply { granted: true, committed: LogId::default() };
            self.raft.step(Message { peer, term, body });
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

    /// Takes its effects. Returns what it sends, without pre-votes.
    fn gather(&mut self) -> Vec<Message> {
        let effects = self.raft.effects(&self.disk);
        assert_eq!(effects.committed_conflict, None, "a leader contradicts a committed entry");
        self.writing.extend(effects.write);
        let mut sent = effects.send;
        sent.retain(|message| !matches!(message.body, Body::PreVote { .. }));
        sent
    }

    /// Notes its log and its digest.
    fn look(&mut self, left: &Bounds) {
        self.log.clear();
        while self.log.len() < self.raft.last().index as usize {
            let entries = self.raft.entries(self.log.len() as u64 + 1, usize::MAX, &self.disk);
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
            (self.settled.term, self.settled.commit) = (self.raft.term(), self.raft.commit());
            self.writing.len().hash(&mut hasher);
        }
        self.log.hash(&mut hasher);
        self.digest = hasher.finish();
    }
}

/// Of what a value shows of itself, without times and `without`.
fn digest(value: &impl Debug, without: &[&str]) -> u64 {
    let text = String::with_capacity(2048);
    let mut shown = Shown { text, without, skips: None, name_next: false };
    let _ = write!(shown, "{value:?}");
    let mut hasher = DefaultHasher::new();
    hasher.write(shown.text.as_bytes());
    hasher.finish()
}

/// Takes the pieces that a derived `Debug` writes: a field's name is one, and what parts it from
/// the next.
struct Shown<'a> {
    text: String,
    without: &'a [&'a str],
    /// The value of a field is left out: how deep in it this is.
    skips: Option<u32>,
    /// The next piece may be a field's name.
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
            match left_out(TIMES) || left_out(self.without) {
                true => self.skips = Some(0),
                false => self.text.push_str(piece),
            }
            self.name_next = parts;
        }
        Ok(())
    }
}
