//! The counts of a run.

use bedstone_engine::Index;

/// Counts of a run, to prove that the run had effects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Entries committed.
    pub committed: Index,
    /// Reads served after a round of heartbeats or a query.
    pub reads: u64,
    /// Reads served by a lease.
    pub leased: u64,
    /// Configurations that took effect.
    pub confs: u64,
    /// Joint configurations among `confs`.
    pub joint: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Leadership transfers that began.
    pub transfers: u64,
    /// Lost disks, lost log records, lying disks and damaged trees.
    pub losses: u64,
    /// Replicas that noticed the loss of entries that they had acknowledged.
    pub noticed: u64,
}
