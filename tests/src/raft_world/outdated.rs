//! A disk that is replaced by an older copy of itself.

use super::disk::Disk;
use bedstone_engine::{Index, LogId};
use bedstone_node::raft::{Raft, ReplicaId};

/// The number of events within which an older copy of a disk must be noticed.
const NOTICE_EVENTS: u64 = 4000;

/// A replica whose disk was replaced by an older copy of itself. Until that is noticed, no other
/// fault comes and the clock of the replica stands still, because the group does not survive a
/// second fault at this moment.
pub(super) struct Outdated {
    pub(super) id: ReplicaId,
    /// The last entry that the replica had acknowledged.
    pub(super) acknowledged: LogId,
    /// The last committed index among the acknowledged entries.
    pub(super) committed: Index,
    pub(super) since: u64,
}

impl Outdated {
    /// Whether the replica recovers, or has the entries again. A later leader may have replaced
    /// those that are not committed.
    pub(super) fn is_over(&self, raft: &Raft, disk: &Disk) -> bool {
        let LogId { term, index } = self.acknowledged;
        let has_all = disk.term(index) == Some(term) || disk.tree.applied.index >= index;
        let replaced = disk.last().term > term && disk.last().index >= self.committed;
        raft.is_recovering() || has_all || replaced
    }

    /// Whether the replica should have found out by now.
    pub(super) fn is_late(&self, now: u64) -> bool {
        now > self.since + NOTICE_EVENTS
    }
}
