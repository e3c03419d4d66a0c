//! Keys with versions. A user key may have several versions, each at a timestamp. Versions sort by
//! user key ascending, then by timestamp descending, so that a read meets the newest version first.

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
    /// Sets a key until a deadline: a reader whose time has reached the deadline does not see the
    /// value. The unit of the deadline is that of [`Tree::advance`](crate::Tree::advance).
    PutUntil(Bytes, Bytes, u64),
    /// Deletes a key, whether or not the key exists.
    Delete(Bytes),
    /// Deletes every key from the first (inclusive) to the second (exclusive).
    DeleteRange(Bytes, Bytes),
    /// Sets a key at a timestamp before the entry's timestamp.
    PutAt {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The deadline; [`NEVER`] for none.
        expires: u64,
        /// The timestamp of the version: after the newest version of this key, and before the
        /// timestamp of the entry.
        ts: u64,
    },
    /// Deletes a key at a timestamp before the entry's timestamp, as [`Op::PutAt`] sets it.
    DeleteAt {
        /// The key.
        key: Bytes,
        /// The timestamp of the tombstone.
        ts: u64,
    },
}

/// The versions that a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// Versions at or before this timestamp.
    pub ts: u64,
    /// Versions that log entries at or before this timestamp wrote. A later entry may write a
    /// version at a timestamp before `ts` ([`Op::PutAt`]), and a view must not change by it.
    pub written: u64,
}

impl AsOf {
    /// Every version.
    pub const NEWEST: AsOf = AsOf { ts: u64::MAX, written: u64::MAX };
}

/// The content of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The key was deleted at this timestamp.
    Tombstone,
    /// The value itself.
    Inline(Bytes),
    /// A pointer to the value in a log segment or a value file.
    At(Pointer),
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The user key.
    pub key: Bytes,
    /// The timestamp of the write.
    pub ts: u64,
    /// The deadline, compared with the reader's time; [`NEVER`] for none.
    pub expires: u64,
    /// The content.
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
    /// The timestamp of the write.
    pub ts: u64,
    /// The deadline; [`NEVER`] for none.
    pub expires: u64,
    /// The content.
    pub value: Value,
    /// A handle that keeps the source of a pointer alive.
    pub holder: Option<Holder>,
}

impl Found {
    /// A tombstone at timestamp `ts`.
    pub fn tombstone(ts: u64) -> Found {
        Found { ts, expires: NEVER, value: Value::Tombstone, holder: None }
    }
}

/// The spaces of stored keys. The first byte of a key names its space.
///
/// The bounds of a shard limit the user space alone: the keys of the system space belong to the
/// shard itself, whatever its bounds are.
pub mod space {
    /// The shard's own records.
    pub const SYSTEM: u8 = 0;
    /// The keys of users.
    pub const USER: u8 = 1;
}

/// Whether a stored key lies in the system space.
pub fn is_system(key: &[u8]) -> bool {
    key.first().is_none_or(|first| *first < space::USER)
}

/// A stream of versions in [`Version::order`]. A backward cursor yields versions in the reverse of
/// this order.
pub trait Cursor: Send {
    /// The next version; `None` at the end.
    fn next(&mut self) -> crate::error::Result<Option<Version>>;
}
