//! The budget of all memtables of a disk.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory that all memtables use together, and its limit.
#[derive(Debug)]
pub struct Memory {
    used: AtomicUsize,
    limit: usize,
}

impl Memory {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Memory {
        Memory { used: AtomicUsize::new(0), limit }
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The approximate number of bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The bytes in use above half of the limit. Memtables of this total size should be flushed
    /// now, so that memory is free again before the other half is used.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.limit / 2)
    }

    /// The use above half of the limit as a fraction of the other half: 0 at half of the limit, 1
    /// at the limit.
    pub fn pressure(&self) -> f64 {
        let half = self.limit / 2;
        self.excess() as f64 / (self.limit - half).max(1) as f64
    }
}
