//! Repair of damage: a replica whose state or log cannot be read does not stop its node. The
//! replica waits for a snapshot of the leader.

use super::Replica;
use bedstone_engine::Result;
use std::fmt::Display;
use tracing::{error, warn};

impl Replica {
    /// Turns damage that another replica can repair into the wait for a snapshot.
    ///
    /// # Errors
    /// Errors that are no damage, and damage that no other replica can repair.
    pub(super) fn repair(&mut self, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if error.is_damage() && self.damaged(&error) => Ok(()),
            done => done,
        }
    }

    /// Data of the shard on this disk cannot be read. Returns whether another replica can repair
    /// it.
    pub fn damaged(&mut self, damage: &impl Display) -> bool {
        let conf = self.raft.conf();
        let can_repair = |peer| peer != self.id && conf.is_electable(peer);
        if !conf.members().into_iter().any(can_repair) {
            let shard = self.shard.0;
            error!(shard, %damage, "damage, and no other replica can lead the shard");
            return false;
        }
        if !self.raft.is_damaged() {
            warn!(shard = self.shard.0, %damage, "damage: the leader's snapshot is requested");
            self.metrics.shards_damaged.inc();
            self.raft.damaged();
        }
        // Snapshots that this replica sends may read the same damage.
        self.snapshots.abort_outgoing(&mut self.raft);
        true
    }
}
