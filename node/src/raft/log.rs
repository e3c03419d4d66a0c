//! The core's view of its log: the terms of all entries, the newest entries themselves, and the
//! durable part of the log. Older entries are read from the engine when a follower needs them.

use super::entries::Entries;
use super::{Index, Seq, Term};
use bedstone_engine::LogId;
use bedstone_engine::wal::Entry;
use std::collections::VecDeque;

/// Reads durable entries that are no longer in memory.
pub trait LogReader {
    /// The entries from `first` on, below `end`: at least one, then more up to `max_bytes`. The
    /// result is empty when the entries are gone.
    fn entries(&self, first: Index, end: Index, max_bytes: usize) -> Vec<Entry>;
}

/// Entries that were added together and are passed on together.
#[derive(Clone, Debug)]
struct EntryBatch {
    entries: Entries,
    /// Bytes of the data of the entries.
    bytes: usize,
}

impl EntryBatch {
    fn first(&self) -> Index {
        self.entries[0].id.index
    }

    fn last(&self) -> Index {
        self.first() + self.entries.len() as u64 - 1
    }

    /// Bytes of the data of the entries from `first` to `last`.
    fn bytes_within(&self, first: Index, last: Index) -> usize {
        if first <= self.first() && self.last() <= last {
            return self.bytes;
        }
        let within = self.entries.iter().filter(|e| (first..=last).contains(&e.id.index));
        within.map(|entry| entry.data.len()).sum()
    }
}

/// The core's view of its log, see the module. Invariants:
///
/// - `base.index <= last`, and `persisted < unwritten <= last + 1`.
/// - `runs` ascends in index and term. The first run begins directly after `base`, so each entry
///   after `base` belongs to a run.
/// - The entries in `recent`, followed by the entries in `fresh`, have no gap and end at `last`.
///   Every entry after `persisted` is among them.
/// - `writing` ascends in write number, and its indexes never decrease.
#[derive(Clone, Debug)]
pub struct RaftLog {
    /// The last entry that a snapshot covers. The entries of the log begin after `base`.
    base: LogId,
    /// The first entry of each run of entries with one term, in ascending order.
    runs: VecDeque<LogId>,
    last: Index,
    /// The newest entries, in batches, without a gap.
    recent: VecDeque<EntryBatch>,
    /// The entries after `recent` up to `last`: proposals of a leader that are not in a batch yet.
    fresh: Vec<Entry>,
    recent_bytes: usize,
    /// Entries up to this index are durable on this replica's disk.
    persisted: Index,
    /// Writes under way. When a write is durable, the log up to the index of the write is durable
    /// too.
    writing: VecDeque<(Seq, Index)>,
    /// Entries from this index on are in no write yet.
    unwritten: Index,
}

impl RaftLog {
    /// The view of a log as found on disk: the base, the first entry of each run of one term, and
    /// the last index.
    pub fn new(base: LogId, runs: Vec<LogId>, last: Index) -> Self {
        Self {
            base,
            runs: runs.into(),
            last,
            recent: VecDeque::new(),
            fresh: Vec::new(),
            recent_bytes: 0,
            persisted: last,
            writing: VecDeque::new(),
            unwritten: last + 1,
        }
    }

    /// The last entry that the snapshot below the first entry covers.
    pub fn base(&self) -> LogId {
        self.base
    }

    /// The last entry.
    pub fn last(&self) -> LogId {
        let term = self.runs.back().map_or(self.base.term, |run| run.term);
        LogId { term, index: self.last }
    }

    /// The last durable index.
    pub fn persisted(&self) -> Index {
        self.persisted
    }

    /// The term of an entry. Returns `None` before the base and after the end.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        if let Some(run) = self.runs.back().filter(|run| run.index <= index) {
            return Some(run.term);
        }
        let at = self.runs.partition_point(|run| run.index <= index);
        Some(self.runs[at - 1].term)
    }

    /// The last place at or before `hint` whose term is at most the hint's term. A log that has the
    /// hint may agree with this log at that place (§5.3, the accelerated back-up).
    pub fn agreement(&self, hint: LogId) -> LogId {
        let mut index = hint.index.min(self.last);
        while let Some(term) = self.term(index) {
            if term <= hint.term {
                return LogId { term, index };
            }
            let at = self.runs.partition_point(|run| run.index <= index);
            if at == 0 {
                break;
            }
            index = self.runs[at - 1].index - 1;
        }
        self.base
    }

    /// Adds an entry at the end. [`Self::seal_batch`] must run before the entry is read.
    pub fn push(&mut self, entry: Entry) {
        self.extend_to(entry.id, entry.id.index);
        self.recent_bytes += entry.data.len();
        self.fresh.push(entry);
    }

    /// Adds entries at the end.
    pub fn append(&mut self, entries: Entries) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        self.seal_batch();
        if first.id.term == last.id.term {
            self.extend_to(first.id, last.id.index);
        } else {
            entries.iter().for_each(|entry| self.extend_to(entry.id, entry.id.index));
        }
        let bytes = entries.bytes();
        self.recent_bytes += bytes;
        self.recent.push_back(EntryBatch { entries, bytes });
    }

    /// Extends the log to `last` with entries of one term.
    fn extend_to(&mut self, first: LogId, last: Index) {
        assert_eq!(first.index, self.last + 1, "entries follow the last entry without a gap");
        let term = self.last().term;
        assert!(first.term >= term, "terms never decrease");
        if first.term > term || self.runs.is_empty() {
            self.runs.push_back(first);
        }
        self.last = last;
    }

    /// Seals the pushed entries into one batch.
    pub fn seal_batch(&mut self) {
        if !self.fresh.is_empty() {
            let entries = Entries::from(&mut self.fresh);
            let bytes = entries.bytes();
            self.recent.push_back(EntryBatch { entries, bytes });
        }
    }

    /// Removes the entries from `from` on.
    pub fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "a snapshot covers the entries up to the base");
        self.seal_batch();
        while let Some(batch) = self.recent.pop_back_if(|batch| batch.last() >= from) {
            self.recent_bytes -= batch.bytes;
            if batch.first() < from {
                let entries = batch.entries.slice(0..(from - batch.first()) as usize);
                let bytes = entries.bytes();
                self.recent_bytes += bytes;
                self.recent.push_back(EntryBatch { entries, bytes });
            }
        }
        self.last = self.last.min(from - 1);
        while self.runs.back().is_some_and(|run| run.index >= from) {
            self.runs.pop_back();
        }
        self.persisted = self.persisted.min(from - 1);
        self.unwritten = self.unwritten.min(from);
        for (_, upto) in &mut self.writing {
            *upto = (*upto).min(from - 1);
        }
    }

    /// Restarts the log, without entries, after a snapshot.
    pub fn reset(&mut self, base: LogId) {
        *self = Self::new(base, Vec::new(), base.index);
    }

    /// The last index that was handed out in a write.
    pub fn last_handed_out(&self) -> Index {
        self.unwritten - 1
    }

    /// A snapshot at an entry of this log was installed. The entries that the snapshot covers need
    /// no write any more.
    pub fn cover_with_snapshot(&mut self, at: LogId) {
        self.persisted = self.persisted.max(at.index);
        self.unwritten = self.unwritten.max(at.index + 1);
        self.compact(at);
    }

    /// Releases entries that a snapshot covers.
    pub fn compact(&mut self, upto: LogId) {
        if upto.index <= self.base.index || upto.index > self.last {
            return;
        }
        self.base = upto;
        while self.runs.get(1).is_some_and(|run| run.index <= upto.index + 1) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(_) if upto.index == self.last => self.runs.clear(),
            Some(run) => run.index = run.index.max(upto.index + 1),
            None => {}
        }
        self.evict(upto.index);
    }

    /// Removes durable entries up to `upto` from memory, in whole batches only.
    pub fn evict(&mut self, upto: Index) {
        let upto = upto.min(self.persisted);
        while let Some(batch) = self.recent.pop_front_if(|batch| batch.last() <= upto) {
            self.recent_bytes -= batch.bytes;
        }
    }

    /// Removes durable entries from memory and releases the spare capacity.
    pub fn shrink_to_fit(&mut self) {
        self.evict(self.last);
        self.recent.shrink_to_fit();
        self.fresh.shrink_to_fit();
        self.writing.shrink_to_fit();
        self.runs.shrink_to_fit();
    }

    /// Bytes of the entries in memory.
    pub fn recent_bytes(&self) -> usize {
        self.recent_bytes
    }

    /// Bytes of the entries from `first` to `last` that are in batches in memory.
    pub fn bytes(&self, first: Index, last: Index) -> usize {
        if let Some(batch) = self.newest_from(first).filter(|batch| batch.last() == last) {
            return batch.bytes;
        }
        let batches = self.recent.range(self.batch_of(first)..);
        let batches = batches.take_while(|batch| batch.first() <= last);
        batches.map(|batch| batch.bytes_within(first, last)).sum()
    }

    /// The position of the first batch that ends at or after an index.
    fn batch_of(&self, index: Index) -> usize {
        self.recent.partition_point(|batch| batch.last() < index)
    }

    /// The entries from `first` on: at least one, then more up to `max_bytes`.
    pub fn entries(&self, first: Index, max_bytes: usize, reader: &dyn LogReader) -> Entries {
        match self.recent.front().map(EntryBatch::first) {
            Some(front) if first >= front => self.recent(first, max_bytes),
            front => reader.entries(first, front.unwrap_or(self.last + 1), max_bytes).into(),
        }
    }

    /// The newest batch, if the batch begins at `first`. Most requests are for this batch.
    fn newest_from(&self, first: Index) -> Option<&EntryBatch> {
        self.recent.back().filter(|batch| batch.first() == first)
    }

    /// Like [`Self::entries`], for entries in memory.
    fn recent(&self, first: Index, max_bytes: usize) -> Entries {
        match self.newest_from(first).filter(|batch| batch.bytes <= max_bytes) {
            Some(batch) => batch.entries.clone(),
            None => self.gather(first, max_bytes),
        }
    }

    /// Collects entries in memory. Entries are copied only if they span several batches.
    #[inline(never)]
    fn gather(&self, first: Index, max_bytes: usize) -> Entries {
        let at = self.batch_of(first);
        let Some(batch) = self.recent.get(at) else { return Entries::default() };
        let is_last = at + 1 == self.recent.len();
        let head = batch.entries.from_index(first);
        let mut bytes = 0;
        let mut fits = |entry: &&Entry| {
            let fits = bytes == 0 || bytes + entry.data.len() <= max_bytes;
            bytes += entry.data.len().max(1);
            fits
        };
        let count = head.iter().take_while(&mut fits).count();
        if is_last || count < head.len() {
            return head.slice(0..count);
        }
        let later = self.recent.range(at + 1..).flat_map(|batch| batch.entries.iter());
        head.iter().chain(later.take_while(fits)).cloned().collect()
    }

    /// Returns the entries that are in no write yet, as the entries of write `seq`.
    pub fn write(&mut self, seq: Seq) -> Entries {
        self.seal_batch();
        let entries = if self.has_unwritten() {
            self.recent(self.unwritten, usize::MAX)
        } else {
            Entries::default()
        };
        self.unwritten = self.last + 1;
        self.writing.push_back((seq, self.last));
        entries
    }

    /// Whether entries wait to be written.
    pub fn has_unwritten(&self) -> bool {
        self.unwritten <= self.last
    }

    /// Write `seq` is durable.
    pub fn on_persisted(&mut self, seq: Seq) {
        while let Some((_, upto)) = self.writing.pop_front_if(|(first, _)| *first <= seq) {
            self.persisted = self.persisted.max(upto);
        }
        assert!(self.persisted <= self.last, "durable entries are entries of the log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bedstone_engine::wal::EntryKind;

    fn log(last: Index) -> RaftLog {
        let mut log = RaftLog::new(LogId::default(), Vec::new(), Index(0));
        for index in Index(1).until(last + 1) {
            log.push(Entry {
                id: LogId { term: Term(1), index },
                kind: EntryKind::COMMANDS,
                data: "x".into(),
            });
        }
        log
    }

    /// An append and a snapshot of a part of that append arrived before a write was handed out.
    #[test]
    fn entries_covered_by_a_snapshot_are_not_written() {
        let mut log = log(Index(5));
        log.cover_with_snapshot(LogId { term: Term(1), index: Index(3) });
        let written = log.write(1);
        assert_eq!(
            written.iter().map(|entry| entry.id.index).collect::<Vec<_>>(),
            [4, 5].map(Index)
        );
        assert_eq!((log.base().index, log.persisted()), (Index(3), Index(3)));
        assert_eq!(log.last_handed_out(), Index(5));
        log.on_persisted(1);
        assert_eq!(log.persisted(), Index(5));
    }

    /// A write that completes late does not prove that the entries that replaced its entries are
    /// durable.
    #[test]
    fn a_truncated_write_does_not_make_new_entries_durable() {
        let mut log = log(Index(3));
        assert_eq!(log.write(1).len(), 3);
        log.truncate(Index(2));
        log.push(Entry {
            id: LogId { term: Term(2), index: Index(2) },
            kind: EntryKind::COMMANDS,
            data: "y".into(),
        });
        log.on_persisted(1);
        assert_eq!(log.persisted(), Index(1));
        assert_eq!(log.write(2).len(), 1);
        log.on_persisted(2);
        assert_eq!(log.persisted(), Index(2));
    }
}
