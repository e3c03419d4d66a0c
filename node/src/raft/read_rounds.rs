//! Pending reads and their rounds of heartbeats; see [`super::read`] for the protocol.

use super::{Index, ReplicaId, Tick};
use bedstone_engine::LogId;
use thin_vec::ThinVec;

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The read may be served once the index is applied.
    At(Index),
    /// The read may be served once the index is applied, if [`super::Raft::lease_holds`] after
    /// that.
    ByLease(Index),
    /// The read can no longer be served here.
    Failed,
}

/// Reads that wait until a majority answers a round of heartbeats.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    /// The commit index when the round began.
    pub(super) index: Index,
    pub(super) tokens: Vec<u64>,
}

/// A query of a follower to its leader.
#[derive(Clone, Debug)]
pub(super) struct LeaderRequest {
    pub(super) query_id: u64,
    pub(super) since: Tick,
    /// The reads that the query serves.
    pub(super) tokens: Vec<u64>,
}

/// Pending reads. Invariants:
///
/// - Tokens are created here and never repeat in this replica's life.
/// - Until its outcome is handed out, a token is in exactly one place: `fresh`, `under_way`,
///   `asked` or `settled`.
/// - At most one round and one query are under way. `under_way` is set on a leader only, and
///   `asked` on a follower only.
/// - `round` never decreases.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    pub(super) next_token: u64,
    /// The number of the latest round.
    pub(super) round: u64,
    /// Reads that wait for the next round or query.
    pub(super) fresh: Vec<u64>,
    /// The round under way. Reads that arrive meanwhile share the next round. Under load one round
    /// serves many reads, and a lone read never waits for another round.
    pub(super) under_way: Option<Box<Round>>,
    /// On a follower: the number of its last query, and the query under way.
    pub(super) query_id: u64,
    pub(super) asked: Option<Box<LeaderRequest>>,
    /// The last entry that a leader reported as committed in its answer to a query. The entries up
    /// to it may arrive after the answer.
    pub(super) committed: LogId,
    /// On a leader: for each query of a follower, its token, the follower and the query's number.
    pub(super) follower_requests: ThinVec<(u64, ReplicaId, u64)>,
    /// Outcomes by token, not handed out yet.
    pub(super) settled: Vec<(u64, Read)>,
    /// On a leader: an entry of its term is committed.
    pub(super) committed_own_term: bool,
}

impl Reads {
    /// The reads of a new replica, whose first query has the number after `query_id`.
    pub(super) fn new(query_id: u64) -> Self {
        Self { query_id, ..Self::default() }
    }

    pub(super) fn begin_term(&mut self) {
        self.committed_own_term = false;
    }

    pub(super) fn committed_in_term(&mut self) {
        self.committed_own_term = true;
    }

    /// Releases the spare capacity, which is not needed while no read is pending.
    pub(super) fn shrink_to_fit(&mut self) {
        self.fresh.shrink_to_fit();
        self.follower_requests.shrink_to_fit();
        self.settled.shrink_to_fit();
    }

    /// Whether no read is pending.
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

    /// Fails the reads of the query under way, if the query left before `late`.
    pub(super) fn fail_late_request(&mut self, late: Tick) {
        if let Some(asked) = self.asked.take_if(|asked| asked.since < late) {
            self.settle(asked.tokens, Read::Failed);
        }
    }

    /// The leader answered query `query_id`.
    pub(super) fn on_answer(&mut self, query_id: u64, at: LogId) {
        self.committed = at;
        if let Some(asked) = self.asked.take_if(|asked| asked.query_id == query_id) {
            self.settle(asked.tokens, Read::At(at.index));
        }
    }

    /// Removes the settled queries of followers and returns those to answer. Failed queries get no
    /// answer.
    pub(super) fn take_follower_requests(&mut self) -> Vec<(ReplicaId, u64, Index)> {
        let mut answers = Vec::new();
        let follower_requests = &mut self.follower_requests;
        self.settled.retain(|&(token, read)| {
            let theirs = follower_requests.extract_if(.., |&mut (of, ..)| of == token).next();
            if let (Some((_, peer, query_id)), Read::At(index)) = (theirs, read) {
                answers.push((peer, query_id, index));
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
