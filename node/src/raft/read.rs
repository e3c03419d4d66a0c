//! Linearizable reads without log entries: ReadIndex (thesis §6.4). A read may be served at the
//! commit index of when it came, once a majority has answered a heartbeat sent after that, and once
//! this leader has committed an entry of its own term. One round serves all reads that wait.

use super::core::{Effects, Raft, Refused, Role};
use super::quorum::majority_reached;
use super::{Index, PeerId};
use std::collections::VecDeque;

/// Rounds under way at once. Reads that come meanwhile share the next: under load one round serves
/// many reads, and a lone read never waits.
const ROUNDS_MAX: usize = 1;

/// Reads on their way. Tokens are made here and never again in this replica's life.
#[derive(Debug, Default)]
pub(super) struct Reads {
    next_token: u64,
    /// The latest round begun.
    round: u64,
    /// Came since then.
    fresh: Vec<u64>,
    /// Wait for a round: its number, their index, their tokens.
    rounds: VecDeque<(u64, Index, Vec<u64>)>,
    ready: Vec<(u64, Index)>,
    failed: Vec<u64>,
    /// The leader has committed an entry of its term.
    settled_term: bool,
}

impl Reads {
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    pub(super) fn begin_term(&mut self) {
        self.settled_term = false;
    }

    pub(super) fn committed_in_term(&mut self) {
        self.settled_term = true;
    }

    pub(super) fn fail_all(&mut self) {
        self.failed.append(&mut self.fresh);
        for (_, _, mut tokens) in self.rounds.drain(..) {
            self.failed.append(&mut tokens);
        }
    }

    pub(super) fn settle(&mut self, effects: &mut Effects) {
        effects.reads.append(&mut self.ready);
        effects.failed_reads.append(&mut self.failed);
    }

    /// A majority has answered `round`.
    fn answered(&mut self, round: u64) {
        while self.rounds.front().is_some_and(|&(first, ..)| first <= round) {
            let Some((_, index, tokens)) = self.rounds.pop_front() else { return };
            self.ready.extend(tokens.into_iter().map(|token| (token, index)));
        }
    }
}

impl Raft {
    /// Asks for a point from which a read is linearizable. The token comes back in
    /// [`Effects::reads`] or [`Effects::failed_reads`].
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
        if self.voters.len() == 1 {
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
        progress.round = progress.round.max(round.min(latest));
        let mut rounds: Vec<u64> = self.progress.values().map(|p| p.round).collect();
        rounds.push(latest);
        self.reads.answered(majority_reached(&mut rounds));
    }
}
