//! The location of each entry of each shard: 8 bytes per entry, and one item per run of entries of
//! one term.

use super::format::{
    Block, ENTRY_HEADER_BYTES, FoundRecord, RECORD_HEADER_BYTES, RecordHeader, RecordKind,
};
use super::record::{HardState, Record};
use crate::ids::{Index, LogId, ShardId, Term};
use crate::limits::BLOCK_BYTES;
use crate::missing::Missing;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::iter;
use std::ops::Range;

/// The position of an entry's or a record's header in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The segment's sequence (its low 32 bits: 2^32 segments of 32 MiB are 128 PiB of log).
    pub segment: u32,
    /// Byte offset in the segment.
    pub offset: u32,
}

impl Position {
    fn is_missing(self) -> bool {
        self.offset == 0
    }
}

/// The longest gap between known entries that is kept as missing entries. A longer gap also drops
/// the known entries before it, because each missing entry needs a position.
const GAP_MAX: u64 = 1 << 20;

/// The part of the log that belongs to one shard.
#[derive(Debug)]
pub(super) struct ShardLog {
    /// The last released entry.
    pub base: LogId,
    pub hard: HardState,
    /// The members of the shard, and the index of the entry as of which they are the members.
    pub members: Option<(Index, Bytes)>,
    /// The index of the first position. During recovery this index may be greater than the index
    /// after the base. The entries between the two must turn out to be released; otherwise they are
    /// missing.
    start: Index,
    /// The position of each entry. A missing entry has offset 0, where a segment's header is, and
    /// the segment in which it was lost.
    positions: VecDeque<Position>,
    /// The term and first index of each run of entries of one term, ascending. Missing entries have
    /// term 0.
    terms: VecDeque<LogId>,
    possible_loss: Option<PossibleLoss>,
}

/// A loss of durable data. No later record shows yet which data of this shard was lost.
#[derive(Clone, Copy, Debug)]
struct PossibleLoss {
    /// The segment in which the data was lost.
    segment: u64,
    /// The commit index before the loss. The lost data did not replace entries up to this index.
    commit: Index,
    /// The lost data may have added or removed entries.
    entries: bool,
    /// The lost data may have changed the hard state.
    state: bool,
}

impl Default for ShardLog {
    fn default() -> Self {
        let (base, hard, members, positions, terms, possible_loss) = Default::default();
        Self { base, hard, members, start: Index(1), positions, terms, possible_loss }
    }
}

impl ShardLog {
    pub(super) fn first(&self) -> Index {
        self.base.index + 1
    }

    pub(super) fn last(&self) -> LogId {
        match self.terms.back() {
            Some(run) => LogId { term: run.term, index: self.end() - 1 },
            None => self.base,
        }
    }

    /// The index after the last entry.
    fn end(&self) -> Index {
        self.start + self.positions.len() as u64
    }

    pub(super) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.start || index >= self.sound_end() {
            return None;
        }
        let run = self.terms.partition_point(|run| run.index <= index);
        Some(self.terms[run - 1].term).filter(|&term| term != Term(0))
    }

    pub(super) fn terms(&self) -> Vec<LogId> {
        self.terms.iter().copied().collect()
    }

    /// The position of an entry; `None` when the index is out of range or the entry is missing.
    pub(super) fn position(&self, index: Index) -> Option<Position> {
        let known = self.start <= index && index < self.sound_end();
        let slot = known.then(|| index - self.start)?;
        self.positions.get(slot as usize).copied().filter(|position| !position.is_missing())
    }

    /// The index after the last certain entry. Another leader may have replaced the entries that
    /// were not committed before a loss.
    fn sound_end(&self) -> Index {
        match self.possible_loss.filter(|possible_loss| possible_loss.entries) {
            Some(possible_loss) => {
                possible_loss.commit.clamp(self.base.index, self.last().index) + 1
            }
            None => self.end(),
        }
    }

    /// Returns the durable entries that cannot be read, and whether the hard state is uncertain.
    pub(super) fn missing(&self) -> Missing {
        let mut entries: Vec<Range<Index>> = Vec::new();
        if self.first() < self.start {
            entries.push(self.first()..self.start);
        }
        for (index, position) in self.start.until(self.sound_end()).zip(&self.positions) {
            match entries.last_mut() {
                _ if !position.is_missing() => {}
                Some(range) if range.end == index => range.end += 1,
                _ => entries.push(index..index + 1),
            }
        }
        if self.possible_loss.is_some_and(|possible_loss| possible_loss.entries) {
            match entries.last_mut() {
                Some(range) if range.end >= self.sound_end() => range.end = Index::END,
                _ => entries.push(self.sound_end()..Index::END),
            }
        }
        Missing {
            entries,
            state: self.possible_loss.is_some_and(|possible_loss| possible_loss.state),
        }
    }

    /// The oldest segment that holds an entry of this shard, or in which one was lost. Later
    /// entries are in later segments.
    pub(super) fn oldest(&self) -> Option<u64> {
        let held = self.positions.front().map(|position| u64::from(position.segment));
        held.into_iter().chain(self.possible_loss.map(|possible_loss| possible_loss.segment)).min()
    }

    /// Records that durable data was lost in a segment, and that the part of this shard is unknown.
    fn record_loss(&mut self, segment: u64) {
        let (old, commit) = (self.possible_loss, self.hard.commit);
        self.possible_loss = Some(PossibleLoss {
            segment: old.map_or(segment, |old| old.segment),
            commit: old.filter(|old| old.entries).map_or(commit, |old| old.commit),
            entries: true,
            state: true,
        });
    }

    /// Records that later records resolved the loss, for the entries or for the hard state.
    fn resolve_loss(&mut self, entries: bool, state: bool) {
        if let Some(possible_loss) = &mut self.possible_loss {
            possible_loss.entries &= !entries;
            possible_loss.state &= !state;
        }
        self.possible_loss.take_if(|possible_loss| !possible_loss.entries && !possible_loss.state);
    }

    /// Compares the log with the term of an entry that follows, perhaps after a loss. If the last
    /// known entry has this term, all known entries stay valid (Raft's log matching, section 5.3).
    /// Otherwise the uncertain entries are dropped.
    fn check_term(&mut self, term: Term) {
        if self.last().term != term {
            self.truncate(self.sound_end());
        }
        self.resolve_loss(true, false);
    }

    /// Accounts for unknown entries below `end` that existed. `lost_in` is the segment in which the
    /// entries were lost. With `None` the entries were in a segment that recovery did not read
    /// because its entries were released.
    fn mark_missing(&mut self, end: Index, lost_in: Option<u64>) {
        let gap = end.distance_from(self.end());
        match lost_in {
            Some(segment) if gap > 0 && gap <= GAP_MAX => {
                self.terms.push_back(LogId { term: Term(0), index: self.end() });
                let missing = Position { segment: segment as u32, offset: 0 };
                self.positions.resize((end - self.start) as usize, missing);
            }
            _ if gap > 0 || self.positions.is_empty() => {
                self.positions.clear();
                self.terms.clear();
                self.start = end.max(self.first());
            }
            _ => {}
        }
    }

    /// Adds `count` entries from index `start` on, each at its offset in a segment.
    fn append(
        &mut self,
        start: Index,
        term: Term,
        count: u64,
        offsets: impl Iterator<Item = u32>,
        segment: u64,
    ) {
        let first = start.max(self.first());
        let possible_loss = self.possible_loss.filter(|possible_loss| possible_loss.entries);
        // With a loss before them, entries that begin at or below the base show that the record
        // which lowered the base is lost. The bounds at the head of the next segment show the base.
        if first >= start + count || possible_loss.is_some() && start < first {
            return;
        }
        self.check_term(term);
        if first < self.start {
            self.positions.clear();
            self.terms.clear();
            self.start = first;
        }
        self.mark_missing(first, possible_loss.map(|possible_loss| possible_loss.segment));
        self.truncate(first);
        if self.terms.back().is_none_or(|run| run.term != term) {
            self.terms.push_back(LogId { term, index: first });
        }
        let offsets = offsets.take(count as usize).skip((first - start) as usize);
        let position = |offset| Position { segment: segment as u32, offset };
        self.positions.extend(offsets.map(position));
    }

    /// Drops the entries from `index` on.
    fn truncate(&mut self, index: Index) {
        self.positions.truncate(index.distance_from(self.start) as usize);
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
        self.positions.clear();
        self.terms.clear();
        self.start = at.index + 1;
    }

    /// Applies the bounds that the shard's log had when a segment began.
    fn apply_bounds(&mut self, base: LogId, last: LogId) {
        if base.index < self.base.index {
            self.reset(base);
        }
        self.release(base);
        if self.last() == last {
            return self.resolve_loss(true, false);
        }
        let possible_loss = self.possible_loss.filter(|possible_loss| possible_loss.entries);
        self.check_term(last.term);
        self.truncate(last.index + 1);
        self.mark_missing(last.index + 1, possible_loss.map(|possible_loss| possible_loss.segment));
        self.terms.push_back(last);
    }
}

/// All shards of one log.
#[derive(Debug, Default)]
pub(super) struct LogIndex {
    shards: BTreeMap<ShardId, ShardLog>,
    /// Durable data was lost in this segment, and no newer segment has begun: some shards may be
    /// unknown.
    lost: Option<u64>,
}

impl LogIndex {
    pub(super) fn shard(&self, shard: ShardId) -> Option<&ShardLog> {
        self.shards.get(&shard)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardId, &ShardLog)> {
        self.shards.iter().map(|(&id, log)| (id, log))
    }

    /// The shard. A shard that the index adds here may have lost data if any data was lost.
    fn shard_mut(&mut self, shard: ShardId) -> &mut ShardLog {
        let lost = self.lost;
        self.shards.entry(shard).or_insert_with(|| {
            let mut log = ShardLog::default();
            if let Some(segment) = lost {
                log.record_loss(segment);
            }
            log
        })
    }

    /// Applies a record that is durable at `position`.
    pub(super) fn apply(&mut self, record: &Record, position: Position) {
        let segment = u64::from(position.segment);
        if let Record::Forget { shard } = record {
            self.shards.remove(shard);
            return;
        }
        let log = self.shard_mut(record.shard());
        match record {
            Record::Forget { .. } => {}
            Record::Entries { first, term, entries, .. } => {
                let mut at = position.offset + RECORD_HEADER_BYTES as u32;
                let offsets = entries.iter().map(|entry| {
                    let offset = at;
                    at += (ENTRY_HEADER_BYTES + entry.data.len()) as u32;
                    offset
                });
                log.append(*first, *term, entries.len() as u64, offsets, segment);
            }
            Record::HardState { state, .. } => {
                log.hard = *state;
                log.resolve_loss(false, true);
            }
            Record::Release { upto, .. } => log.release(*upto),
            Record::Reset { at, .. } => {
                log.reset(*at);
                log.resolve_loss(true, false);
            }
            Record::Bounds { base, last, .. } => log.apply_bounds(*base, *last),
            Record::Members { index, members, .. } => log.members = Some((*index, members.clone())),
            &Record::PossibleLoss { segment, commit, entries, state, .. } => {
                log.possible_loss = Some(PossibleLoss { segment, commit, entries, state });
            }
        }
    }

    /// Applies a block that was found at an offset of a segment. The block may hold damaged
    /// records.
    pub(super) fn apply_block(&mut self, block: &Block, segment: u64, offset: u32) {
        if offset as usize == BLOCK_BYTES {
            let headers = block.records.iter().map(|found| &found.header);
            let bounds = headers.filter(|header| header.kind == RecordKind::Bounds);
            self.apply_segment_head(&bounds.map(|header| header.shard).collect());
        }
        for FoundRecord { offset: at, header, record } in &block.records {
            let position = Position { segment: segment as u32, offset: offset + *at as u32 };
            match record {
                Some(record) => self.apply(record, position),
                None => self.apply_damaged(header, segment),
            }
        }
    }

    /// Applies a record whose header is sound and whose payload is damaged.
    fn apply_damaged(&mut self, record: &RecordHeader, segment: u64) {
        let at = LogId { term: record.term, index: record.index };
        let log = self.shard_mut(record.shard);
        match record.kind {
            RecordKind::Entries => {
                let (count, nowhere) = (u64::from(record.count), std::iter::repeat(0));
                log.append(at.index, at.term, count, nowhere, segment);
            }
            // A damaged hard state loses the vote, and damaged bounds lose the base. Either loss
            // only makes a shard seem to miss more than it does.
            RecordKind::HardState => {
                let entries = log.possible_loss.is_some_and(|possible_loss| possible_loss.entries);
                log.record_loss(segment);
                log.resolve_loss(!entries, false);
            }
            RecordKind::Bounds => log.apply_bounds(log.base, at),
            // The members are a copy of what the tree holds.
            RecordKind::Members => log.members = None,
            RecordKind::PossibleLoss => {
                let (segment, commit) = (record.index.0, log.base.index);
                log.possible_loss =
                    Some(PossibleLoss { segment, commit, entries: true, state: true });
            }
            // These kinds have no payload.
            RecordKind::Release | RecordKind::Reset | RecordKind::Forget => {
                log.record_loss(segment)
            }
        }
    }

    /// Records that durable data in a segment is lost, and that the affected shards are unknown.
    pub(super) fn record_loss(&mut self, segment: u64) {
        self.lost = Some(segment);
        self.shards.values_mut().for_each(|log| log.record_loss(segment));
    }

    /// Applies the head of a new segment, which holds the bounds of these shards. After a loss, any
    /// other shard no longer exists: the record that forgot the shard was lost.
    fn apply_segment_head(&mut self, bound: &BTreeSet<ShardId>) {
        if self.lost.take().is_some() {
            self.shards.retain(|shard, _| bound.contains(shard));
        }
    }

    /// Records that a new segment begins with the bounds of every shard: a shard that appears later
    /// is new.
    pub(super) fn begin_segment(&mut self) {
        self.lost = None;
    }

    /// The records that a new segment begins with. With these records recovery needs no older
    /// segment for the hard states and bounds.
    pub(super) fn checkpoint(&self) -> Vec<Record> {
        let mut records = Vec::with_capacity(3 * self.shards.len());
        for (&shard, log) in &self.shards {
            records.push(Record::HardState { shard, state: log.hard });
            records.push(Record::Bounds { shard, base: log.base, last: log.last() });
            if let Some((index, members)) = &log.members {
                let (index, members) = (*index, members.clone());
                records.push(Record::Members { shard, index, members });
            }
            if let Some(PossibleLoss { segment, commit, entries, state }) = log.possible_loss {
                records.push(Record::PossibleLoss { shard, segment, commit, entries, state });
            }
        }
        records
    }

    /// The oldest segment that holds an entry of any shard.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.shards.values().filter_map(ShardLog::oldest).min()
    }

    /// Returns the missing data of a shard. A shard that the index does not know may miss all of
    /// its data if any data is lost.
    pub(super) fn missing(&self, shard: ShardId) -> Missing {
        match (self.shards.get(&shard), self.lost) {
            (Some(log), _) => log.missing(),
            (None, None) => Missing::default(),
            (None, Some(_)) => {
                Missing { entries: iter::once(Index(1)..Index::END).collect(), state: true }
            }
        }
    }

    /// If any data is lost, adds these shards: the shards exist, though perhaps all their records
    /// were lost.
    pub(super) fn register_shards(&mut self, shards: impl IntoIterator<Item = ShardId>) {
        if self.lost.is_some() {
            for shard in shards {
                self.shard_mut(shard);
            }
        }
    }

    /// Whether no shard misses anything.
    pub(super) fn is_whole(&self) -> bool {
        self.lost.is_none() && self.shards.values().all(|log| log.missing().is_empty())
    }
}
