//! Merging sorted streams of versions, and what a reader or a compaction keeps of the result.

use super::key::{Cursor, Value, Version};
use crate::Result;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Many cursors as one, in [`Version::order`].
pub(crate) struct Merge {
    heap: BinaryHeap<Head>,
    sources: Vec<Box<dyn Cursor>>,
}

struct Head {
    version: Version,
    source: usize,
}

impl Ord for Head {
    /// The heap gives the greatest first, so the smallest key is the greatest head.
    fn cmp(&self, other: &Self) -> Ordering {
        other.version.order(&self.version).then(other.source.cmp(&self.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

impl Merge {
    /// Merges the sources; of equal versions the earlier source's comes first.
    pub(crate) fn new(mut sources: Vec<Box<dyn Cursor>>) -> Result<Merge> {
        let mut heap = BinaryHeap::with_capacity(sources.len());
        for (source, cursor) in sources.iter_mut().enumerate() {
            if let Some(version) = cursor.next()? {
                heap.push(Head { version, source });
            }
        }
        Ok(Merge { heap, sources })
    }
}

impl Cursor for Merge {
    fn next(&mut self) -> Result<Option<Version>> {
        let Some(mut head) = self.heap.peek_mut() else { return Ok(None) };
        let source = head.source;
        match self.sources[source].next()? {
            Some(version) => Ok(Some(std::mem::replace(&mut head.version, version))),
            None => Ok(Some(std::collections::binary_heap::PeekMut::pop(head).version)),
        }
    }
}

/// What a reader at `ts` sees: the newest version of each key at or before it, if it is a value.
pub(crate) struct Visible<C> {
    cursor: C,
    ts: u64,
    last: Option<Bytes>,
}

impl<C: Cursor> Visible<C> {
    pub(crate) fn new(cursor: C, ts: u64) -> Self {
        Self { cursor, ts, last: None }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Version>> {
        while let Some(version) = self.cursor.next()? {
            if version.ts > self.ts || self.last.as_ref() == Some(&version.key) {
                continue;
            }
            self.last = Some(version.key.clone());
            if version.value != Value::Tombstone {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }
}

/// What must be kept: every version after the horizon, and of each key the newest at or before it.
/// At the bottom, where nothing older lies below, a tombstone at or before the horizon goes too.
pub(crate) struct Retained<C> {
    cursor: C,
    horizon: u64,
    bottom: bool,
    settled: Option<Bytes>,
}

impl<C: Cursor> Retained<C> {
    pub(crate) fn new(cursor: C, horizon: u64, bottom: bool) -> Self {
        Self { cursor, horizon, bottom, settled: None }
    }
}

impl<C: Cursor> Cursor for Retained<C> {
    fn next(&mut self) -> Result<Option<Version>> {
        while let Some(version) = self.cursor.next()? {
            if version.ts > self.horizon {
                return Ok(Some(version));
            }
            if self.settled.as_ref() == Some(&version.key) {
                continue;
            }
            self.settled = Some(version.key.clone());
            if version.value != Value::Tombstone || !self.bottom {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }
}
