//! A leader whose disk hangs steps down within two election timeouts after an entry begins to wait
//! for that disk.

use super::super::host::Host;
use super::super::outcome::Failure;
use super::super::replicas::member_on;
use crate::limits::{Limits, TICK};
use crate::sim::replicas::HostId;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Disks {
    /// When the whole log of each node was last seen durable.
    whole: BTreeMap<HostId, u64>,
}

impl Disks {
    pub(super) fn turn(&mut self, host: &Host, now: u64) -> Result<(), Failure> {
        let Some(node) = &host.node else { return Ok(()) };
        let raft = node.replica().raft();
        let whole = self.whole.entry(host.id).or_default();
        if raft.persisted_index() >= raft.last().index {
            *whole = now;
        }
        let timeout = Limits::TINY.raft.election.end * TICK.as_micros() as u64;
        // A stopped node cannot step down.
        let stopped = host.paused_until.min(now);
        let since = node.writing_since.unwrap_or(now).max(*whole).max(stopped);
        let waits = now - since > host.stretch(2 * timeout);
        if waits && raft.is_leader() && !raft.conf().is_sole_voter(member_on(host.id).id) {
            let text = format!("{} still leads, its disk hangs for {} us", host.id, now - since);
            return Err(Failure::new("hung-leader", text));
        }
        Ok(())
    }
}
