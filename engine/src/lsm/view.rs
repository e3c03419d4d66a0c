//! The view of a reader: memtables over tables at one moment.

use super::bounds::Span;
use super::memtable::Memtable;
use super::merge::{Merge, Moment, Retained, Visible};
use super::ranges::{RangeTombstone, Ranges};
use super::version::TableSet;
use crate::error::{Error, Result};
use crate::ids::{LogId, ShardId};
use crate::key::{AsOf, Cursor, Found, Value, Version};
use crate::values::{Holder, Pointer, Source};
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
    /// The versions that a reader of the view sees.
    pub as_of: AsOf,
    /// Values that expire at or before this time are not visible.
    pub now: u64,
    pub flushed: LogId,
    /// The time as of the last flush.
    pub flushed_now: u64,
    /// Older timestamps cannot be read exactly.
    pub history_from: u64,
}

/// The versions that a scan yields, and their order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The newest values, ascending.
    Forward,
    /// The newest values, descending.
    Back,
    /// All versions that readers at this timestamp and later may need, ascending.
    History { horizon: u64 },
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
    pub(super) fn get_recent(&self, key: &[u8], as_of: AsOf) -> Option<Found> {
        self.memtables().find_map(|memtable| memtable.get(key, as_of))
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let mut found = self.get_recent(key, self.as_of);
        if found.is_none() {
            found = self.tables.get(key, self.as_of.ts)?;
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
        Moment { ts: self.as_of.ts, now: self.now, deleted }
    }

    pub(super) fn scan(&self, range: impl RangeBounds<Vec<u8>>, way: Way) -> Scan {
        let own = |key: &Vec<u8>| Bytes::copy_from_slice(key);
        let range = (range.start_bound().map(own), range.end_bound().map(own));
        let mut parts = self.tables.bounds.clip(range);
        if way != Way::Back {
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
            sources.push(Box::new(memtable.cursor(from.clone(), self.as_of)));
        }
        self.tables.cursors(first, &mut sources)?;
        Merge::new(sources, false)
    }

    fn merge_back(&self, to: &Bound<Bytes>) -> Result<Merge> {
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for memtable in self.memtables() {
            sources.push(Box::new(memtable.cursor_back(to.clone(), self.as_of)));
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

/// The moment of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The last log entry that the snapshot covers.
    pub at: LogId,
    /// The tree's timestamp as of that entry.
    pub ts: u64,
    /// The oldest timestamp that the snapshot contains exactly.
    pub history_from: u64,
    /// Values whose deadline is at or before this time are not in the snapshot.
    pub now: u64,
}

/// A consistent, unchanging view of a tree. A snapshot keeps its files while it lives.
pub struct Snapshot {
    pub(super) view: View,
    /// The oldest timestamp at which the view can be read exactly.
    pub(super) horizon: u64,
}

impl Snapshot {
    /// The last log entry in the view.
    pub fn applied(&self) -> LogId {
        self.view.applied
    }

    /// The timestamp of the view.
    pub fn ts(&self) -> u64 {
        self.view.as_of.ts
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.view.get(key)
    }

    /// The moment of the snapshot.
    pub fn head(&self) -> SnapshotHead {
        let (at, ts) = (self.view.applied, self.view.as_of.ts);
        SnapshotHead { at, ts, history_from: self.horizon, now: self.view.flushed_now }
    }

    /// Everything that a copy of the tree needs for reads from [`SnapshotHead::history_from`] on:
    /// the versions with their timestamps and deadlines, tombstones, and deleted ranges.
    pub fn history(&self) -> History {
        let horizon = self.horizon;
        let mut all = Ranges::default();
        self.view.moment().deleted.iter().for_each(|ranges| all.absorb(ranges));
        all.settle(horizon, |_, _| true);
        let ts = self.view.as_of.ts;
        let ranges: Vec<_> = all.iter().filter(|range| range.ts <= ts).collect();
        let versions = self.view.scan(.., Way::History { horizon });
        History { ranges: ranges.into_iter(), versions }
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
        let (view, moment) = (&self.view, self.view.moment());
        let source = match self.way {
            Way::Forward => {
                view.merge(&from).map(|cursor| Visible::Forward { cursor, moment, last: None })
            }
            Way::Back => {
                view.merge_back(&to).map(|cursor| Visible::Back { cursor, moment, newest: None })
            }
            Way::History { horizon } => view.merge(&from).map(|merge| {
                let horizon = Moment { ts: horizon, now: view.flushed_now, ..moment };
                let cursor = Retained::new(merge, horizon, true);
                Visible::History { cursor, ts: view.as_of.ts }
            }),
        };
        self.source = source.map_err(Some);
        self.from = from;
        self.to = to;
        true
    }

    /// The next version inside the range. Its value is not a pointer.
    fn next_version(&mut self) -> Result<Option<Version>> {
        loop {
            let visible = match &mut self.source {
                Ok(visible) => visible,
                Err(error) => return error.take().map_or(Ok(None), Err),
            };
            let next = visible.next()?;
            let next = next.map(|v| (before(&v.key, &self.from), after(&v.key, &self.to), v));
            let mut version = match (next, self.way) {
                (Some((true, _, _)), Way::Forward | Way::History { .. }) => continue,
                (Some((_, true, _)), Way::Back) => continue,
                (Some((false, false, version)), _) => version,
                _ if self.open_next() => continue,
                _ => return Ok(None),
            };
            if let Value::At(pointer) = &version.value {
                version.value = Value::Inline(self.read(&version.key, &pointer.clone())?);
            }
            return Ok(Some(version));
        }
    }

    /// The value that a pointer refers to.
    fn read(&mut self, key: &[u8], pointer: &Pointer) -> Result<Bytes> {
        let holder = match self.held.entry(pointer.source) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(free) => free.insert(self.view.holder(pointer.source)),
        };
        let read = match holder {
            Some(holder) => holder.read(key, pointer),
            None => {
                let (what, source) = ("a source of values", pointer.source);
                Err(Error::corrupt("shards", 0, what, format!("{source:?}"), "none"))
            }
        };
        read.map_err(|error| name_key(self.view.shard, key, error))
    }

    fn step(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while let Some(version) = self.next_version()? {
            if let Value::Inline(value) = version.value {
                return Ok(Some((version.key, value)));
            }
        }
        Ok(None)
    }

    /// Ends the scan: it yields nothing more after an error or its end.
    fn end(&mut self) {
        self.source = Err(None);
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
            self.end();
        }
        step
    }
}

/// All that a snapshot contains: first the deleted ranges, then the versions, ascending by key and
/// newest first. The history keeps its files while it lives.
pub struct History {
    ranges: std::vec::IntoIter<RangeTombstone>,
    versions: Scan,
}

/// An item of a [`History`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryItem {
    /// A deleted range.
    Range(RangeTombstone),
    /// A version. Its value is a tombstone or the value itself.
    Version(Version),
}

impl Iterator for History {
    type Item = Result<HistoryItem>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(range) = self.ranges.next() {
            return Some(Ok(HistoryItem::Range(range)));
        }
        let version = self.versions.next_version().transpose();
        if !matches!(version, Some(Ok(_))) {
            self.versions.end();
        }
        version.map(|version| version.map(HistoryItem::Version))
    }
}
