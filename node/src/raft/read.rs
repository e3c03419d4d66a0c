//! Linearizable reads without log entries: ReadIndex (thesis §6.4). A read may be served at the
//! commit index of the moment when the read arrived. Two conditions must hold first: a majority has
//! answered a heartbeat that left after that moment, and this leader has committed an entry of its
//! own term. One round of heartbeats serves all reads that wait.
//!
//! A follower queries its leader for such an index, once for all reads that wait, and serves the
//! reads itself when it has applied the entries up to the index. The query itself proves that the
//! follower knew no later term when the query left, which is after the reads arrived. Where leader
//! and follower are a majority, as among three voters, the leader therefore answers at once. In
//! other groups the leader answers after a round. Queries are numbered from a number that is drawn
//! at the start of the follower's life, so no answer to an earlier life counts as an answer to the
//! present one.

use super::core::{Raft, Refused};
use super::leadership::Role;
use super::lease::Lease;
use super::message::Body;
use super::read_rounds::Read;
use super::{Index, ReplicaId};
use bedstone_engine::LogId;

impl Raft {
    /// Sets the time of the driver's clock, in nanoseconds since an arbitrary moment. The core's
    /// time never goes back.
    pub fn set_time(&mut self, nanos: u64) {
        self.lease.set_clock(nanos);
    }

    /// Whether this leader may answer, without a round of heartbeats, a read that ended before
    /// `nanos`.
    pub fn lease_holds(&self, nanos: u64) -> bool {
        let leads = self.role() == Role::Leader && self.reads.committed_own_term();
        let (Some(Lease { length }), Some(since)) = (self.config.lease, self.lease.since()) else {
            return false;
        };
        leads && nanos < since + length
    }

    /// Requests an index at which a read is linearizable. The outcome and the token appear in
    /// [`super::Effects::reads`].
    ///
    /// # Errors
    /// [`Refused::NotLeader`] where no leader is known.
    pub fn read(&mut self) -> Result<u64, Refused> {
        let follows =
            self.role() == Role::Follower && self.leader().is_some() && !self.is_querying();
        if self.role() != Role::Leader && !follows {
            return Err(Refused::NotLeader(self.leader()));
        }
        self.mark_active();
        if self.lease_holds(self.lease.clock()) {
            Ok(self.reads.settle_at_once(Read::ByLease(self.hard.commit)))
        } else {
            Ok(self.reads.add())
        }
    }

    /// Begins a round for the reads that arrived since the last round, or queries the leader for an
    /// index.
    pub(super) fn start_read_round(&mut self) {
        if !self.reads.has_fresh() {
            return;
        }
        if self.role() == Role::Follower {
            return self.query_leader();
        }
        if self.role() != Role::Leader || !self.reads.begin_round(self.hard.commit) {
            return;
        }
        self.broadcast_heartbeat();
        // A sole voter needs no answer, so its round is complete already.
        self.settle_reads();
    }

    fn query_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        if let Some(query_id) = self.reads.begin_query(self.timers.now()) {
            self.send_now(leader, Body::ReadIndex { query_id });
        }
    }

    /// The answer to a query may be lost. The reads of a late query fail, and the driver requests
    /// them again.
    pub(super) fn tick_reads(&mut self) {
        let late = self.timers.ago(2 * self.config.heartbeat);
        self.reads.fail_late_request(late);
    }

    /// A follower queries for an index at which its reads are linearizable.
    pub(super) fn on_read_index(&mut self, peer: ReplicaId, query_id: u64) {
        if self.role() != Role::Leader {
            return;
        }
        self.mark_active();
        // The query proves the leadership at once if this replica and `peer` are a majority.
        let confirms = |voter| u64::from(voter == peer || voter == self.id);
        if self.reads.committed_own_term() && self.conf.quorum_value(confirms) == 1 {
            return self.answer_follower(peer, query_id, self.hard.commit);
        }
        self.reads.add_follower_request(peer, query_id);
    }

    /// The leader answered a query. The reads need not wait for the next heartbeat to report that
    /// entry `at` is committed.
    pub(super) fn on_read_index_reply(&mut self, query_id: u64, at: LogId) {
        self.reads.on_answer(query_id, at);
        self.learn_committed(at);
    }

    /// Answers the followers whose queries are settled.
    pub(super) fn answer_followers(&mut self) {
        if !self.reads.has_follower_requests() {
            return;
        }
        for (peer, query_id, index) in self.reads.take_follower_requests() {
            self.answer_follower(peer, query_id, index);
        }
    }

    fn answer_follower(&mut self, peer: ReplicaId, query_id: u64, index: Index) {
        if let Some(term) = self.log.term(index) {
            let at = LogId { term, index };
            self.send_now(peer, Body::ReadIndexReply { query_id, at });
        }
    }

    pub(super) fn on_heartbeat_reply(&mut self, peer: ReplicaId, round: u64) {
        let now = self.timers.now();
        let latest = self.reads.round();
        let Some(progress) = self.progress.get_mut(peer) else { return };
        progress.hear(now);
        // A reply to a round that never began proves nothing.
        if round <= latest {
            progress.answer_round(round);
        }
        self.settle_reads();
    }

    /// Settles the reads whose round a majority has answered. The configuration may have changed
    /// since the round began: the remaining voters may have answered already, or this replica may
    /// be the only voter.
    pub(super) fn settle_reads(&mut self) {
        let latest = self.reads.round();
        let round_of = |peer| match self.progress.get(peer) {
            Some(progress) => progress.round(),
            None if peer == self.id => latest,
            None => 0,
        };
        let round = self.conf.quorum_value(round_of);
        self.lease.answered(round);
        self.reads.answered(round);
    }
}
