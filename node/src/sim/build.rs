//! The builds of the node that a simulation runs side by side.

use crate::limits::EntryVersions;

/// A build of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The present build.
    Present,
    /// A later build with another protocol: the nodes refuse each other's connections.
    LaterProtocol,
    /// A later build with the present protocol. It writes entries of the next version, which the
    /// present build does not apply.
    LaterEntries,
}

impl Build {
    /// The versions of log entries of the build.
    pub(super) fn entry_versions(self) -> EntryVersions {
        let next = EntryVersions::OWN.newest + 1;
        match self {
            Build::Present | Build::LaterProtocol => EntryVersions::OWN,
            Build::LaterEntries => EntryVersions { newest: next, written: next },
        }
    }

    /// Whether nodes of two builds accept each other's connections.
    pub(super) fn speaks_with(self, other: Build) -> bool {
        (self == Build::LaterProtocol) == (other == Build::LaterProtocol)
    }
}
