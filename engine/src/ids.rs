//! Identifiers of shards and replicas, and of positions in their logs.

use std::fmt;
use std::num::ParseIntError;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

/// Declares a number that is not interchangeable with other numbers.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<$name, ParseIntError> {
                text.parse().map($name)
            }
        }
    };
}

/// Declares the arithmetic of a position: a distance is a plain number.
macro_rules! position {
    ($name:ident) => {
        impl Add<u64> for $name {
            type Output = $name;

            fn add(self, distance: u64) -> $name {
                $name(self.0 + distance)
            }
        }

        impl AddAssign<u64> for $name {
            fn add_assign(&mut self, distance: u64) {
                self.0 += distance;
            }
        }

        impl Sub<u64> for $name {
            type Output = $name;

            fn sub(self, distance: u64) -> $name {
                $name(self.0 - distance)
            }
        }

        impl Sub for $name {
            type Output = u64;

            fn sub(self, earlier: $name) -> u64 {
                self.0 - earlier.0
            }
        }
    };
}

number! {
    /// Identifies a shard. Unique in a cluster and never reused.
    ShardId
}

number! {
    /// Identifies a replica of a shard. Unique in the shard, never 0 and never reused.
    ReplicaId
}

number! {
    /// A Raft term. Term 0 is before the first election.
    Term
}

number! {
    /// The position of an entry in the log of a shard, from 1. Index 0 is the position before the
    /// first entry.
    Index
}

number! {
    /// A byte position in the log of a disk, which only grows: the log sequence number. The
    /// sequence of the segment is the LSN divided by the bytes of a segment.
    Lsn
}

position!(Term);
position!(Index);
position!(Lsn);

impl Lsn {
    /// The position at which a segment begins.
    pub fn of_segment(sequence: u64, segment_bytes: u64) -> Lsn {
        Lsn(sequence * segment_bytes)
    }

    /// The sequence of the segment that has this position.
    pub fn segment(self, segment_bytes: u64) -> u64 {
        self.0 / segment_bytes
    }
}

impl Index {
    /// The index after each other index.
    pub const END: Index = Index(u64::MAX);

    /// The indexes from this one on, below `end`.
    pub fn until(self, end: Index) -> impl Iterator<Item = Index> {
        (self.0..end.0).map(Index)
    }

    /// The index before this one; 0 before index 0.
    pub fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }

    /// The number of indexes from `earlier` to this one, 0 if `earlier` is not earlier.
    pub fn distance_from(self, earlier: Index) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A position in one shard's log: the term and the index of an entry. Index 0 is the position
/// before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The Raft term of the entry.
    pub term: Term,
    /// The position in the shard's log, from 1.
    pub index: Index,
}
