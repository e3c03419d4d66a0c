//! Requests of clients that asked a node which does not lead: to the leader, and replies back.

use super::group::{Context, Group};
use super::pending::{Answers, Pending};
use crate::raft::PeerId;
use crate::wire::{self, Forwarded, Replied};
use bedstone_engine::ShardId;
use bedstone_net::{Frame, Lane, Outbox};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of requests or replies in one frame, unless a single one is longer.
const FORWARD_BYTES: usize = 256 << 10;

impl Group {
    /// Sends what waits to the leader.
    pub(super) fn forward(&mut self, context: &mut Context<'_>) {
        let Some(leader) = self.raft.leader().filter(|leader| context.peers.is_up(*leader)) else {
            return;
        };
        let waits = |pending: &Pending| pending.of_leader;
        if self.ticks < self.hold_until || self.writes.is_empty() && !self.reads.iter().any(waits) {
            return;
        }
        let mut body = BytesMut::new();
        let mut ids = Vec::new();
        loop {
            let read = |reads: &mut VecDeque<Pending>| {
                reads.iter().position(waits).and_then(|at| reads.remove(at))
            };
            let next = self.writes.pop_front().or_else(|| read(&mut self.reads));
            let full = body.len() >= FORWARD_BYTES || (next.is_none() && !body.is_empty());
            if full {
                let body = body.split().freeze();
                let frame = Frame {
                    lane: Lane::Append,
                    kind: wire::kind::FORWARD,
                    shard: self.shard,
                    body,
                };
                if context.outbox.push(leader, frame).is_err() {
                    // Nothing of it left: all of it waits for the next step.
                    for id in ids.drain(..).rev() {
                        if let Some((_, pending)) = self.forwarded.remove(&id) {
                            self.requeue(pending);
                        }
                    }
                    next.into_iter().for_each(|pending| self.requeue(pending));
                    return;
                }
                ids.clear();
            }
            let Some(pending) = next else { return };
            let left = pending.deadline.saturating_duration_since(context.now).as_millis() as u32;
            self.next_id += 1;
            let id = self.next_id;
            let (resp3, command) = (pending.resp3, pending.command.clone());
            Forwarded { id, left, resp3, command }.encode(&mut body);
            ids.push(id);
            self.forwarded.insert(id, (leader, pending));
        }
    }

    pub(super) fn replied(&mut self, replied: Replied, answers: &mut Answers) {
        let Some((_, pending)) = self.forwarded.remove(&replied.id) else { return };
        match replied.answer {
            Some(answer) => answers.rendered(pending.asker, answer),
            None => {
                // The node asked does not lead; nothing was done. Whoever does is known soon.
                self.hold_until = self.ticks + 1;
                self.requeue(pending);
            }
        }
    }
}

/// Sends replies to the nodes that asked.
pub(super) fn send_replies(
    replies: &mut BTreeMap<(PeerId, ShardId), Vec<Replied>>,
    outbox: &mut Outbox,
) {
    for ((peer, shard), replies) in std::mem::take(replies) {
        let mut body = BytesMut::new();
        let mut rest = replies.into_iter().peekable();
        while let Some(replied) = rest.next() {
            replied.encode(&mut body);
            let room = |next: &Replied| body.len() + next.encoded_len() <= FORWARD_BYTES;
            if rest.peek().is_none_or(|next| !room(next)) {
                let body: Bytes = body.split().freeze();
                let (lane, kind) = (Lane::Append, wire::kind::REPLY);
                // A reply that cannot leave runs into its deadline at the node that asked.
                let _ = outbox.push(peer, Frame { lane, kind, shard, body });
            }
        }
    }
}
