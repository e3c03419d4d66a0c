//! The records of the log and their parts.

use crate::ids::{Index, LogId, ReplicaId, ShardId, Term};
use bytes::Bytes;
use smallvec::SmallVec;

/// The kind of an entry. The log only stores the kind. A later build may write kinds that this
/// build does not know, and the log keeps them: therefore the kind is a number with names, and not
/// an enum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryKind(pub u8);

impl EntryKind {
    /// The first entry of a new leader. Entries of earlier terms commit with this entry.
    pub const NOOP: EntryKind = EntryKind(0);
    /// Commands.
    pub const COMMANDS: EntryKind = EntryKind(1);
    /// A change of the configuration.
    pub const CHANGE: EntryKind = EntryKind(2);
    /// Commands in the log of a witness: the entry carries no data.
    pub const WITHHELD: EntryKind = EntryKind(3);
}

/// One log entry of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term and index of the entry.
    pub id: LogId,
    /// The kind of the entry.
    pub kind: EntryKind,
    /// The content of the entry.
    pub data: Bytes,
}

/// An entry that is to be written to the log. The record that carries the entry has its shard,
/// index and term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The kind of the entry.
    pub kind: EntryKind,
    /// [`entry_crc`](super::format::entry_crc), computed by the creator of the entry, so that the
    /// committer need not compute it.
    pub crc: u32,
    /// The content of the entry.
    pub data: Bytes,
}

/// The vote of a replica in a term. On the disk: the peer's id, 0 for none, `u64::MAX` for
/// withheld.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vote {
    /// The replica has not voted in the term.
    #[default]
    None,
    /// The replica voted for a peer, whose id is neither 0 nor `u64::MAX`.
    For(ReplicaId),
    /// The replica must not vote: it may have voted in the term and lost the record.
    Withheld,
}

impl Vote {
    /// The peer that has the vote.
    pub fn peer(self) -> Option<ReplicaId> {
        match self {
            Vote::For(peer) => Some(peer),
            Vote::None | Vote::Withheld => None,
        }
    }

    /// Whether the replica may vote for a peer in the term.
    pub fn allows(self, peer: ReplicaId) -> bool {
        matches!(self, Vote::None) || self == Vote::For(peer)
    }

    /// The number on the disk.
    pub(crate) fn to_number(self) -> u64 {
        match self {
            Vote::None => 0,
            Vote::For(peer) => peer.0,
            Vote::Withheld => u64::MAX,
        }
    }

    /// From the number on the disk.
    pub(crate) fn from_number(number: u64) -> Vote {
        match number {
            0 => Vote::None,
            u64::MAX => Vote::Withheld,
            peer => Vote::For(ReplicaId(peer)),
        }
    }
}

/// The durable state of a Raft replica besides its entries (Raft, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// The vote of this replica in that term.
    pub vote: Vote,
    /// The greatest index known to be committed.
    pub commit: Index,
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Entries of one term. The record replaces all earlier entries of the shard from `first` on.
    Entries {
        /// The shard.
        shard: ShardId,
        /// The index of the first entry.
        first: Index,
        /// The term of all the entries, at least 1.
        term: Term,
        /// The entries.
        entries: SmallVec<[LogEntry; 1]>,
    },
    /// A new hard state.
    HardState {
        /// The shard.
        shard: ShardId,
        /// The hard state.
        state: HardState,
    },
    /// Entries up to `upto` are no longer needed: the tree holds their effect.
    Release {
        /// The shard.
        shard: ShardId,
        /// The last released entry.
        upto: LogId,
    },
    /// The shard's log starts again after `at`, because a snapshot replaced the entries.
    Reset {
        /// The shard.
        shard: ShardId,
        /// The last entry that the snapshot covers.
        at: LogId,
    },
    /// The shard was removed from this disk, with its entries and its hard state.
    Forget {
        /// The shard.
        shard: ShardId,
    },
    /// The bounds of a shard's log. The log itself repeats this record at the head of each segment.
    Bounds {
        /// The shard.
        shard: ShardId,
        /// The last released entry.
        base: LogId,
        /// The last entry.
        last: LogId,
    },
    /// The members of the shard as of an entry. The log itself repeats this record at the head of
    /// each segment.
    Members {
        /// The shard.
        shard: ShardId,
        /// The index of the entry.
        index: Index,
        /// The members, in a form that the layer above defines.
        members: Bytes,
    },
    /// A damaged block may have held more records of the shard. The log itself repeats this record
    /// at the head of each segment until later records resolve the loss, such as a reset.
    PossibleLoss {
        /// The shard.
        shard: ShardId,
        /// The segment of the damaged block.
        segment: u64,
        /// The commit index before the damaged block. The loss cannot have replaced a committed
        /// entry.
        commit: Index,
        /// Entries may be lost.
        entries: bool,
        /// A hard state may be lost.
        state: bool,
    },
}

impl Record {
    /// The shard that the record belongs to.
    pub fn shard(&self) -> ShardId {
        match self {
            Record::Entries { shard, .. }
            | Record::HardState { shard, .. }
            | Record::Release { shard, .. }
            | Record::Reset { shard, .. }
            | Record::Forget { shard }
            | Record::Members { shard, .. }
            | Record::PossibleLoss { shard, .. }
            | Record::Bounds { shard, .. } => *shard,
        }
    }
}
