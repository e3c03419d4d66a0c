//! What is damaged here is brought by the leader: a shard whose tree cannot be read, or whose log
//! cannot give what is to be applied, does not stop its node but waits for a snapshot.

use super::group::Group;
use crate::metrics::Metrics;
use bedstone_engine::Result;
use std::fmt::Display;
use tracing::{error, warn};

impl Group {
    /// Turns damage into the wait for a snapshot.
    ///
    /// # Errors
    /// What is no damage, and damage of what nobody else has.
    pub(super) fn mend(&mut self, done: Result<()>, metrics: &Metrics) -> Result<()> {
        match done {
            Err(error) if error.is_damage() && self.damaged(&error, metrics) => Ok(()),
            done => done,
        }
    }

    /// Some of what the shard has here cannot be read. Returns whether others can bring it.
    pub fn damaged(&mut self, what: &impl Display, metrics: &Metrics) -> bool {
        let conf = self.raft.conf();
        let may_bring = |peer| peer != self.node() && conf.is_electable(peer);
        if !conf.members().into_iter().any(may_bring) {
            error!(shard = self.shard, %what, "damage, and nobody else can lead the shard");
            return false;
        }
        if !self.raft.is_damaged() {
            warn!(shard = self.shard, %what, "damage: the leader is asked for a snapshot");
            metrics.shards_damaged.inc();
            self.raft.damaged();
        }
        // What it was sending cannot be read either, perhaps.
        for (peer, _) in std::mem::take(&mut self.outgoing) {
            self.raft.snapshot_sent(peer, None);
        }
        true
    }
}
