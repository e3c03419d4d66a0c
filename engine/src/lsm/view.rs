//! What readers see: memtables over tables at one moment.

use super::Tree;
use super::key::{Cursor, Found, Value, Version};
use super::memtable::Memtable;
use super::merge::{Merge, Visible};
use super::version::TableSet;
use crate::LogId;
use crate::checksum::key_hash;
use crate::error::{Error, Result};
use crate::values::{Holder, Source};
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Memtables and tables, and how far in the log they reach.
#[derive(Clone)]
pub(super) struct View {
    pub active: Arc<Memtable>,
    /// Newest first.
    pub frozen: Vec<Arc<Memtable>>,
    pub tables: Arc<TableSet>,
    pub applied: LogId,
    pub ts: u64,
    pub flushed: LogId,
}

impl View {
    pub(super) fn freeze(&mut self) {
        let full = std::mem::take(&mut self.active);
        self.frozen.insert(0, full);
    }

    pub(super) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }

    /// The newest version in a memtable.
    pub(super) fn get_recent(&self, key: &[u8], ts: u64) -> Option<Found> {
        self.memtables().find_map(|memtable| memtable.get(key, ts))
    }

    fn holder(&self, source: Source) -> Option<Holder> {
        let recent = self.memtables().find_map(|memtable| memtable.holder(source));
        recent.or_else(|| self.tables.holder(source))
    }

    pub(super) fn scan(&self, range: impl RangeBounds<Vec<u8>>, ts: u64) -> Scan {
        let from = range.start_bound().map(|key| Bytes::copy_from_slice(key));
        let end = range.end_bound().cloned();
        let open = || {
            let first: &[u8] = match &from {
                Bound::Included(key) | Bound::Excluded(key) => key,
                Bound::Unbounded => &[],
            };
            let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
            for memtable in self.memtables() {
                sources.push(Box::new(memtable.cursor(from.clone())));
            }
            self.tables.cursors(first, &mut sources)?;
            Merge::new(sources)
        };
        let skip = match range.start_bound() {
            Bound::Excluded(key) => Some(key.clone()),
            _ => None,
        };
        let source = open().map(|merge| Visible::new(merge, ts)).map_err(Some);
        Scan { source, skip, end, view: self.clone(), held: HashMap::new() }
    }
}

/// The value that was found, read if it lies elsewhere.
pub(super) fn resolve(key: &[u8], found: Option<Found>) -> Result<Option<Bytes>> {
    match found {
        None | Some(Found::Tombstone) => Ok(None),
        Some(Found::Inline(value)) => Ok(Some(value)),
        Some(Found::At(pointer, holder)) => holder.read(key, &pointer).map(Some),
    }
}

/// A consistent, unchanging view of a tree.
pub struct Snapshot {
    pub(super) tree: Arc<Tree>,
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
        let mut found = self.view.get_recent(key, self.view.ts);
        if found.is_none() {
            found = self.view.tables.get(key, key_hash(key), self.view.ts)?;
        }
        resolve(key, found)
    }

    /// The values of a range, ascending.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        self.view.scan(range, self.view.ts)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.tree.forget_snapshot(self.view.ts);
    }
}

/// Keys and values of a range, ascending.
pub struct Scan {
    source: Result<Visible<Merge>, Option<Error>>,
    skip: Option<Vec<u8>>,
    end: Bound<Vec<u8>>,
    view: View,
    held: HashMap<Source, Holder>,
}

impl Scan {
    fn step(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        loop {
            let visible = match &mut self.source {
                Ok(visible) => visible,
                Err(error) => return error.take().map_or(Ok(None), Err),
            };
            let Some(Version { key, value, .. }) = visible.next()? else { return Ok(None) };
            if self.skip.as_ref().is_some_and(|skip| skip == &key) {
                continue;
            }
            let past = match &self.end {
                Bound::Included(end) => key > end,
                Bound::Excluded(end) => key >= end,
                Bound::Unbounded => false,
            };
            if past {
                return Ok(None);
            }
            let value = match value {
                Value::Tombstone => continue,
                Value::Inline(value) => value,
                Value::At(pointer) => {
                    let holder = match self.held.entry(pointer.source) {
                        std::collections::hash_map::Entry::Occupied(held) => held.into_mut(),
                        std::collections::hash_map::Entry::Vacant(free) => {
                            let holder = self.view.holder(pointer.source);
                            free.insert(holder.expect("a view holds what it points to"))
                        }
                    };
                    holder.read(&key, &pointer)?
                }
            };
            return Ok(Some((key, value)));
        }
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
