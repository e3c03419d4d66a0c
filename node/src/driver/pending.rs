//! Requests under way, and how they are answered.

use crate::api::port::Port;
use crate::limits::REQUEST_TIME;
use crate::metrics::Metrics;
use crate::raft::PeerId;
use crate::shard::command::Command;
use crate::shard::reply::Reply;
use crate::wire::Replied;
use bedstone_engine::ShardId;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub enum Asker {
    /// A connection of this node.
    Client(Arc<Port>, u64),
    /// Another node, on behalf of its client: the node, the shard, its number for the request.
    Peer(PeerId, ShardId, u64),
}

/// A request that is not answered yet.
#[derive(Clone, Debug)]
pub struct Pending {
    /// What to do.
    pub command: Command,
    /// Who waits.
    pub asker: Asker,
    /// How to write the answer.
    pub resp3: bool,
    /// Of a read: only the leader answers it.
    pub of_leader: bool,
    /// Until when.
    pub deadline: Instant,
}

/// Answers of one step, on their way out.
#[derive(Default)]
pub struct Answers {
    /// For connections of this node.
    pub clients: Vec<(Arc<Port>, u64, Bytes)>,
    /// For other nodes.
    pub peers: BTreeMap<(PeerId, ShardId), Vec<Replied>>,
}

impl Answers {
    /// Answers a request.
    pub fn reply(&mut self, asker: Asker, resp3: bool, reply: &Reply) {
        self.rendered(asker, reply.render(resp3));
    }

    /// Answers with bytes that another node rendered.
    pub fn rendered(&mut self, asker: Asker, answer: Bytes) {
        match asker {
            Asker::Client(port, slot) => self.clients.push((port, slot, answer)),
            Asker::Peer(peer, shard, id) => {
                let replied = Replied { id, answer: Some(answer) };
                self.peers.entry((peer, shard)).or_default().push(replied);
            }
        }
    }

    /// Tells another node to ask elsewhere.
    pub fn ask_elsewhere(&mut self, peer: PeerId, shard: ShardId, id: u64) {
        self.peers.entry((peer, shard)).or_default().push(Replied { id, answer: None });
    }

    /// Answers that it did not happen.
    pub fn unavailable(&mut self, pending: Pending, why: &str, metrics: &Metrics) {
        metrics.unavailable.inc();
        metrics.proposals_failed.inc_by(u64::from(!pending.command.is_read()));
        let text = format!("UNAVAILABLE {why}: it did not happen; try again");
        self.reply(pending.asker, pending.resp3, &Reply::Error(text));
    }

    /// Answers that it may have happened; a read that fails did not.
    pub fn unknown(&mut self, pending: Pending, why: &str, metrics: &Metrics) {
        if pending.command.is_read() {
            return self.unavailable(pending, why, metrics);
        }
        metrics.unknown.inc();
        metrics.proposals_failed.inc();
        let text = format!("UNKNOWN {why}: it may or may not have happened; read to find out");
        self.reply(pending.asker, pending.resp3, &Reply::Error(text));
    }
}

/// Seconds since a request came.
pub fn age_seconds(deadline: Instant, now: Instant) -> f64 {
    (now + REQUEST_TIME).saturating_duration_since(deadline).as_secs_f64()
}
