//! The hand-over of frames from a thread to the net. Frames gather in a list, and all frames of a
//! step together cost at most one wake-up.

use crate::frame::{Frame, Lane};
use crate::ids::NodeId;
use crate::limits::QUEUE_BYTES_MAX;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The state that the pushing thread and the net share.
pub(crate) struct Handover {
    frames: Mutex<Vec<(NodeId, Frame)>>,
    /// The net was notified of frames and has not looked yet.
    armed: AtomicBool,
    notify: Notify,
    queued: BTreeMap<NodeId, Queued>,
}

/// Bytes under way to one peer, by lane: a slow snapshot must not cause the refusal of a heartbeat.
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
            notify: Notify::new(),
            queued: peers.map(|peer| (peer, Queued::default())).collect(),
        })
    }

    /// Waits for pushed frames and removes all of them.
    pub(crate) async fn take(&self, into: &mut Vec<(NodeId, Frame)>) {
        self.notify.notified().await;
        // The flag is cleared before the list is taken, so a push after this notifies again.
        self.armed.store(false, Ordering::SeqCst);
        std::mem::swap(&mut *self.frames.lock(), into);
    }

    fn drain(&self) -> Vec<(NodeId, Frame)> {
        self.armed.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.frames.lock())
    }

    /// Records that a frame was written or dropped.
    pub(crate) fn settled(&self, peer: NodeId, frame: &Frame) {
        if let Some(queued) = self.queued.get(&peer) {
            queued.of(frame.lane).fetch_sub(frame.len(), Ordering::Relaxed);
        }
    }
}

/// The other end of an [`Outbox`], for a transport other than QUIC, such as a simulated network.
pub struct Pushed {
    shared: Arc<Handover>,
}

impl Pushed {
    /// Removes the frames that were handed over since the last call, with their receivers.
    pub fn take(&self) -> Vec<(NodeId, Frame)> {
        self.shared.drain()
    }

    /// Records that a frame left or was dropped: its bytes make room for other frames.
    pub fn settled(&self, peer: NodeId, frame: &Frame) {
        self.shared.settled(peer, frame);
    }
}

/// The end at which a thread pushes frames. It never blocks.
pub struct Outbox {
    shared: Arc<Handover>,
    step: Vec<(NodeId, Frame)>,
}

impl Outbox {
    pub(crate) fn new(shared: Arc<Handover>) -> Self {
        Self { shared, step: Vec::new() }
    }

    /// An outbox for these peers, and its other end.
    pub fn pair(peers: impl Iterator<Item = NodeId>) -> (Self, Pushed) {
        let shared = Handover::new(peers);
        (Self::new(shared.clone()), Pushed { shared })
    }

    /// Queues a frame for the net until the next [`Outbox::flush`].
    ///
    /// # Errors
    /// Returns the frame itself when too many bytes wait for that peer on the lane, the frame is
    /// over the lane's limit, or the peer is unknown.
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

    /// Ends a step: hands over the pushed frames, with at most one wake-up.
    pub fn flush(&mut self) {
        if self.step.is_empty() {
            return;
        }
        self.shared.frames.lock().append(&mut self.step);
        if !self.shared.armed.swap(true, Ordering::SeqCst) {
            self.shared.notify.notify_one();
        }
    }
}
