//! What must hold at every step, one file for each promise.

mod bounds;
mod disk;
mod durable;
mod election;
mod log;
mod pace;
mod state;

use super::Failure;
use super::host::Host;
use crate::raft::Message;

/// What the checks remember.
#[derive(Default)]
pub(super) struct Checks {
    disks: disk::Disks,
    election: election::Election,
    log: log::Logs,
    paces: pace::Paces,
    state: state::States,
}

impl Checks {
    /// After each turn of a node.
    pub(super) fn turn(&mut self, host: &Host, now: u64) -> Result<(), Failure> {
        let Some(node) = &host.node else { return Ok(()) };
        self.election.turn(host.id, node)?;
        self.log.turn(host.id, node)?;
        self.disks.turn(host, now)?;
        self.paces.turn(host, now)?;
        bounds::turn(host.id, node)
    }

    /// Before a message leaves.
    pub(super) fn sends(&self, host: &Host, message: &Message) -> Result<(), Failure> {
        match &host.node {
            Some(node) => durable::sends(host.id, node, message),
            None => Ok(()),
        }
    }

    /// Now and then: what the tree holds.
    pub(super) fn tree(&mut self, host: &Host) -> Result<(), Failure> {
        match &host.node {
            Some(node) => self.state.look(host.id, node),
            None => Ok(()),
        }
    }

    /// A node ended: what it knows begins anew with its disk.
    pub(super) fn ended(&mut self, id: crate::raft::PeerId) {
        self.log.ended(id);
    }

    /// How many entries are committed.
    pub(super) fn committed(&self) -> u64 {
        self.log.committed()
    }
}
