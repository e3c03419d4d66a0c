//! Where each entry of each shard lies: 8 bytes an entry, and a run per term.

use super::{HardState, Record};
use crate::{LogId, ShardId};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// The place of a record's header in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The segment's sequence (its low 32 bits: 2^32 segments of 32 MiB are 128 PiB of log).
    pub segment: u32,
    /// Byte offset in the segment.
    pub offset: u32,
}

/// One shard's slice of the log.
#[derive(Debug, Default)]
pub(super) struct ShardLog {
    /// Everything up to here was released; the entries begin after it.
    pub base: LogId,
    pub hard: HardState,
    positions: VecDeque<Position>,
    /// First index of each run of entries of one term, ascending.
    terms: VecDeque<LogId>,
    /// Recovery met entries from this index on that do not follow on. A release must cover all
    /// before it, and then this is 0 again; if none does, a segment is missing.
    gap_before: u64,
}

impl ShardLog {
    pub(super) fn first(&self) -> u64 {
        self.base.index + 1
    }

    pub(super) fn last(&self) -> LogId {
        match self.terms.back() {
            Some(run) => {
                let index = self.base.index + self.positions.len() as u64;
                LogId { term: run.term, index }
            }
            None => self.base,
        }
    }

    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last().index {
            return None;
        }
        let run = self.terms.partition_point(|run| run.index <= index);
        Some(self.terms[run - 1].term)
    }

    pub(super) fn terms(&self) -> Vec<LogId> {
        self.terms.iter().copied().collect()
    }

    pub(super) fn position(&self, index: u64) -> Option<Position> {
        let slot = index.checked_sub(self.first())?;
        self.positions.get(slot as usize).copied()
    }

    /// The oldest segment that holds an entry of this shard: later entries lie in later segments.
    pub(super) fn oldest(&self) -> Option<u32> {
        self.positions.front().map(|position| position.segment)
    }

    /// Recovery does not have the entries that come before `index`.
    fn miss_before(&mut self, index: u64) {
        self.reset(LogId { term: 0, index: index - 1 });
        self.gap_before = index;
    }

    fn append(&mut self, indexes: Range<u64>, term: u64, position: Position) {
        if self.gap_before > 0 && indexes.start < self.gap_before {
            self.miss_before(indexes.start);
        }
        let first = indexes.start.max(self.first());
        if first >= indexes.end {
            return;
        }
        if first > self.last().index + 1 {
            self.miss_before(first);
        }
        self.truncate(first);
        if self.terms.back().is_none_or(|run| run.term != term) {
            self.terms.push_back(LogId { term, index: first });
        }
        self.positions.extend((first..indexes.end).map(|_| position));
    }

    /// Drops the entries from `index` on.
    fn truncate(&mut self, index: u64) {
        self.positions.truncate((index - self.first()) as usize);
        while self.terms.back().is_some_and(|run| run.index >= index) {
            self.terms.pop_back();
        }
    }

    fn release(&mut self, upto: LogId) {
        if upto.index < self.base.index {
            return;
        }
        if upto.index + 1 >= self.gap_before {
            self.gap_before = 0;
        }
        if upto.index >= self.last().index {
            return self.reset(upto);
        }
        self.positions.drain(..(upto.index - self.base.index) as usize);
        self.base = upto;
        while self.terms.get(1).is_some_and(|run| run.index <= upto.index + 1) {
            self.terms.pop_front();
        }
        if let Some(run) = self.terms.front_mut() {
            run.index = upto.index + 1;
        }
    }

    fn reset(&mut self, at: LogId) {
        self.base = at;
        self.positions.clear();
        self.terms.clear();
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
        let log = self.shards.entry(record.shard()).or_default();
        match record {
            Record::Entries { first, term, count, .. } => {
                log.append(*first..*first + u64::from(*count), *term, position);
            }
            Record::HardState { state, .. } => log.hard = *state,
            Record::Release { upto, .. } => log.release(*upto),
            Record::Reset { at, .. } => {
                log.gap_before = 0;
                log.reset(*at);
            }
            Record::Bounds { base, last, .. } => {
                log.release(*base);
                if log.last() != *last {
                    log.miss_before(last.index + 1);
                }
            }
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
    pub(super) fn oldest(&self) -> Option<u32> {
        self.shards.values().filter_map(ShardLog::oldest).min()
    }

    /// A shard whose entries do not follow on from its released prefix.
    pub(super) fn gap(&self) -> Option<(ShardId, u64)> {
        let gap = |(&id, log): (&ShardId, &ShardLog)| {
            (log.gap_before > 0).then_some((id, log.gap_before))
        };
        self.shards.iter().find_map(gap)
    }
}
