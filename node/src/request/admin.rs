//! An operator's request to a shard: other members, or another leader.

use crate::raft::{Change, PeerId, Refused};

/// A request to a shard's leader.
pub enum AdminRequest {
    /// Changes the members.
    ChangeMembers(Change),
    /// Transfers leadership to a node.
    TransferLeadership(PeerId),
}

/// Receives the leader's answer. `Ok` says that the request was accepted, not that it is done.
pub type AdminReply = Box<dyn FnOnce(Result<(), Refused>) + Send>;
