//! A leader whose disk hangs makes room for another within two election timeouts.

use super::super::Failure;
use super::super::host::Host;
use crate::limits::{Limits, TICK};

pub(super) fn turn(host: &Host, now: u64) -> Result<(), Failure> {
    let Some(node) = &host.node else { return Ok(()) };
    let raft = node.group().raft();
    let timeout = Limits::TINY.raft.election.end * TICK.as_micros() as u64;
    let since = node.writing_since.unwrap_or(now);
    if raft.is_leader() && !raft.conf().is_alone(host.id) && now - since > host.stretch(2 * timeout)
    {
        let text = format!("{} leads, and its disk hangs for {} us", host.id, now - since);
        return Err(Failure::new("hung-leader", text));
    }
    Ok(())
}
