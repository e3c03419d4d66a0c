//! Merging sorted streams of versions, and filtering the result for a reader or a compaction.

use super::ranges::Ranges;
use crate::error::Result;
use crate::key::{Cursor, NEVER, Value, Version};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Many cursors as one, in [`Version::order`] or its reverse.
pub(crate) struct Merge {
    heap: BinaryHeap<Head>,
    sources: Vec<Box<dyn Cursor>>,
}

struct Head {
    version: Version,
    source: usize,
    reverse: bool,
}

impl Ord for Head {
    /// `BinaryHeap` yields the greatest item first. The head whose version comes first in the merge
    /// is therefore the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.version.order(&other.version);
        let order = if self.reverse { order } else { order.reverse() };
        order.then(other.source.cmp(&self.source))
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
    /// Merges the sources, which all have the same direction. Among equal versions, the version of
    /// the earlier source comes first.
    pub(crate) fn new(mut sources: Vec<Box<dyn Cursor>>, reverse: bool) -> Result<Merge> {
        let mut heap = BinaryHeap::with_capacity(sources.len());
        for (source, cursor) in sources.iter_mut().enumerate() {
            if let Some(version) = cursor.next()? {
                heap.push(Head { version, source, reverse });
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

/// The timestamp and the time of a read, and the deleted ranges that apply to the read.
#[derive(Clone, Default)]
pub(crate) struct Moment {
    /// The reader sees versions at or before this timestamp.
    pub ts: u64,
    /// The reader sees values that expire after this time.
    pub now: u64,
    /// The deleted ranges of every source.
    pub deleted: Vec<Arc<Ranges>>,
}

impl Moment {
    /// Whether a range tombstone hides the version.
    fn deletes(&self, version: &Version) -> bool {
        let newest = self.deleted.iter().filter_map(|r| r.covering(&version.key, self.ts)).max();
        newest.is_some_and(|deleted| version.ts < deleted)
    }

    /// Whether `version`, the newest version of its key, is a value that the reader sees.
    fn shows(&self, version: &Version) -> bool {
        version.value != Value::Tombstone && version.expires > self.now && !self.deletes(version)
    }
}

/// The versions that a reader sees.
pub(crate) enum Visible {
    /// Every version at or before `ts` that a reader at the horizon or later may need, ascending.
    History { cursor: Retained<Merge>, ts: u64 },
    /// The newest version of each key, if that version is a value, ascending.
    Forward { cursor: Merge, moment: Moment, last: Option<Bytes> },
    /// These versions, descending. The versions of a key come oldest first, so the last version of
    /// a key counts.
    Back { cursor: Merge, moment: Moment, newest: Option<Version> },
}

impl Visible {
    pub(crate) fn next(&mut self) -> Result<Option<Version>> {
        match self {
            Visible::History { cursor, ts } => {
                while let Some(version) = cursor.next()? {
                    if version.ts <= *ts {
                        return Ok(Some(version));
                    }
                }
                Ok(None)
            }
            Visible::Forward { cursor, moment, last } => {
                while let Some(version) = cursor.next()? {
                    if version.ts > moment.ts || last.as_ref() == Some(&version.key) {
                        continue;
                    }
                    *last = Some(version.key.clone());
                    if moment.shows(&version) {
                        return Ok(Some(version));
                    }
                }
                Ok(None)
            }
            Visible::Back { cursor, moment, newest } => {
                while let Some(version) = cursor.next()? {
                    if version.ts > moment.ts {
                        continue;
                    }
                    let before = newest.replace(version);
                    let same = before.as_ref().map(|v| &v.key) == newest.as_ref().map(|v| &v.key);
                    if let Some(before) = before.filter(|v| !same && moment.shows(v)) {
                        return Ok(Some(before));
                    }
                }
                Ok(newest.take().filter(|version| moment.shows(version)))
            }
        }
    }
}

/// The versions that a flush or a compaction must keep. The horizon is the timestamp of `horizon`.
///
/// - Every version after the horizon is kept.
/// - For each key, the newest version at or before the horizon is kept.
/// - An expired value becomes a tombstone.
/// - A version at or before the horizon that a range tombstone at or before the horizon hides is
///   dropped: the range tombstone is kept, or no older version lies below.
/// - At the bottom, where no older version lies below, a tombstone at or before the horizon is
///   dropped too.
pub(crate) struct Retained<C> {
    cursor: C,
    horizon: Moment,
    bottom: bool,
    settled: Option<Bytes>,
}

impl<C: Cursor> Retained<C> {
    pub(crate) fn new(cursor: C, horizon: Moment, bottom: bool) -> Self {
        Self { cursor, horizon, bottom, settled: None }
    }
}

impl<C: Cursor> Cursor for Retained<C> {
    fn next(&mut self) -> Result<Option<Version>> {
        while let Some(mut version) = self.cursor.next()? {
            if version.expires <= self.horizon.now {
                version.value = Value::Tombstone;
                version.expires = NEVER;
            }
            if version.ts > self.horizon.ts {
                return Ok(Some(version));
            }
            if self.settled.as_ref() == Some(&version.key) {
                continue;
            }
            self.settled = Some(version.key.clone());
            let gone = version.value == Value::Tombstone && self.bottom;
            if !gone && !self.horizon.deletes(&version) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }
}
