//! An operator's request to a shard: other members, or another leader.

use crate::raft::{Change, ReplicaId};
use bedstone_net::NodeId;

/// A request to a shard's leader.
pub enum AdminRequest {
    /// Changes the members.
    ChangeMembers(Change),
    /// Transfers leadership to a replica.
    TransferLeadership(ReplicaId),
}

/// The reason why a request was refused: nothing happened. The texts name nodes, which operators
/// know, and not replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminError {
    /// This node does not lead the shard. The field is the leader's node, if known.
    NotLeader(Option<NodeId>),
    /// The request is invalid for the present members.
    Invalid(String),
    /// The request may succeed later.
    NotNow(String),
}

/// Receives the leader's answer. `Ok` says that the request was accepted, not that it is done.
pub type AdminReply = Box<dyn FnOnce(Result<(), AdminError>) + Send>;
