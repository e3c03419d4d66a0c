//! The query with which a replica recovers, and the answers to it; see [`super::recovery`].

use super::boot::Durability;
use super::conf::Conf;
use super::peer_set::PeerSet;
use super::{Index, ReplicaId, Term, Tick};
use bedstone_engine::LogId;
use std::collections::BTreeMap;

/// The state of a replica's recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Recovery {
    /// The recovery is complete or was not necessary.
    #[default]
    Done,
    /// The replica queries the other voters.
    Querying(Box<Query>),
    /// The replica waits until the greatest last entry among the answers, or a later one, is
    /// committed here.
    CatchingUp(Box<Query>),
    /// Like `CatchingUp`, for a suspect disk. The replica takes part in elections, but only for a
    /// candidate that has that entry, or a later one.
    VoteRestricted(Box<Query>),
}

/// The query of a recovering replica, see [`Recovery`]. Invariants:
///
/// - `answers` has only answers to `query_id`.
/// - `durability` is never [`Durability::Intact`].
/// - In [`Recovery::CatchingUp`] and [`Recovery::VoteRestricted`] `conf` is set, and every peer
///   that was to be queried when [`Recovery::Querying`] ended is in `answers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The state of the replica's disk.
    pub(super) durability: Durability,
    /// The number of the query, which separates its answers from answers to an earlier query.
    pub(super) query_id: u64,
    pub(super) answers: BTreeMap<ReplicaId, Answer>,
    /// The entry that this replica lost, as the leader reports it, until the driver knows of it.
    pub(super) lost_entry: Option<LogId>,
    /// The peers that query too, because they lost entries that they had acknowledged.
    pub(super) lost: PeerSet,
    /// The configuration from the answer with the greatest commit index, and that index. Without
    /// such an answer, this replica's own values replace them when the query ends.
    pub(super) conf: Option<(Index, Conf)>,
    pub(super) next: Tick,
}

/// The reason why a querying replica does not proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryWait {
    /// The replica knows no peer to query.
    Members,
    /// This peer has not answered.
    Answer(ReplicaId),
    /// No replica has an entry, and this peer was configured with other members than this replica.
    SameMembers(ReplicaId),
    /// No replica has an entry, and this peer was configured with no members.
    AnyMembers(ReplicaId),
    /// More disks are new than the group survives. The disk of this peer is one of them.
    NewDisk(ReplicaId),
    /// This replica and this peer both lost entries that they had acknowledged, so neither answer
    /// proves anything.
    Disputed(ReplicaId),
}

/// The members that a peer knows, compared with the members that this replica knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownMembers {
    None,
    Different,
    Same,
}

/// The state that a peer reports in its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) term: Term,
    pub(super) new: bool,
    pub(super) last: LogId,
    pub(super) commit: Index,
    pub(super) known_members: KnownMembers,
}

impl Answer {
    pub(super) fn is_empty(&self) -> bool {
        self.last == LogId::default()
    }
}

impl Query {
    /// Whether the replica lost records, so that its answer to another query would prove nothing.
    pub(super) fn has_lost(&self) -> bool {
        matches!(self.durability, Durability::Lost | Durability::Outdated)
    }

    pub(super) fn begin(query_id: u64, durability: Durability) -> Recovery {
        Recovery::Querying(Box::new(Query {
            durability,
            query_id,
            answers: BTreeMap::new(),
            lost_entry: None,
            lost: PeerSet::default(),
            conf: None,
            next: 0,
        }))
    }
}
