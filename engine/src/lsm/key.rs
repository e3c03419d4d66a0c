//! Keys with versions. A user key may have several versions, each at a timestamp; they sort by
//! user key ascending, then by timestamp descending, so that a read meets the newest first.

use bytes::Bytes;
use std::cmp::Ordering;

/// Whether a version holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value.
    Put = 1,
    /// The key was deleted at this timestamp: a tombstone.
    Delete = 0,
}

/// One change to a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Deletes a key, whether or not it is there.
    Delete(Bytes),
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The user key.
    pub key: Bytes,
    /// When it was written.
    pub ts: u64,
    /// The value, or `None` for a tombstone.
    pub value: Option<Bytes>,
}

impl Version {
    /// The order in tables and merges: key ascending, newest first.
    pub fn order(&self, other: &Version) -> Ordering {
        self.key.cmp(&other.key).then(other.ts.cmp(&self.ts))
    }
}

/// A stream of versions in [`Version::order`].
pub trait Cursor: Send {
    /// The next version; `None` at the end.
    fn next(&mut self) -> crate::Result<Option<Version>>;
}
