//! What a seed means: how many nodes and clients, how bad the world is, and which faults come when.
//! A plan is data, so that a failing one can be made smaller and run again.

use super::rng::Rng;
use super::sabotage::Sabotage;
use super::scenario::Kinds;
use crate::raft::PeerId;
use crate::raft::conf::MemberChange;

/// A millisecond of simulated time; all times here are in microseconds.
pub const MILLI: u64 = 1000;
/// A second.
pub const SECOND: u64 = 1_000_000;

/// Whom a fault meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A node.
    Node(PeerId),
    /// Whoever leads then, or else the first node.
    Leader,
}

/// A fault. Each names its row of the list in `docs/TESTING.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start again after a while: what was written, synced or not, is kept.
    Kill {
        /// Whom.
        who: Who,
        /// Until it starts again.
        down: u64,
    },
    /// SIGKILL for all at once.
    KillAll {
        /// Until they start again.
        down: u64,
    },
    /// SIGSTOP, then SIGCONT.
    Pause {
        /// Whom.
        who: Who,
        /// For how long.
        time: u64,
    },
    /// The power goes: each unsynced page is kept, lost or torn.
    PowerLoss {
        /// Whose.
        who: Who,
        /// Until it starts again.
        down: u64,
    },
    /// The power of all goes at once.
    PowerLossAll {
        /// Until they start again.
        down: u64,
    },
    /// The power goes in the middle of whatever the disk does then.
    PowerLossAtOperation {
        /// Whose.
        who: Who,
        /// After so many disk operations.
        operations: u64,
        /// Until it starts again.
        down: u64,
    },
    /// From now on syncs return EIO, until the node was started again.
    SyncError {
        /// Whose disk.
        who: Who,
        /// Until it starts again.
        down: u64,
    },
    /// The disk has only so much room, for a while.
    DiskFull {
        /// Whose disk.
        who: Who,
        /// Bytes that can still be written.
        room: u64,
        /// For how long.
        time: u64,
    },
    /// The disk is slow.
    SlowDisk {
        /// Whose disk.
        who: Who,
        /// So many times.
        factor: u64,
        /// For how long.
        time: u64,
    },
    /// The disk does not answer.
    HungDisk {
        /// Whose disk.
        who: Who,
        /// For how long.
        time: u64,
    },
    /// The nodes fall into two parts.
    Partition {
        /// Bit of a node: its part.
        side: u64,
        /// For how long.
        time: u64,
    },
    /// One direction between two nodes is cut.
    OneWay {
        /// From here nothing arrives
        from: PeerId,
        /// there.
        to: PeerId,
        /// For how long.
        time: u64,
    },
    /// Both directions between two nodes are cut, whatever they have with others.
    Link {
        /// One.
        one: PeerId,
        /// The other.
        other: PeerId,
        /// For how long.
        time: u64,
    },
    /// Frames are lost and sent again, for all; unreliable frames are lost for good, or doubled.
    Loss {
        /// One in so many.
        one_in: u64,
        /// For how long.
        time: u64,
    },
    /// The calendar of a node jumps.
    ClockJump {
        /// Whose.
        who: Who,
        /// Milliseconds.
        by: i64,
    },
    /// A node's clocks run at another pace.
    ClockRate {
        /// Whose.
        who: Who,
        /// Percent of the right pace.
        percent: u64,
        /// For how long.
        time: u64,
    },
    /// The disk is lost, and an empty one takes its place.
    LostDisk {
        /// Whose.
        who: Who,
        /// Until the node starts again.
        down: u64,
    },
    /// The node is killed, and some bits of its log and its tables are not what was written when
    /// it starts again.
    BitFlip {
        /// Whose.
        who: Who,
        /// Until the node starts again.
        down: u64,
        /// Draws the bit.
        draw: u64,
    },
    /// The node is killed, and some sectors of its log and its tables are old ones or others' when
    /// it starts again.
    WrongSector {
        /// Whose.
        who: Who,
        /// Until the node starts again.
        down: u64,
        /// Draws the sector.
        draw: u64,
    },
    /// The disk says that it synced, and did not; after a while the power goes.
    LyingDisk {
        /// Whose.
        who: Who,
        /// Until the power goes.
        time: u64,
        /// Until the node starts again.
        down: u64,
    },
    /// One node after the other is clogged for a while: nothing passes to it or from it. Meanwhile
    /// the next one is killed.
    Clogs {
        /// Who comes first.
        first: PeerId,
        /// For how long each.
        time: u64,
        /// Until who was killed starts again.
        down: u64,
    },
    /// The members change.
    Members {
        /// Each member's part.
        steps: Vec<MemberChange>,
    },
    /// Leadership is handed over.
    HandOver {
        /// To whom.
        to: PeerId,
    },
    /// The node is killed, and starts again as a build of the next version, or as one of this
    /// version if it was of that. The two refuse each other's connections.
    Upgrade {
        /// Whose build.
        who: Who,
        /// Until it starts again.
        down: u64,
    },
    /// A node gets little of its processor.
    Starve {
        /// Who.
        who: Who,
        /// Its turns take so many times as long.
        factor: u64,
        /// For how long.
        time: u64,
    },
}

impl Fault {
    /// The row in the list of faults.
    pub fn row(&self) -> usize {
        match self {
            Fault::Kill { who: Who::Node(_), .. } => 1,
            Fault::Kill { who: Who::Leader, .. } => 2,
            Fault::KillAll { .. } => 3,
            Fault::Pause { .. } => 4,
            Fault::PowerLoss { .. } => 5,
            Fault::PowerLossAll { .. } => 6,
            Fault::PowerLossAtOperation { .. } => 26,
            Fault::SyncError { .. } => 8,
            Fault::BitFlip { .. } => 10,
            Fault::WrongSector { .. } => 12,
            Fault::LyingDisk { .. } => 13,
            Fault::LostDisk { .. } => 16,
            Fault::DiskFull { .. } => 14,
            Fault::SlowDisk { .. } | Fault::HungDisk { .. } => 15,
            Fault::Partition { .. } => 17,
            Fault::OneWay { .. } | Fault::Link { .. } => 18,
            Fault::Loss { .. } => 19,
            Fault::Clogs { .. } => 20,
            Fault::ClockJump { .. } | Fault::ClockRate { .. } => 21,
            Fault::Starve { .. } => 22,
            Fault::Members { .. } | Fault::HandOver { .. } => 25,
            Fault::Upgrade { .. } => 28,
        }
    }
}

/// A fault and when it comes.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its number in the plan of the seed, to name it when it is run without others.
    pub number: usize,
    /// When.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

/// A world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all its random streams begin.
    pub seed: u64,
    /// From which kinds of faults it drew.
    pub kinds: Kinds,
    /// Nodes that vote at first.
    pub nodes: u64,
    /// Nodes that are there besides.
    pub spares: u64,
    /// Clients, each with one request at a time.
    pub clients: u64,
    /// Keys of each kind.
    pub keys: u64,
    /// How long it is bad; then all faults end, and there must be progress.
    pub horizon: u64,
    /// The longest that a client thinks between two requests.
    pub think: u64,
    /// The longest that a frame travels.
    pub delay: u64,
    /// The longest that a sync takes.
    pub sync: u64,
    /// Single Raft frames may be lost, doubled and overtaken, as no stream does it.
    pub harsh: bool,
    /// Leaders answer reads alone, by a lease; then clocks keep to the bound that it trusts in.
    pub leases: bool,
    /// Followers answer reads themselves.
    pub follower_reads: bool,
    /// Disks may lie, and the nodes know it.
    pub suspect_disks: bool,
    /// What is wrong with the nodes, to see that it is found.
    pub sabotage: Option<Sabotage>,
    /// What comes when, in order.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        Plan::of_kinds(seed, Kinds::ALL)
    }

    /// The plan of a seed that draws from these kinds of faults.
    pub fn of_kinds(seed: u64, of_kinds: Kinds) -> Plan {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let nodes = of(rng, &[3, 3, 3, 5, 5, 1]);
        let spares = of(rng, &[0, 0, 1, 2]);
        let horizon = (4 + rng.below(20)) * SECOND;
        // Each seed has faults of a few kinds only: some bugs show where something else is rare.
        let kinds: Vec<u64> = match &*of_kinds.numbers() {
            [] => Vec::new(),
            there => (0..=rng.below(5)).map(|_| of(rng, there)).collect(),
        };
        let count = if kinds.is_empty() { 0 } else { of(rng, &[0, 2, 5, 10, 20]) };
        let mut times: Vec<u64> = (0..count).map(|_| rng.below(horizon)).collect();
        times.sort_unstable();
        let faults: Vec<Planned> = times
            .into_iter()
            .enumerate()
            .map(|(number, at)| {
                let kind = kinds[rng.below(kinds.len() as u64) as usize];
                Planned { number, at, fault: draw(rng, kind, nodes, spares) }
            })
            .collect();
        let mut plan = Plan {
            seed,
            kinds: of_kinds,
            nodes,
            spares,
            clients: 1 + rng.below(6),
            keys: 1 + rng.below(4),
            horizon,
            think: of(rng, &[2, 20, 100]) * MILLI,
            delay: of(rng, &[1, 5, 50]) * MILLI,
            sync: of(rng, &[1, 3, 30]) * MILLI,
            harsh: rng.one_in(2),
            leases: rng.one_in(2),
            follower_reads: rng.one_in(2),
            suspect_disks: false,
            sabotage: None,
            faults: Vec::new(),
        };
        let lies = |planned: &Planned| matches!(planned.fault, Fault::LyingDisk { .. });
        plan.suspect_disks = faults.iter().any(lies);
        plan.faults = faults;
        if plan.leases {
            plan.keep_clocks_close();
        }
        plan
    }
}

impl Plan {
    fn keep_clocks_close(&mut self) {
        for planned in &mut self.faults {
            if let Fault::ClockRate { percent, .. } = &mut planned.fault {
                *percent = (*percent).clamp(90, 110);
            }
        }
    }

    /// All nodes.
    pub fn all(&self) -> std::ops::RangeInclusive<PeerId> {
        1..=self.nodes + self.spares
    }

    /// The command that runs it again.
    pub fn command(&self) -> String {
        let seed = Plan::of_kinds(self.seed, self.kinds);
        let mut command = format!("bedstone simulate --seed {}", self.seed);
        match self.kinds {
            Kinds::ALL => {}
            Kinds::First(count) => command += &format!(" --kinds {count}"),
            Kinds::Of(scenario) => command += &format!(" --scenario {}", scenario.name()),
        }
        if self.faults.len() < seed.faults.len() {
            let numbers = self.faults.iter().map(|planned| planned.number.to_string());
            let numbers: Vec<String> = numbers.collect();
            command += &format!(" --faults {}", numbers.join(","));
        }
        let sizes = [
            ("nodes", self.nodes, seed.nodes),
            ("spares", self.spares, seed.spares),
            ("clients", self.clients, seed.clients),
            ("keys", self.keys, seed.keys),
            ("horizon", self.horizon, seed.horizon),
        ];
        for (name, size, _) in sizes.iter().filter(|(_, size, of_seed)| size != of_seed) {
            command += &format!(" --{name} {size}");
        }
        command
    }
}

fn of(rng: &mut Rng, choices: &[u64]) -> u64 {
    choices[rng.below(choices.len() as u64) as usize]
}

fn draw(rng: &mut Rng, kind: u64, voters: u64, spares: u64) -> Fault {
    let nodes = voters + spares;
    let who = if rng.one_in(3) { Who::Leader } else { Who::Node(1 + rng.below(nodes)) };
    let (from, to) = (1 + rng.below(nodes), 1 + rng.below(nodes));
    let time = of(rng, &[100, 700, 2000, 7000]) * MILLI + rng.below(SECOND);
    let down = of(rng, &[20, 300, 3000]) * MILLI + rng.below(300 * MILLI);
    match kind {
        0 => Fault::Kill { who: Who::Node(from), down },
        1 => Fault::Kill { who: Who::Leader, down },
        2 => Fault::KillAll { down },
        3 => Fault::Pause { who, time },
        4 => Fault::PowerLoss { who, down },
        5 => Fault::PowerLossAll { down },
        6 => Fault::PowerLossAtOperation { who, operations: rng.below(300), down },
        7 => Fault::SyncError { who, down },
        8 => Fault::DiskFull { who, room: rng.below(1 << 20), time },
        9 => Fault::SlowDisk { who, factor: of(rng, &[10, 100]), time },
        10 => Fault::HungDisk { who, time },
        11 => Fault::Partition { side: rng.draw(), time },
        12 => Fault::OneWay { from, to, time },
        13 => Fault::Link { one: from, other: to, time },
        14 => Fault::Loss { one_in: of(rng, &[3, 3, 10]), time },
        15 => match rng.one_in(2) {
            true => Fault::ClockJump { who, by: rng.below(1_000_000) as i64 - 500_000 },
            false => Fault::ClockRate { who, percent: of(rng, &[50, 90, 110, 200]), time },
        },
        16 => Fault::Members {
            steps: (0..=rng.below(3))
                .map(|_| {
                    let peer = 1 + rng.below(nodes);
                    match rng.below(5) {
                        0..3 => MemberChange::AddVoter(peer),
                        3 => MemberChange::AddLearner(peer),
                        _ => MemberChange::Remove(peer),
                    }
                })
                .collect(),
        },
        18 => Fault::LostDisk { who, down },
        19 => Fault::BitFlip { who, down, draw: rng.draw() },
        17 => Fault::HandOver { to: 1 + rng.below(nodes) },
        21 => Fault::WrongSector { who, down, draw: rng.draw() },
        22 => Fault::Clogs { first: from, time: 2 * MILLI + time / 4, down },
        23 => Fault::LyingDisk { who, time, down },
        24 => Fault::Upgrade { who, down },
        _ => Fault::Starve { who, factor: of(rng, &[20, 500]), time },
    }
}
