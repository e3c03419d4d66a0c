//! The content of a replica's disk: a log with its hard state, and a tree as of its last flush.

use bedstone_engine::wal::{Entry, EntryKind, HardState};
use bedstone_engine::{Index, LogId, Term};
use bedstone_node::raft::{Boot, Conf, Durability, LogReader, ReplicaId, Write};
use bytes::Bytes;

/// A tree: its last applied entry, the members at that entry, and a digest of all applied entries.
/// The digest is missing if commands were withheld from the replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) applied: LogId,
    pub(crate) conf: Conf,
    pub(crate) digest: Option<u64>,
}

impl Tree {
    /// Applies the next entry.
    pub(crate) fn apply(&mut self, entry: &Entry) {
        self.applied = entry.id;
        self.digest = self.digest.filter(|_| entry.kind != EntryKind::WITHHELD).map(|digest| {
            let parts = [&digest.to_le_bytes(), &entry.data[..]].concat();
            crc32fast::hash(&parts).into()
        });
        if entry.kind == EntryKind::CHANGE {
            self.conf.apply_entry_data(&entry.data);
        }
    }
}

/// An operation on the log. Operations complete in order, and each is durable as a whole or not at
/// all.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Write(Write),
    /// The log is reset, and then the write is applied.
    ResetAndWrite(LogId, Write),
    /// A snapshot was installed: the log is reset to begin after it.
    Reset(LogId),
    /// The entries up to here are in the tree.
    Release(LogId),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard: HardState,
    base: LogId,
    entries: Vec<Entry>,
    pub(crate) tree: Tree,
    /// Whether the votes and acknowledgements of the replica are still on the disk.
    durability: Durability,
    /// A replica has started from the disk.
    used: bool,
}

impl Disk {
    pub(crate) fn new(conf: Conf) -> Disk {
        Disk { tree: Tree { conf, digest: Some(0), ..Tree::default() }, ..Disk::default() }
    }

    /// The disk is lost, and an empty disk replaces it.
    pub(crate) fn lose(&mut self, conf: Conf) {
        *self = Disk { durability: Durability::Empty, ..Disk::new(conf) };
    }

    /// Records of the log are lost.
    pub(crate) fn damage(&mut self) {
        self.durability = Durability::Lost;
    }

    /// The disk lost the entries from `first` on, although it acknowledged their sync.
    pub(crate) fn forget(&mut self, first: Index) {
        self.entries.retain(|entry| entry.id.index < first);
    }

    /// Marks the disk as suspect, unless it is empty or known to have lost data.
    pub(crate) fn suspect(&mut self) {
        if self.durability == Durability::Intact && self.tree.conf != Conf::default() {
            self.durability = Durability::Suspect;
        }
    }

    /// Whether no loss of votes or acknowledgements is known.
    pub(crate) fn keeps_votes_and_entries(&self) -> bool {
        matches!(self.durability, Durability::Intact | Durability::Suspect)
    }

    pub(crate) fn take(&mut self, job: Job) {
        match &job {
            Job::Reset(_) | Job::ResetAndWrite(..) => self.durability = Durability::Intact,
            Job::Write(write)
                if write.hard.term > Term(0) && self.durability == Durability::Empty =>
            {
                self.durability = Durability::Intact;
            }
            _ => {}
        }
        match job {
            Job::ResetAndWrite(at, write) => {
                self.take(Job::Reset(at));
                self.take(Job::Write(write));
            }
            Job::Write(write) => {
                if let Some(first) = write.entries.first() {
                    assert!(first.id.index > self.base.index, "an entry before the log's base");
                    self.entries.truncate((first.id.index - self.base.index - 1) as usize);
                }
                self.entries.extend_from_slice(&write.entries);
                self.hard = write.hard;
            }
            Job::Reset(at) => (self.base, self.entries) = (at, Vec::new()),
            Job::Release(upto) => {
                self.entries.retain(|entry| entry.id.index > upto.index);
                self.base = upto;
            }
        }
    }

    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(self.base, |entry| entry.id)
    }

    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        let of_entry = || self.entries.iter().find(|entry| entry.id.index == index);
        (index == self.base.index)
            .then_some(self.base.term)
            .or_else(|| of_entry().map(|entry| entry.id.term))
    }

    /// The state from which a replica starts.
    pub(crate) fn boot(&mut self, id: ReplicaId, seed: u64) -> Boot {
        let applied = self.tree.applied;
        let restarted = std::mem::replace(&mut self.used, true);
        if self.durability == Durability::Lost {
            let (hard, conf) = (self.hard, self.tree.conf.clone());
            let boot = Boot::new(id, conf, seed);
            let (base, last, durability) = (applied, applied.index, Durability::Lost);
            return Boot { hard, applied, base, last, durability, restarted, ..boot };
        }
        if self.term(applied.index) != Some(applied.term) {
            // A snapshot was installed, and the power failed before the log was reset.
            self.take(Job::Reset(applied));
        }
        let mut runs: Vec<LogId> = Vec::new();
        let mut changes: Vec<(Index, Bytes)> = Vec::new();
        for entry in &self.entries {
            if runs.last().is_none_or(|run| run.term != entry.id.term) {
                runs.push(entry.id);
            }
            if entry.id.index > applied.index && entry.kind == EntryKind::CHANGE {
                changes.push((entry.id.index, entry.data.clone()));
            }
        }
        let (hard, conf) = (self.hard, self.tree.conf.clone());
        let (base, last) = (self.base, self.last().index);
        Boot {
            id,
            conf,
            changes,
            hard,
            applied,
            base,
            runs,
            last,
            seed,
            durability: self.durability,
            restarted,
        }
    }
}

impl LogReader for Disk {
    fn entries(&self, first: Index, end: Index, _: usize) -> Vec<Entry> {
        if first <= self.base.index {
            return Vec::new();
        }
        let skip = (first - self.base.index - 1) as usize;
        let count = end.distance_from(first) as usize;
        self.entries.iter().skip(skip).take(count).cloned().collect()
    }
}
