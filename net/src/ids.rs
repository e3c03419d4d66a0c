//! The names of nodes.

/// The id of a node in its cluster: permanent, never 0, never reused.
pub type NodeId = u64;
