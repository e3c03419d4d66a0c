//! Small states of a replica that no disk keeps: whether it applies entries, whether it is
//! quiescent, and the transfer of leadership under way.

use super::{ReplicaId, Tick};

/// Whether the state of a replica follows its committed entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Applying {
    /// The driver applies committed entries.
    #[default]
    Running,
    /// The applied state is damaged, until a snapshot of the leader replaces it.
    Damaged,
    /// The next committed entry needs a later build, see [`newer_version`](super::newer_version).
    /// The state is sound, and the entry stays in the log until that build applies it.
    Halted,
}

/// The quiescence of a replica.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiescence {
    /// The replica is quiescent.
    pub(super) quiescent: bool,
    /// On a leader: when the last request arrived, or when the leader became active.
    pub(super) idle_since: Tick,
}

/// A transfer under way.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) to: ReplicaId,
    /// When the leader gives up the transfer.
    pub(super) until: Tick,
    /// The follower was requested to campaign.
    pub(super) requested: bool,
}
