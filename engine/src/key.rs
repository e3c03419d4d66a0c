//! Keys with versions. A user key may have several versions, each at a timestamp; they sort by
//! user key ascending, then by timestamp descending, so that a read meets the newest first.

use crate::values::{Holder, Pointer};
use bytes::Bytes;
use std::cmp::Ordering;

/// The deadline of a value that does not expire.
pub const NEVER: u64 = u64::MAX;

/// One change to a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Sets a key until a deadline: readers whose time has reached it do not see the value. The
    /// unit is that of [`Tree::advance`](crate::Tree::advance).
    PutUntil(Bytes, Bytes, u64),
    /// Deletes a key, whether or not it is there.
    Delete(Bytes),
    /// Deletes every key from the first, included, to the second, excluded.
    DeleteRange(Bytes, Bytes),
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
    /// When it expires; [`NEVER`], or a deadline that is compared with the reader's time.
    pub expires: u64,
    /// What it holds.
    pub value: Value,
}

impl Version {
    /// The order in tables and merges: key ascending, newest first.
    pub fn order(&self, other: &Version) -> Ordering {
        self.key.cmp(&other.key).then(other.ts.cmp(&self.ts))
    }
}

/// A version as a point read finds it.
pub struct Found {
    /// When it was written.
    pub ts: u64,
    /// When it expires, or [`NEVER`].
    pub expires: u64,
    /// What it holds.
    pub value: Value,
    /// What a pointer points into, held.
    pub holder: Option<Holder>,
}

impl Found {
    /// A key that was deleted.
    pub fn tombstone(ts: u64) -> Found {
        Found { ts, expires: NEVER, value: Value::Tombstone, holder: None }
    }
}

/// A stream of versions in [`Version::order`], or, of a cursor that was made to go backwards, in
/// the reverse of it.
pub trait Cursor: Send {
    /// The next version; `None` at the end.
    fn next(&mut self) -> crate::error::Result<Option<Version>>;
}

/// A cursor that stops at an end.
pub struct Until<C> {
    /// The cursor.
    pub cursor: C,
    /// The first key past the end; `None` for no end.
    pub end: Option<Bytes>,
}

impl<C: Cursor> Cursor for Until<C> {
    fn next(&mut self) -> crate::error::Result<Option<Version>> {
        let next = self.cursor.next()?;
        Ok(next.filter(|version| self.end.as_ref().is_none_or(|end| version.key < end)))
    }
}
