//! The net's way into the worker.

use super::Input;
use crate::limits::INBOX_FRAMES_MAX;
use bedstone_net::{Event, Inbox};
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Delivers the net's events to the worker, and counts the frames on the way, so that the net waits
/// while the worker is behind.
pub struct WorkerInbox {
    inputs: Sender<Input>,
    frames: Arc<AtomicUsize>,
}

impl WorkerInbox {
    /// An inbox in front of the worker's channel.
    pub fn new(inputs: Sender<Input>) -> Self {
        Self { inputs, frames: Arc::default() }
    }

    /// The count of frames on the way, which the worker lowers.
    pub fn counter(&self) -> Arc<AtomicUsize> {
        self.frames.clone()
    }
}

impl Inbox for WorkerInbox {
    fn deliver(&self, event: Event) {
        if let Event::Frames(_, frames) = &event {
            self.frames.fetch_add(frames.len(), Ordering::Relaxed);
        }
        let _ = self.inputs.send(Input::Net(event));
    }

    fn has_room(&self) -> bool {
        self.frames.load(Ordering::Relaxed) < INBOX_FRAMES_MAX
    }
}
