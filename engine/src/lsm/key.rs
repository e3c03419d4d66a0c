//! Keys with versions. A user key may have several versions, each at a timestamp; they sort by
//! user key ascending, then by timestamp descending, so that a read meets the newest first.

use crate::values::{Holder, Pointer};
use bytes::Bytes;
use std::cmp::Ordering;

/// One change to a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Deletes a key, whether or not it is there.
    Delete(Bytes),
}

/// What a version holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The key was deleted at this timestamp.
    Tombstone,
    /// The value itself.
    Inline(Bytes),
    /// The value lies elsewhere.
    At(Pointer),
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The user key.
    pub key: Bytes,
    /// When it was written.
    pub ts: u64,
    /// What it holds.
    pub value: Value,
}

impl Version {
    /// The order in tables and merges: key ascending, newest first.
    pub fn order(&self, other: &Version) -> Ordering {
        self.key.cmp(&other.key).then(other.ts.cmp(&self.ts))
    }
}

/// A version's value as a point read finds it.
pub enum Found {
    /// The key was deleted.
    Tombstone,
    /// The value.
    Inline(Bytes),
    /// The value lies in what is held.
    At(Pointer, Holder),
}

/// A stream of versions in [`Version::order`].
pub trait Cursor: Send {
    /// The next version; `None` at the end.
    fn next(&mut self) -> crate::Result<Option<Version>>;
}
