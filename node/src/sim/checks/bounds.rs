//! Memory and space stay within bounds.

use super::super::Failure;
use super::super::host::Node;
use crate::limits::{Limits, QUEUED_COMMANDS_MAX};
use crate::raft::PeerId;

/// Log segments beyond which something keeps them that should not.
const SEGMENTS_MAX: usize = 64;

pub(super) fn turn(id: PeerId, node: &Node) -> Result<(), Failure> {
    let group = node.group();
    let (bytes, most) = (group.raft().uncommitted_bytes(), Limits::TINY.raft.uncommitted_bytes_max);
    // One entry more than fits may be there, of a leader before.
    if bytes > 2 * most {
        let text = format!("{id} holds {bytes} uncommitted bytes of {most}");
        return Err(Failure::new("bounds", text));
    }
    let (bytes, most) = (group.raft().spare_bytes(), 2 * Limits::TINY.raft.recent_bytes_max);
    // What was written together leaves together.
    if bytes > most + Limits::TINY.raft.uncommitted_bytes_max {
        let text = format!("{id} has {bytes} durable bytes of its log in memory");
        return Err(Failure::new("bounds", text));
    }
    if group.queued() > QUEUED_COMMANDS_MAX {
        return Err(Failure::new("bounds", format!("{id} has {} requests", group.queued())));
    }
    let segments = node.engine.log().segments().holds().len();
    if segments > SEGMENTS_MAX {
        return Err(Failure::new("bounds", format!("{id} has {segments} log segments")));
    }
    Ok(())
}
