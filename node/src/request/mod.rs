//! Requests between the clients' side and the replicas, and the way of their replies.
//!
//! [`mailbox`] connects a client connection with the worker, [`replies`] gathers the replies of one
//! turn, [`admin`] is an operator's request to a shard.

pub mod admin;
pub mod mailbox;
pub mod replies;

use crate::machine::command::Command;
use crate::policy::ServedBy;
use crate::wire::RequestId;
use bedstone_engine::ShardId;
use bedstone_net::NodeId;
use mailbox::Mailbox;
use std::sync::Arc;
use std::time::Instant;

/// The receiver of a reply.
#[derive(Clone, Debug)]
pub enum Requester {
    /// A connection of this node, and the slot of the request in it.
    Client(Arc<Mailbox>, u64),
    /// Another node that forwarded the request of its client.
    Peer {
        /// The node.
        peer: NodeId,
        /// The shard of the request.
        shard: ShardId,
        /// The id of the request at that node.
        id: RequestId,
    },
}

/// A request without a reply so far.
#[derive(Clone, Debug)]
pub struct PendingRequest {
    /// The command.
    pub command: Command,
    /// The receiver of the reply.
    pub requester: Requester,
    /// Whether the reply is written in RESP3.
    pub resp3: bool,
    /// The replicas that may answer a read; a write is always the leader's.
    pub served_by: ServedBy,
    /// The reply is of no use after this time.
    pub deadline: Instant,
}

impl PendingRequest {
    /// Whether the deadline has passed.
    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    /// Whether this is a read that only the leader may answer.
    pub fn needs_leader(&self) -> bool {
        self.served_by == ServedBy::Leader
    }
}
