//! Identifiers of shards and of positions in their logs.

/// Identifies a shard. Unique in a cluster and never reused.
pub type ShardId = u64;

/// A position in one shard's log: the term and the index of an entry. Index 0 is the position
/// before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The Raft term of the entry.
    pub term: u64,
    /// The position in the shard's log, from 1.
    pub index: u64,
}
