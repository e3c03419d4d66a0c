//! The state that must be durable before the messages that depend on it leave: term, vote and
//! commit index (Raft, figure 2). Reads see the [`HardState`]; only the methods here change it.

use super::{Index, ReplicaId, Term};
use bedstone_engine::wal::{HardState, Vote};
use std::ops::Deref;

/// See the module. Invariants, asserted in each change:
///
/// - The term and the commit index never decrease.
/// - Within a term the vote changes only from none to a peer, or, where a recovery ends, from
///   withheld to the leader of the term.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurableState(HardState);

impl DurableState {
    /// The state of a replica that starts.
    pub(super) fn new(state: HardState) -> DurableState {
        DurableState(state)
    }

    /// A later term begins. `vote` is none, withheld while the replica recovers, or the vote of a
    /// candidate for itself.
    pub(super) fn begin_term(&mut self, term: Term, vote: Vote) {
        assert!(term > self.0.term, "a term begins once");
        (self.0.term, self.0.vote) = (term, vote);
    }

    /// Votes for a peer in the present term.
    pub(super) fn vote_for(&mut self, peer: ReplicaId) {
        assert!(self.0.vote.allows(peer), "a replica votes once in a term");
        self.0.vote = Vote::For(peer);
    }

    /// A replica that may have voted and lost the record learns the greatest term in which it may
    /// have voted, and fixes its vote in that term.
    pub(super) fn recover(&mut self, term: Term, vote: Vote) {
        assert!(term >= self.0.term && vote != Vote::None, "a lost vote is never given again");
        (self.0.term, self.0.vote) = (term, vote);
    }

    /// The recovery is complete: the term has this leader already, so a vote for the leader elects
    /// no other one. Without a leader the vote stays withheld.
    pub(super) fn end_recovery(&mut self, leader: Option<ReplicaId>) {
        self.0.vote = leader.map_or(self.0.vote, Vote::For);
    }

    /// Entries up to `index` are committed.
    pub(super) fn commit_to(&mut self, index: Index) {
        self.0.commit = self.0.commit.max(index);
    }
}

impl Deref for DurableState {
    type Target = HardState;

    fn deref(&self) -> &HardState {
        &self.0
    }
}
