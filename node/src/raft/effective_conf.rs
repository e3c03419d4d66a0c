//! The effective configuration of a replica, and the changes in its log that are not effective yet.
//! Reads see the [`Conf`]; only the methods here change it.

use super::conf::Conf;
use super::{ENTRY_VERSION, EntryKind, Index, newer_version};
use bytes::Bytes;
use std::ops::Deref;
use thin_vec::ThinVec;

/// See the module. Invariants:
///
/// - The indexes of `changes` ascend, and all are after `changed_at` (asserted when a change is
///   added or becomes effective).
/// - `changed_at` never decreases.
#[derive(Clone, Debug)]
pub(super) struct EffectiveConf {
    conf: Conf,
    /// The index of the last change that became effective in this life of the replica; 0 for none.
    changed_at: Index,
    /// Index and data of each change in the log that is not effective yet.
    changes: ThinVec<(Index, Bytes)>,
}

impl EffectiveConf {
    /// The configuration with which a replica starts, and the changes in its log.
    pub(super) fn new(conf: Conf, changes: Vec<(Index, Bytes)>) -> EffectiveConf {
        EffectiveConf { conf, changed_at: Index(0), changes: changes.into_iter().collect() }
    }

    /// The configuration.
    pub(super) fn get(&self) -> &Conf {
        &self.conf
    }

    /// The index of the last effective change. A commit index at or after this index must become
    /// durable.
    pub(super) fn changed_at(&self) -> Index {
        self.changed_at
    }

    /// Index and data of the changes in the log that are not effective yet, ascending.
    pub(super) fn changes(&self) -> &[(Index, Bytes)] {
        &self.changes
    }

    /// An entry with a change was added to the log.
    pub(super) fn add(&mut self, index: Index, change: Bytes) {
        let last = self.changes.last().map_or(self.changed_at, |(last, _)| *last);
        assert!(index > last, "changes are added in the order of the log");
        self.changes.push((index, change));
    }

    /// The entries of the log from `first` on gave way to entries of another leader.
    pub(super) fn truncate(&mut self, first: Index) {
        self.changes.retain(|(index, _)| *index < first);
    }

    /// A snapshot covers the entries up to `at`.
    pub(super) fn release(&mut self, at: Index) {
        self.changes.retain(|(index, _)| *index > at);
    }

    /// The configuration that came with a snapshot.
    pub(super) fn install(&mut self, conf: Conf) {
        self.conf = conf;
    }

    /// This replica does not know the members any more.
    pub(super) fn forget(&mut self) {
        self.conf = Conf::default();
    }

    /// The first change that is not effective, if its entry is committed.
    pub(super) fn first_committed(&self, commit: Index) -> Option<&(Index, Bytes)> {
        self.changes.first().filter(|(index, _)| *index <= commit)
    }

    /// Makes every change effective that is committed up to `commit`. Returns whether the
    /// configuration changed. A change that needs a later build does not become effective.
    pub(super) fn advance(&mut self, commit: Index) -> bool {
        let mut changed = false;
        while let Some((_, data)) = self.first_committed(commit) {
            if newer_version(EntryKind::CHANGE, data, ENTRY_VERSION).is_some() {
                break;
            }
            let (at, data) = self.changes.remove(0);
            assert!(at > self.changed_at, "changes become effective in the order of the log");
            changed |= self.conf.apply_entry_data(&data);
            self.changed_at = at;
        }
        changed
    }
}

impl Deref for EffectiveConf {
    type Target = Conf;

    fn deref(&self) -> &Conf {
        &self.conf
    }
}
