//! Pending reads and their rounds of heartbeats; see [`super::read`] for the protocol.

use super::outbox::move_out;
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
struct Round {
    number: u64,
    /// The commit index when the round began.
    index: Index,
    tokens: Vec<u64>,
}

/// A query of a follower to its leader.
#[derive(Clone, Debug)]
struct LeaderRequest {
    query_id: u64,
    since: Tick,
    /// The reads that the query serves.
    tokens: Vec<u64>,
}

/// Pending reads. Invariants:
///
/// - Tokens are created here and never repeat in this replica's life.
/// - Until its outcome is handed out, a token is in exactly one place: `fresh`, `under_way`,
///   `query` or `settled`.
/// - At most one round and one query are under way. `under_way` is set on a leader only, and
///   `query` on a follower only.
/// - `round` never decreases: only [`Reads::begin_round`] and [`Reads::begin_heartbeat_round`] move
///   it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    next_token: u64,
    /// The number of the latest round.
    round: u64,
    /// Reads that wait for the next round or query.
    fresh: Vec<u64>,
    /// The round under way. Reads that arrive meanwhile share the next round. Under load one round
    /// serves many reads, and a lone read never waits for another round.
    under_way: Option<Box<Round>>,
    /// On a follower: the number of its last query, and the query under way.
    query_id: u64,
    query: Option<Box<LeaderRequest>>,
    /// The last entry that a leader reported as committed in its answer to a query. The entries up
    /// to it may arrive after the answer.
    committed: LogId,
    /// On a leader: for each query of a follower, its token, the follower and the query's number.
    follower_requests: ThinVec<(u64, ReplicaId, u64)>,
    /// Outcomes by token, not handed out yet.
    settled: Vec<(u64, Read)>,
    /// On a leader: an entry of its term is committed.
    committed_own_term: bool,
}

impl Reads {
    /// The reads of a new replica, whose first query has the number after `query_id`.
    pub(super) fn new(query_id: u64) -> Self {
        Self { query_id, ..Self::default() }
    }

    /// A leader's term begins.
    pub(super) fn begin_term(&mut self) {
        self.committed_own_term = false;
    }

    /// Whether a leader has committed an entry of its term.
    pub(super) fn committed_own_term(&self) -> bool {
        self.committed_own_term
    }

    /// The number of the latest round.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// The last entry that a leader reported as committed in its answer to a query.
    pub(super) fn committed(&self) -> LogId {
        self.committed
    }

    fn next_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Adds a read, which waits for the next round or query. Returns its token.
    pub(super) fn add(&mut self) -> u64 {
        let token = self.next_token();
        self.fresh.push(token);
        token
    }

    /// Adds a read that is settled already. Returns its token.
    pub(super) fn settle_at_once(&mut self, read: Read) -> u64 {
        let token = self.next_token();
        self.settled.push((token, read));
        token
    }

    /// Adds the reads of a follower that queries this leader.
    pub(super) fn add_follower_request(&mut self, peer: ReplicaId, query_id: u64) {
        let token = self.add();
        self.follower_requests.push((token, peer, query_id));
    }

    /// Whether reads wait for the next round or query.
    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Whether queries of followers wait.
    pub(super) fn has_follower_requests(&self) -> bool {
        !self.follower_requests.is_empty()
    }

    /// On a leader: begins a round for the reads that wait, at the commit index. Returns false if
    /// the round must wait.
    pub(super) fn begin_round(&mut self, commit: Index) -> bool {
        if !self.committed_own_term || self.under_way.is_some() {
            return false;
        }
        let number = self.begin_heartbeat_round();
        let tokens = std::mem::take(&mut self.fresh);
        self.under_way = Some(Round { number, index: commit, tokens }.into());
        true
    }

    /// Begins a round of heartbeats for a lease. Returns its number.
    pub(super) fn begin_heartbeat_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    /// On a follower: begins a query for the reads that wait. Returns its number; `None` if another
    /// query is under way.
    pub(super) fn begin_query(&mut self, now: Tick) -> Option<u64> {
        if self.query.is_some() {
            return None;
        }
        self.query_id += 1;
        let (query_id, tokens) = (self.query_id, std::mem::take(&mut self.fresh));
        self.query = Some(LeaderRequest { query_id, since: now, tokens }.into());
        Some(query_id)
    }

    /// Moves the outcomes to `into`, in place of its contents.
    pub(super) fn take_settled(&mut self, into: &mut Vec<(u64, Read)>) {
        move_out(&mut self.settled, into);
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
        let none_asked = self.fresh.is_empty() && self.under_way.is_none() && self.query.is_none();
        none_asked && self.follower_requests.is_empty() && self.settled.is_empty()
    }

    fn settle(&mut self, tokens: Vec<u64>, read: Read) {
        self.settled.extend(tokens.into_iter().map(|token| (token, read)));
    }

    pub(super) fn fail_all(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        self.settle(fresh, Read::Failed);
        if let Some(query) = self.query.take() {
            self.settle(query.tokens, Read::Failed);
        }
        if let Some(round) = self.under_way.take() {
            self.settle(round.tokens, Read::Failed);
        }
    }

    /// Fails the reads of the query under way, if the query left before `late`.
    pub(super) fn fail_late_request(&mut self, late: Tick) {
        if let Some(query) = self.query.take_if(|query| query.since < late) {
            self.settle(query.tokens, Read::Failed);
        }
    }

    /// The leader answered query `query_id`.
    pub(super) fn on_answer(&mut self, query_id: u64, at: LogId) {
        self.committed = at;
        if let Some(query) = self.query.take_if(|query| query.query_id == query_id) {
            self.settle(query.tokens, Read::At(at.index));
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
