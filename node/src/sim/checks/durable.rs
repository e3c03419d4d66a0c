//! The state that a message claims about its sender's disk is durable before the message leaves:
//! votes, terms and acknowledged entries (Raft, §5.2 and §5.3).

use super::super::host::Node;
use super::super::outcome::Failure;
use super::super::replicas::member_on;
use crate::raft::{Body, Message, ReplicaId, Vote};
use crate::router::FIRST_SHARD;
use crate::sim::replicas::HostId;

pub(super) fn sends(id: HostId, node: &Node, message: &Message) -> Result<(), Failure> {
    let log = node.engine.log();
    let hard = log.hard_state(FIRST_SHARD);
    let fail = |what: String| Err(Failure::new("durable-before-sent", format!("node {id} {what}")));
    let term = message.term;
    // A message that waited for its write may also leave once a later term is durable.
    let voted =
        |whom: ReplicaId| hard.term > term || (hard.term, hard.vote) == (term, Vote::For(whom));
    match message.body {
        Body::VoteReply { granted: true, .. } if !voted(message.peer) => {
            fail(format!("votes for {} in term {term}, but {hard:?} is durable", message.peer))
        }
        Body::Vote { .. } if !voted(member_on(id).id) => {
            fail(format!("campaigns in term {term}, but {hard:?} is durable"))
        }
        Body::AppendReply { .. } | Body::HeartbeatReply { .. } if hard.term < term => {
            fail(format!("answers in term {term}, but {hard:?} is durable"))
        }
        Body::AppendReply { matched } => {
            let (_, last) = log.bounds(FIRST_SHARD);
            let covered = node.replica().tree().flushed().index;
            if matched > last.index.max(covered) {
                fail(format!("acknowledges {matched}, but {last:?} is durable last"))
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}
