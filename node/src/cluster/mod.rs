//! The state that all shards of a node share: the connections to the other nodes with their
//! heartbeats, and the published status.

pub mod peers;
pub mod publish;
