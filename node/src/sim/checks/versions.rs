//! Versions of entries: no node applies an entry, or takes over a state, of a newer version than
//! its build knows.

use super::super::build::Build;
use super::super::host::Host;
use super::super::outcome::Failure;
use crate::machine::system;
use crate::raft::EntryKind;
use crate::router::FIRST_SHARD;
use bedstone_engine::wal::Entry;

pub(super) fn turn(host: &Host) -> Result<(), Failure> {
    let Some(node) = host.node.as_ref().filter(|_| host.build == Build::Present) else {
        return Ok(());
    };
    let replica = node.replica();
    let newest = Build::Present.entry_versions().newest;
    let fails = |text: String| Err(Failure::new("newer-entries", text));
    let id = host.id;
    match system::version(replica.tree()) {
        Ok(version) if version > newest && replica.raft().is_applying() => {
            return fails(format!("node {id} works on a state of version {version}"));
        }
        _ => {}
    }
    let applied = replica.applied().index;
    let log = node.engine.log();
    let entries = log.entries(FIRST_SHARD, applied, applied + 1, 1).unwrap_or_default();
    let version = |entry: &Entry| entry.data.first_chunk().copied().map(u16::from_le_bytes);
    let last = entries.first().filter(|entry| entry.kind == EntryKind::COMMANDS).and_then(version);
    match last.filter(|&version| version > newest && replica.raft().is_applying()) {
        Some(version) => fails(format!("node {id} applied entry {applied} of version {version}")),
        None => Ok(()),
    }
}
