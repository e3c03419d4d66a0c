//! Properties that must hold at every step, one file per property.

mod bounds;
mod disk;
mod durable;
mod election;
mod log;
mod pace;
mod state;
mod versions;

use super::host::Host;
use super::outcome::Failure;
use crate::raft::Message;

/// The state of the checks.
#[derive(Default)]
pub(super) struct Checks {
    bounds: bounds::Bounds,
    disks: disk::Disks,
    election: election::Election,
    log: log::Logs,
    paces: pace::Paces,
    state: state::States,
}

impl Checks {
    /// Checks a node after one of its turns.
    pub(super) fn turn(&mut self, host: &Host, now: u64) -> Result<(), Failure> {
        let Some(node) = &host.node else { return Ok(()) };
        self.election.turn(host.id, node)?;
        self.log.turn(host.id, node)?;
        self.disks.turn(host, now)?;
        self.paces.turn(host, now)?;
        versions::turn(host)?;
        self.bounds.turn(host.id, node)
    }

    /// Checks a message before it leaves.
    pub(super) fn sends(&self, host: &Host, message: &Message) -> Result<(), Failure> {
        match &host.node {
            Some(node) => durable::sends(host.id, node, message),
            None => Ok(()),
        }
    }

    /// Compares the content of a tree. The event loop runs this check at intervals.
    pub(super) fn tree(&mut self, host: &Host) -> Result<(), Failure> {
        match &host.node {
            Some(node) => self.state.look(host.id, node),
            None => Ok(()),
        }
    }

    /// Forgets the log of a node that ended: the next incarnation begins with the state of its
    /// disk.
    pub(super) fn ended(&mut self, id: crate::sim::replicas::HostId) {
        self.log.ended(id);
    }

    /// The number of committed entries.
    pub(super) fn committed(&self) -> u64 {
        self.log.committed()
    }
}
