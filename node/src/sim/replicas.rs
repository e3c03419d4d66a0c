//! The ids of replicas in a simulation. They differ from the numbers of the servers, so that code
//! which takes one for the other is found.

use crate::raft::{Home, Member, ReplicaId};
use bedstone_net::NodeId;

/// The number of a simulated server, from 1.
pub type HostId = u64;

/// The difference between the id of a replica and the number of its server.
const OFFSET: u64 = 100;

/// The replica on a server.
pub(super) fn member_on(host: HostId) -> Member {
    let home = Home { node: NodeId(host), disk: u128::from(host) << 64 };
    Member { id: ReplicaId(host + OFFSET), home }
}

/// The server of a replica.
pub(super) fn host_of(replica: ReplicaId) -> HostId {
    replica.0 - OFFSET
}
