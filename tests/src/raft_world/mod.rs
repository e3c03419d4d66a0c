//! Raft replicas in a simulated world, from a seed. The network loses, duplicates and delays
//! messages, and has partitions. Crashes lose data that was not yet durable. Members come and go,
//! leaders transfer their leadership, and logs are released, so that snapshots must be sent.

mod checks;
pub(crate) mod disk;
mod done;
mod mix;
mod outdated;

use crate::rng::Rng;
use bedstone_engine::{Index, LogId, Term};
use bedstone_node::raft::Read as Outcome;
use bedstone_node::raft::conf::MemberChange;
use bedstone_node::raft::{Body, Change, Conf, Config, Lease, Message, Raft, ReplicaId, Vote};
use bytes::Bytes;
use checks::{Checks, decided};
use disk::{Disk, Job, Tree};
pub use done::Done;
use mix::Mix;
use outdated::Outdated;
use std::collections::{BTreeSet, HashMap, VecDeque};

const EVENTS: u64 = 3000;
const QUIET_EVENTS: u64 = 5000;

/// Twice the bytes kept for slow followers, plus entries that were written with them.
const MEMORY_BYTES: usize = 2 * RECENT_BYTES + 400;
const RECENT_BYTES: usize = 100;

/// The number of events until a leader gives up a snapshot in flight.
const SNAPSHOT_EVENTS: u64 = 400;

/// With leases: the fewest events between two ticks of a node, and the length of a lease.
const TICK_EVENTS: u64 = 20;
const LEASE: Lease = Lease { length: 8 * TICK_EVENTS };

/// A packet in flight.
#[derive(Clone)]
enum Packet {
    /// A message, and the time when it was sent.
    Raft(Message, u64),
    Snapshot {
        term: Term,
        tree: Tree,
    },
    /// A snapshot was installed up to this index, or will not be installed.
    SnapshotDone(Option<Index>),
}

struct Node {
    raft: Raft,
    disk: Disk,
    /// A copy of the disk as it was at an earlier time.
    copy: Option<Disk>,
    /// The true content of the disk if the disk lies: it has kept no write since.
    lied_since: Option<Disk>,
    tree: Tree,
    /// Jobs that were handed to the disk and are not yet durable.
    writing: VecDeque<Job>,
    /// The time of the last tick.
    ticked: u64,
    /// The part of the tree that is on disk cannot be read.
    damaged: bool,
}

impl Node {
    /// The replica has lost nothing, its disk does not lie, and it is not new.
    fn is_whole(&self) -> bool {
        let new = self.disk.hard.term == Term(0) && *self.raft.conf() != Conf::default();
        let lost = self.disk.hard.vote == Vote::Withheld;
        let told = self.lied_since.is_none();
        told && !self.damaged
            && !self.raft.is_recovering()
            && !new
            && !lost
            && self.disk.keeps_votes_and_entries()
    }
}

/// Runs a seed: many events with faults, then many without. In the second part, one leader must
/// emerge and a new entry must commit, within a bound. Panics when a check fails.
pub fn run(seed: u64) -> Done {
    let mut world = World::new(seed);
    (0..EVENTS).for_each(|_| world.event());
    world.heal();
    let before = world.done().committed;
    (0..QUIET_EVENTS).for_each(|_| world.event());
    let done = world.done();
    if done.committed <= before || world.leaders().len() != 1 {
        world.describe();
        panic!("no progress under one leader after all faults ended");
    }
    let leader = world.leaders()[0];
    let members = world.node(leader).raft.conf().members();
    let waits = |&id: &ReplicaId| members.contains(&id) && world.node(id).raft.is_recovering();
    if let Some(id) = world.ids().find(waits) {
        world.describe();
        panic!("{id} still waits for what it lost, after all faults ended");
    }
    let damaged = |&id: &ReplicaId| members.contains(&id) && world.node(id).raft.is_damaged();
    if let Some(id) = world.ids().find(damaged) {
        world.describe();
        panic!("{id} is still damaged, after all faults ended");
    }
    let oldest = world.reads.iter().filter(|((id, _), _)| *id == leader).map(|(_, r)| r.since);
    let patience = world.now - QUIET_EVENTS / 2;
    assert!(oldest.min().is_none_or(|since| since > patience), "a read waits for ever");
    done
}

/// A pending read.
struct Read {
    /// The commit index that the read must see.
    must_see: Index,
    since: u64,
    conf: Conf,
    /// The client sent the read to the leader itself.
    by_leader: bool,
}

/// Replicas 1, 2, … and the network between them.
struct World {
    rng: Rng,
    mix: Mix,
    now: u64,
    nodes: Vec<Node>,
    /// Delivery time, sender, receiver and packet.
    network: Vec<(u64, ReplicaId, ReplicaId, Packet)>,
    /// Links that are cut in one direction.
    cut: Vec<(ReplicaId, ReplicaId)>,
    checks: Checks,
    /// Pending reads.
    reads: HashMap<(ReplicaId, u64), Read>,
    /// The time when the latest heartbeat that arrived was sent, by receiver and sender.
    heard: HashMap<(ReplicaId, ReplicaId), u64>,
    /// The sending time of each read query that arrived, and the leader's members at its arrival.
    questions: HashMap<(ReplicaId, u64), (u64, Conf)>,
    proposed: u64,
    /// Ticks in the part without faults.
    ticks: u64,
    /// The highest number of an initial voter.
    voters: ReplicaId,
    /// Replicas that were witnesses once. Their logs lack commands for ever.
    witnesses: BTreeSet<ReplicaId>,
    faults: bool,
    /// The replica whose disk was replaced by an older copy, and has not been noticed.
    outdated: Option<Outdated>,
    done: Done,
}

fn start(id: ReplicaId, disk: &mut Disk, seed: u64, mix: &Mix) -> Raft {
    let config = Config {
        quiesce_after: mix.quiesce_after,
        lease: mix.leases.then_some(LEASE),
        append_bytes_max: 64,
        inflight_bytes_max: 200,
        inflight_appends_max: 4,
        recent_bytes_max: RECENT_BYTES,
        ..Config::default()
    };
    Raft::new(config, disk.boot(id, seed))
}

/// The position of a replica's node in the list of nodes.
fn slot(id: ReplicaId) -> usize {
    id.0 as usize - 1
}

impl World {
    /// A world of three or five voters, and two nodes that may become members.
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let voters = if rng.one_in(3) { 5 } else { 3 };
        let count = voters + 2;
        let (kind, slow_tree) = (seed % 4, if seed % 4 == 2 { 1 + seed / 4 % count } else { 0 });
        let (first, slow_tree) = (Conf::of((1..=voters).map(ReplicaId)), ReplicaId(slow_tree));
        let (copies, damages, lies) = (kind == 0, kind == 1, kind == 3);
        let mix = Mix { copies, damages, lies, slow_tree, ..Mix::new(&mut rng, count) };
        let nodes = (1..=count).map(|id| {
            let mut disk = Disk::new(if id <= voters { first.clone() } else { Conf::default() });
            let raft = start(ReplicaId(id), &mut disk, seed ^ id, &mix);
            let tree = disk.tree.clone();
            Node {
                raft,
                disk,
                copy: None,
                lied_since: None,
                tree,
                writing: VecDeque::new(),
                ticked: 0,
                damaged: false,
            }
        });
        let nodes: Vec<Node> = nodes.collect();
        World {
            rng,
            mix,
            now: 0,
            nodes,
            network: Vec::new(),
            cut: Vec::new(),
            checks: Checks::default(),
            reads: HashMap::new(),
            heard: HashMap::new(),
            questions: HashMap::new(),
            proposed: 0,
            ticks: 0,
            voters: ReplicaId(voters),
            witnesses: BTreeSet::new(),
            faults: true,
            outdated: None,
            done: Done::default(),
        }
    }

    /// Ends all faults. The members stay as they are.
    fn heal(&mut self) {
        self.faults = false;
        self.cut.clear();
        self.nodes.iter_mut().for_each(|node| (node.ticked, node.lied_since) = (0, None));
        let nobody = ReplicaId(0);
        self.mix =
            Mix { slow_disk: nobody, slow_clock: nobody, slow_tree: nobody, gather: 1, ..self.mix };
    }

    /// The counts so far.
    fn done(&self) -> Done {
        let (mut confs, mut joint, mut last) = (0, 0, None);
        for conf in self.checks.confs() {
            if last != Some(conf) {
                confs += 1;
                joint += u64::from(conf.is_joint());
            }
            last = Some(conf);
        }
        Done { committed: self.checks.committed(), confs, joint, ..self.done }
    }

    /// The replicas that lead.
    fn leaders(&self) -> Vec<ReplicaId> {
        let leaders = self.ids().filter(|&id| self.node(id).raft.is_leader());
        leaders.collect()
    }

    /// Prints the state of every replica.
    fn describe(&self) {
        for node in &self.nodes {
            eprintln!("{:?}, {} jobs under way", node.raft, node.writing.len());
        }
    }

    fn ids(&self) -> impl DoubleEndedIterator<Item = ReplicaId> + use<> {
        (1..=self.nodes.len() as u64).map(ReplicaId)
    }

    fn node(&self, id: ReplicaId) -> &Node {
        &self.nodes[slot(id)]
    }

    fn node_mut(&mut self, id: ReplicaId) -> &mut Node {
        &mut self.nodes[slot(id)]
    }

    fn any(&mut self) -> ReplicaId {
        ReplicaId(self.rng.below(self.nodes.len() as u64) + 1)
    }

    /// Runs one random event.
    fn event(&mut self) {
        self.now += 1;
        let id = self.any();
        match self.rng.below(22) {
            0..5 if id == self.mix.slow_clock && self.rng.one_in(2) => {}
            0..5 if self.faults => self.tick(id),
            0..5 => {
                // Clocks that differ are a fault, so the nodes tick in turn.
                self.ticks += 1;
                self.tick(ReplicaId(self.ticks % self.nodes.len() as u64 + 1));
            }
            5..8 if !self.faults || self.rng.one_in(self.mix.proposes) => self.propose(id),
            8..10 | 20 if self.rng.one_in(self.mix.reads) => self.read(id),
            10..16 if id == self.mix.slow_disk && !self.rng.one_in(5) => {}
            10..16 => self.write(id),
            16 if self.faults && self.rng.one_in(self.mix.fault) => self.fault(id),
            17 | 18 if self.faults && self.rng.one_in(self.mix.change) => self.change(id),
            21 => self.miss(id),
            19 if self.rng.one_in(self.mix.release) => self.release(id),
            _ => {}
        }
        if !self.faults {
            // A disk that takes as long as an election is a fault, so every write completes soon.
            self.ids().for_each(|id| self.write(id));
        }
        self.deliver();
        self.watch_outdated();
        for id in self.ids() {
            if self.rng.one_in(self.mix.gather) {
                self.effects(id);
            }
        }
    }

    /// A quiescent replica is notified that its leader's node has timed out.
    fn miss(&mut self, id: ReplicaId) {
        let raft = &self.node(id).raft;
        let Some(leader) = raft.leader().filter(|_| raft.is_quiescent()) else { return };
        let missed = self.cut.contains(&(leader, id)) || !self.node(leader).raft.is_leader();
        if missed || self.rng.one_in(100) {
            let raft = &mut self.node_mut(id).raft;
            raft.peer_silent(leader);
            assert!(!raft.is_quiescent(), "{id} is quiescent, and its leader is missed");
        }
    }

    fn propose(&mut self, id: ReplicaId) {
        self.proposed += 1;
        let len = self.rng.below(40) as usize;
        let mut data = self.proposed.to_le_bytes().to_vec();
        data.resize(8 + len, 0);
        let _ = self.node_mut(id).raft.propose(Bytes::from(data));
    }

    fn tick(&mut self, id: ReplicaId) {
        let (now, leases) = (self.now, self.mix.leases);
        if self.outdated.as_ref().is_some_and(|outdated| outdated.id == id) {
            return;
        }
        let node = self.node_mut(id);
        if leases && now < node.ticked + TICK_EVENTS {
            return;
        }
        node.ticked = now;
        node.raft.set_time(now);
        node.raft.tick();
    }

    fn read(&mut self, id: ReplicaId) {
        let must_see = self.checks.committed();
        // Otherwise the replica was stopped after it read its clock.
        if !self.rng.one_in(3) {
            let now = self.now;
            self.node_mut(id).raft.set_time(now);
        }
        if let Ok(token) = self.node_mut(id).raft.read() {
            let raft = &self.node(id).raft;
            let (conf, by_leader, since) = (raft.conf().clone(), raft.is_leader(), self.now);
            self.reads.insert((id, token), Read { must_see, since, conf, by_leader });
        }
    }

    /// Changes the members, or transfers leadership.
    fn change(&mut self, id: ReplicaId) {
        if self.rng.one_in(3) {
            let to = self.any();
            let was = self.node(id).raft.status().transferring;
            let taken = self.node_mut(id).raft.transfer(to).is_ok();
            self.done.transfers += u64::from(taken && was.is_none() && to != id);
            return;
        }
        if self.rng.one_in(4) {
            let _ = self.node_mut(id).raft.change(&Change::Leave);
            return;
        }
        if self.outdated.is_some() || !self.nodes.iter().all(Node::is_whole) {
            return; // A group that shrinks while a disk is lost may not survive the loss.
        }
        let steps = (0..=self.rng.below(3)).map(|_| self.step()).collect();
        let change = Change::Steps { steps, explicit: self.rng.one_in(self.mix.explicit) };
        let Change::Steps { steps, .. } = &change else { return };
        if self.node_mut(id).raft.change(&change).is_ok() {
            self.checks.changes(&self.node(id).raft);
            self.witnesses.extend(steps.iter().filter_map(|step| match step {
                MemberChange::AddWitness(member) => Some(member.id),
                _ => None,
            }));
        }
    }

    fn step(&mut self) -> MemberChange {
        let peer = self.any();
        match self.rng.below(6) {
            _ if self.witnesses.contains(&peer) => {
                if self.rng.one_in(2) {
                    MemberChange::AddWitness(peer.into())
                } else {
                    MemberChange::Remove(peer)
                }
            }
            _ if self.rng.one_in(2 * self.mix.shrink) => MemberChange::AddLearner(peer.into()),
            0..3 => MemberChange::AddVoter(peer.into()),
            3 => MemberChange::AddLearner(peer.into()),
            4 => MemberChange::Remove(peer),
            _ => MemberChange::AddWitness(peer.into()),
        }
    }

    /// Completes the oldest write of a node.
    fn write(&mut self, id: ReplicaId) {
        let node = self.node_mut(id);
        if let Some(job) = node.writing.pop_front() {
            let seq = match &job {
                Job::Write(write) | Job::ResetAndWrite(_, write) => Some(write.seq),
                _ => None,
            };
            node.disk.take(job);
            seq.into_iter().for_each(|seq| node.raft.persisted(seq));
        }
    }

    /// Flushes a tree, and releases the log before it.
    fn release(&mut self, id: ReplicaId) {
        let node = self.node_mut(id);
        let upto = node.tree.applied;
        // Applied entries are durable, because a replica applies only entries on its own disk.
        if upto.index > node.disk.tree.applied.index && !node.damaged {
            node.disk.tree = node.tree.clone();
            node.raft.compacted(upto);
            node.writing.push_back(Job::Release(upto));
        }
    }

    fn fault(&mut self, id: ReplicaId) {
        if self.outdated.is_some() {
            if self.rng.one_in(4) {
                self.cut.clear();
            }
            return;
        }
        if self.rng.one_in(self.mix.crash) {
            return self.crash(id);
        }
        if self.mix.copies && self.rng.one_in(4) {
            return self.copy_disk(id);
        }
        match self.rng.below(8) {
            0 | 1 => self.cut.clear(),
            2 | 3 => {
                let other = self.any();
                self.cut.push((id, other));
            }
            4 => {
                for other in self.ids() {
                    self.cut.extend([(id, other), (other, id)]);
                }
            }
            5 => self.split(),
            6 if self.rng.one_in(self.mix.loses) => self.lose(id),
            7 if self.mix.leases => self.stop_leader(),
            _ => {}
        }
    }

    /// Stops the clock of a leader for a while, like a stopped process, and cuts some links to it.
    fn stop_leader(&mut self) {
        let Some(leader) = self.ids().rfind(|&id| self.node(id).raft.is_leader()) else { return };
        let until = self.now + self.rng.below(1000);
        self.node_mut(leader).ticked = until;
        for other in self.ids() {
            if self.rng.one_in(2) {
                self.cut.extend([(leader, other), (other, leader)]);
            }
        }
    }

    /// Splits the nodes into two parts without links between them.
    fn split(&mut self) {
        let side = self.rng.draw();
        let is_left = |id: ReplicaId| (side >> id.0) & 1 == 0;
        for from in self.ids() {
            let others = self.ids().filter(|&to| is_left(to) != is_left(from));
            self.cut.extend(others.map(|to| (from, to)));
        }
    }

    /// A node loses its memory, and all its pending writes except a prefix.
    fn crash(&mut self, id: ReplicaId) {
        let kept = self.rng.below(self.node(id).writing.len() as u64 + 1);
        let seed = self.rng.draw();
        let World { nodes, mix, .. } = self;
        let node = &mut nodes[slot(id)];
        for _ in 0..kept {
            let job = node.writing.pop_front();
            job.into_iter().for_each(|job| node.disk.take(job));
        }
        node.writing.clear();
        if let Some(disk) = node.lied_since.take() {
            node.disk = disk;
        }
        if mix.lies {
            node.disk.suspect();
        }
        node.raft = start(id, &mut node.disk, seed, mix);
        node.tree = node.disk.tree.clone();
        if node.damaged {
            node.raft.damaged();
        }
        self.checks.restarts(id);
        self.network.retain(|(_, from, to, _)| *from != id && *to != id);
        self.reads.retain(|(reader, _), _| *reader != id);
        // The other nodes see the connection end.
        for other in self.ids().filter(|&other| other != id) {
            self.node_mut(other).raft.unreachable(id);
            self.node_mut(other).raft.snapshot_sent(id, None);
        }
    }

    /// A node loses its disk, log records, its tree, or writes that its disk acknowledges. Only one
    /// node at a time loses data, and only where enough other nodes are left.
    fn lose(&mut self, id: ReplicaId) {
        if !self.may_lose(id) {
            return;
        }
        if self.mix.lies && self.rng.one_in(2) {
            if id <= self.voters {
                let node = self.node_mut(id);
                node.lied_since = Some(node.disk.clone());
                self.done.losses += 1;
            }
            return;
        }
        if self.mix.damages && self.rng.one_in(2) {
            if *self.node(id).raft.conf() != Conf::default() {
                let node = self.node_mut(id);
                node.damaged = true;
                node.raft.damaged();
                self.done.losses += 1;
            }
            return;
        }
        // A later member would return under another number, so it does not lose its disk.
        let (lost, voters) = (self.rng.one_in(2), self.voters);
        let configured = self.configured(id);
        let disk = &mut self.node_mut(id).disk;
        match lost {
            true if id <= voters => disk.lose(configured),
            // A node whose tree names no other voter refuses to start without its log.
            false if disk.tree.conf != Conf::default() && !disk.tree.conf.is_sole_voter(id) => {
                disk.damage();
            }
            _ => return,
        }
        self.node_mut(id).writing.clear();
        self.done.losses += 1;
        self.crash(id);
    }

    /// Whether the group survives that a node loses data now.
    fn may_lose(&self, id: ReplicaId) -> bool {
        let enough = |node: &Node| match node.raft.conf() {
            conf if *conf == Conf::default() => true,
            conf => {
                let settled = !conf.is_joint()
                    && node.raft.status().changes.is_empty()
                    && node.raft.members_are_durable();
                // A voter that has no members yet counts as lost.
                let begun = |&voter| *self.node(voter).raft.conf() != Conf::default();
                let all_begun = conf.voters.iter().all(begun);
                // A witness may know of entries that only the lost disk had.
                settled && all_begun && conf.voters.len() > 2 && conf.witnesses.is_empty()
            }
        };
        let members = self.node(id).raft.conf().members();
        self.nodes.iter().all(|node| node.is_whole() && enough(node)) && members.contains(&id)
    }

    /// Copies the disk of a replica, or replaces the disk by the copy that was made before.
    fn copy_disk(&mut self, id: ReplicaId) {
        if !self.may_lose(id) {
            return;
        }
        let begun = *self.node(id).raft.conf() != Conf::default();
        let node = self.node_mut(id);
        let Some(copy) = node.copy.take() else {
            node.copy = Some(node.disk.clone()).filter(|_| begun);
            return;
        };
        let last = node.disk.last();
        // The leader is one that counts the entries of this disk.
        let counts = |leader: ReplicaId| {
            let matched = self.node(leader).raft.status().matched;
            leader != id && matched.contains(&(id, last.index))
        };
        if !self.leaders().into_iter().any(counts) {
            return;
        }
        let committed = last.index.min(self.checks.committed());
        let node = self.node_mut(id);
        node.disk = copy;
        node.writing.clear();
        self.done.losses += 1;
        if self.rng.one_in(2) {
            // The replica does not hear the leader for a while, and another one may campaign.
            self.cut.extend(self.leaders().into_iter().map(|leader| (leader, id)));
        }
        self.crash(id);
        for other in self.ids().filter(|&other| other != id) {
            self.node_mut(other).raft.reachable(id);
        }
        self.outdated = Some(Outdated { id, acknowledged: last, committed, since: self.now });
    }

    /// A replica with an older copy of its disk must find that out soon.
    fn watch_outdated(&mut self) {
        let Some(outdated) = &self.outdated else { return };
        let Node { raft, disk, .. } = self.node(outdated.id);
        if outdated.is_over(raft, disk) {
            self.outdated = None;
        } else if outdated.is_late(self.now) {
            self.describe();
            panic!("an older copy of its disk is not noticed");
        }
    }

    /// The members that the configuration file of a node names by now: the node itself, a random
    /// set, and at least one other node that has members.
    fn configured(&mut self, id: ReplicaId) -> Conf {
        let ids = self.ids();
        let drawn: Vec<ReplicaId> = ids.filter(|_| self.rng.one_in(2)).collect();
        let begun = |&other: &ReplicaId| *self.node(other).raft.conf() != Conf::default();
        let other = self.ids().find(|other| *other != id && begun(other));
        Conf::of(drawn.into_iter().chain(other).chain([id]))
    }

    fn deliver(&mut self) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.network).into_iter().partition(|(time, ..)| *time <= self.now);
        self.network = later;
        for (_, from, to, packet) in due {
            if let Packet::SnapshotDone(at) = packet {
                self.node_mut(to).raft.snapshot_sent(from, at);
            } else if !self.cut.contains(&(from, to)) {
                match packet {
                    Packet::Raft(message, left) => {
                        match message.body {
                            Body::Heartbeat { .. } => {
                                let latest = self.heard.entry((to, from)).or_default();
                                *latest = left.max(*latest);
                            }
                            Body::ReadIndex { query_id } => {
                                let conf = self.node(to).raft.conf().clone();
                                self.questions.entry((from, query_id)).or_insert((left, conf));
                            }
                            Body::VoteReply { granted: true, .. } => {
                                self.checks.votes(to, message.term, from);
                            }
                            _ => {}
                        }
                        self.node_mut(to).raft.step(Message { peer: from, ..message });
                    }
                    Packet::Snapshot { term, tree } => self.install(from, to, term, tree),
                    Packet::SnapshotDone(_) => {}
                }
            }
        }
    }

    fn install(&mut self, from: ReplicaId, to: ReplicaId, term: Term, tree: Tree) {
        let node = self.node_mut(to);
        let at = tree.applied;
        let lacks = at.index > node.tree.applied.index
            || node.damaged && at.index == node.tree.applied.index;
        if lacks {
            node.damaged = false;
            node.tree = tree.clone();
            node.disk.tree = tree.clone();
            node.writing.push_back(if node.raft.snapshot_installed(from, term, at, tree.conf) {
                Job::Reset(at)
            } else {
                Job::Release(at)
            });
            self.done.snapshots += 1;
            let done = Packet::SnapshotDone(Some(at.index));
            self.network.push((self.now + 2, to, from, done));
        }
    }

    /// Checks a read that a replica may serve.
    fn check_read(&self, id: ReplicaId, index: Index, read: &Read) {
        let must_see = read.must_see;
        assert!(index >= must_see, "a read at {index} misses {must_see}");
        if read.by_leader {
            self.check_word(id, id, read.since, &read.conf);
        }
    }

    /// Checks a leader's answer to a read of `asker`: a majority has received heartbeats that left
    /// after the read began. The leader and the asker count without a heartbeat.
    fn check_word(&self, leader: ReplicaId, asker: ReplicaId, since: u64, conf: &Conf) {
        let heard = |peer| self.heard.get(&(peer, leader)).is_some_and(|left| *left >= since);
        let word = |peer| peer == leader || peer == asker || heard(peer);
        // The configuration may have changed since the heartbeats.
        let confs = [conf, self.node(leader).raft.conf()];
        let decided = confs.iter().any(|conf| decided(conf, word));
        assert!(decided, "a read of {asker} is answered without a majority's word since it began");
    }

    fn effects(&mut self, id: ReplicaId) {
        let node = &mut self.nodes[slot(id)];
        let effects = node.raft.effects(&node.disk);
        assert_eq!(effects.committed_conflict, None, "a leader contradicts a committed entry");
        assert!(
            !effects.reset_log || effects.write.is_some(),
            "a log is reset, and no write follows"
        );
        self.done.noticed += u64::from(effects.lost.is_some());
        let at = node.tree.applied;
        node.writing.extend(effects.write.map(|write| {
            if effects.reset_log { Job::ResetAndWrite(at, write) } else { Job::Write(write) }
        }));
        for message in effects.send {
            let node = self.node(id);
            self.checks.sends(id, &message, &node.raft, &node.disk);
            if let Body::ReadIndexReply { query_id, .. } = message.body {
                let (since, conf) = &self.questions[&(message.peer, query_id)];
                self.check_word(id, message.peer, *since, conf);
            }
            let copies = match self.faults && self.outdated.is_none() {
                true if self.rng.one_in(self.mix.loss) => 0,
                true if self.rng.one_in(self.mix.doubling) => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let delay = 1 + self.rng.below(if self.faults { self.mix.delay } else { 3 });
                let (to, packet) = (message.peer, Packet::Raft(message.clone(), self.now));
                self.network.push((self.now + delay, id, to, packet));
            }
        }
        for (token, outcome) in effects.reads {
            let Some(read) = self.reads.remove(&(id, token)) else { continue };
            match outcome {
                Outcome::At(index) => {
                    self.check_read(id, index, &read);
                    self.done.reads += 1;
                }
                Outcome::ByLease(index) if self.node(id).raft.lease_holds(self.now) => {
                    let must_see = read.must_see;
                    assert!(index >= must_see, "a read by lease at {index} misses {must_see}");
                    self.done.leased += 1;
                }
                Outcome::ByLease(_) | Outcome::Failed => {}
            }
        }
        let raft = &self.node(id).raft;
        let settled = raft.term_at(raft.commit()) == Some(raft.term());
        if raft.is_leader() && settled && decided(raft.conf(), |peer| peer == id) {
            let waits =
                self.reads.iter().any(|((reader, _), read)| *reader == id && read.by_leader);
            assert!(!waits, "a read waits for ever, although {id} alone is a quorum");
        }
        for to in effects.snapshots {
            let (term, tree) = (self.node(id).raft.term(), self.node(id).tree.clone());
            let (delay, lost) = (1 + self.rng.below(40), self.faults && self.rng.one_in(4));
            if !lost && !self.node(id).damaged {
                self.network.push((self.now + delay, id, to, Packet::Snapshot { term, tree }));
            }
            self.network.push((self.now + SNAPSHOT_EVENTS, to, id, Packet::SnapshotDone(None)));
        }
        let stands = id == self.mix.slow_tree && !self.rng.one_in(30);
        if !stands && !self.node(id).damaged {
            self.apply(id, effects.commit);
        }
        let node = &self.nodes[slot(id)];
        self.checks.leader(id, &node.raft);
        let outdated = self.outdated.as_ref().map(|outdated| outdated.id);
        let has = |peer: ReplicaId, entry: LogId| {
            let Node { disk, raft, .. } = &self.nodes[slot(peer)];
            if raft.is_recovering() || outdated == Some(peer) {
                // The peer had all that it acknowledged, and does not vote before it has it again.
                return true;
            }
            disk.term(entry.index) == Some(entry.term) || disk.tree.applied.index >= entry.index
        };
        self.checks.commit(id, &node.raft, &node.tree, has);
        self.checks.durable(id, &node.raft, &node.disk);
        let bytes = node.raft.evictable_bytes();
        assert!(bytes <= MEMORY_BYTES, "{id} has {bytes} durable bytes in memory");
        self.checks.uncommitted(id, &node.raft, &node.disk);
    }

    /// Applies committed entries. Every replica must apply equal entries.
    fn apply(&mut self, id: ReplicaId, commit: Index) {
        let was_witness = self.witnesses.contains(&id);
        let node = &mut self.nodes[slot(id)];
        while node.tree.applied.index < commit {
            let first = node.tree.applied.index + 1;
            let entries = node.raft.entries(first, usize::MAX, &node.disk);
            assert!(!entries.is_empty(), "committed entry {first} is there");
            for entry in entries.iter().take_while(|entry| entry.id.index <= commit) {
                let tree = &mut node.tree;
                tree.apply(entry);
                self.checks.applies(entry, tree, was_witness);
            }
        }
        node.raft.applied(node.tree.applied.index);
    }
}
