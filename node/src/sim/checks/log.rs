//! The log: leaders only append; what is committed at an index never changes, is the same
//! everywhere, and is in the log of every later leader; the commit index never falls while a node
//! lives (Raft, §5.3 and §5.4).

use super::super::Failure;
use super::super::host::Node;
use crate::raft::{Index, LogReader, PeerId, Term};
use crate::start::SHARD;
use bedstone_engine::LogId;
use bedstone_engine::wal::Entry;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Logs {
    /// The term and a digest of each committed entry.
    committed: BTreeMap<Index, (Term, u32)>,
    /// Of each node: how far its commits were compared, in this life.
    seen: BTreeMap<PeerId, Index>,
    /// Of each leader: its term and its last entry.
    leaders: BTreeMap<PeerId, (Term, LogId)>,
}

struct Disk<'a>(&'a Node);

impl LogReader for Disk<'_> {
    fn entries(&self, first: Index, end: Index, max_bytes: usize) -> Vec<Entry> {
        self.0.engine.log().entries(SHARD, first, end, max_bytes).unwrap_or_default()
    }
}

impl Logs {
    pub(super) fn ended(&mut self, id: PeerId) {
        self.seen.remove(&id);
        self.leaders.remove(&id);
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    pub(super) fn turn(&mut self, id: PeerId, node: &Node) -> Result<(), Failure> {
        self.commits(id, node)?;
        self.leads(id, node)
    }

    fn commits(&mut self, id: PeerId, node: &Node) -> Result<(), Failure> {
        let raft = node.group().raft();
        // What is applied is what counts; the rest may not be durable here yet.
        let commit = node.group().applied().index;
        // Before the base, the disk may still have what a snapshot took the place of.
        let mut seen = self.seen.get(&id).copied().unwrap_or(0).max(raft.base().index);
        if commit < seen {
            let text = format!("{id} took back its commit {seen}, now {commit}");
            return Err(Failure::new("commit-never-falls", text));
        }
        while seen < commit {
            let entries = raft.entries(seen + 1, usize::MAX, &Disk(node));
            let Some(first) = entries.first() else {
                break; // The disk cannot be read at present.
            };
            if first.id.index != seen + 1 {
                let text = format!("{id} has {:?} where {} was asked for", first.id, seen + 1);
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

    fn leads(&mut self, id: PeerId, node: &Node) -> Result<(), Failure> {
        let raft = node.group().raft();
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
            let text = format!("{id}, leader of {of}, had {before:?}, and now ends with {last:?}");
            return Err(Failure::new("leader-append-only", text));
        }
        if before.is_some_and(|(of, _)| of == term) {
            return Ok(());
        }
        // Newly elected: it has everything that was committed in terms before.
        let newest = self.committed.iter().next_back().filter(|(_, (of, _))| *of < term);
        if let Some((&index, &(of, _))) = newest
            && raft.term_at(index) != Some(of)
        {
            let text = format!("{id} leads in term {term} without entry {index} of term {of}");
            return Err(Failure::new("leader-completeness", text));
        }
        Ok(())
    }
}
