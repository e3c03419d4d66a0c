//! The interface to every engine: the two traits.

/// The settings of every engine.
#[derive(Clone, Copy)]
pub struct Setup {
    /// Bytes of the cache for blocks.
    pub cache: u64,
    /// Size at which a memtable is frozen; an engine may have one more memtable that is being
    /// flushed.
    pub memtable: u64,
    /// Values of this size or more stay in the log of Bedstone.
    pub separate: u64,
    /// Whether the store is opened for synced writes, after which it is never opened again.
    pub for_sync: bool,
}

/// An ordered map from bytes to bytes. A failure ends the process: a benchmark does not continue
/// after an error.
pub trait Store: Send + Sync {
    /// Sets the keys together. With `sync` they are durable when the call returns.
    fn write(&self, batch: &[(&[u8], &[u8])], sync: bool);
    /// The result of [`touch`] for the value, if there is one.
    fn get(&self, key: &[u8]) -> Option<usize>;
    /// The sum of the results of [`touch`] for the next `count` values.
    fn scan(&self, from: &[u8], count: usize) -> usize;
    /// Moves all data from memory into tables.
    fn flush(&self);
    /// Waits until no compaction is left to do.
    fn settle(&self);
}

/// A log of many shards; each shard numbers its entries from 1.
pub trait AppendLog: Send + Sync {
    /// Appends one entry, which is durable when the call returns. Entries up to `release` are not
    /// needed any more.
    fn append(&self, shard: u64, index: u64, payload: &[u8], release: Option<u64>);
}

/// Reads a byte of every cache line, so that no engine can return a pointer instead of reading.
pub fn touch(value: &[u8]) -> usize {
    let sum = value.iter().step_by(64).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    value.len() + usize::from(sum)
}

/// Threads for background work.
pub fn background_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}
