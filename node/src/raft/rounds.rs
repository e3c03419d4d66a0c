//! Reads on their way through rounds of heartbeats; see [`super::read`] for the protocol.

use super::Index;
use std::collections::VecDeque;

/// Rounds under way at once. Reads that come meanwhile share the next: under load one round serves
/// many reads, and a lone read never waits.
pub(super) const ROUNDS_MAX: usize = 1;

/// Reads on their way. Tokens are made here and never again in this replica's life.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    pub(super) next_token: u64,
    /// The latest round begun.
    pub(super) round: u64,
    /// Came since then.
    pub(super) fresh: Vec<u64>,
    /// Wait for a round: its number, their index, their tokens.
    pub(super) rounds: VecDeque<(u64, Index, Vec<u64>)>,
    ready: Vec<(u64, Index)>,
    failed: Vec<u64>,
    /// The leader has committed an entry of its term.
    pub(super) settled_term: bool,
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

    /// Takes the reads that may be served, with their indexes, and those that failed.
    pub(super) fn take_settled(&mut self) -> (Vec<(u64, Index)>, Vec<u64>) {
        (std::mem::take(&mut self.ready), std::mem::take(&mut self.failed))
    }

    /// A majority has answered `round`.
    pub(super) fn answered(&mut self, round: u64) {
        while self.rounds.front().is_some_and(|&(first, ..)| first <= round) {
            let Some((_, index, tokens)) = self.rounds.pop_front() else { return };
            self.ready.extend(tokens.into_iter().map(|token| (token, index)));
        }
    }
}
