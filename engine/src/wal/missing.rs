//! What the log had of a shard and has no more.

use crate::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What was durable of a shard and cannot be read: known to be missing, so that it can be had from
/// another replica or a backup. Empty for a sound shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Indexes of entries, ascending. The last range ends at `u64::MAX` when nobody knows how many
    /// entries were lost.
    pub entries: Vec<Range<u64>>,
    /// A newer hard state than the one known may be lost: the replica must not vote.
    pub state: bool,
}

impl Missing {
    /// Nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.state
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Range { start, end }) in self.entries.iter().enumerate() {
            f.write_str(if i == 0 { "entries " } else { ", " })?;
            match *end {
                u64::MAX => write!(f, "{start} and after")?,
                end => write!(f, "{start} to {}", end - 1)?,
            }
        }
        match (self.state, self.entries.is_empty()) {
            (true, true) => f.write_str("its newest hard state, perhaps"),
            (true, false) => f.write_str("; perhaps its newest hard state"),
            (false, _) => Ok(()),
        }
    }
}

/// Damage that took something away.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    /// The segment.
    pub segment: u64,
    /// Where, and what should be there.
    pub error: Arc<Error>,
}
