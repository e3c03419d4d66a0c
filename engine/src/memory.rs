//! The budget of all memtables of a disk.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What memtables take together, and what they may.
#[derive(Debug)]
pub struct Memory {
    used: AtomicUsize,
    limit: usize,
}

impl Memory {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Memory {
        Memory { used: AtomicUsize::new(0), limit }
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes taken, about.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes above half of the limit: memtables of so many should be flushed now, so that there is
    /// room again before the other half is taken.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.limit / 2)
    }

    /// How far above half of the limit they are: 0 at half, 1 at the limit.
    pub fn pressure(&self) -> f64 {
        let half = self.limit / 2;
        self.excess() as f64 / (self.limit - half).max(1) as f64
    }
}
