//! The newest versions, in memory. A memtable has one writer (the shard's applier) and any number
//! of readers.
//!
//! A memtable is a `BTreeMap` under a lock: with a single writer, the map was 2.5 times as fast as
//! a lock-free skip list.

use super::ranges::{RangeTombstone, Ranges};
use crate::ids::LogId;
use crate::key::{AsOf, Cursor, Found, NEVER, Value, Version};
use crate::limits::Limits;
use crate::memory::Memory;
use crate::values::{Holder, Source};
use crate::wal::Segment;
use bytes::Bytes;
use parking_lot::RwLock;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// Keys whose versions a scan copies out each time it holds the lock.
const SCAN_BATCH_KEYS: usize = 64;
/// The memory of a key besides its bytes: map node, handles, version.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// Versions of one key, oldest first.
type Versions = SmallVec<[Held; 1]>;

#[derive(Clone)]
struct Held {
    ts: u64,
    /// The timestamp of the log entry that wrote the version: at or after `ts`.
    written: u64,
    expires: u64,
    value: Value,
}

impl Held {
    fn is_seen(&self, as_of: AsOf) -> bool {
        self.ts <= as_of.ts && self.written <= as_of.written
    }
}

/// A sorted map of versions, and the last log entry applied to the map.
#[derive(Default)]
pub(super) struct Memtable {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    map: BTreeMap<Bytes, Versions>,
    deleted: Arc<Ranges>,
    /// Approximate memory use.
    bytes: usize,
    /// Bytes of range tombstones, which are limited because one manifest edit holds all of them.
    range_bytes: usize,
    /// Bytes of values pointed to.
    value_bytes: u64,
    /// The log segments pointed to, ascending.
    segments: Vec<Arc<Segment>>,
    /// The last log entry applied here.
    upto: LogId,
    ts_max: u64,
    /// The time when the memtable was frozen.
    now: u64,
    /// The memory budget that counts `bytes`.
    memory: Option<Arc<Memory>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.give_back(self.bytes);
        }
    }
}

/// One change to a memtable.
pub(super) enum Change {
    /// A key, its new value or tombstone, the deadline, and the timestamp if it is before the
    /// entry's.
    Set(Bytes, Value, u64, Option<u64>),
    /// A deleted range.
    DeleteRange(Bytes, Bytes),
}

impl Memtable {
    /// Adds the versions that one log entry writes. Pointers in these versions refer to `segment`.
    pub(super) fn apply(
        &self,
        at: LogId,
        ts: u64,
        segment: Option<&Arc<Segment>>,
        memory: &Arc<Memory>,
        changes: impl Iterator<Item = Change>,
    ) {
        let inner = &mut *self.inner.write();
        let bytes_before = inner.bytes;
        for (number, change) in changes.enumerate() {
            match change {
                Change::Set(key, value, expires, past) => {
                    if let (Value::At(_), Some(segment)) = (&value, segment) {
                        inner.hold(segment);
                    }
                    if let Some(past) = past {
                        assert!(past < ts, "a version in the past is before its entry");
                        let deleted = inner.deleted.covering(&key, u64::MAX);
                        let is_after = deleted.is_none_or(|deleted| deleted < past);
                        assert!(is_after, "a version is after the deletions of its key");
                    }
                    let held = Held { ts: past.unwrap_or(ts), written: ts, expires, value };
                    inner.set(key, held);
                }
                Change::DeleteRange(from, to) => inner.delete_range(from, to, ts, number > 0),
            }
        }
        inner.upto = at;
        inner.ts_max = inner.ts_max.max(ts);
        memory.take(inner.bytes - bytes_before);
        inner.memory.get_or_insert_with(|| memory.clone());
    }

    /// The newest version that a reader sees.
    pub(super) fn get(&self, key: &[u8], as_of: AsOf) -> Option<Found> {
        let inner = self.inner.read();
        let held = inner
            .map
            .get(key)
            .and_then(|versions| versions.iter().rev().find(|version| version.is_seen(as_of)));
        let deleted = inner.deleted.covering(key, as_of.ts);
        if deleted.is_some_and(|deleted| held.is_none_or(|held| held.ts < deleted)) {
            return deleted.map(Found::tombstone);
        }
        let Held { ts, expires, value, .. } = held?.clone();
        let holder = match &value {
            Value::At(pointer) => {
                let holder = inner.holder(pointer.source);
                Some(holder.expect("a memtable holds the log segments of its pointers"))
            }
            _ => None,
        };
        Some(Found { ts, expires, value, holder })
    }

    /// The holder of a source that this memtable points to.
    pub(super) fn holder(&self, source: Source) -> Option<Holder> {
        self.inner.read().holder(source)
    }

    /// The ranges deleted here.
    pub(super) fn deleted(&self) -> Arc<Ranges> {
        self.inner.read().deleted.clone()
    }

    /// Whether the memtable is full and should be frozen.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        let inner = self.inner.read();
        inner.bytes >= limits.memtable_bytes
            || inner.value_bytes >= limits.memtable_value_bytes
            || inner.range_bytes >= limits.memtable_range_bytes
    }

    pub(super) fn bytes(&self) -> usize {
        self.inner.read().bytes
    }

    pub(super) fn keys(&self) -> usize {
        self.inner.read().map.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner.read().upto == LogId::default()
    }

    pub(super) fn upto(&self) -> LogId {
        self.inner.read().upto
    }

    /// Records the time at which the memtable was frozen. No change follows.
    pub(super) fn end(&self, now: u64) {
        self.inner.write().now = now;
    }

    /// The time when the memtable was frozen. After a crash, the log entries that follow this
    /// memtable are applied again and may read values that had not expired by this time.
    pub(super) fn now(&self) -> u64 {
        self.inner.read().now
    }

    pub(super) fn ts_max(&self) -> u64 {
        self.inner.read().ts_max
    }

    /// A cursor over the versions that a reader sees of the keys from `from` on.
    pub(super) fn cursor(self: &Arc<Self>, from: Bound<Bytes>, as_of: AsOf) -> MemtableCursor {
        let (table, ready) = (self.clone(), VecDeque::new());
        MemtableCursor { table, rest: from, as_of, ready, ended: false, reverse: false }
    }

    /// A backward cursor over the versions that a reader sees of the keys up to `to`.
    pub(super) fn cursor_back(self: &Arc<Self>, to: Bound<Bytes>, as_of: AsOf) -> MemtableCursor {
        MemtableCursor { reverse: true, ..self.cursor(to, as_of) }
    }
}

impl Inner {
    fn set(&mut self, key: Bytes, held: Held) {
        self.bytes += key.len() + ENTRY_OVERHEAD_BYTES;
        match &held.value {
            Value::Inline(value) => self.bytes += value.len(),
            Value::At(pointer) => self.value_bytes += u64::from(pointer.len),
            Value::Tombstone => {}
        }
        let versions = self.map.entry(key).or_default();
        match versions.last_mut() {
            Some(last) if last.ts == held.ts => *last = held,
            Some(last) => {
                assert!(last.ts < held.ts, "a version is after the older versions of its key");
                versions.push(held);
            }
            None => versions.push(held),
        }
    }

    /// Deletes a range. Keys in the range that an earlier change of the same log entry set, at the
    /// same timestamp, are deleted one by one: a range tombstone hides only older versions.
    fn delete_range(&mut self, from: Bytes, to: Bytes, ts: u64, after_others: bool) {
        if from >= to {
            return;
        }
        if after_others {
            for (_, versions) in self.map.range_mut::<Bytes, _>(&from..&to) {
                if let Some(last) = versions.last_mut().filter(|last| last.ts == ts) {
                    *last = Held { ts, written: ts, expires: NEVER, value: Value::Tombstone };
                }
            }
        }
        let bytes = from.len() + to.len() + ENTRY_OVERHEAD_BYTES;
        self.bytes += bytes;
        self.range_bytes += bytes;
        Arc::make_mut(&mut self.deleted).insert(RangeTombstone { from, to, ts });
    }

    fn hold(&mut self, segment: &Arc<Segment>) {
        if self.segments.last().is_none_or(|last| last.sequence() != segment.sequence()) {
            self.segments.push(segment.clone());
        }
    }

    fn holder(&self, source: Source) -> Option<Holder> {
        let Source::Log(sequence) = source else { return None };
        let at = self.segments.binary_search_by_key(&sequence, |s| s.sequence()).ok()?;
        Some(Holder::Log(self.segments[at].clone()))
    }
}

/// A cursor over a memtable that may grow concurrently. The versions added meanwhile come from
/// later log entries, so the reader does not see them.
pub(super) struct MemtableCursor {
    table: Arc<Memtable>,
    /// The bound at which the remaining keys begin. For a backward cursor, the remaining keys end
    /// at this bound.
    rest: Bound<Bytes>,
    as_of: AsOf,
    ready: VecDeque<Version>,
    ended: bool,
    reverse: bool,
}

impl Cursor for MemtableCursor {
    fn next(&mut self) -> crate::error::Result<Option<Version>> {
        while self.ready.is_empty() && !self.ended {
            self.refill();
        }
        Ok(self.ready.pop_front())
    }
}

impl MemtableCursor {
    fn refill(&mut self) {
        let inner = self.table.inner.read();
        let rest = std::mem::replace(&mut self.rest, Bound::Unbounded);
        let as_of = self.as_of;
        let version = |key: &Bytes, held: &Held| {
            let Held { ts, expires, value, .. } = held.clone();
            held.is_seen(as_of).then(|| Version { key: key.clone(), ts, expires, value })
        };
        let mut last = None;
        if self.reverse {
            let range = inner.map.range((Bound::Unbounded, rest)).rev();
            for (key, versions) in range.take(SCAN_BATCH_KEYS) {
                last = Some(key.clone());
                self.ready.extend(versions.iter().filter_map(|held| version(key, held)));
            }
        } else {
            let range = inner.map.range((rest, Bound::Unbounded));
            for (key, versions) in range.take(SCAN_BATCH_KEYS) {
                last = Some(key.clone());
                self.ready.extend(versions.iter().rev().filter_map(|held| version(key, held)));
            }
        }
        match last {
            Some(key) => self.rest = Bound::Excluded(key),
            None => self.ended = true,
        }
    }
}
