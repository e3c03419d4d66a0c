//! Durable data of a shard that the log can no longer read.

use crate::ids::Index;
use std::fmt;
use std::ops::Range;

/// The durable data of a shard that cannot be read. The log knows which data is missing, so that
/// the shard can fetch it from another replica or a backup. Empty for a sound shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Indexes of missing entries, ascending. The last range ends at [`Index::END`] when the number
    /// of lost entries is unknown.
    pub entries: Vec<Range<Index>>,
    /// A hard state newer than the known one may be lost: the replica must not vote.
    pub state: bool,
}

impl Missing {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.state
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Range { start, end }) in self.entries.iter().enumerate() {
            f.write_str(if i == 0 { "entries " } else { ", " })?;
            match *end {
                Index::END => write!(f, "{start} and all later ones")?,
                end => write!(f, "{start} to {}", end - 1)?,
            }
        }
        match (self.state, self.entries.is_empty()) {
            (true, true) => f.write_str("perhaps the newest hard state"),
            (true, false) => f.write_str("; perhaps the newest hard state"),
            (false, _) => Ok(()),
        }
    }
}
