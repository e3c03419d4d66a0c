//! Clusters under a schedule. What a step does may differ between implementations, for their
//! messages differ; a schedule therefore says "deliver the n-th of what is under way", and what is
//! compared is what must come of it in the end.

use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Rounds of ticks within which healed clusters must make progress.
const ROUNDS_MAX: u64 = 4000;
/// Rounds that a leader has to commit a proposal before it is proposed again.
const PATIENCE_ROUNDS: u64 = 60;
/// Deliveries within which a cluster without ticks falls silent.
const DELIVERIES_MAX: usize = 100_000;

/// Names a node, from 1.
pub type Id = u64;
/// What a proposal carries; each is unique.
pub type Payload = u64;

/// How long followers wait for a leader, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The shortest election timeout. Each implementation has its own way to draw longer ones.
    pub election: u64,
    /// The pause between heartbeats.
    pub heartbeat: u64,
}

/// A replica with its disk and its state machine.
pub trait Replica {
    /// What replicas send each other.
    type Message: Clone;
    /// Its name in reports.
    const NAME: &'static str;

    /// A new replica among the nodes from 1 to `nodes`.
    fn new(id: Id, nodes: u64, timing: Timing, seed: u64) -> Self;
    /// Time passed.
    fn tick(&mut self);
    /// Proposes; whether it was taken.
    fn propose(&mut self, payload: Payload) -> bool;
    /// A message came.
    fn receive(&mut self, from: Id, message: Self::Message);
    /// The oldest writes to its disk complete. False when there were none.
    fn store(&mut self) -> bool;
    /// What it sends now.
    fn take_sent(&mut self) -> Vec<(Id, Self::Message)>;
    /// It loses its memory and the writes that were not complete.
    fn restart(&mut self);
    /// The term in which it leads.
    fn leads(&self) -> Option<u64>;
    /// Up to where it knows its log to be committed.
    fn commit(&self) -> u64;
    /// What its state machine was given, in order.
    fn applied(&self) -> &[Payload];
}

/// Something that happens to a cluster.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Time passes at a node.
    Tick(Id),
    /// A node is asked to propose.
    Propose(Id, Payload),
    /// One of the messages under way arrives.
    Deliver(u64),
    /// One is lost.
    Drop(u64),
    /// One will arrive twice.
    Duplicate(u64),
    /// The nodes fall into two parts, by the bits of a number.
    Split(u64),
    /// The parts hear each other again.
    Join,
    /// A write completes.
    Store(Id),
    /// A node restarts.
    Restart(Id),
}

/// How many nodes, and what happens to them.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The nodes.
    pub nodes: u64,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Every payload in them, in order.
    pub payloads: Vec<Payload>,
}

impl Schedule {
    /// The schedule of a seed. Each draws how often what happens.
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
                // Mostly in order, or what is long out of date would hold up the rest.
                10..17 => Step::Deliver(0),
                _ => Step::Deliver(rng.draw()),
            });
        }
        Schedule { nodes, steps, payloads }
    }
}

/// What a schedule came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Every payload that was committed.
    pub committed: BTreeSet<Payload>,
    /// How many of them were before the cluster was healed. Differs between implementations.
    pub committed_in_faults: usize,
    /// Terms that had a leader. Differs between implementations.
    pub terms: usize,
}

/// Replicas of one implementation, and what is under way between them.
pub struct Cluster<R: Replica> {
    nodes: Vec<R>,
    network: VecDeque<(Id, Id, R::Message)>,
    /// One bit a node: who is in the other part.
    split: u64,
    /// Nodes whose messages wait, to them and from them.
    held: BTreeSet<Id>,
    leaders: BTreeMap<u64, Id>,
    /// The longest sequence that a state machine was given.
    committed: Vec<Payload>,
}

impl<R: Replica> Cluster<R> {
    /// New replicas.
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

    /// Runs a schedule, heals the cluster, and proposes again, one by one, what is not committed.
    ///
    /// # Panics
    /// When two nodes lead in a term, state machines differ, or a healed cluster makes no progress.
    pub fn run(schedule: &Schedule, seed: u64) -> Outcome {
        let timing = Timing { election: 10, heartbeat: 2 };
        let mut cluster = Self::new(schedule.nodes, timing, seed);
        schedule.steps.iter().for_each(|step| cluster.step(*step));
        let committed_in_faults = cluster.committed.len();
        (cluster.split, cluster.held) = (0, BTreeSet::new());
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

    /// Takes what nodes send, and looks whether all is well.
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
            assert!(agrees, "{}: {applied:?} is applied, and {:?}", R::NAME, self.committed);
            if common > known {
                self.committed = applied.to_vec();
            }
        }
    }

    /// Completes all writes and delivers, first come first served, until nothing is under way but
    /// from or to nodes that are held.
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
        panic!("{}: a cluster without ticks does not fall silent", R::NAME);
    }

    /// Who leads, in the latest of the terms in which somebody thinks so.
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

    /// Node 1 alone campaigns, and leads.
    pub fn elect_first(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.at(1).tick();
            self.settle();
            if self.nodes[0].leads().is_some() {
                return;
            }
        }
        panic!("{}: nobody opposes node 1, and it does not lead", R::NAME);
    }

    /// The leader, node 1, proposes.
    pub fn propose_first(&mut self, payload: Payload) {
        assert!(self.at(1).propose(payload), "{}: the leader refuses", R::NAME);
    }

    /// The leader's next heartbeat leaves.
    pub fn beat(&mut self, timing: Timing) {
        (0..timing.heartbeat).for_each(|_| self.at(1).tick());
    }

    /// Whether messages from and to a node wait from now on.
    pub fn hold(&mut self, id: Id, held: bool) {
        match held {
            true => self.held.insert(id),
            false => self.held.remove(&id),
        };
    }

    /// Of a node: its commit index and what its state machine was given.
    pub fn seen(&self, id: Id) -> (u64, Vec<Payload>) {
        let node = &self.nodes[id as usize - 1];
        (node.commit(), node.applied().to_vec())
    }
}
