//! Reads on their way through rounds of heartbeats; see [`super::read`] for the protocol.

use super::{Index, PeerId, Tick};
use bedstone_engine::LogId;

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// It may be served once the index is applied.
    At(Index),
    /// It may be served once the index is applied, if [`super::Raft::lease_holds`] after that.
    ByLease(Index),
    /// It can no longer be served here.
    Failed,
}

/// Reads that wait for a majority's answer to a round of heartbeats.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    /// What was committed when it began.
    pub(super) index: Index,
    pub(super) tokens: Vec<u64>,
}

/// What a follower asked its leader.
#[derive(Clone, Debug)]
pub(super) struct LeaderRequest {
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
    /// The round under way. Reads that come meanwhile share the next: under load one round serves
    /// many reads, and a lone read never waits.
    pub(super) under_way: Option<Box<Round>>,
    /// Of a follower: its last question, and the one that is under way.
    pub(super) question: u64,
    pub(super) asked: Option<Box<LeaderRequest>>,
    /// What the leader said last to be committed: entries up to it may come after its word.
    pub(super) committed: LogId,
    /// Of a leader: the tokens that stand for followers' questions.
    pub(super) follower_requests: Vec<(u64, PeerId, u64)>,
    /// By token, not handed out yet.
    pub(super) settled: Vec<(u64, Read)>,
    /// The leader has committed an entry of its term.
    pub(super) committed_own_term: bool,
}

impl Reads {
    /// A replica's, whose first question to a leader has the number after this one.
    pub(super) fn new(question: u64) -> Self {
        Self { question, ..Self::default() }
    }

    pub(super) fn begin_term(&mut self) {
        self.committed_own_term = false;
    }

    pub(super) fn committed_in_term(&mut self) {
        self.committed_own_term = true;
    }

    /// Nothing is on its way: room for more need not be kept.
    pub(super) fn shrink_to_fit(&mut self) {
        self.fresh.shrink_to_fit();
        self.follower_requests.shrink_to_fit();
        self.settled.shrink_to_fit();
    }

    /// Whether no read is on its way.
    pub(super) fn is_idle(&self) -> bool {
        let asked = self.fresh.is_empty() && self.under_way.is_none() && self.asked.is_none();
        asked && self.follower_requests.is_empty() && self.settled.is_empty()
    }

    fn settle(&mut self, tokens: Vec<u64>, read: Read) {
        self.settled.extend(tokens.into_iter().map(|token| (token, read)));
    }

    pub(super) fn fail_all(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        self.settle(fresh, Read::Failed);
        if let Some(asked) = self.asked.take() {
            self.settle(asked.tokens, Read::Failed);
        }
        if let Some(round) = self.under_way.take() {
            self.settle(round.tokens, Read::Failed);
        }
    }

    /// The question under way, if it was asked before `late`, gets no answer.
    pub(super) fn fail_asked(&mut self, late: Tick) {
        if let Some(asked) = self.asked.take_if(|asked| asked.since < late) {
            self.settle(asked.tokens, Read::Failed);
        }
    }

    /// The leader answered.
    pub(super) fn told(&mut self, question: u64, at: LogId) {
        self.committed = at;
        if let Some(asked) = self.asked.take_if(|asked| asked.question == question) {
            self.settle(asked.tokens, Read::At(at.index));
        }
    }

    /// Takes the followers' questions that are settled; those that failed are forgotten.
    pub(super) fn take_follower_requests(&mut self) -> Vec<(PeerId, u64, Index)> {
        let mut answers = Vec::new();
        let follower_requests = &mut self.follower_requests;
        self.settled.retain(|&(token, read)| {
            let theirs = follower_requests.extract_if(.., |&mut (of, ..)| of == token).next();
            if let (Some((_, peer, question)), Read::At(index)) = (theirs, read) {
                answers.push((peer, question, index));
            }
            theirs.is_none()
        });
        answers
    }

    /// A majority has answered `round`.
    pub(super) fn answered(&mut self, round: u64) {
        if let Some(done) = self.under_way.take_if(|under_way| under_way.number <= round) {
            self.settle(done.tokens, Read::At(done.index));
        }
    }
}
