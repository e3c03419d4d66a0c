//! The choices that a request makes between consistency and cost.

/// The consistency of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Linearizable: the read sees every write that was acknowledged before the read began.
    #[default]
    Strong,
    /// The state of the replica on the queried node, at once. The state may be old.
    Weak,
}

/// The replicas that may answer a strong read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// The leader alone. A follower forwards the read.
    Leader,
    /// Any replica that has applied the leader's read index (Raft thesis, section 6.4).
    AnyReplica,
}
