//! Runs clusters of replicas under a schedule. Implementations send different messages, so a step
//! may have different effects in each. A schedule therefore names a message by its place among
//! those in flight, and the comparison covers only the results that every schedule must have in the
//! end.

use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The number of rounds of ticks within which a healed cluster must make progress.
const ROUNDS_MAX: u64 = 4000;
/// The number of rounds that a leader has to commit a proposal before the test proposes it again.
const PATIENCE_ROUNDS: u64 = 60;
/// The number of deliveries after which a cluster without ticks may have no message left.
const DELIVERIES_MAX: usize = 100_000;

/// The number of a node, from 1.
pub type Id = u64;
/// The content of a proposal. Each payload is unique.
pub type Payload = u64;

/// The election timeout and the heartbeat interval, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The shortest election timeout. Each implementation draws longer timeouts in its own way.
    pub election: u64,
    /// The interval between heartbeats.
    pub heartbeat: u64,
}

/// A replica with its disk and its state machine.
pub trait Replica {
    /// A message between replicas.
    type Message: Clone;
    /// The name of the implementation in reports.
    const NAME: &'static str;

    /// A new replica in a group of the nodes 1 to `nodes`.
    fn new(id: Id, nodes: u64, timing: Timing, seed: u64) -> Self;
    /// One tick passes.
    fn tick(&mut self);
    /// Proposes a payload. Returns whether the replica accepted it.
    fn propose(&mut self, payload: Payload) -> bool;
    /// Processes a message.
    fn receive(&mut self, from: Id, message: Self::Message);
    /// Completes the oldest writes to the disk. Returns false when there were none.
    fn store(&mut self) -> bool;
    /// Takes the messages that the replica has sent.
    fn take_sent(&mut self) -> Vec<(Id, Self::Message)>;
    /// Restarts the replica without its memory and without its incomplete writes.
    fn restart(&mut self);
    /// The term in which the replica leads.
    fn leads(&self) -> Option<u64>;
    /// The commit index that the replica knows.
    fn commit(&self) -> u64;
    /// The payloads that the state machine has applied, in order.
    fn applied(&self) -> &[Payload];
}

/// An event in a cluster.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A tick passes at a node.
    Tick(Id),
    /// A node receives a proposal.
    Propose(Id, Payload),
    /// A message in flight arrives.
    Deliver(u64),
    /// A message in flight is lost.
    Drop(u64),
    /// A message in flight is duplicated.
    Duplicate(u64),
    /// A partition splits the nodes into two parts. The bits of the number choose the part of each
    /// node.
    Split(u64),
    /// The partition ends.
    Join,
    /// A write completes.
    Store(Id),
    /// A node restarts.
    Restart(Id),
}

/// The number of nodes, and the events.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The number of nodes.
    pub nodes: u64,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Every payload in the steps, in order.
    pub payloads: Vec<Payload>,
}

impl Schedule {
    /// The schedule of a seed. Each schedule draws its own fault rates.
    pub fn new(seed: u64) -> Schedule {
        let mut rng = Rng::new(seed);
        let nodes = if rng.one_in(4) { 5 } else { 3 };
        let loss = [2, 5, 20, 1000][rng.below(4) as usize];
        let split = [20, 60, 1000][rng.below(3) as usize];
        let restart = [20, 60, 1000][rng.below(3) as usize];
        let (mut steps, mut payloads) = (Vec::new(), Vec::new());
        for _ in 0..1000 + rng.below(3000) {
            let id = 1 + rng.below(nodes);
            steps.push(match rng.below(20) {
                0..3 => Step::Tick(id),
                3 if payloads.len() < 60 && rng.one_in(2) => {
                    payloads.push(payloads.len() as Payload + 1);
                    Step::Propose(id, payloads.len() as Payload)
                }
                4..7 => Step::Store(id),
                7 if rng.one_in(split) => Step::Split(rng.draw()),
                7 if rng.one_in(12) => Step::Join,
                8 if rng.one_in(restart) => Step::Restart(id),
                9 if rng.one_in(loss) => Step::Drop(rng.draw()),
                9 => Step::Duplicate(rng.draw()),
                // Most messages arrive in order. Otherwise outdated messages would hold up the
                // others.
                10..17 => Step::Deliver(0),
                _ => Step::Deliver(rng.draw()),
            });
        }
        Schedule { nodes, steps, payloads }
    }
}

/// The result of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Every payload that was committed.
    pub committed: BTreeSet<Payload>,
    /// The number of payloads that were committed before the cluster was healed. It differs between
    /// implementations.
    pub committed_in_faults: usize,
    /// The number of terms that had a leader. It differs between implementations.
    pub terms: usize,
}

/// Replicas of one implementation, and the messages in flight between them.
pub struct Cluster<R: Replica> {
    nodes: Vec<R>,
    network: VecDeque<(Id, Id, R::Message)>,
    /// One bit for each node: its part in the partition.
    split: u64,
    /// Nodes whose incoming and outgoing messages wait.
    held: BTreeSet<Id>,
    leaders: BTreeMap<u64, Id>,
    /// The longest sequence that a state machine has applied.
    committed: Vec<Payload>,
}

impl<R: Replica> Cluster<R> {
    /// A cluster of new replicas.
    pub fn new(nodes: u64, timing: Timing, seed: u64) -> Self {
        Cluster {
            nodes: (1..=nodes).map(|id| R::new(id, nodes, timing, seed)).collect(),
            network: VecDeque::new(),
            split: 0,
            held: BTreeSet::new(),
            leaders: BTreeMap::new(),
            committed: Vec::new(),
        }
    }

    /// Runs a schedule and heals the cluster. Then proposes the payloads that are not committed
    /// again, one by one.
    ///
    /// # Panics
    /// When two nodes lead in a term, state machines differ, or a healed cluster makes no progress.
    pub fn run(schedule: &Schedule, seed: u64) -> Outcome {
        let timing = Timing { election: 10, heartbeat: 2 };
        let mut cluster = Self::new(schedule.nodes, timing, seed);
        schedule.steps.iter().for_each(|step| cluster.step(*step));
        let committed_in_faults = cluster.committed.len();
        cluster.split = 0;
        cluster.held = BTreeSet::new();
        cluster.finish(&schedule.payloads);
        Outcome {
            committed: cluster.committed.iter().copied().collect(),
            committed_in_faults,
            terms: cluster.leaders.len(),
        }
    }

    fn step(&mut self, step: Step) {
        let under_way = self.network.len() as u64;
        match step {
            Step::Tick(id) => self.at(id).tick(),
            Step::Propose(id, payload) => drop(self.at(id).propose(payload)),
            Step::Store(id) => drop(self.at(id).store()),
            Step::Restart(id) => self.at(id).restart(),
            Step::Split(sides) => self.split = sides,
            Step::Join => self.split = 0,
            Step::Deliver(_) | Step::Drop(_) | Step::Duplicate(_) if under_way == 0 => {}
            Step::Deliver(n) => self.deliver((n % under_way) as usize),
            Step::Drop(n) => drop(self.network.remove((n % under_way) as usize)),
            Step::Duplicate(n) => {
                let again = self.network[(n % under_way) as usize].clone();
                self.network.push_back(again);
            }
        }
        self.gather();
    }

    fn at(&mut self, id: Id) -> &mut R {
        &mut self.nodes[id as usize - 1]
    }

    fn deliver(&mut self, n: usize) {
        let Some((from, to, message)) = self.network.remove(n) else { return };
        if (self.split >> from) & 1 == (self.split >> to) & 1 {
            self.at(to).receive(from, message);
        }
    }

    /// Collects the messages that nodes send, and checks their leaders and applied payloads.
    fn gather(&mut self) {
        for (node, id) in self.nodes.iter_mut().zip(1..) {
            let sent = node.take_sent().into_iter();
            self.network.extend(sent.map(|(to, message)| (id, to, message)));
            if let Some(term) = node.leads() {
                let leader = *self.leaders.entry(term).or_insert(id);
                assert_eq!(leader, id, "{}: two leaders in term {term}", R::NAME);
            }
            let (applied, common) = (node.applied(), node.applied().len());
            let known = common.min(self.committed.len());
            let agrees = applied[..known] == self.committed[..known];
            assert!(agrees, "{}: {applied:?} applied, and {:?}", R::NAME, self.committed);
            if common > known {
                self.committed = applied.to_vec();
            }
        }
    }

    /// Completes all writes and delivers messages in the order of sending, until no message is in
    /// flight except from or to held nodes.
    pub fn settle(&mut self) {
        for _ in 0..DELIVERIES_MAX {
            for node in &mut self.nodes {
                while node.store() {}
            }
            self.gather();
            let held = &self.held;
            let free = |(from, to, _): &(Id, Id, _)| !held.contains(from) && !held.contains(to);
            match self.network.iter().position(free) {
                Some(next) => self.deliver(next),
                None => return,
            }
        }
        panic!("{}: messages in flight after {DELIVERIES_MAX} deliveries without ticks", R::NAME);
    }

    /// The leader of the latest term in which a node leads.
    fn leader(&self) -> Option<Id> {
        let leads = |id: &Id| self.nodes[*id as usize - 1].leads();
        (1..=self.nodes.len() as Id).filter(|id| leads(id).is_some()).max_by_key(leads)
    }

    fn finish(&mut self, payloads: &[Payload]) {
        let mut proposed: Option<(Id, Payload, u64)> = None;
        for round in 0..ROUNDS_MAX {
            self.nodes.iter_mut().for_each(R::tick);
            self.settle();
            let Some(leader) = self.leader() else { continue };
            let applied = self.nodes[leader as usize - 1].applied();
            let Some(next) = payloads.iter().find(|payload| !applied.contains(payload)) else {
                let same = self.nodes.iter().all(|node| node.applied() == self.committed);
                let leaders = self.nodes.iter().filter(|node| node.leads().is_some()).count();
                if same && leaders == 1 {
                    return;
                }
                continue;
            };
            let waits = proposed.is_some_and(|(by, payload, since)| {
                (by, payload) == (leader, *next) && round < since + PATIENCE_ROUNDS
            });
            if !waits && self.at(leader).propose(*next) {
                proposed = Some((leader, *next, round));
            }
        }
        let (name, committed) = (R::NAME, &self.committed);
        panic!("{name}: no progress after all faults ended, {committed:?} is committed");
    }

    /// Ticks only node 1, until it leads.
    pub fn elect_first(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.at(1).tick();
            self.settle();
            if self.nodes[0].leads().is_some() {
                return;
            }
        }
        panic!("{}: node 1 campaigns alone and does not lead", R::NAME);
    }

    /// Proposes a payload at node 1, which leads.
    pub fn propose_first(&mut self, payload: Payload) {
        assert!(self.at(1).propose(payload), "{}: the leader refuses a proposal", R::NAME);
    }

    /// Ticks node 1, which leads, until it sends its next heartbeat.
    pub fn beat(&mut self, timing: Timing) {
        (0..timing.heartbeat).for_each(|_| self.at(1).tick());
    }

    /// Sets whether messages from and to a node wait from now on.
    pub fn hold(&mut self, id: Id, held: bool) {
        if held {
            self.held.insert(id)
        } else {
            self.held.remove(&id)
        };
    }

    /// A node's commit index and applied payloads.
    pub fn seen(&self, id: Id) -> (u64, Vec<Payload>) {
        let node = &self.nodes[id as usize - 1];
        (node.commit(), node.applied().to_vec())
    }
}
