//! Applying committed entries to the state machine.

use super::{Replica, ShardLog, Turn};
use crate::limits::REPLAY_BYTES;
use crate::raft::{EntryKind, newer_version};
use bedstone_engine::wal::Entry;
use bedstone_engine::{Error, Result};
use tracing::error;

impl Replica {
    /// Applies the committed entries, and replies to their requests.
    ///
    /// # Errors
    /// A committed entry cannot be read or decoded, or the state cannot be read.
    pub(super) fn apply(&mut self, turn: &mut Turn<'_>) -> Result<()> {
        if !self.raft.is_applying() {
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
            let newest = self.limits.entry_versions.newest;
            for entry in entries.iter().take_while(|entry| entry.id.index <= commit) {
                if let Some(version) = newer_version(entry.kind, &entry.data, newest) {
                    self.halt(version);
                    break;
                }
                self.apply_entry(entry, turn)?;
            }
            if !self.raft.is_applying() {
                break;
            }
        }
        assert!(self.applied.index <= self.commit, "only committed entries are applied");
        if self.applied.index > before {
            assert_eq!(self.tree.applied(), self.applied, "the state is as of the last entry");
            self.metrics.apply_seconds.observe(begun.elapsed().as_secs_f64());
        }
        self.raft.applied(self.applied.index);
        if self.tree.job().is_some() {
            self.disk.call_background();
        }
        Ok(())
    }

    /// The next committed entry has a version that this build does not apply, or the state has. The
    /// replica keeps everything, and another build continues from it.
    pub(super) fn halt(&mut self, version: u16) {
        let (shard, index) = (self.shard, self.applied.index + 1);
        let newest = self.limits.entry_versions.newest;
        error!(
            shard = shard.0,
            index = index.0,
            version,
            newest,
            "the shard needs a later build: its next entry has a newer version than this build \
             applies; nothing is lost, upgrade this node"
        );
        self.needs_version = Some(version);
        self.raft.halt();
    }

    fn apply_entry(&mut self, entry: &Entry, turn: &mut Turn<'_>) -> Result<()> {
        assert_eq!(entry.id.index, self.applied.index + 1, "entries are applied in order");
        let results = match entry.kind {
            EntryKind::COMMANDS => {
                let place = self.disk.engine().log().place(self.shard, entry.id);
                self.machine.apply(entry, place)?
            }
            EntryKind::WITHHELD => {
                let (what, expected) = ("a log entry", "its commands");
                let found = "none: this disk belonged to a witness; start with an empty disk";
                return Err(Error::corrupt("log", 0, what, expected, found));
            }
            kind => {
                if kind == EntryKind::CHANGE {
                    self.conf.apply_entry_data(&entry.data);
                }
                // The first entry of a new leader records the members too, so that the state of
                // every replica comes to hold them.
                self.machine.apply_members(entry.id, &self.conf);
                Vec::new()
            }
        };
        self.applied = entry.id;
        if entry.kind != EntryKind::COMMANDS {
            self.log_members();
        }
        self.finish_proposals(entry.id, &results, turn);
        Ok(())
    }
}
