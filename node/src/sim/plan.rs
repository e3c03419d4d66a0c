//! The meaning of a seed: how many nodes and clients, how severe the world is, and which faults
//! come when. A plan is data, so that a failing plan can be shrunk and run again.

use super::build::Build;
use super::replicas::member_on;
use super::rng::Rng;
use super::sabotage::Sabotage;
use super::scenario::Kinds;
use crate::raft::conf::MemberChange;
use crate::sim::replicas::HostId;

/// A millisecond of simulated time; all times here are in microseconds.
pub const MILLI: u64 = 1000;
/// A second.
pub const SECOND: u64 = 1_000_000;

/// The target of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A node.
    Node(HostId),
    /// The leader at that time, or the first node if there is no leader.
    Leader,
}

/// A fault. Each has a row in the list of `docs/TESTING.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start again after a while. The disk keeps everything that was written, synced
    /// or not.
    Kill {
        /// The target.
        who: Who,
        /// Time until the node starts again.
        down: u64,
    },
    /// SIGKILL for all nodes at once.
    KillAll {
        /// Time until the nodes start again.
        down: u64,
    },
    /// SIGSTOP, then SIGCONT.
    Pause {
        /// The target.
        who: Who,
        /// The duration.
        time: u64,
    },
    /// A power loss: each unsynced page is kept, lost or torn.
    PowerLoss {
        /// The target.
        who: Who,
        /// Time until the node starts again.
        down: u64,
    },
    /// A power loss of all nodes at once.
    PowerLossAll {
        /// Time until the nodes start again.
        down: u64,
    },
    /// A power loss in the middle of a disk operation.
    PowerLossAtOperation {
        /// The target.
        who: Who,
        /// Disk operations until the power loss.
        operations: u64,
        /// Unused: the time until the node starts again is drawn at the power loss.
        down: u64,
    },
    /// Syncs return EIO until the node is restarted.
    SyncError {
        /// The node with the disk.
        who: Who,
        /// Unused: the time until the node starts again is drawn when the node stops.
        down: u64,
    },
    /// The disk has little room left, for a while.
    DiskFull {
        /// The node with the disk.
        who: Who,
        /// Bytes that the disk can still write.
        room: u64,
        /// The duration.
        time: u64,
    },
    /// The disk is slow.
    SlowDisk {
        /// The node with the disk.
        who: Who,
        /// The factor by which syncs are slower.
        factor: u64,
        /// The duration.
        time: u64,
    },
    /// The disk does not complete syncs.
    HungDisk {
        /// The node with the disk.
        who: Who,
        /// The duration.
        time: u64,
    },
    /// The nodes are split into two parts.
    Partition {
        /// The bit at a node's id is the part of that node.
        side: u64,
        /// The duration.
        time: u64,
    },
    /// One direction between two nodes is cut.
    OneWay {
        /// The sender of the lost frames.
        from: HostId,
        /// The receiver, to which no frame arrives.
        to: HostId,
        /// The duration.
        time: u64,
    },
    /// Both directions between two nodes are cut. Connections with other nodes stay.
    Link {
        /// One node.
        one: HostId,
        /// The other node.
        other: HostId,
        /// The duration.
        time: u64,
    },
    /// Frames of all nodes are lost and sent again. In a harsh world Raft frames are lost for good
    /// or duplicated.
    Loss {
        /// One frame in so many is lost.
        one_in: u64,
        /// The duration.
        time: u64,
    },
    /// The wall clock of a node jumps.
    ClockJump {
        /// The target.
        who: Who,
        /// The jump, in milliseconds.
        by: i64,
    },
    /// The clocks of a node run at another rate.
    ClockRate {
        /// The target.
        who: Who,
        /// Percent of the correct rate.
        percent: u64,
        /// Unused: the rate holds until all faults end.
        time: u64,
    },
    /// The disk is lost, and an empty one takes its place.
    LostDisk {
        /// The target.
        who: Who,
        /// Time until the node starts again.
        down: u64,
    },
    /// The node is killed. Some bits of its log and its tables are flipped before the node starts
    /// again.
    BitFlip {
        /// The target.
        who: Who,
        /// Time until the node starts again.
        down: u64,
        /// Draws the bits.
        draw: u64,
    },
    /// The node is killed. Before it starts again, some sectors of its log and its tables get their
    /// old content or the content of other sectors.
    WrongSector {
        /// The target.
        who: Who,
        /// Time until the node starts again.
        down: u64,
        /// Draws the sectors.
        draw: u64,
    },
    /// The disk reports a sync without making the data durable; after a while the power goes.
    LyingDisk {
        /// The target.
        who: Who,
        /// Time until the power loss.
        time: u64,
        /// Time until the node starts again.
        down: u64,
    },
    /// The nodes are clogged one after the other: nothing passes to or from a clogged node.
    /// Meanwhile the next node is killed.
    Clogs {
        /// The first clogged node.
        first: HostId,
        /// How long each node is clogged.
        time: u64,
        /// Time until the killed node starts again.
        down: u64,
    },
    /// A configuration change.
    Members {
        /// The steps of the change.
        steps: Vec<MemberChange>,
    },
    /// A leader transfer.
    TransferLeadership {
        /// The new leader.
        to: HostId,
    },
    /// The node is killed. It starts again as a later build, or, if it was one already, as the
    /// present build.
    Upgrade {
        /// The target.
        who: Who,
        /// The later build.
        to: Build,
        /// Time until the node starts again.
        down: u64,
    },
    /// The disk of a node is copied, and later replaced by the copy.
    OlderCopy {
        /// The target.
        who: Who,
        /// Time from the copy until the node stops and its disk is replaced.
        time: u64,
        /// Time until the node starts again.
        down: u64,
    },
    /// A node gets little processor time.
    Starve {
        /// The target.
        who: Who,
        /// The factor by which turns of the node take longer.
        factor: u64,
        /// The duration.
        time: u64,
    },
}

impl Fault {
    /// The row in the list of faults in `docs/TESTING.md`.
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
            Fault::Members { .. } | Fault::TransferLeadership { .. } => 25,
            Fault::Upgrade { .. } => 28,
            Fault::OlderCopy { .. } => 31,
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The number of the fault in the plan of the seed. It names the fault in a run with fewer
    /// faults.
    pub number: usize,
    /// The time of the fault.
    pub at: u64,
    /// The fault.
    pub fault: Fault,
}

/// The plan of a simulated world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of all random streams.
    pub seed: u64,
    /// The kinds of faults that the plan was drawn from.
    pub kinds: Kinds,
    /// Initial voters.
    pub nodes: u64,
    /// Nodes that are no members at first.
    pub spares: u64,
    /// Clients, each with one request at a time.
    pub clients: u64,
    /// Keys of each kind.
    pub keys: u64,
    /// When all faults end, after which the cluster must make progress.
    pub horizon: u64,
    /// Longest pause of a client between two requests.
    pub think: u64,
    /// Longest drawn delay of a frame.
    pub delay: u64,
    /// Longest drawn duration of a sync.
    pub sync: u64,
    /// Single Raft frames may be lost, duplicated and overtaken, which no stream does.
    pub harsh: bool,
    /// Leaders answer reads alone, by a lease. Clock rates then stay within the bound that the
    /// lease assumes.
    pub leases: bool,
    /// Followers answer reads themselves.
    pub follower_reads: bool,
    /// Disks may lie, and the nodes are configured for suspect disks.
    pub suspect_disks: bool,
    /// A planted bug in the nodes, which a check must find.
    pub sabotage: Option<Sabotage>,
    /// The faults, in order of time.
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
        // Each seed has faults of a few kinds only: some bugs show only where other faults are
        // rare.
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
    pub fn all(&self) -> std::ops::RangeInclusive<HostId> {
        1..=self.nodes + self.spares
    }

    /// The command that runs this plan again.
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
        15 => {
            if rng.one_in(2) {
                Fault::ClockJump { who, by: rng.below(1_000_000) as i64 - 500_000 }
            } else {
                Fault::ClockRate { who, percent: of(rng, &[50, 90, 110, 200]), time }
            }
        }
        16 => Fault::Members {
            steps: (0..=rng.below(3))
                .map(|_| {
                    let peer = 1 + rng.below(nodes);
                    match rng.below(5) {
                        0..3 => MemberChange::AddVoter(member_on(peer)),
                        3 => MemberChange::AddLearner(member_on(peer)),
                        _ => MemberChange::Remove(member_on(peer).id),
                    }
                })
                .collect(),
        },
        18 => Fault::LostDisk { who, down },
        19 => Fault::BitFlip { who, down, draw: rng.draw() },
        17 => Fault::TransferLeadership { to: 1 + rng.below(nodes) },
        21 => Fault::WrongSector { who, down, draw: rng.draw() },
        22 => Fault::Clogs { first: from, time: 2 * MILLI + time / 4, down },
        23 => Fault::LyingDisk { who, time, down },
        24 => {
            let to = [Build::LaterProtocol, Build::LaterEntries][(down % 2) as usize];
            Fault::Upgrade { who, to, down }
        }
        25 => Fault::OlderCopy { who, time, down },
        _ => Fault::Starve { who, factor: of(rng, &[20, 500]), time },
    }
}
