//! Reads by lease (thesis §6.4.1). A leader that a majority answered recently still leads: no
//! replica of that majority votes for another candidate before an election timeout has passed since
//! it heard the leader. Before that timeout has passed, the leader may answer reads without a round
//! of heartbeats, by its own clock. Leases are off by default, because they require that no two
//! clocks differ in rate by more than the bound that [`Lease`] was made with.
//!
//! The driver supplies the time in nanoseconds. The time is not in ticks, because a stopped process
//! loses ticks. The process may also stop between a look at the clock and the read. The driver
//! therefore looks at the clock again after the read, with [`Raft::lease_holds`], before it
//! answers.
//!
//! - A lease begins when the heartbeats *left* that a majority answered.
//! - A replica grants no vote for an election timeout after it heard a leader of any term. A
//!   replica also grants no vote for an election timeout after its start, because it has forgotten
//!   which leader it heard.
//! - The follower that receives leadership in a transfer gets its votes at once. A leader that
//!   requested a follower to campaign therefore has no lease for the remaining time of its term.

use super::Tick;
use std::collections::VecDeque;

/// The time for which the answers of a majority prove leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// In nanoseconds, by the leader's clock.
    pub length: u64,
}

impl Lease {
    /// A lease for followers that wait `election` ticks of `tick` nanoseconds each, when no two
    /// clocks differ in rate by more than `drift` millionths. Two ticks are subtracted, because the
    /// place of an event within a tick is unknown.
    pub const fn new(election: Tick, tick: u64, drift: u32) -> Lease {
        let window = (election - 2) * tick;
        Lease { length: window / 1_000_000 * (1_000_000 - drift as u64) }
    }
}

/// A leader's lease.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseState {
    /// The latest time that the driver supplied.
    clock: u64,
    /// The rounds that carry the lease; `None` without leases. Most replicas of a node are
    /// quiescent, and pay for this box alone.
    rounds: Option<Box<LeaseRounds>>,
}

/// The rounds of heartbeats of a leader with leases.
#[derive(Clone, Debug, Default)]
struct LeaseRounds {
    /// The number and the departure time of each round of heartbeats that no majority has answered
    /// yet.
    sent: VecDeque<(u64, u64)>,
    /// The departure time of the latest round that a majority has answered.
    since: Option<u64>,
    /// A follower was requested to campaign in this term.
    revoked: bool,
}

impl LeaseState {
    /// The state of a new replica.
    pub(super) fn new(config: Option<Lease>) -> LeaseState {
        LeaseState { clock: 0, rounds: config.map(|_| Box::default()) }
    }

    /// The latest time that the driver supplied, in nanoseconds.
    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    /// The driver supplies the time. The clock never goes back.
    pub(super) fn set_clock(&mut self, nanos: u64) {
        self.clock = nanos.max(self.clock);
    }

    /// A leader's term begins or ends.
    pub(super) fn clear(&mut self) {
        if let Some(rounds) = &mut self.rounds {
            **rounds = LeaseRounds::default();
        }
    }

    pub(super) fn revoke(&mut self) {
        if let Some(rounds) = &mut self.rounds {
            rounds.revoked = true;
        }
    }

    /// A round of heartbeats leaves.
    pub(super) fn sent(&mut self, round: u64) {
        if let Some(rounds) = &mut self.rounds {
            rounds.sent.push_back((round, self.clock));
        }
    }

    /// A majority has answered `round`.
    pub(super) fn answered(&mut self, round: u64) {
        let Some(rounds) = &mut self.rounds else { return };
        while let Some((_, left)) = rounds.sent.pop_front_if(|(sent, _)| *sent <= round) {
            rounds.since = Some(left);
        }
    }

    /// The departure time of the latest round that a majority has answered, unless the lease was
    /// revoked.
    pub(super) fn since(&self) -> Option<u64> {
        let rounds = self.rounds.as_ref().filter(|rounds| !rounds.revoked)?;
        rounds.since
    }
}
