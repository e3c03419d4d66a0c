//! What a message claims of its sender's disk is durable before the message leaves: votes, terms
//! and acknowledged entries (Raft, §5.2 and §5.3).

use super::super::Failure;
use super::super::host::Node;
use crate::raft::{Body, Message, PeerId};
use crate::start::SHARD;

pub(super) fn sends(id: PeerId, node: &Node, message: &Message) -> Result<(), Failure> {
    let log = node.engine.log();
    let hard = log.hard_state(SHARD);
    let fail = |what: String| Err(Failure::new("durable-before-said", format!("{id} {what}")));
    let term = message.term;
    // What waited for its write may leave when a later term is durable already.
    let voted = |whom: PeerId| hard.term > term || (hard.term, hard.vote) == (term, Some(whom));
    match message.body {
        Body::VoteReply { granted: true, .. } if !voted(message.peer) => {
            fail(format!("votes for {} in term {term}; durable is {hard:?}", message.peer))
        }
        Body::Vote { .. } if !voted(id) => {
            fail(format!("campaigns in term {term}; durable is {hard:?}"))
        }
        Body::AppendReply { .. } | Body::HeartbeatReply { .. } if hard.term < term => {
            fail(format!("answers in term {term}; durable is {hard:?}"))
        }
        Body::AppendReply { matched } => {
            let (_, last) = log.bounds(SHARD);
            let covered = node.group().tree().flushed().index;
            match matched > last.index.max(covered) {
                true => fail(format!("acknowledges {matched}; durable is {last:?}")),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
