//! Elections (§5.2, §5.4.1), with a pre-vote (thesis §9.6). A leader that does not hear a majority
//! steps down (thesis §6.2).

use super::conf::VoteResult;
use super::core::Raft;
use super::leadership::Role;
use super::message::Body;
use super::peer_set::PeerSet;
use super::volatile::Applying;
use super::{EntryKind, ReplicaId, Term};
use bedstone_engine::LogId;
use bedstone_engine::wal::Vote;
use bytes::Bytes;

impl Raft {
    /// Whether a message of a later term makes this replica a follower of that term. Three messages
    /// do not. A pre-vote changes no state. A granted pre-vote refers to a term that has not begun.
    /// A vote request counts only when this replica hears no leader, or when the leader requested
    /// the election: a candidate must not disturb members that still hear their leader.
    pub(super) fn follows_higher_term(&self, body: &Body) -> bool {
        match body {
            Body::PreVote { .. } | Body::PreVoteReply { granted: true, .. } => false,
            Body::Vote { leader_transfer, .. } => *leader_transfer || !self.has_live_leader(),
            _ => true,
        }
    }

    /// Whether a leader was heard within the shortest election timeout.
    fn has_live_leader(&self) -> bool {
        match self.role() {
            Role::Leader => true,
            Role::Follower => {
                // With leases the timeout counts even if this replica no longer knows which leader
                // it heard, because a later term began or because the replica restarted: the
                // start counts as a moment at which a leader was heard. Without leases the start
                // counts too: the leader may know that this replica has lost entries, and informs
                // it before it votes.
                let election = self.config.election.start;
                let counts = self.leader().is_some()
                    || self.config.lease.is_some()
                    || self.restarted && self.timers.now() < election;
                counts && self.timers.heard_leader_within(election)
            }
            _ => false,
        }
    }

    pub(super) fn become_follower(&mut self, term: Term, leader: Option<ReplicaId>) {
        if term > self.hard.term {
            let vote = self.initial_vote();
            self.hard.begin_term(term, vote);
        }
        self.leadership.follow(leader);
        self.progress.clear(self.hard.commit);
        self.snapshots = PeerSet::default();
        self.transfer = None;
        self.uncommitted_bytes = 0;
        self.reads.fail_all();
        self.lease.clear();
        // Quiescence is agreed with one leader, and ends with that leader.
        self.quiescence.quiescent = false;
        self.wait_for_leader();
    }

    /// Begins a new election timeout.
    pub(super) fn wait_for_leader(&mut self) {
        self.timers.wait_for_leader(&self.config.election);
    }

    /// No leader was heard. Requests pre-votes first, to learn whether this replica would win an
    /// election.
    pub(super) fn start_pre_vote(&mut self) {
        self.leadership.lose_leader();
        self.wait_for_leader();
        self.repeat_query();
        if !self.may_campaign() || self.disk_hangs() {
            return;
        }
        self.leadership.request_pre_votes(self.id);
        self.reads.fail_all();
        if self.vote_result() == VoteResult::Won {
            return self.start_election(false);
        }
        let (term, last) = (self.hard.term + 1, self.log.last());
        for peer in self.voters() {
            self.send_with_term(peer, term, Body::PreVote { last });
        }
    }

    /// Whether this replica may become leader.
    pub(super) fn may_campaign(&self) -> bool {
        let bound = self.may_vote() && self.satisfies_vote_bound(self.log.last());
        // Only a change that needs a later build is committed and not effective.
        let knows_members = self.conf.first_committed(self.hard.commit).is_none();
        let able = self.applying != Applying::Halted && knows_members;
        self.conf.is_electable(self.id) && bound && able
    }

    /// The other voters.
    pub(super) fn voters(&self) -> PeerSet {
        let mut voters = self.conf.members();
        voters.retain(|peer| peer != self.id && self.conf.is_voter(peer));
        voters
    }

    fn vote_result(&self) -> VoteResult {
        self.conf.vote_result(|peer| self.leadership.vote_of(peer))
    }

    /// Campaigns in a new term. `leader_transfer` states that the leader of the current term
    /// requested the election.
    pub(super) fn start_election(&mut self, leader_transfer: bool) {
        self.leadership.campaign();
        self.hard.begin_term(self.hard.term + 1, Vote::For(self.id));
        self.wait_for_leader();
        let last = self.log.last();
        for peer in self.voters() {
            // The replica's own vote is durable before any request for another vote leaves.
            self.send_after_durable(peer, Body::Vote { last, leader_transfer });
        }
    }

    /// Counts the replica's own vote, once that vote is durable, and the votes that have arrived.
    pub(super) fn count_votes(&mut self) {
        if self.pending_write().is_none() {
            self.leadership.add_vote(self.id, true);
        }
        match self.vote_result() {
            VoteResult::Won => self.become_leader(),
            VoteResult::Lost => self.become_follower(self.hard.term, None),
            VoteResult::Pending => {}
        }
    }

    fn become_leader(&mut self) {
        self.leadership.lead(self.id);
        self.track_members();
        self.timers.count_members_after(self.config.election.start);
        self.timers.heartbeat_after(self.config.heartbeat);
        self.quiescence.idle_since = self.timers.now();
        // Uncommitted entries of earlier leaders count too. Otherwise the uncommitted bytes would
        // grow with each new leader.
        let first = self.hard.commit + 1;
        self.log.seal_batch();
        self.uncommitted_bytes = self.log.bytes(first, self.log.last().index);
        self.reads.begin_term();
        self.lease.clear();
        // Entries of earlier terms commit with the first entry of this term (§5.4.2).
        self.append(EntryKind::NOOP, Bytes::new());
    }

    pub(super) fn tick_leader(&mut self) {
        if self.disk_hangs() && !self.conf.is_sole_voter(self.id) {
            // Heartbeats would keep a leader that can make nothing durable. Another node leads
            // better.
            return self.become_follower(self.hard.term, None);
        }
        if self.timers.is_due() {
            // A leader that does not hear a majority may have been replaced. The leader steps down,
            // so that its clients learn this and its reads end.
            let since = self.timers.ago(self.config.election.start);
            let heard = |peer| match self.progress.get(peer) {
                Some(progress) => Some(progress.heard() > since),
                None => Some(peer == self.id),
            };
            if self.conf.vote_result(heard) != VoteResult::Won {
                return self.become_follower(self.hard.term, None);
            }
            self.timers.count_members_after(self.config.election.start);
        }
        self.tick_transfer();
        if self.timers.heartbeat_is_due() {
            self.timers.heartbeat_after(self.config.heartbeat);
            self.retry_stalled();
            if !self.try_quiesce() {
                self.broadcast_heartbeat();
            }
        }
    }

    /// The last entry known to be committed.
    pub(super) fn committed(&self) -> LogId {
        let index = self.hard.commit;
        LogId { term: self.log.term(index).unwrap_or(Term(0)), index }
    }

    /// A peer reports that an entry is committed. If this log has that entry, the entry is
    /// committed here too, and so are the configuration changes up to it. Replies to vote requests
    /// carry this report as well. Without the report a voter could wait for ever for a former
    /// voter: a leader that demoted itself, crashed, and has entries that this voter lacks.
    pub(super) fn learn_committed(&mut self, committed: LogId) {
        let news = committed.index > self.hard.commit && self.role() != Role::Leader;
        if news && self.log.term(committed.index) == Some(committed.term) {
            self.commit_to(committed.index);
        }
    }

    fn is_up_to_date(&self, last: LogId) -> bool {
        let own = self.log.last();
        (last.term, last.index) >= (own.term, own.index) && self.satisfies_vote_bound(last)
    }

    pub(super) fn on_pre_vote(&mut self, peer: ReplicaId, term: Term, last: LogId) {
        let granted = term > self.hard.term
            && self.is_up_to_date(last)
            && !self.has_live_leader()
            && self.may_vote();
        // A granted reply carries the term of the planned election. A refusal carries the current
        // term, from which the candidate learns a later term.
        let answer_term = if granted { term } else { self.hard.term };
        let committed = self.committed();
        self.send_with_term(peer, answer_term, Body::PreVoteReply { granted, committed });
    }

    pub(super) fn on_pre_vote_reply(&mut self, peer: ReplicaId, term: Term, granted: bool) {
        let awaited = if granted { self.hard.term + 1 } else { self.hard.term };
        if self.role() != Role::PreCandidate || term != awaited {
            return;
        }
        self.leadership.add_vote(peer, granted);
        match self.vote_result() {
            VoteResult::Won => self.start_election(false),
            VoteResult::Lost => self.become_follower(self.hard.term, None),
            VoteResult::Pending => {}
        }
    }

    pub(super) fn on_vote(&mut self, peer: ReplicaId, last: LogId, leader_transfer: bool) {
        // A replica grants one vote per term, only to a candidate with an up-to-date log, and only
        // if no leader is heard or the leader requested the election.
        let free = self.hard.vote.allows(peer);
        let missed = leader_transfer || !self.has_live_leader();
        let granted = free && self.role() == Role::Follower && self.is_up_to_date(last) && missed;
        if granted {
            self.hard.vote_for(peer);
            self.wait_for_leader();
        }
        let committed = self.committed();
        self.send_after_durable(peer, Body::VoteReply { granted, committed });
    }

    pub(super) fn on_vote_reply(&mut self, peer: ReplicaId, granted: bool) {
        if self.role() == Role::Candidate {
            self.leadership.add_vote(peer, granted);
            self.count_votes();
        }
    }

    /// Answers a message of an earlier term, so that the sender learns the current term.
    pub(super) fn on_stale(&mut self, peer: ReplicaId) {
        let (granted, committed) = (false, self.committed());
        self.send_after_durable(peer, Body::VoteReply { granted, committed });
    }
}
