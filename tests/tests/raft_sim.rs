//! Raft replicas over a network that loses, doubles and delays, with partitions and crashes that
//! lose what was not yet durable, all from a seed. Checked after every event: one leader a term,
//! one entry at each committed index, and no read from before a commit that it should have seen.

use bedstone_engine::LogId;
use bedstone_engine::wal::{Entry, HardState};
use bedstone_node::raft::{Boot, Config, LogReader, Message, PeerId, Raft, Write};
use bedstone_tests::rng::Rng;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};

const EVENTS: u64 = 3000;
const QUIET_EVENTS: u64 = 4000;

/// What a replica's disk has.
#[derive(Clone, Default)]
struct Disk {
    hard: HardState,
    base: LogId,
    entries: Vec<Entry>,
}

impl Disk {
    fn take(&mut self, write: Write) {
        if let Some(first) = write.entries.first() {
            self.entries.truncate((first.id.index - self.base.index - 1) as usize);
        }
        self.entries.extend(write.entries);
        self.hard = write.hard;
    }

    fn runs(&self) -> Vec<LogId> {
        let mut runs: Vec<LogId> = Vec::new();
        for entry in &self.entries {
            if runs.last().is_none_or(|run| run.term != entry.id.term) {
                runs.push(entry.id);
            }
        }
        runs
    }
}

impl LogReader for Disk {
    fn entries(&self, first: u64, end: u64, _: usize) -> Vec<Entry> {
        if first <= self.base.index {
            return Vec::new();
        }
        let skip = (first - self.base.index - 1) as usize;
        let count = end.saturating_sub(first) as usize;
        self.entries.iter().skip(skip).take(count).cloned().collect()
    }
}

struct Node {
    raft: Raft,
    disk: Disk,
    /// Handed to the disk, not yet durable.
    writing: VecDeque<Write>,
    applied: u64,
}

struct Sim {
    rng: Rng,
    now: u64,
    nodes: Vec<Node>,
    /// Delivery time, sender, receiver, message.
    network: Vec<(u64, PeerId, PeerId, Message)>,
    /// Links that are cut, one way.
    cut: Vec<(PeerId, PeerId)>,
    leaders: BTreeMap<u64, PeerId>,
    committed: BTreeMap<u64, Entry>,
    /// Reads under way: the commit index that each must see.
    reads: HashMap<(PeerId, u64), u64>,
    reads_done: u64,
    proposed: u64,
    faults: bool,
}

fn boot(id: PeerId, voters: u64, disk: &Disk, seed: u64) -> Raft {
    let boot = Boot {
        id,
        voters: (1..=voters).collect(),
        hard: disk.hard,
        applied: disk.base,
        base: disk.base,
        runs: disk.runs(),
        last: disk.base.index + disk.entries.len() as u64,
        seed,
    };
    let config = Config {
        append_bytes_max: 64,
        inflight_bytes_max: 200,
        recent_bytes_max: 100,
        ..Config::default()
    };
    Raft::new(config, boot)
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut rng = Rng::new(seed);
        let voters = if rng.one_in(3) { 5 } else { 3 };
        let nodes = (1..=voters).map(|id| Node {
            raft: boot(id, voters, &Disk::default(), seed ^ id),
            disk: Disk::default(),
            writing: VecDeque::new(),
            applied: 0,
        });
        let nodes = nodes.collect();
        Sim {
            rng,
            now: 0,
            nodes,
            network: Vec::new(),
            cut: Vec::new(),
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            reads: HashMap::new(),
            reads_done: 0,
            proposed: 0,
            faults: true,
        }
    }

    fn event(&mut self) {
        self.now += 1;
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        match self.rng.below(20) {
            0..4 => self.nodes[at].raft.tick(),
            4..7 => self.propose(at),
            7..9 => self.read(at),
            9..14 => self.write(at),
            14 if self.faults => self.fault(at),
            _ => {}
        }
        self.deliver();
        for at in 0..self.nodes.len() {
            self.effects(at);
        }
    }

    fn propose(&mut self, at: usize) {
        self.proposed += 1;
        let len = self.rng.below(40) as usize;
        let mut data = self.proposed.to_le_bytes().to_vec();
        data.resize(8 + len, 0);
        let _ = self.nodes[at].raft.propose(Bytes::from(data));
    }

    fn read(&mut self, at: usize) {
        let must_see = self.committed.keys().next_back().copied().unwrap_or(0);
        if let Ok(token) = self.nodes[at].raft.read() {
            self.reads.insert((at as PeerId + 1, token), must_see);
        }
    }

    /// The oldest write of a node becomes durable.
    fn write(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Some(write) = node.writing.pop_front() {
            let seq = write.seq;
            node.disk.take(write);
            node.raft.persisted(seq);
        }
    }

    fn fault(&mut self, at: usize) {
        match self.rng.below(8) {
            0 => self.crash(at),
            1 => self.cut.clear(),
            2 => {
                let other = self.rng.below(self.nodes.len() as u64) + 1;
                self.cut.push((at as PeerId + 1, other));
            }
            3 if self.rng.one_in(3) => {
                for other in 1..=self.nodes.len() as PeerId {
                    self.cut.extend([(at as PeerId + 1, other), (other, at as PeerId + 1)]);
                }
            }
            _ => {}
        }
    }

    /// A node loses its memory, and of its writes under way all but a prefix.
    fn crash(&mut self, at: usize) {
        let id = at as PeerId + 1;
        let kept = self.rng.below(self.nodes[at].writing.len() as u64 + 1);
        for _ in 0..kept {
            if let Some(write) = self.nodes[at].writing.pop_front() {
                self.nodes[at].disk.take(write);
            }
        }
        self.nodes[at].writing.clear();
        let voters = self.nodes.len() as u64;
        let seed = self.rng.draw();
        let node = &mut self.nodes[at];
        node.raft = boot(id, voters, &node.disk, seed);
        node.applied = node.disk.base.index;
        self.network.retain(|(_, from, to, _)| *from != id && *to != id);
        self.reads.retain(|(reader, _), _| *reader != id);
    }

    fn deliver(&mut self) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.network).into_iter().partition(|(time, ..)| *time <= self.now);
        self.network = later;
        for (_, from, to, message) in due {
            if !self.cut.contains(&(from, to)) {
                self.nodes[to as usize - 1].raft.step(Message { peer: from, ..message });
            }
        }
    }

    fn effects(&mut self, at: usize) {
        let id = at as PeerId + 1;
        let node = &mut self.nodes[at];
        let effects = node.raft.effects(&node.disk);
        assert_eq!(effects.contradicted, None, "a leader contradicts a committed entry");
        node.writing.extend(effects.write);
        for message in effects.send {
            let to = message.peer;
            let copies = match self.faults {
                true if self.rng.one_in(10) => 0,
                true if self.rng.one_in(20) => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let delay = 1 + self.rng.below(if self.faults { 12 } else { 3 });
                self.network.push((self.now + delay, id, to, message.clone()));
            }
        }
        for (token, index) in effects.reads {
            if let Some(must_see) = self.reads.remove(&(id, token)) {
                assert!(index >= must_see, "a read at {index} misses {must_see}");
                self.reads_done += 1;
            }
        }
        assert!(effects.snapshots.is_empty(), "nothing was released");
        self.apply(at, effects.commit);
        self.check_leader(at);
    }

    /// Every replica applies the same entries.
    fn apply(&mut self, at: usize, commit: u64) {
        let node = &mut self.nodes[at];
        while node.applied < commit {
            let entries = node.raft.entries(node.applied + 1, usize::MAX, &node.disk);
            assert!(!entries.is_empty(), "a committed entry is there");
            for entry in entries.into_iter().take_while(|entry| entry.id.index <= commit) {
                node.applied = entry.id.index;
                let known = self.committed.entry(entry.id.index).or_insert_with(|| entry.clone());
                assert_eq!(*known, entry, "one entry at each committed index");
            }
        }
        node.raft.applied(node.applied);
    }

    fn check_leader(&mut self, at: usize) {
        let raft = &self.nodes[at].raft;
        if raft.is_leader() {
            let id = at as PeerId + 1;
            let leader = *self.leaders.entry(raft.term()).or_insert(id);
            assert_eq!(leader, id, "one leader in term {}", raft.term());
        }
    }
}

fn run(seed: u64) -> (usize, u64) {
    let mut sim = Sim::new(seed);
    for _ in 0..EVENTS {
        sim.event();
    }
    // Heal everything: within a bound there is one leader, all agree, and a new entry commits.
    sim.faults = false;
    sim.cut.clear();
    let before = sim.committed.len();
    for _ in 0..QUIET_EVENTS {
        sim.event();
    }
    let after = sim.committed.len();
    if after <= before {
        for node in &sim.nodes {
            eprintln!("{:?}, {} writes under way", node.raft.status(), node.writing.len());
        }
    }
    assert!(after > before, "seed {seed}: no progress after all faults ended");
    let leaders = sim.nodes.iter().filter(|node| node.raft.is_leader()).count();
    assert_eq!(leaders, 1, "seed {seed}: one leader at the end");
    (after, sim.reads_done)
}

#[test]
fn replicas_agree_whatever_the_network_does() {
    let seeds = std::env::var("BEDSTONE_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let (mut committed, mut reads) = (0, 0);
    for seed in 0..seeds.unwrap_or(400) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let Ok((entries, done)) = outcome else {
            panic!("seed {seed} fails: see the message above");
        };
        committed += entries;
        reads += done;
    }
    eprintln!("{committed} entries committed, {reads} reads");
    assert!(committed > 10_000 && reads > 1_000, "the simulation does something");
}
