//! The requests that a replica forwarded to a leader and that wait for its reply.

use crate::request::PendingRequest;
use crate::wire::{Forwarded, RequestId};
use bedstone_net::NodeId;
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::time::Instant;

/// The requests that were forwarded to a leader and wait for its reply.
pub(super) struct ForwardTracker {
    /// By the number of the request: the node, and the request.
    awaiting_reply: BTreeMap<RequestId, (NodeId, PendingRequest)>,
    /// The number of the last request. It begins at a random number, so that a reply to a request
    /// of an earlier life of the node matches no request of this one.
    last_id: RequestId,
    /// No request is forwarded before this tick: the node that was asked last does not lead.
    not_before: u64,
}

impl ForwardTracker {
    pub(super) fn new(first_id: RequestId) -> ForwardTracker {
        ForwardTracker { awaiting_reply: BTreeMap::new(), last_id: first_id, not_before: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.awaiting_reply.is_empty()
    }

    /// Takes the requests whose deadline has passed.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<PendingRequest> {
        let late = self.awaiting_reply.extract_if(.., |_, (_, request)| request.is_late(now));
        late.map(|(_, (_, request))| request).collect()
    }

    /// Takes the requests that are at a node for which `is_lost` holds.
    pub(super) fn take_lost(&mut self, is_lost: impl Fn(NodeId) -> bool) -> Vec<PendingRequest> {
        let lost = self.awaiting_reply.extract_if(.., |_, (to, _)| is_lost(*to));
        lost.map(|(_, (_, request))| request).collect()
    }

    /// Takes the request with this number.
    pub(super) fn take(&mut self, id: RequestId) -> Option<PendingRequest> {
        self.awaiting_reply.remove(&id).map(|(_, request)| request)
    }

    /// Whether requests may be forwarded at this tick.
    pub(super) fn may_forward(&self, tick: u64) -> bool {
        tick >= self.not_before
    }

    /// The node that was asked does not lead: no request is forwarded before `tick`.
    pub(super) fn pause_until(&mut self, tick: u64) {
        self.not_before = tick;
    }

    /// Numbers a request and appends it to a frame's body.
    pub(super) fn add(
        &mut self,
        leader: NodeId,
        request: PendingRequest,
        now: Instant,
        body: &mut BytesMut,
    ) -> RequestId {
        let left = request.deadline.saturating_duration_since(now).as_millis() as u32;
        self.last_id.0 += 1;
        let (id, resp3, command) = (self.last_id, request.resp3, request.command.clone());
        Forwarded { id, left, resp3, command }.encode(body);
        let before = self.awaiting_reply.insert(id, (leader, request));
        assert!(before.is_none(), "each forwarded request has a number of its own");
        id
    }
}
