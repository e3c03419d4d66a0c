//! Reads by lease (thesis §6.4.1): a leader that a majority answered a while ago still leads, for
//! none of those votes for another before an election timeout has passed since it heard the
//! leader. So it may answer reads alone until then, by its own clock. Off by default: it trusts
//! that no two clocks differ in rate by more than the bound that [`Lease`] was made with.
//!
//! Time here is the driver's, in nanoseconds, not ticks: a process that is stopped misses ticks.
//! And it may be stopped between a look at the clock and the read, so the driver looks again after
//! the read, with [`Raft::lease_holds`], before it answers.
//!
//! - A lease begins when the heartbeats *left* that a majority answered.
//! - A replica votes for nobody for an election timeout after it heard a leader of any term, or
//!   started: then it has forgotten whom it heard.
//! - Who is handed leadership is voted for at once, so a leader that told another to campaign has
//!   no lease any more in its term.

use super::Tick;
use super::core::{Raft, Role};
use std::collections::VecDeque;

/// How long a majority's word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// In nanoseconds, by the leader's clock.
    pub length: u64,
}

impl Lease {
    /// For followers that wait `election` ticks of `tick` nanoseconds each, when no two clocks
    /// differ in rate by more than `drift` millionths. Two ticks are lost to where in a tick
    /// something happens.
    pub const fn new(election: Tick, tick: u64, drift: u32) -> Lease {
        let window = (election - 2) * tick;
        Lease { length: window / 1_000_000 * (1_000_000 - drift as u64) }
    }
}

/// A leader's lease.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseState {
    /// The driver's time at the last look.
    pub(super) clock: u64,
    /// When each round of heartbeats left that is not answered yet.
    sent: VecDeque<(u64, u64)>,
    /// When the latest round left that was answered.
    since: Option<u64>,
    /// Another was told to campaign in this term.
    revoked: bool,
}

impl LeaseState {
    /// A leader's term begins, or ends.
    pub(super) fn clear(&mut self) {
        self.sent.clear();
        (self.since, self.revoked) = (None, false);
    }

    pub(super) fn revoke(&mut self) {
        self.revoked = true;
    }

    /// A round of heartbeats leaves.
    pub(super) fn sent(&mut self, round: u64) {
        self.sent.push_back((round, self.clock));
    }

    /// A majority has answered `round`.
    pub(super) fn answered(&mut self, round: u64) {
        while let Some((_, left)) = self.sent.pop_front_if(|(sent, _)| *sent <= round) {
            self.since = Some(left);
        }
    }
}

impl Raft {
    /// What the driver's clock shows, in nanoseconds since whenever it likes. It never goes back.
    pub fn set_time(&mut self, nanos: u64) {
        self.lease.clock = nanos.max(self.lease.clock);
    }

    /// Whether this leader may have answered alone what it read before `nanos`.
    pub fn lease_holds(&self, nanos: u64) -> bool {
        let leads =
            self.role == Role::Leader && self.reads.committed_own_term && !self.lease.revoked;
        let (Some(Lease { length }), Some(since)) = (self.config.lease, self.lease.since) else {
            return false;
        };
        leads && nanos < since + length
    }
}
