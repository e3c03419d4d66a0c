//! The state from which a replica starts.

use super::conf::Conf;
use super::{Index, ReplicaId};
use bedstone_engine::LogId;
use bedstone_engine::wal::HardState;
use bytes::Bytes;

/// The state from which a replica starts.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The replica's own id.
    pub id: ReplicaId,
    /// The configuration as of `applied`.
    pub conf: Conf,
    /// The index and the data of each configuration change in the log after `applied`, ascending.
    pub changes: Vec<(Index, Bytes)>,
    /// The durable hard state.
    pub hard: HardState,
    /// The last entry that was applied to the tree.
    pub applied: LogId,
    /// The last entry before the log's first entry.
    pub base: LogId,
    /// The first entry of each run of entries with one term in the log.
    pub runs: Vec<LogId>,
    /// The log's last index.
    pub last: Index,
    /// The seed of the election timeouts. No two starts of a replica have the same seed.
    pub seed: u64,
    /// Whether the disk still has all votes and acknowledged entries of the replica.
    pub durability: Durability,
    /// The replica ran before. It then votes for no candidate before an election timeout has
    /// passed.
    pub restarted: bool,
}

/// How much of a replica's votes and acknowledged entries its disk still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// All votes and acknowledged entries.
    #[default]
    Intact,
    /// The disk is empty: the replica has not voted or acknowledged yet, or the disk was lost.
    Empty,
    /// The disk is suspect. All records on it are valid, but records that it reported as synced may
    /// be missing: the machine went down, and the disk is not trusted to keep data that it was
    /// requested to sync.
    Suspect,
    /// All records on the disk are valid, and records that the replica acknowledged are missing:
    /// the leader knows of them. The disk is an older copy of itself, or did not keep what it had
    /// reported as synced.
    Outdated,
    /// Records were lost. The log in [`Boot`] is then the part of the log to keep, which ends no
    /// later than `applied`.
    Lost,
}

impl Boot {
    /// The state of a replica whose disk is empty.
    pub fn new(id: ReplicaId, conf: Conf, seed: u64) -> Boot {
        Boot {
            id,
            conf,
            changes: Vec::new(),
            hard: HardState::default(),
            applied: LogId::default(),
            base: LogId::default(),
            runs: Vec::new(),
            last: Index(0),
            seed,
            durability: Durability::Intact,
            restarted: false,
        }
    }
}
