//! Reads on their way through rounds of heartbeats; see [`super::read`] for the protocol.

use super::{Index, PeerId, Tick};
use bedstone_engine::LogId;
use std::collections::{BTreeMap, VecDeque};

/// Rounds under way at once. Reads that come meanwhile share the next: under load one round serves
/// many reads, and a lone read never waits.
pub(super) const ROUNDS_MAX: usize = 1;

/// What a follower asked its leader.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) question: u64,
    pub(super) since: Tick,
    /// The reads that it is for.
    pub(super) tokens: Vec<u64>,
}

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
    /// Of a follower: its last question, and the one that is under way.
    pub(super) question: u64,
    pub(super) asked: Option<Asked>,
    /// What the leader said last to be committed: entries up to it may come after its word.
    pub(super) committed: LogId,
    /// Of a leader: the tokens that stand for followers' questions.
    pub(super) of_followers: BTreeMap<u64, (PeerId, u64)>,
    ready: Vec<(u64, Index)>,
    failed: Vec<u64>,
    /// The leader has committed an entry of its term.
    pub(super) settled_term: bool,
}

impl Reads {
    /// A replica's, whose first question to a leader has the number after this one.
    pub(super) fn new(question: u64) -> Self {
        Self { question, ..Self::default() }
    }

    pub(super) fn begin_term(&mut self) {
        self.settled_term = false;
    }

    pub(super) fn committed_in_term(&mut self) {
        self.settled_term = true;
    }

    /// Nothing is on its way: room for more need not be kept.
    pub(super) fn give_memory_back(&mut self) {
        self.rounds.shrink_to_fit();
        self.fresh.shrink_to_fit();
        self.ready.shrink_to_fit();
        self.failed.shrink_to_fit();
    }

    /// Whether no read is on its way.
    pub(super) fn is_idle(&self) -> bool {
        let asked = self.fresh.is_empty() && self.rounds.is_empty() && self.asked.is_none();
        asked && self.of_followers.is_empty() && self.ready.is_empty() && self.failed.is_empty()
    }

    pub(super) fn fail_all(&mut self) {
        self.failed.append(&mut self.fresh);
        self.failed.extend(self.asked.take().into_iter().flat_map(|asked| asked.tokens));
        for (_, _, mut tokens) in self.rounds.drain(..) {
            self.failed.append(&mut tokens);
        }
    }

    /// The question under way, if it was asked before `late`, gets no answer.
    pub(super) fn fail_asked(&mut self, late: Tick) {
        let asked = self.asked.take_if(|asked| asked.since < late);
        self.failed.extend(asked.into_iter().flat_map(|asked| asked.tokens));
    }

    /// The leader answered.
    pub(super) fn told(&mut self, question: u64, at: LogId) {
        self.committed = at;
        let asked = self.asked.take_if(|asked| asked.question == question);
        let tokens = asked.into_iter().flat_map(|asked| asked.tokens);
        self.ready.extend(tokens.map(|token| (token, at.index)));
    }

    /// Takes the followers' questions that are settled; those that failed are forgotten.
    pub(super) fn take_of_followers(&mut self) -> Vec<(PeerId, u64, Index)> {
        if self.of_followers.is_empty() {
            return Vec::new();
        }
        let of_followers = &mut self.of_followers;
        self.failed.retain(|token| of_followers.remove(token).is_none());
        let settled = self.ready.extract_if(.., |(token, _)| of_followers.contains_key(token));
        let settled: Vec<(u64, Index)> = settled.collect();
        let question = |(token, index)| {
            self.of_followers.remove(&token).map(|(peer, question)| (peer, question, index))
        };
        settled.into_iter().filter_map(question).collect()
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
