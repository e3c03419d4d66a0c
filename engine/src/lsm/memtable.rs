//! The newest versions, in memory. One writer (the shard's applier), any number of readers.
//!
//! A `BTreeMap` under a lock: with a single writer it beat a lock-free skip list 2.5 times.

use super::key::{Cursor, Found, Value, Version};
use crate::LogId;
use crate::limits::Limits;
use crate::values::{Holder, Source};
use crate::wal::Segment;
use bytes::Bytes;
use parking_lot::RwLock;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// Versions copied out per lock of a scan.
const SCAN_BATCH_KEYS: usize = 64;
/// What a key costs besides its bytes: map node, handles, version.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// Versions of one key, oldest first.
type Versions = SmallVec<[(u64, Value); 1]>;

/// A sorted map of versions and how far in the log it reaches.
#[derive(Default)]
pub(super) struct Memtable {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    map: BTreeMap<Bytes, Versions>,
    /// Memory taken, about.
    bytes: usize,
    /// Bytes of values pointed to.
    value_bytes: u64,
    /// The log segments pointed to, ascending.
    segments: Vec<Arc<Segment>>,
    /// The last log entry applied here.
    upto: LogId,
    ts_max: u64,
}

impl Memtable {
    /// Adds the versions that one log entry writes; pointers in them are to `segment`.
    pub(super) fn apply(
        &self,
        at: LogId,
        ts: u64,
        segment: Option<&Arc<Segment>>,
        changes: impl Iterator<Item = (Bytes, Value)>,
    ) {
        let inner = &mut *self.inner.write();
        let before = inner.value_bytes;
        for (key, value) in changes {
            inner.bytes += key.len() + ENTRY_OVERHEAD_BYTES;
            match &value {
                Value::Inline(value) => inner.bytes += value.len(),
                Value::At(pointer) => inner.value_bytes += u64::from(pointer.len),
                Value::Tombstone => {}
            }
            let versions = inner.map.entry(key).or_default();
            match versions.last_mut() {
                Some(last) if last.0 == ts => last.1 = value,
                _ => versions.push((ts, value)),
            }
        }
        if let Some(segment) = segment.filter(|_| inner.value_bytes > before)
            && inner.segments.last().is_none_or(|s| s.sequence() != segment.sequence())
        {
            inner.segments.push(segment.clone());
        }
        inner.upto = at;
        inner.ts_max = inner.ts_max.max(ts);
    }

    /// The newest version at or before `ts`.
    pub(super) fn get(&self, key: &[u8], ts: u64) -> Option<Found> {
        let inner = self.inner.read();
        let versions = inner.map.get(key)?;
        let (_, value) = versions.iter().rev().find(|version| version.0 <= ts)?;
        Some(match value {
            Value::Tombstone => Found::Tombstone,
            Value::Inline(value) => Found::Inline(value.clone()),
            Value::At(pointer) => {
                let holder = inner.holder(pointer.source);
                Found::At(*pointer, holder.expect("a memtable holds what it points to"))
            }
        })
    }

    /// The holder of a source that this memtable points to.
    pub(super) fn holder(&self, source: Source) -> Option<Holder> {
        self.inner.read().holder(source)
    }

    /// Whether it should be frozen.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        let inner = self.inner.read();
        inner.bytes >= limits.memtable_bytes || inner.value_bytes >= limits.memtable_value_bytes
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

    pub(super) fn ts_max(&self) -> u64 {
        self.inner.read().ts_max
    }

    /// All versions of the keys from `from` on.
    pub(super) fn cursor(self: &Arc<Self>, from: Bound<Bytes>) -> MemtableCursor {
        MemtableCursor { table: self.clone(), from, ready: VecDeque::new(), ended: false }
    }
}

impl Inner {
    fn holder(&self, source: Source) -> Option<Holder> {
        let Source::Log(sequence) = source else { return None };
        let at = self.segments.binary_search_by_key(&sequence, |s| s.sequence()).ok()?;
        Some(Holder::Log(self.segments[at].clone()))
    }
}

/// Walks a memtable while it may grow; what is added meanwhile has later timestamps.
pub(super) struct MemtableCursor {
    table: Arc<Memtable>,
    from: Bound<Bytes>,
    ready: VecDeque<Version>,
    ended: bool,
}

impl Cursor for MemtableCursor {
    fn next(&mut self) -> crate::Result<Option<Version>> {
        if self.ready.is_empty() && !self.ended {
            self.refill();
        }
        Ok(self.ready.pop_front())
    }
}

impl MemtableCursor {
    fn refill(&mut self) {
        let inner = self.table.inner.read();
        let from = std::mem::replace(&mut self.from, Bound::Unbounded);
        let mut last = None;
        for (key, versions) in inner.map.range((from, Bound::Unbounded)).take(SCAN_BATCH_KEYS) {
            last = Some(key.clone());
            for (ts, value) in versions.iter().rev() {
                self.ready.push_back(Version { key: key.clone(), ts: *ts, value: value.clone() });
            }
        }
        match last {
            Some(key) => self.from = Bound::Excluded(key),
            None => self.ended = true,
        }
    }
}
