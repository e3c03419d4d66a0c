//! The reports of a disk's loops to the worker.

use bedstone_engine::ShardId;

/// A report of a disk's logger or background work.
#[derive(Debug)]
pub enum DiskEvent {
    /// Writes that are durable, by shard and sequence number.
    Persisted(Vec<(ShardId, u64)>),
    /// A shard's memtable was flushed into tables.
    Flushed(ShardId),
    /// Data of a shard on the disk cannot be read; the error's text.
    Damaged(ShardId, String),
    /// The disk failed a write: no replica on the disk can guarantee anything any more.
    Failed(String),
}

/// Receives a disk's reports. `false` once the worker has stopped.
pub type Notify = dyn Fn(DiskEvent) -> bool + Send + Sync;
