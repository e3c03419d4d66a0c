//! Linearizable reads without log entries: ReadIndex (thesis §6.4). A read may be served at the
//! commit index of when it came, once a majority has answered a heartbeat sent after that, and once
//! this leader has committed an entry of its own term. One round serves all reads that wait.

use super::PeerId;
use super::core::{Raft, Refused, Role};
use super::rounds::ROUNDS_MAX;

impl Raft {
    /// Asks for a point from which a read is linearizable. The token comes back in
    /// [`super::Effects::reads`] or [`super::Effects::failed_reads`].
    pub fn read(&mut self) -> Result<u64, Refused> {
        if self.role != Role::Leader {
            return Err(Refused::NotLeader(self.leader));
        }
        self.reads.next_token += 1;
        self.reads.fresh.push(self.reads.next_token);
        Ok(self.reads.next_token)
    }

    /// Begins a round for the reads that came since the last.
    pub(super) fn start_read_round(&mut self) {
        let reads = &mut self.reads;
        let wanted = self.role == Role::Leader && !reads.fresh.is_empty() && reads.settled_term;
        if !wanted || reads.rounds.len() >= ROUNDS_MAX {
            return;
        }
        reads.round += 1;
        let tokens = std::mem::take(&mut reads.fresh);
        reads.rounds.push_back((reads.round, self.hard.commit, tokens));
        if self.conf.is_alone(self.id) {
            let round = reads.round;
            return reads.answered(round);
        }
        self.broadcast_heartbeat();
    }

    pub(super) fn on_heartbeat_reply(&mut self, peer: PeerId, round: u64) {
        let now = self.now;
        let latest = self.reads.round;
        let Some(progress) = self.progress.get_mut(&peer) else { return };
        progress.heard = now;
        // A round that was never begun proves nothing.
        if round <= latest {
            progress.round = progress.round.max(round);
        }
        self.settle_reads();
    }

    /// Serves the reads whose round a majority has answered. The members may have changed since it
    /// began: who is left may have answered already, or be this replica alone.
    pub(super) fn settle_reads(&mut self) {
        let latest = self.reads.round;
        let round_of = |peer| match self.progress.get(&peer) {
            Some(progress) => progress.round,
            None if peer == self.id => latest,
            None => 0,
        };
        let round = self.conf.reached(round_of);
        self.reads.answered(round);
    }
}
