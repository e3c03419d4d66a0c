//! Requests of clients that reached a node without the leader: to the leader, and replies back.

use super::{Replica, Turn};
use crate::limits::FORWARD_GRACE_TICKS;
use crate::machine::reply::Reply;
use crate::policy::ServedBy;
use crate::request::replies::Replies;
use crate::request::{PendingRequest, Requester};
use crate::wire::{self, FORWARD_BYTES_MAX, Forwarded, Replied, RequestId};
use bedstone_net::{Frame, Lane, NodeId};
use bytes::BytesMut;
use std::time::{Duration, Instant};

impl Replica {
    /// Sends the waiting requests to the leader.
    pub(super) fn forward(&mut self, turn: &mut Turn<'_>) {
        let leader = self.raft.leader().and_then(|leader| self.node_of(leader));
        let leader = leader.filter(|leader| turn.net.is_connected(*leader));
        let Some(leader) = leader.filter(|_| self.forwards.may_forward(self.ticks)) else {
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
            if !turn.net.push(leader, Frame { lane, kind, shard: shard.0, body: body.freeze() }) {
                // The frame did not leave: its requests wait for the next turn.
                for id in ids.into_iter().rev() {
                    if let Some(request) = self.forwards.take(id) {
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
        requests: Vec<Result<Forwarded, (RequestId, u8)>>,
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

    /// Ends the requests at the nodes for which `is_lost` holds. Reads are sent again, because they
    /// have no effect. Writes may have happened.
    pub(super) fn end_forwards(&mut self, is_lost: impl Fn(NodeId) -> bool, replies: &mut Replies) {
        for request in self.forwards.take_lost(is_lost) {
            if request.command.is_read() {
                self.queue.push_front(request);
            } else {
                replies.unknown(request, "the leader was lost", &self.metrics);
            }
        }
    }

    /// Ends the requests at nodes that do not lead any more.
    pub(super) fn end_forwards_to_former_leaders(&mut self, replies: &mut Replies) {
        if self.forwards.is_empty() || self.ticks < self.leader_since + FORWARD_GRACE_TICKS {
            return;
        }
        if let Some(leader) = self.raft.leader().and_then(|leader| self.node_of(leader)) {
            self.end_forwards(|node| node != leader, replies);
        }
    }

    /// Passes the leader's replies on.
    pub(super) fn on_reply(&mut self, answers: Vec<Replied>, replies: &mut Replies) {
        for Replied { id, answer } in answers {
            let Some(request) = self.forwards.take(id) else { continue };
            if let Some(answer) = answer {
                replies.rendered(request.requester, answer);
                continue;
            }
            // The node does not lead, and did nothing. The new leader is known soon.
            self.forwards.pause_until(self.ticks + 1);
            self.queue.push_front(request);
        }
    }
}
