//! A log reader for replicas whose whole log is in memory.

use bedstone_engine::Index;
use bedstone_engine::wal::Entry;
use bedstone_node::raft::LogReader;

/// Returns no entry.
pub struct Nothing;

impl LogReader for Nothing {
    fn entries(&self, _: Index, _: Index, _: usize) -> Vec<Entry> {
        Vec::new()
    }
}
