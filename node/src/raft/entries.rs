//! Consecutive log entries as one value. The log, the write, the appends to the followers and the
//! application to the tree share one copy of the entries.

use super::Index;
use bedstone_engine::wal::Entry;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Consecutive entries, see the module. Cloning and slicing are cheap. A slice keeps all entries of
/// the shared copy in memory.
#[derive(Clone, Default)]
pub struct Entries {
    all: Option<Arc<[Entry]>>,
    start: u32,
    end: u32,
}

impl Entries {
    /// The entries at a range of positions within this value.
    ///
    /// # Panics
    /// If the range is not within this value.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Entries {
        assert!(range.start <= range.end && range.end <= self.len(), "the range is in bounds");
        let start = self.start + range.start as u32;
        let end = self.start + range.end as u32;
        Entries { all: self.all.clone().filter(|_| start < end), start, end }
    }

    /// The entries from an index on.
    #[must_use]
    pub fn from_index(&self, first: Index) -> Entries {
        let at = self.first().map_or(0, |entry| first.distance_from(entry.id.index));
        self.slice((at as usize).min(self.len())..self.len())
    }

    /// Bytes of the data of the entries.
    pub fn bytes(&self) -> usize {
        self.iter().map(|entry| entry.data.len()).sum()
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        match &self.all {
            Some(all) => &all[self.start as usize..self.end as usize],
            None => &[],
        }
    }
}

/// Moves the entries out of `from`, which keeps its capacity.
impl From<&mut Vec<Entry>> for Entries {
    fn from(from: &mut Vec<Entry>) -> Entries {
        from.drain(..).collect()
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(mut from: Vec<Entry>) -> Entries {
        Entries::from(&mut from)
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Entries {
        let all: Arc<[Entry]> = entries.into_iter().collect();
        let end = u32::try_from(all.len()).expect("fewer than 2^32 entries are in memory");
        Entries { all: Some(all).filter(|_| end > 0), start: 0, end }
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        **self == **other
    }
}

impl Eq for Entries {}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
