//! The names of shards and of places in their logs.

/// Names one shard, unique in a cluster and never reused.
pub type ShardId = u64;

/// A place in one shard's log: the term of the entry and its index. Index 0 is the place before
/// every entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The Raft term of the entry.
    pub term: u64,
    /// The position in the shard's log, from 1.
    pub index: u64,
}
