//! The way between connections and the worker: requests go over in batches, and all replies of a
//! worker's turn come back with one wake-up of the runtime.

use crate::machine::command::Command;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// A reply on its way to a connection: the mailbox, the slot of the request, the rendered bytes.
pub type MailedReply = (Arc<Mailbox>, u64, Bytes);

/// A command on its way to the worker.
#[derive(Debug)]
pub struct ClientRequest {
    /// The command.
    pub command: Command,
    /// Whether the reply is written in RESP3.
    pub resp3: bool,
    /// The slot in which the connection expects the reply.
    pub slot: u64,
}

/// The requests that one connection submits at once: all reads or all writes, in order.
#[derive(Debug)]
pub struct ClientBatch {
    /// The mailbox of the connection.
    pub mailbox: Arc<Mailbox>,
    /// The requests.
    pub requests: Vec<ClientRequest>,
    /// The replies are of no use after this time.
    pub deadline: Instant,
}

/// The place where a connection receives its replies.
#[derive(Debug, Default)]
pub struct Mailbox {
    replies: Mutex<Vec<(u64, Bytes)>>,
    arrived: Notify,
}

impl Mailbox {
    /// Waits for replies: slots and their rendered bytes.
    pub async fn replies(&self) -> Vec<(u64, Bytes)> {
        self.arrived.notified().await;
        std::mem::take(&mut *self.replies.lock())
    }
}

/// The replies for all connections of a node, on their way from the worker.
///
/// Invariant: `notified` is set from the first [`ReplyQueue::flush`] after the replies were taken
/// until they are taken again, so that a burst of turns costs one wake-up.
#[derive(Default)]
pub struct ReplyQueue {
    ready: Mutex<Vec<MailedReply>>,
    notified: AtomicBool,
    arrived: Notify,
}

impl ReplyQueue {
    /// Hands over a turn's replies, and leaves `turn` empty.
    pub fn flush(&self, turn: &mut Vec<MailedReply>) {
        if turn.is_empty() {
            return;
        }
        self.ready.lock().append(turn);
        if !self.notified.swap(true, Ordering::SeqCst) {
            self.arrived.notify_one();
        }
    }

    /// Takes the replies handed over since the last call, for callers without a runtime.
    pub fn take(&self) -> Vec<MailedReply> {
        self.notified.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.ready.lock())
    }

    /// Carries replies to their connections, for ever.
    pub async fn distribute(self: Arc<Self>) {
        let mut ready = Vec::new();
        loop {
            self.arrived.notified().await;
            self.notified.store(false, Ordering::SeqCst);
            std::mem::swap(&mut *self.ready.lock(), &mut ready);
            for (mailbox, slot, reply) in ready.drain(..) {
                mailbox.replies.lock().push((slot, reply));
                mailbox.arrived.notify_one();
            }
        }
    }
}
