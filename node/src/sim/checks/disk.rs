//! A leader whose disk hangs makes room for another within two election timeouts of an entry that
//! waits for it.

use super::super::Failure;
use super::super::host::Host;
use crate::limits::{Limits, TICK};
use crate::raft::PeerId;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Disks {
    /// When each node was last seen with all of its log durable.
    whole: BTreeMap<PeerId, u64>,
}

impl Disks {
    pub(super) fn turn(&mut self, host: &Host, now: u64) -> Result<(), Failure> {
        let Some(node) = &host.node else { return Ok(()) };
        let raft = node.group().raft();
        let whole = self.whole.entry(host.id).or_default();
        if raft.persisted_index() >= raft.last().index {
            *whole = now;
        }
        let timeout = Limits::TINY.raft.election.end * TICK.as_micros() as u64;
        // While it is stopped it can do nothing.
        let stopped = host.paused_until.min(now);
        let since = node.writing_since.unwrap_or(now).max(*whole).max(stopped);
        let waits = now - since > host.stretch(2 * timeout);
        if waits && raft.is_leader() && !raft.conf().is_sole_voter(host.id) {
            let text = format!("{} leads, and its disk hangs for {} us", host.id, now - since);
            return Err(Failure::new("hung-leader", text));
        }
        Ok(())
    }
}
