//! Memory and space stay within bounds.

use super::super::host::Node;
use super::super::outcome::Failure;
use crate::limits::{Limits, QUEUED_COMMANDS_MAX};
use crate::sim::replicas::HostId;
use std::collections::BTreeSet;

/// Greatest allowed number of log segments. More segments mean that a segment is kept although
/// nothing needs it.
const SEGMENTS_MAX: usize = 64;

/// The nodes that keep their log, see [`Bounds::turn`].
#[derive(Default)]
pub(super) struct Bounds {
    keep_log: BTreeSet<HostId>,
}

impl Bounds {
    /// Checks a node. A replica that cannot apply entries keeps its whole log, for example until
    /// its node is upgraded, and needs some time to release the log afterwards.
    pub(super) fn turn(&mut self, id: HostId, node: &Node) -> Result<(), Failure> {
        let segments = node.engine.log().segments().holds().len();
        if segments <= SEGMENTS_MAX {
            self.keep_log.remove(&id);
        } else if !node.replica().raft().is_applying() {
            self.keep_log.insert(id);
        } else if !self.keep_log.contains(&id) {
            return Err(Failure::new("bounds", format!("node {id} has {segments} log segments")));
        }
        memory(id, node)
    }
}

fn memory(id: HostId, node: &Node) -> Result<(), Failure> {
    let replica = node.replica();
    let (bytes, most) =
        (replica.raft().uncommitted_bytes(), Limits::TINY.raft.uncommitted_bytes_max);
    // The log may hold one entry more than fits, from an earlier leader, so the bound is twice the
    // limit.
    if bytes > 2 * most {
        let text = format!("node {id} holds {bytes} uncommitted bytes, limit {most}");
        return Err(Failure::new("bounds", text));
    }
    let (bytes, most) = (replica.raft().evictable_bytes(), 2 * Limits::TINY.raft.recent_bytes_max);
    // Entries of one write leave memory together, so the bound has room for one write.
    if bytes > most + Limits::TINY.raft.uncommitted_bytes_max {
        let text = format!("node {id} keeps {bytes} durable bytes of its log in memory");
        return Err(Failure::new("bounds", text));
    }
    if replica.queued() > QUEUED_COMMANDS_MAX {
        return Err(Failure::new("bounds", format!("{id} queues {} requests", replica.queued())));
    }
    Ok(())
}
