//! Applying committed entries to the state machine.

use super::{Replica, ShardLog, Turn};
use crate::limits::REPLAY_BYTES;
use crate::raft::kind;
use bedstone_engine::wal::Entry;
use bedstone_engine::{Error, Result};

impl Replica {
    /// Applies the committed entries, and replies to their requests.
    ///
    /// # Errors
    /// A committed entry cannot be read or decoded, or the state cannot be read.
    pub(super) fn apply(&mut self, turn: &mut Turn<'_>) -> Result<()> {
        if self.raft.is_damaged() {
            return Ok(());
        }
        let (begun, before) = (crate::clock::now(), self.applied.index);
        while self.applied.index < self.commit && !self.tree.is_behind() {
            let reader = ShardLog { engine: self.disk.engine(), shard: self.shard };
            let entries = self.raft.entries(self.applied.index + 1, REPLAY_BYTES, &reader);
            if entries.is_empty() {
                let what = "a committed entry";
                let expected = format!("entry {} of shard {}", self.applied.index + 1, self.shard);
                return Err(Error::corrupt("log", 0, what, expected, "none"));
            }
            let commit = self.commit;
            for entry in entries.iter().take_while(|entry| entry.id.index <= commit) {
                self.apply_entry(entry, turn)?;
            }
        }
        if self.applied.index > before {
            self.metrics.apply_seconds.observe(begun.elapsed().as_secs_f64());
        }
        self.raft.applied(self.applied.index);
        if self.tree.job().is_some() {
            self.disk.call_background();
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry, turn: &mut Turn<'_>) -> Result<()> {
        assert_eq!(entry.id.index, self.applied.index + 1, "entries are applied in order");
        let results = match entry.kind {
            kind::NORMAL => {
                let place = self.disk.engine().log().place(self.shard, entry.id);
                self.machine.apply(entry, place)?
            }
            kind::WITHHELD => {
                let (what, expected) = ("a log entry", "its commands");
                let found = "none: this disk belonged to a witness; start with an empty disk";
                return Err(Error::corrupt("log", 0, what, expected, found));
            }
            kind => {
                if kind == kind::CHANGE {
                    self.conf.apply_entry_data(&entry.data);
                }
                // The first entry of a new leader records the members too, so that the state of
                // every replica comes to hold them.
                self.machine.apply_members(entry.id, &self.conf);
                Vec::new()
            }
        };
        self.applied = entry.id;
        self.finish_proposals(entry.id, &results, turn);
        Ok(())
    }
}
