//! Between connections and the driver: requests go over in batches, and all replies of a driver's
//! step come back with one wake-up of the runtime.

use crate::shard::command::Command;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// A command on its way to the driver.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// How to write the answer.
    pub resp3: bool,
    /// Where the connection waits for it.
    pub slot: u64,
}

/// What one connection asks at once: all reads or all writes, in order.
#[derive(Debug)]
pub struct Batch {
    /// Who asks.
    pub port: Arc<Port>,
    /// What.
    pub requests: Vec<Request>,
    /// When the answers are no longer of use.
    pub deadline: Instant,
}

/// Where a connection's replies arrive.
#[derive(Debug, Default)]
pub struct Port {
    replies: Mutex<Vec<(u64, Bytes)>>,
    bell: Notify,
}

impl Port {
    /// Waits for replies: slots and their rendered bytes.
    pub async fn replies(&self) -> Vec<(u64, Bytes)> {
        self.bell.notified().await;
        std::mem::take(&mut *self.replies.lock())
    }
}

/// Replies of all connections on their way from the driver.
#[derive(Default)]
pub struct Replies {
    ready: Mutex<Vec<(Arc<Port>, u64, Bytes)>>,
    armed: AtomicBool,
    bell: Notify,
}

impl Replies {
    /// Hands over a step's replies. Leaves `step` empty.
    pub fn flush(&self, step: &mut Vec<(Arc<Port>, u64, Bytes)>) {
        if step.is_empty() {
            return;
        }
        self.ready.lock().append(step);
        if !self.armed.swap(true, Ordering::SeqCst) {
            self.bell.notify_one();
        }
    }

    /// Takes the replies handed over since the last call, for callers without a runtime.
    pub fn take(&self) -> Vec<(Arc<Port>, u64, Bytes)> {
        self.armed.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.ready.lock())
    }

    /// Carries replies to their connections, for ever.
    pub async fn distribute(self: Arc<Self>) {
        let mut ready = Vec::new();
        loop {
            self.bell.notified().await;
            self.armed.store(false, Ordering::SeqCst);
            std::mem::swap(&mut *self.ready.lock(), &mut ready);
            for (port, slot, reply) in ready.drain(..) {
                port.replies.lock().push((slot, reply));
                port.bell.notify_one();
            }
        }
    }
}
