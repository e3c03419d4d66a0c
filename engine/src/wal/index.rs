//! Where each entry of each shard lies: 8 bytes an entry, and a run per term.

use super::format::{ENTRY_HEADER_BYTES, RECORD_HEADER_BYTES};
use super::{HardState, LogEntry, Record};
use crate::{LogId, ShardId};
use std::collections::{BTreeMap, VecDeque};

/// The place of an entry's header in the log, or of a record's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The segment's sequence (its low 32 bits: 2^32 segments of 32 MiB are 128 PiB of log).
    pub segment: u32,
    /// Byte offset in the segment.
    pub offset: u32,
}

/// One shard's slice of the log.
#[derive(Debug)]
pub(super) struct ShardLog {
    /// Everything up to here was released.
    pub base: LogId,
    pub hard: HardState,
    /// The index of the first entry held. Only in the course of a recovery is it not the one after
    /// the base: then what lies between must turn out to be released, or a segment is missing.
    start: u64,
    positions: VecDeque<Position>,
    /// First index of each run of entries of one term, ascending.
    terms: VecDeque<LogId>,
}

impl Default for ShardLog {
    fn default() -> Self {
        let (base, hard) = Default::default();
        Self { base, hard, start: 1, positions: VecDeque::new(), terms: VecDeque::new() }
    }
}

impl ShardLog {
    pub(super) fn first(&self) -> u64 {
        self.base.index + 1
    }

    pub(super) fn last(&self) -> LogId {
        match self.terms.back() {
            Some(run) => LogId { term: run.term, index: self.end() - 1 },
            None => self.base,
        }
    }

    /// The index after the last entry held.
    fn end(&self) -> u64 {
        self.start + self.positions.len() as u64
    }

    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.start || index >= self.end() {
            return None;
        }
        let run = self.terms.partition_point(|run| run.index <= index);
        Some(self.terms[run - 1].term)
    }

    pub(super) fn terms(&self) -> Vec<LogId> {
        self.terms.iter().copied().collect()
    }

    pub(super) fn position(&self, index: u64) -> Option<Position> {
        let slot = index.checked_sub(self.start)?;
        self.positions.get(slot as usize).copied()
    }

    /// The oldest segment that holds an entry of this shard: later entries lie in later segments.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.positions.front().map(|position| u64::from(position.segment))
    }

    /// Recovery does not have the entries that come before `index`.
    fn miss_before(&mut self, index: u64) {
        self.positions.clear();
        self.terms.clear();
        self.start = index;
    }

    /// Takes entries from index `start` on, which lie in one record at `position`.
    fn append(&mut self, start: u64, term: u64, entries: &[LogEntry], position: Position) {
        let first = start.max(self.first());
        if first >= start + entries.len() as u64 {
            return;
        }
        if first < self.start || first > self.end() {
            self.miss_before(first);
        }
        self.truncate(first);
        if self.terms.back().is_none_or(|run| run.term != term) {
            self.terms.push_back(LogId { term, index: first });
        }
        let mut offset = position.offset + RECORD_HEADER_BYTES as u32;
        for (index, entry) in (start..).zip(entries) {
            if index >= first {
                self.positions.push_back(Position { offset, ..position });
            }
            offset += (ENTRY_HEADER_BYTES + entry.data.len()) as u32;
        }
    }

    /// Drops the entries from `index` on.
    fn truncate(&mut self, index: u64) {
        self.positions.truncate((index - self.start) as usize);
        while self.terms.back().is_some_and(|run| run.index >= index) {
            self.terms.pop_back();
        }
    }

    fn release(&mut self, upto: LogId) {
        if upto.index < self.base.index {
            return;
        }
        if upto.index + 1 >= self.end() {
            return self.reset(upto);
        }
        self.base = upto;
        if upto.index < self.start {
            return;
        }
        self.positions.drain(..(upto.index + 1 - self.start) as usize);
        self.start = upto.index + 1;
        while self.terms.get(1).is_some_and(|run| run.index <= self.start) {
            self.terms.pop_front();
        }
        if let Some(run) = self.terms.front_mut() {
            run.index = self.start;
        }
    }

    fn reset(&mut self, at: LogId) {
        self.base = at;
        self.miss_before(at.index + 1);
    }

    /// What the shard had when a segment began.
    fn bound(&mut self, base: LogId, last: LogId) {
        self.release(base);
        let known = self.end() == last.index + 1 && (self.terms.is_empty() || self.last() == last);
        if !known {
            self.miss_before(last.index + 1);
        }
    }
}

/// All shards of one log.
#[derive(Debug, Default)]
pub(super) struct Index {
    shards: BTreeMap<ShardId, ShardLog>,
}

impl Index {
    pub(super) fn shard(&self, shard: ShardId) -> Option<&ShardLog> {
        self.shards.get(&shard)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardId, &ShardLog)> {
        self.shards.iter().map(|(&id, log)| (id, log))
    }

    /// Takes in a record that is durable at `position`.
    pub(super) fn apply(&mut self, record: &Record, position: Position) {
        if let Record::Forget { shard } = record {
            self.shards.remove(shard);
            return;
        }
        let log = self.shards.entry(record.shard()).or_default();
        match record {
            Record::Forget { .. } => {}
            Record::Entries { first, term, entries, .. } => {
                log.append(*first, *term, entries, position);
            }
            Record::HardState { state, .. } => log.hard = *state,
            Record::Release { upto, .. } => log.release(*upto),
            Record::Reset { at, .. } => log.reset(*at),
            Record::Bounds { base, last, .. } => log.bound(*base, *last),
        }
    }

    /// What a new segment begins with: enough for recovery to need no older one for it.
    pub(super) fn checkpoint(&self) -> Vec<Record> {
        let mut records = Vec::with_capacity(2 * self.shards.len());
        for (&shard, log) in &self.shards {
            records.push(Record::HardState { shard, state: log.hard });
            records.push(Record::Bounds { shard, base: log.base, last: log.last() });
        }
        records
    }

    /// The oldest segment that holds an entry of any shard.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.shards.values().filter_map(ShardLog::oldest).min()
    }

    /// A shard whose entries do not follow on from its released prefix.
    pub(super) fn gap(&self) -> Option<(ShardId, u64)> {
        let gap = |(&id, log): (&ShardId, &ShardLog)| {
            (log.start != log.first()).then_some((id, log.start))
        };
        self.shards.iter().find_map(gap)
    }
}
