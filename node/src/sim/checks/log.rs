//! The log: a leader only appends. A committed entry never changes, is the same on every node, and
//! is in the log of every later leader. The commit index never falls while a node runs (Raft, §5.3
//! and §5.4).

use super::super::host::Node;
use super::super::outcome::Failure;
use crate::raft::{Index, LogReader, Term};
use crate::router::FIRST_SHARD;
use crate::sim::replicas::HostId;
use bedstone_engine::LogId;
use bedstone_engine::wal::Entry;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Logs {
    /// The term and a digest of each committed entry.
    committed: BTreeMap<Index, (Term, u32)>,
    /// The index up to which the commits of each node were compared, in its current incarnation.
    seen: BTreeMap<HostId, Index>,
    /// The term and the last entry of each leader.
    leaders: BTreeMap<HostId, (Term, LogId)>,
}

struct Disk<'a>(&'a Node);

impl LogReader for Disk<'_> {
    fn entries(&self, first: Index, end: Index, max_bytes: usize) -> Vec<Entry> {
        self.0.engine.log().entries(FIRST_SHARD, first, end, max_bytes).unwrap_or_default()
    }
}

impl Logs {
    pub(super) fn ended(&mut self, id: HostId) {
        self.seen.remove(&id);
        self.leaders.remove(&id);
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    pub(super) fn turn(&mut self, id: HostId, node: &Node) -> Result<(), Failure> {
        self.commits(id, node)?;
        self.leads(id, node)
    }

    fn commits(&mut self, id: HostId, node: &Node) -> Result<(), Failure> {
        let raft = node.replica().raft();
        // Only applied entries are compared: a committed entry may not be durable on this node yet.
        let commit = node.replica().applied().index;
        // Up to the base, the disk may still hold entries that a snapshot replaced.
        let mut seen = self.seen.get(&id).copied().unwrap_or(Index(0)).max(raft.base().index);
        if commit < seen {
            let text = format!("the commit index of node {id} fell from {seen} to {commit}");
            return Err(Failure::new("commit-never-falls", text));
        }
        while seen < commit {
            let entries = raft.entries(seen + 1, usize::MAX, &Disk(node));
            let Some(first) = entries.first() else {
                break; // The disk cannot be read at present.
            };
            if first.id.index != seen + 1 {
                let text = format!("node {id} returned {:?} for index {}", first.id, seen + 1);
                return Err(Failure::new("log-is-whole", text));
            }
            for entry in entries.iter().take_while(|entry| entry.id.index <= commit) {
                let found = (entry.id.term, crc32fast::hash(&entry.data));
                let known = *self.committed.entry(entry.id.index).or_insert(found);
                if known != found {
                    let text = format!("{id} committed {found:?} at {:?}, not {known:?}", entry.id);
                    return Err(Failure::new("state-machine-safety", text));
                }
                seen = entry.id.index;
            }
        }
        self.seen.insert(id, seen);
        Ok(())
    }

    fn leads(&mut self, id: HostId, node: &Node) -> Result<(), Failure> {
        let raft = node.replica().raft();
        if !raft.is_leader() {
            self.leaders.remove(&id);
            return Ok(());
        }
        let (term, last) = (raft.term(), raft.last());
        let before = self.leaders.insert(id, (term, last));
        if let Some((of, before)) = before.filter(|&(of, _)| of == term)
            && (last.index < before.index
                || raft.term_at(before.index).is_some_and(|t| t != before.term))
        {
            let text = format!("leader {id} of term {of} had {before:?}, now ends with {last:?}");
            return Err(Failure::new("leader-append-only", text));
        }
        if before.is_some_and(|(of, _)| of == term) {
            return Ok(());
        }
        // A new leader has every entry that was committed in an earlier term.
        let newest = self.committed.iter().next_back().filter(|(_, (of, _))| *of < term);
        if let Some((&index, &(of, _))) = newest
            && raft.term_at(index) != Some(of)
        {
            let text = format!("node {id} leads in term {term} without entry {index} of term {of}");
            return Err(Failure::new("leader-completeness", text));
        }
        Ok(())
    }
}
