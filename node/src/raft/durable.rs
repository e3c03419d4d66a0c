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
pub(super) struct DurableState {
    state: HardState,
    /// The state in the last write that was handed out, or on the disk at the start.
    written: HardState,
}

impl DurableState {
    /// The state of a replica that starts, and the state on its disk.
    pub(super) fn new(state: HardState, written: HardState) -> DurableState {
        DurableState { state, written }
    }

    /// Whether term or vote require a write, or whether the disk must learn that the entry at
    /// `changed_at` is committed.
    pub(super) fn needs_write(&self, changed_at: Index) -> bool {
        let DurableState { state, written } = self;
        (state.term, state.vote) != (written.term, written.vote) || written.commit < changed_at
    }

    /// The state for a write that is handed out now.
    pub(super) fn write(&mut self) -> HardState {
        self.written = self.state;
        self.state
    }

    /// A later term begins. `vote` is none, withheld while the replica recovers, or the vote of a
    /// candidate for itself.
    pub(super) fn begin_term(&mut self, term: Term, vote: Vote) {
        assert!(term > self.state.term, "a term begins once");
        self.state.term = term;
        self.state.vote = vote;
    }

    /// Votes for a peer in the present term.
    pub(super) fn vote_for(&mut self, peer: ReplicaId) {
        assert!(self.state.vote.allows(peer), "a replica votes once in a term");
        self.state.vote = Vote::For(peer);
    }

    /// A replica that may have voted and lost the record learns the greatest term in which it may
    /// have voted, and fixes its vote in that term.
    pub(super) fn recover(&mut self, term: Term, vote: Vote) {
        assert!(term >= self.state.term && vote != Vote::None, "a lost vote is never given again");
        self.state.term = term;
        self.state.vote = vote;
    }

    /// The recovery is complete: the term has this leader already, so a vote for the leader elects
    /// no other one. Without a leader the vote stays withheld.
    pub(super) fn end_recovery(&mut self, leader: Option<ReplicaId>) {
        self.state.vote = leader.map_or(self.state.vote, Vote::For);
    }

    /// Entries up to `index` are committed.
    pub(super) fn commit_to(&mut self, index: Index) {
        self.state.commit = self.state.commit.max(index);
    }
}

impl Deref for DurableState {
    type Target = HardState;

    fn deref(&self) -> &HardState {
        &self.state
    }
}
