//! What a replica's disk has: a log, the hard state with it, and a tree as it was last flushed.

use bedstone_engine::LogId;
use bedstone_engine::wal::{Entry, HardState};
use bedstone_node::raft::{Boot, Conf, Durability, LogReader, PeerId, Write, kind};
use bytes::Bytes;

/// A tree: what it holds, the members as of then, and a digest of all entries that went into it,
/// if it had all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) applied: LogId,
    pub(crate) conf: Conf,
    pub(crate) digest: Option<u64>,
}

/// What the log is told, in order; each is durable as a whole or not at all.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Write(Write),
    /// The log begins anew, and then takes the write.
    ResetAndWrite(LogId, Write),
    /// A snapshot was installed: the log begins anew after it.
    Reset(LogId),
    /// Entries up to here are in the tree.
    Release(LogId),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard: HardState,
    base: LogId,
    entries: Vec<Entry>,
    pub(crate) tree: Tree,
    /// What it has of what its replica promised.
    durability: Durability,
}

impl Disk {
    pub(crate) fn new(conf: Conf) -> Disk {
        Disk { tree: Tree { conf, digest: Some(0), ..Tree::default() }, ..Disk::default() }
    }

    /// It is lost, and an empty one takes its place.
    pub(crate) fn lose(&mut self, conf: Conf) {
        *self = Disk { durability: Durability::Empty, ..Disk::new(conf) };
    }

    /// Records of its log are lost.
    pub(crate) fn damage(&mut self) {
        self.durability = Durability::Lost;
    }

    /// It never kept what it said to have synced, from this index on.
    pub(crate) fn forget(&mut self, first: u64) {
        self.entries.retain(|entry| entry.id.index < first);
    }

    /// It is not to be trusted, if it has anything.
    pub(crate) fn doubt(&mut self) {
        if self.durability == Durability::Intact && self.tree.conf != Conf::default() {
            self.durability = Durability::Suspect;
        }
    }

    /// It has all that its replica promised.
    pub(crate) fn keeps_promises(&self) -> bool {
        matches!(self.durability, Durability::Intact | Durability::Suspect)
    }

    pub(crate) fn take(&mut self, job: Job) {
        match &job {
            Job::Reset(_) | Job::ResetAndWrite(..) => self.durability = Durability::Intact,
            Job::Write(write) if write.hard.term > 0 && self.durability == Durability::Empty => {
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

    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        let of_entry = || self.entries.iter().find(|entry| entry.id.index == index);
        (index == self.base.index)
            .then_some(self.base.term)
            .or_else(|| of_entry().map(|entry| entry.id.term))
    }

    /// What a replica starts from.
    pub(crate) fn boot(&mut self, id: PeerId, seed: u64) -> Boot {
        let applied = self.tree.applied;
        if self.durability == Durability::Lost {
            let (hard, conf) = (self.hard, self.tree.conf.clone());
            let boot = Boot::new(id, conf, seed);
            let (base, last, durability) = (applied, applied.index, Durability::Lost);
            return Boot { hard, applied, base, last, durability, ..boot };
        }
        if self.term(applied.index) != Some(applied.term) {
            // A snapshot was installed, and the power went before the log heard of it.
            self.take(Job::Reset(applied));
        }
        let mut runs: Vec<LogId> = Vec::new();
        let mut changes: Vec<(u64, Bytes)> = Vec::new();
        for entry in &self.entries {
            if runs.last().is_none_or(|run| run.term != entry.id.term) {
                runs.push(entry.id);
            }
            if entry.id.index > applied.index && entry.kind == kind::CHANGE {
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
        }
    }
}

impl LogReader for Disk {
    fn entries(&self, first: u64, end: u64, _: usize) -> Vec<Entry> {
        if first <= self.base.index {
            return Vec::new();
        }
        let skip = (first - self.base.index - 1) as usize;
        let count = end.saturating_sub(first) as usize;
        self.entries.iter().skip(skip).take(count).cloned().collect()
    }
}
