//! Consecutive log entries as one value: the log, its write, the appends to the followers and
//! whoever applies them hold one copy together.

use super::Index;
use bedstone_engine::wal::Entry;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// See the module. Cheap to clone and to cut; what is cut off stays in memory with the rest.
#[derive(Clone, Default)]
pub struct Entries {
    all: Option<Arc<[Entry]>>,
    start: u32,
    end: u32,
}

impl Entries {
    /// Some of them, by their places here.
    ///
    /// # Panics
    /// Where there are no such places.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Entries {
        assert!(range.start <= range.end && range.end <= self.len(), "a part of them");
        let start = self.start + range.start as u32;
        let end = self.start + range.end as u32;
        Entries { all: self.all.clone().filter(|_| start < end), start, end }
    }

    /// Those from an index on.
    #[must_use]
    pub fn from_index(&self, first: Index) -> Entries {
        let at = self.first().map_or(0, |entry| first.saturating_sub(entry.id.index));
        self.slice((at as usize).min(self.len())..self.len())
    }

    /// Bytes of their data.
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

/// Takes the entries out of `from`, which keeps its room.
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
        let end = u32::try_from(all.len()).expect("a log's window is smaller");
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
