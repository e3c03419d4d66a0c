//! Opening a replica from the contents of its disk.

use super::Replica;
use super::forward_tracker::ForwardTracker;
use super::members::stored_members;
use super::proposals::Proposals;
use super::queue::RequestQueue;
use super::read_tracker::ReadTracker;
use super::transfers::Snapshots;
use crate::disk_unit::DiskUnit;
use crate::limits::{Limits, REPLAY_BYTES};
use crate::machine::store::Store;
use crate::machine::system;
use crate::metrics::Metrics;
use crate::raft::{Boot, Conf, Durability, EntryKind, Index, Raft, ReplicaId};
use crate::wire::RequestId;
use bedstone_engine::wal::HardState;
use bedstone_engine::{Engine, LogId, Result, ShardId};
use bedstone_net::NodeId;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::warn;

/// The circumstances in which a replica is opened.
pub struct Opening {
    /// The shard.
    pub shard: ShardId,
    /// The replica.
    pub id: ReplicaId,
    /// The node.
    pub node: NodeId,
    /// The members that the configuration names; they count until the shard itself records its
    /// members.
    pub conf: Conf,
    /// Sizes.
    pub limits: Limits,
    /// A random number, another at each start.
    pub seed: u64,
    /// Whether the disk may have lost records that it reported as synced.
    pub disk_is_suspect: bool,
}

impl Replica {
    /// Opens the replica of a shard on a disk.
    ///
    /// # Errors
    /// Errors of the disk; damage of a shard that no other replica can repair.
    pub fn open(disk: &Arc<DiskUnit>, metrics: &Arc<Metrics>, opening: Opening) -> Result<Replica> {
        let Opening { shard, id, node, conf, limits, seed, disk_is_suspect } = opening;
        let engine = disk.engine();
        let tree = engine.open_shard(shard)?;
        let (_, last) = engine.log().bounds(shard);
        let applied = tree.applied();
        let stored = stored_members(engine, shard, &tree)?;
        let (conf, conf_index, damage) = match stored {
            Some(stored) => (stored.conf, stored.index.max(applied.index), stored.damage),
            None => (conf, applied.index, None),
        };
        let mut boot = Boot {
            id,
            conf: conf.clone(),
            changes: Vec::new(),
            hard: engine.log().hard_state(shard),
            applied,
            base: engine.log().base(shard),
            runs: engine.log().terms(shard),
            last: last.index,
            seed,
            durability: Durability::Intact,
            restarted: engine.log().hard_state(shard) != HardState::default(),
        };
        let mut resets_log = false;
        if let Err(error) = engine.log().check_whole(shard) {
            // Votes and acknowledgements may be lost. A sole voter has no other replica to query.
            if conf.is_sole_voter(id) || conf == Conf::default() {
                return Err(error);
            }
            let shard = shard.0;
            warn!(%error, shard, "the log lost records: the replica queries every other voter");
            boot.base = applied;
            boot.runs = Vec::new();
            boot.last = applied.index;
            boot.durability = Durability::Lost;
        } else if boot.hard == HardState::default() && last == LogId::default() {
            // The shard is new, or this disk takes the place of a lost one: only the other voters
            // know.
            if applied == LogId::default() && !conf.voters.is_empty() {
                boot.durability = Durability::Empty;
            }
        } else if engine.log().term(shard, applied.index) != Some(applied.term) {
            // A snapshot was installed, and the power failed before the log recorded it.
            boot.base = applied;
            boot.runs = Vec::new();
            boot.last = applied.index;
            resets_log = true;
        } else {
            boot.changes = changes_after(engine, shard, conf_index, last.index)?;
        }
        if disk_is_suspect && boot.durability == Durability::Intact && !boot.conf.voters.is_empty()
        {
            boot.durability = Durability::Suspect;
        }
        let mut replica = Replica {
            shard,
            id,
            node,
            nodes_of_strangers: BTreeMap::new(),
            disk: disk.clone(),
            metrics: metrics.clone(),
            raft: Raft::new(limits.raft.clone(), boot),
            machine: Arc::new(Store::new(tree.clone())),
            proposals: Proposals::new(tree.ts()),
            tree,
            limits,
            conf,
            logged_conf: engine.log().members(shard).and_then(|(_, conf)| Conf::decode(&conf)),
            applied,
            commit: applied.index,
            needs_version: None,
            ticks: 0,
            leader_seen: None,
            leader_since: 0,
            queue: RequestQueue::default(),
            reads: ReadTracker::default(),
            forwards: ForwardTracker::new(RequestId(seed >> 1)),
            snapshots: Snapshots::new(seed >> 1),
        };
        if resets_log {
            replica.reset_log_at_start(applied);
        }
        match damage.map_or_else(|| system::version(&replica.tree), Err) {
            Ok(version) if version > replica.limits.entry_versions.newest => replica.halt(version),
            Ok(_) => {}
            Err(damage) if damage.is_damage() && replica.damaged(&damage) => {}
            Err(error) => return Err(error),
        }
        Ok(replica)
    }
}

/// The changes of the members among the entries that are applied again.
fn changes_after(
    engine: &Engine,
    shard: ShardId,
    applied: Index,
    last: Index,
) -> Result<Vec<(Index, Bytes)>> {
    let (mut changes, mut next) = (Vec::new(), applied + 1);
    while next <= last {
        let entries = engine.log().entries(shard, next, last + 1, REPLAY_BYTES)?;
        let Some(end) = entries.last().map(|entry| entry.id.index) else { break };
        let of_kind = entries.into_iter().filter(|entry| entry.kind == EntryKind::CHANGE);
        changes.extend(of_kind.map(|entry| (entry.id.index, entry.data)));
        next = end + 1;
    }
    Ok(changes)
}
