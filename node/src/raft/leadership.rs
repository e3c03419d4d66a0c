//! The role of a replica, the leader that it follows, and the votes that it has received.

use super::{Index, ReplicaId};
use thin_vec::ThinVec;

/// The role of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Requests pre-votes, to learn whether it would win an election.
    PreCandidate,
    /// Requests votes.
    Candidate,
    /// Leads.
    Leader,
}

/// See the module. Invariants, which each change keeps or asserts:
///
/// - A leader is its own leader, and was a candidate before. A candidate and a pre-candidate have
///   no leader.
/// - Only a candidate and a pre-candidate have votes.
/// - `leader_commit` is 0 unless a leader was heard.
#[derive(Clone, Debug)]
pub(super) struct Leadership {
    role: Role,
    leader: Option<ReplicaId>,
    /// The commit index in the last heartbeat of the leader; 0 before the first one.
    leader_commit: Index,
    /// The vote of each replica that has answered. The voters are few, and most replicas receive no
    /// votes: the list takes one word then.
    votes: ThinVec<(ReplicaId, bool)>,
}

impl Leadership {
    /// A follower that knows no leader.
    pub(super) fn new() -> Leadership {
        let (role, leader_commit, votes) = (Role::Follower, Index(0), ThinVec::new());
        Leadership { role, leader: None, leader_commit, votes }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// The commit index in the last heartbeat of the leader; 0 before the first one.
    pub(super) fn leader_commit(&self) -> Index {
        self.leader_commit
    }

    /// A heartbeat of the leader reports its commit index.
    pub(super) fn hear_commit(&mut self, commit: Index) {
        assert!(self.leader.is_some(), "a heartbeat comes from a leader");
        self.leader_commit = commit;
    }

    /// The vote of a peer, or of this replica for itself, once it is known.
    pub(super) fn vote_of(&self, peer: ReplicaId) -> Option<bool> {
        self.votes.iter().find(|(voter, _)| *voter == peer).map(|(_, granted)| *granted)
    }

    /// Follows a leader, or waits for one.
    pub(super) fn follow(&mut self, leader: Option<ReplicaId>) {
        self.role = Role::Follower;
        self.leader = leader;
        self.leader_commit = Index(0);
        self.votes = ThinVec::new();
    }

    /// The leader is not heard any more.
    pub(super) fn lose_leader(&mut self) {
        assert!(self.role != Role::Leader, "a leader does not lose itself");
        self.leader = None;
        self.leader_commit = Index(0);
    }

    /// Requests pre-votes. This replica, `own`, would vote for itself.
    pub(super) fn request_pre_votes(&mut self, own: ReplicaId) {
        self.lose_leader();
        self.role = Role::PreCandidate;
        self.votes = ThinVec::new();
        self.add_vote(own, true);
    }

    /// Requests votes. The vote of this replica for itself counts once it is durable.
    pub(super) fn campaign(&mut self) {
        self.lose_leader();
        self.role = Role::Candidate;
        self.votes = ThinVec::new();
    }

    /// A vote, or the answer to a request for a pre-vote, has arrived.
    pub(super) fn add_vote(&mut self, voter: ReplicaId, granted: bool) {
        let campaigns = matches!(self.role, Role::PreCandidate | Role::Candidate);
        assert!(campaigns, "only a candidate receives votes");
        self.votes.retain(|(other, _)| *other != voter);
        self.votes.push((voter, granted));
    }

    /// This replica, `own`, won the election.
    pub(super) fn lead(&mut self, own: ReplicaId) {
        assert!(self.role == Role::Candidate, "a leader is elected");
        self.role = Role::Leader;
        self.leader = Some(own);
        self.votes = ThinVec::new();
    }
}
