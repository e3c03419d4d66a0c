//! The view of a reader: memtables over tables at one moment.

use super::bounds::Span;
use super::memtable::Memtable;
use super::merge::{Merge, Moment, Visible};
use super::version::TableSet;
use crate::error::{Error, Result};
use crate::ids::{LogId, ShardId};
use crate::key::{Cursor, Found, Value, Version};
use crate::values::{Holder, Source};
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Memtables and tables, and the last log entries that are in them.
#[derive(Clone)]
pub(super) struct View {
    pub shard: ShardId,
    pub active: Arc<Memtable>,
    /// Newest first.
    pub frozen: Vec<Arc<Memtable>>,
    pub tables: Arc<TableSet>,
    pub applied: LogId,
    pub ts: u64,
    /// Values that expire at or before this time are not visible.
    pub now: u64,
    pub flushed: LogId,
    /// The time as of the last flush.
    pub flushed_now: u64,
    /// Older timestamps cannot be read exactly.
    pub history_from: u64,
}

/// The direction of a scan.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    Back,
}

impl View {
    pub(super) fn freeze(&mut self) {
        let full = std::mem::take(&mut self.active);
        full.end(self.now);
        self.frozen.insert(0, full);
    }

    pub(super) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }

    /// The newest version in a memtable.
    pub(super) fn get_recent(&self, key: &[u8], ts: u64) -> Option<Found> {
        self.memtables().find_map(|memtable| memtable.get(key, ts))
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let mut found = self.get_recent(key, self.ts);
        if found.is_none() {
            found = self.tables.get(key, self.ts)?;
        }
        resolve(self.shard, key, found, self.now)
    }

    fn holder(&self, source: Source) -> Option<Holder> {
        let recent = self.memtables().find_map(|memtable| memtable.holder(source));
        recent.or_else(|| self.tables.holder(source))
    }

    /// The timestamp and the time of this view, with all its range tombstones.
    fn moment(&self) -> Moment {
        let recent = self.memtables().map(|memtable| memtable.deleted());
        let older = self.tables.runs.iter().map(|run| run.deleted.clone());
        let deleted = recent.chain(older).filter(|ranges| !ranges.is_empty()).collect();
        Moment { ts: self.ts, now: self.now, deleted }
    }

    pub(super) fn scan(&self, range: impl RangeBounds<Vec<u8>>, way: Way) -> Scan {
        let own = |key: &Vec<u8>| Bytes::copy_from_slice(key);
        let range = (range.start_bound().map(own), range.end_bound().map(own));
        let mut parts = self.tables.bounds.clip(range);
        if way == Way::Forward {
            parts.reverse();
        }
        let (from, to, held) = (Bound::Unbounded, Bound::Unbounded, HashMap::new());
        let mut scan = Scan { parts, source: Err(None), from, to, way, view: self.clone(), held };
        scan.open_next();
        scan
    }

    fn merge(&self, from: &Bound<Bytes>) -> Result<Merge> {
        let first: &[u8] = match from {
            Bound::Included(key) | Bound::Excluded(key) => key,
            Bound::Unbounded => &[],
        };
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for memtable in self.memtables() {
            sources.push(Box::new(memtable.cursor(from.clone())));
        }
        self.tables.cursors(first, &mut sources)?;
        Merge::new(sources, false)
    }

    fn merge_back(&self, to: &Bound<Bytes>) -> Result<Merge> {
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for memtable in self.memtables() {
            sources.push(Box::new(memtable.cursor_back(to.clone())));
        }
        self.tables.cursors_back(to, &mut sources)?;
        Merge::new(sources, true)
    }
}

/// The value of a found version. A value in a log segment or a value file is read.
pub(super) fn resolve(
    shard: ShardId,
    key: &[u8],
    found: Option<Found>,
    now: u64,
) -> Result<Option<Bytes>> {
    let Some(found) = found.filter(|found| found.expires > now) else { return Ok(None) };
    match (found.value, found.holder) {
        (Value::Inline(value), _) => Ok(Some(value)),
        (Value::At(pointer), Some(holder)) => {
            holder.read(key, &pointer).map(Some).map_err(|error| name_key(shard, key, error))
        }
        _ => Ok(None),
    }
}

/// Adds the shard and the key to an error that reports damage.
fn name_key(shard: ShardId, key: &[u8], error: Error) -> Error {
    if !error.is_damage() {
        return error;
    }
    let key = Bytes::copy_from_slice(key);
    Error::Damaged { shard, from: key.clone(), to: key, cause: Arc::new(error) }
}

/// A consistent, unchanging view of a tree. A snapshot keeps its files while it lives.
pub struct Snapshot {
    pub(super) view: View,
}

impl Snapshot {
    /// The last log entry in the view.
    pub fn applied(&self) -> LogId {
        self.view.applied
    }

    /// The timestamp of the view.
    pub fn ts(&self) -> u64 {
        self.view.ts
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.view.get(key)
    }

    /// The values of a range, ascending.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        self.view.scan(range, Way::Forward)
    }

    /// The values of a range, descending.
    pub fn scan_back(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        self.view.scan(range, Way::Back)
    }
}

/// The keys and values of a range, ascending or descending. A scan keeps its files while it lives.
pub struct Scan {
    /// The parts of the range that are still to be read; the next part is the last one.
    parts: SmallVec<[Span; 2]>,
    source: Result<Visible, Option<Error>>,
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    way: Way,
    view: View,
    held: HashMap<Source, Option<Holder>>,
}

impl Scan {
    /// Begins the next part of the range. False if no part is left.
    fn open_next(&mut self) -> bool {
        let Some((from, to)) = self.parts.pop() else { return false };
        let (source, back) = match self.way {
            Way::Forward => (self.view.merge(&from), false),
            Way::Back => (self.view.merge_back(&to), true),
        };
        let moment = self.view.moment();
        self.source = source.map(|merge| Visible::new(merge, moment, back)).map_err(Some);
        (self.from, self.to) = (from, to);
        true
    }

    fn step(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        loop {
            let visible = match &mut self.source {
                Ok(visible) => visible,
                Err(error) => return error.take().map_or(Ok(None), Err),
            };
            let next = visible.next()?;
            let next = next.map(|v| (before(&v.key, &self.from), after(&v.key, &self.to), v));
            let Version { key, value, .. } = match (next, self.way) {
                (Some((true, _, _)), Way::Forward) | (Some((_, true, _)), Way::Back) => continue,
                (Some((false, false, version)), _) => version,
                _ if self.open_next() => continue,
                _ => return Ok(None),
            };
            let value = match value {
                Value::Tombstone => continue,
                Value::Inline(value) => value,
                Value::At(pointer) => {
                    let holder = match self.held.entry(pointer.source) {
                        Entry::Occupied(held) => held.into_mut(),
                        Entry::Vacant(free) => free.insert(self.view.holder(pointer.source)),
                    };
                    let read = match holder {
                        Some(holder) => holder.read(&key, &pointer),
                        None => {
                            let (what, source) = ("a source of values", pointer.source);
                            Err(Error::corrupt("shards", 0, what, format!("{source:?}"), "none"))
                        }
                    };
                    read.map_err(|error| name_key(self.view.shard, &key, error))?
                }
            };
            return Ok(Some((key, value)));
        }
    }
}

fn before(key: &Bytes, from: &Bound<Bytes>) -> bool {
    match from {
        Bound::Included(from) => key < from,
        Bound::Excluded(from) => key <= from,
        Bound::Unbounded => false,
    }
}

fn after(key: &Bytes, to: &Bound<Bytes>) -> bool {
    match to {
        Bound::Included(to) => key > to,
        Bound::Excluded(to) => key >= to,
        Bound::Unbounded => false,
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if !matches!(step, Some(Ok(_))) {
            self.source = Err(None);
        }
        step
    }
}
