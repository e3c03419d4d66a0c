//! Requests of clients that reached a node without the leader: to the leader, and replies back.

use super::{Replica, Turn};
use crate::machine::reply::Reply;
use crate::policy::ServedBy;
use crate::request::replies::Replies;
use crate::request::{PendingRequest, Requester};
use crate::wire::{self, FORWARD_BYTES_MAX, Forwarded, Replied};
use bedstone_net::{Frame, Lane, NodeId};
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The requests that were forwarded to a leader and wait for its reply.
pub(super) struct ForwardTracker {
    /// By the number of the request: the node, and the request.
    awaiting_reply: BTreeMap<u64, (NodeId, PendingRequest)>,
    /// The number of the last request. It begins at a random number, so that a reply to a request
    /// of an earlier life of the node matches no request of this one.
    last_id: u64,
    /// No request is forwarded before this tick: the node that was asked last does not lead.
    not_before: u64,
}

impl ForwardTracker {
    pub(super) fn new(first_id: u64) -> ForwardTracker {
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

    /// Takes the requests that a node has, whose connection was lost.
    pub(super) fn take_of(&mut self, peer: NodeId) -> Vec<PendingRequest> {
        let lost = self.awaiting_reply.extract_if(.., |_, (to, _)| *to == peer);
        lost.map(|(_, (_, request))| request).collect()
    }

    /// Numbers a request and appends it to a frame's body.
    fn add(
        &mut self,
        leader: NodeId,
        request: PendingRequest,
        now: Instant,
        body: &mut BytesMut,
    ) -> u64 {
        let left = request.deadline.saturating_duration_since(now).as_millis() as u32;
        self.last_id += 1;
        let (id, resp3, command) = (self.last_id, request.resp3, request.command.clone());
        Forwarded { id, left, resp3, command }.encode(body);
        self.awaiting_reply.insert(id, (leader, request));
        id
    }
}

impl Replica {
    /// Sends the waiting requests to the leader.
    pub(super) fn forward(&mut self, turn: &mut Turn<'_>) {
        let leader = self.raft.leader().and_then(|leader| self.node_of(leader));
        let leader = leader.filter(|leader| turn.net.is_connected(*leader));
        let Some(leader) = leader.filter(|_| self.ticks >= self.forwards.not_before) else {
            return;
        };
        while self.queue.has_for_leader() {
            let (mut body, mut ids) = (BytesMut::new(), Vec::new());
            while body.len() < FORWARD_BYTES_MAX
                && let Some(request) = self.queue.pop_for_leader()
            {
                ids.push(self.forwards.add(leader, request, turn.now, &mut body));
            }
            let (lane, kind, shard) = (Lane::Append, wire::kind::FORWARD, self.shard);
            if !turn.net.push(leader, Frame { lane, kind, shard, body: body.freeze() }) {
                // The frame did not leave: its requests wait for the next turn.
                for id in ids.into_iter().rev() {
                    if let Some((_, request)) = self.forwards.awaiting_reply.remove(&id) {
                        self.queue.push_front(request);
                    }
                }
                return;
            }
        }
    }

    /// Queues the requests that another node forwarded to this leader.
    pub(super) fn on_forward(
        &mut self,
        peer: NodeId,
        requests: Vec<Result<Forwarded, (u64, u8)>>,
        now: Instant,
        replies: &mut Replies,
    ) {
        for forwarded in requests {
            let (Ok(Forwarded { id, .. }) | Err((id, _))) = forwarded;
            let requester = Requester::Peer { peer, shard: self.shard, id };
            if !self.raft.is_leader() {
                replies.redirect(peer, self.shard, id);
                continue;
            }
            let forwarded = match forwarded {
                Ok(forwarded) => forwarded,
                Err((_, operation)) => {
                    let text = format!(
                        "the leader, node {}, does not know operation {operation}: upgrade that \
                         node; nothing was done",
                        self.node
                    );
                    replies.reply(requester, false, &Reply::err(text));
                    continue;
                }
            };
            let request = PendingRequest {
                command: forwarded.command,
                requester,
                resp3: forwarded.resp3,
                served_by: ServedBy::Leader,
                deadline: now + Duration::from_millis(u64::from(forwarded.left)),
            };
            self.submit(request, replies);
        }
    }

    /// Passes the leader's replies on.
    pub(super) fn on_reply(&mut self, answers: Vec<Replied>, replies: &mut Replies) {
        for Replied { id, answer } in answers {
            let Some((_, request)) = self.forwards.awaiting_reply.remove(&id) else { continue };
            if let Some(answer) = answer {
                replies.rendered(request.requester, answer);
                continue;
            }
            // The node does not lead, and did nothing. The new leader is known soon.
            self.forwards.not_before = self.ticks + 1;
            self.queue.push_front(request);
        }
    }
}
