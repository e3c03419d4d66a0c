//! A log that is nowhere but in the memory of its replica.

use bedstone_engine::wal::Entry;
use bedstone_node::raft::LogReader;

/// Has no entry.
pub struct Nothing;

impl LogReader for Nothing {
    fn entries(&self, _: u64, _: u64, _: usize) -> Vec<Entry> {
        Vec::new()
    }
}
