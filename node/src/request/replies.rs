//! The replies of one turn, gathered until the turn ends.

use super::mailbox::{MailedReply, ReplyQueue};
use super::{PendingRequest, Requester};
use crate::limits::REQUEST_TIME;
use crate::machine::reply::Reply;
use crate::metrics::Metrics;
use crate::wire::{self, Replied, RequestId};
use bedstone_engine::ShardId;
use bedstone_net::{Frame, Lane, NodeId, Outbox};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::time::Instant;

/// Replies to clients of this node, and to nodes that forwarded requests.
#[derive(Default)]
pub struct Replies {
    clients: Vec<MailedReply>,
    peers: BTreeMap<(NodeId, ShardId), Vec<Replied>>,
}

impl Replies {
    /// Replies to a request.
    pub fn reply(&mut self, requester: Requester, resp3: bool, reply: &Reply) {
        self.rendered(requester, reply.render(resp3));
    }

    /// Replies with bytes that another node rendered.
    pub fn rendered(&mut self, requester: Requester, answer: Bytes) {
        match requester {
            Requester::Client(mailbox, slot) => self.clients.push((mailbox, slot, answer)),
            Requester::Peer { peer, shard, id } => {
                let replied = Replied { id, answer: Some(answer) };
                self.peers.entry((peer, shard)).or_default().push(replied);
            }
        }
    }

    /// Returns a forwarded request to its node, which looks for the leader again. Nothing was done.
    pub fn redirect(&mut self, peer: NodeId, shard: ShardId, id: RequestId) {
        self.peers.entry((peer, shard)).or_default().push(Replied { id, answer: None });
    }

    /// Replies that the request did not happen.
    pub fn unavailable(&mut self, request: PendingRequest, why: &str, metrics: &Metrics) {
        metrics.unavailable.inc();
        metrics.proposals_failed.inc_by(u64::from(!request.command.is_read()));
        let text = format!("UNAVAILABLE {why}: it did not happen; try again");
        self.reply(request.requester, request.resp3, &Reply::Error(text));
    }

    /// Replies that a write may have happened. A read that fails did not happen.
    pub fn unknown(&mut self, request: PendingRequest, why: &str, metrics: &Metrics) {
        if request.command.is_read() {
            return self.unavailable(request, why, metrics);
        }
        metrics.unknown.inc();
        metrics.proposals_failed.inc();
        let text = format!("UNKNOWN {why}: it may or may not have happened; read to find out");
        self.reply(request.requester, request.resp3, &Reply::Error(text));
    }

    /// Hands the replies for other nodes to the net, as few frames as they fit.
    pub fn send_to_peers(&mut self, outbox: &mut Outbox) {
        for ((peer, shard), replies) in std::mem::take(&mut self.peers) {
            let mut body = BytesMut::new();
            let mut left = replies.into_iter().peekable();
            while let Some(replied) = left.next() {
                replied.encode(&mut body);
                let fits =
                    |next: &Replied| body.len() + next.encoded_len() <= wire::FORWARD_BYTES_MAX;
                if left.peek().is_none_or(|next| !fits(next)) {
                    let body: Bytes = body.split().freeze();
                    let (lane, kind) = (Lane::Append, wire::kind::REPLY);
                    // A reply that cannot leave runs into its deadline at the forwarding node.
                    let _ = outbox.push(peer, Frame { lane, kind, shard: shard.0, body });
                }
            }
        }
    }

    /// Hands the replies for clients of this node over, with one wake-up at most.
    pub fn flush_to_clients(&mut self, queue: &ReplyQueue) {
        queue.flush(&mut self.clients);
    }
}

/// Seconds since a request with this deadline arrived.
pub fn age_seconds(deadline: Instant, now: Instant) -> f64 {
    (now + REQUEST_TIME).saturating_duration_since(deadline).as_secs_f64()
}
