//! The hand-over from a thread to the net: frames gather in a list, and a step's worth of them
//! costs one wake-up at most, whatever their number.

use crate::NodeId;
use crate::frame::{Frame, Lane};
use crate::limits::QUEUE_BYTES_MAX;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// What the pushing thread and the net share.
pub(crate) struct Handover {
    frames: Mutex<Vec<(NodeId, Frame)>>,
    /// The net was told that there is something, and has not looked yet.
    armed: AtomicBool,
    bell: Notify,
    queued: BTreeMap<NodeId, Queued>,
}

/// Bytes on their way to one peer, by class: a slow snapshot must not refuse a heartbeat.
#[derive(Default)]
pub(crate) struct Queued {
    control: AtomicUsize,
    append: AtomicUsize,
    bulk: AtomicUsize,
}

impl Queued {
    fn of(&self, lane: Lane) -> &AtomicUsize {
        match lane {
            Lane::Control => &self.control,
            Lane::Append => &self.append,
            Lane::Bulk => &self.bulk,
        }
    }
}

impl Handover {
    pub(crate) fn new(peers: impl Iterator<Item = NodeId>) -> Arc<Self> {
        Arc::new(Self {
            frames: Mutex::default(),
            armed: AtomicBool::new(false),
            bell: Notify::new(),
            queued: peers.map(|peer| (peer, Queued::default())).collect(),
        })
    }

    /// Waits until something was pushed, and takes all of it.
    pub(crate) async fn take(&self, into: &mut Vec<(NodeId, Frame)>) {
        self.bell.notified().await;
        // Cleared before the list is taken: a push after this rings again.
        self.armed.store(false, Ordering::SeqCst);
        std::mem::swap(&mut *self.frames.lock(), into);
    }

    fn drain(&self) -> Vec<(NodeId, Frame)> {
        self.armed.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.frames.lock())
    }

    /// A frame was written or dropped.
    pub(crate) fn settled(&self, peer: NodeId, frame: &Frame) {
        if let Some(queued) = self.queued.get(&peer) {
            queued.of(frame.lane).fetch_sub(frame.len(), Ordering::Relaxed);
        }
    }
}

/// The other end of an [`Outbox`], for a transport other than QUIC: a simulated network.
pub struct Pushed {
    shared: Arc<Handover>,
}

impl Pushed {
    /// Takes the frames that were handed over since the last call, with their receivers.
    pub fn take(&self) -> Vec<(NodeId, Frame)> {
        self.shared.drain()
    }

    /// A frame left, or never will: its bytes make room for others.
    pub fn settled(&self, peer: NodeId, frame: &Frame) {
        self.shared.settled(peer, frame);
    }
}

/// Where a thread pushes frames. Never blocks.
pub struct Outbox {
    shared: Arc<Handover>,
    step: Vec<(NodeId, Frame)>,
}

impl Outbox {
    pub(crate) fn new(shared: Arc<Handover>) -> Self {
        Self { shared, step: Vec::new() }
    }

    /// An outbox towards these peers, and its other end.
    pub fn pair(peers: impl Iterator<Item = NodeId>) -> (Self, Pushed) {
        let shared = Handover::new(peers);
        (Self::new(shared.clone()), Pushed { shared })
    }

    /// Gives a frame to the net at the next [`Outbox::flush`].
    ///
    /// # Errors
    /// The frame itself, when too much waits for that peer on the lane, the frame is over the
    /// lane's limit, or the peer is unknown.
    pub fn push(&mut self, to: NodeId, frame: Frame) -> Result<(), Frame> {
        let Some(queued) = self.shared.queued.get(&to) else { return Err(frame) };
        let bytes = queued.of(frame.lane);
        if frame.body.len() > frame.lane.body_bytes_max()
            || bytes.load(Ordering::Relaxed) + frame.len() > QUEUE_BYTES_MAX
        {
            return Err(frame);
        }
        bytes.fetch_add(frame.len(), Ordering::Relaxed);
        self.step.push((to, frame));
        Ok(())
    }

    /// Ends a step: hands over what was pushed, with one wake-up at most.
    pub fn flush(&mut self) {
        if self.step.is_empty() {
            return;
        }
        self.shared.frames.lock().append(&mut self.step);
        if !self.shared.armed.swap(true, Ordering::SeqCst) {
            self.shared.bell.notify_one();
        }
    }
}
