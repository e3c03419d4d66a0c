//! The mix of faults and requests of a seed.

use crate::rng::Rng;
use bedstone_node::raft::ReplicaId;

/// The fault rates of a seed. Each seed draws its own rates, because some bugs show only where
/// another event is rare (Groce et al., "Swarm testing", ISSTA 2012). A rate n means once in n
/// times, unless the field states otherwise.
pub(super) struct Mix {
    pub(super) loss: u64,
    pub(super) doubling: u64,
    /// The longest delay of a message, in events.
    pub(super) delay: u64,
    pub(super) fault: u64,
    pub(super) crash: u64,
    pub(super) change: u64,
    /// A configuration change is explicit.
    pub(super) explicit: u64,
    /// A step of a change removes the vote of a replica.
    pub(super) shrink: u64,
    pub(super) release: u64,
    /// A disk is lost, or records of its log are lost.
    pub(super) loses: u64,
    /// The effects of a replica are collected. A rarer collection lets more inputs come between.
    pub(super) gather: u64,
    /// A replica receives a proposal during the faults, or a read.
    pub(super) proposes: u64,
    pub(super) reads: u64,
    /// See [`quiesce_after`](bedstone_node::raft::Config::quiesce_after).
    pub(super) quiesce_after: Option<u64>,
    /// Disks are replaced by older copies of themselves.
    pub(super) copies: bool,
    /// Trees are damaged.
    pub(super) damages: bool,
    /// Disks may lie, and a replica treats its disk as suspect after a crash.
    pub(super) lies: bool,
    /// Leaders answer reads by a lease. In this case no clock ticks faster than the lease expects.
    pub(super) leases: bool,
    /// The replicas with the slow disk, the slow tree and the slow clock.
    pub(super) slow_disk: ReplicaId,
    pub(super) slow_tree: ReplicaId,
    pub(super) slow_clock: ReplicaId,
}

impl Mix {
    pub(super) fn new(rng: &mut Rng, nodes: u64) -> Mix {
        let mut of = |choices: &[u64]| choices[rng.below(choices.len() as u64) as usize];
        Mix {
            loss: of(&[4, 10, 10, 30, 1000]),
            doubling: of(&[5, 20, 1000]),
            delay: of(&[3, 12, 12, 40]),
            fault: of(&[1, 1, 2, 4]),
            crash: of(&[2, 4, 8, 8, 40]),
            change: of(&[1, 1, 2, 8, 60]),
            explicit: of(&[1, 3, 20]),
            shrink: of(&[1, 1, 2, 4]),
            release: of(&[3, 8, 8, 60]),
            loses: of(&[1, 4, 1000]),
            gather: of(&[1, 1, 3, 8]),
            proposes: of(&[1, 1, 1, 100]),
            reads: of(&[1, 1, 1, 1000]),
            leases: of(&[0, 0, 1]) == 1,
            copies: false,
            lies: false,
            damages: false,
            slow_tree: ReplicaId(0),
            quiesce_after: [None, Some(1), Some(4)][of(&[0, 1, 2]) as usize],
            // A number above `nodes` names no replica.
            slow_disk: ReplicaId(rng.below(2 * nodes) + 1),
            slow_clock: ReplicaId(rng.below(2 * nodes) + 1),
        }
    }
}
