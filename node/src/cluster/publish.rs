//! The published status of a node: put together from its shards, disks and peers.

use super::peers::Peers;
use crate::disk_unit::DiskUnit;
use crate::limits::READY_LAG_ENTRIES;
use crate::metrics::{Metrics, raise};
use crate::status::{NodeStatus, ShardStatus, Status, StatusCell};
use bedstone_engine::ShardId;
use bedstone_net::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Ticks between two publications while a shard is active.
const ACTIVE_TICKS: u64 = 2;
/// Ticks between two publications while all shards are quiescent.
const QUIESCENT_TICKS: u64 = 100;

/// Publishes the status of a node.
pub struct Publisher {
    cell: Arc<StatusCell>,
    cluster: String,
    node: NodeId,
    nodes: Vec<NodeStatus>,
    /// Ticks since the last publication.
    ticks: u64,
    /// The status of each shard at the last publication, and the shards for which it is out of
    /// date.
    shards: BTreeMap<ShardId, Arc<ShardStatus>>,
    outdated: BTreeSet<ShardId>,
    /// The shards whose disk failed.
    failed: BTreeSet<ShardId>,
}

impl Publisher {
    /// A publisher of the status of `node` into `cell`.
    pub fn new(
        cell: Arc<StatusCell>,
        cluster: String,
        node: NodeId,
        nodes: Vec<NodeStatus>,
    ) -> Publisher {
        let (shards, outdated, failed) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Publisher { cell, cluster, node, nodes, ticks: 0, shards, outdated, failed }
    }

    /// A shard became quiescent: its status is taken once more.
    pub fn mark_outdated(&mut self, shard: ShardId) {
        self.outdated.insert(shard);
    }

    /// The disk of a shard failed: the shard is not here any more, and the node is not ready.
    pub fn fail(&mut self, shard: ShardId) {
        self.shards.remove(&shard);
        self.outdated.remove(&shard);
        self.failed.insert(shard);
    }

    /// Ticks passed. Returns the shards whose status is needed when a publication is due.
    pub fn due(&mut self, ticks: u32, active: &BTreeSet<ShardId>) -> Option<BTreeSet<ShardId>> {
        self.ticks += u64::from(ticks);
        let all_published = active.is_empty() && self.outdated.is_empty();
        if self.ticks < if all_published { QUIESCENT_TICKS } else { ACTIVE_TICKS } {
            return None;
        }
        self.ticks = 0;
        let outdated = std::mem::take(&mut self.outdated);
        Some(outdated.into_iter().chain(active.iter().copied()).collect())
    }

    /// Publishes the status, with the given shards as they are now.
    pub fn publish<'a>(
        &mut self,
        changed: impl Iterator<Item = (ShardId, ShardStatus)>,
        peers: &Peers,
        disks: impl Iterator<Item = &'a DiskUnit>,
        metrics: &Metrics,
    ) {
        self.shards.extend(changed.map(|(shard, status)| (shard, Arc::new(status))));
        let disk = self.failed.first().map(|shard| {
            format!("the disk of shard {shard} failed: replace the disk and restart the node")
        });
        let shard = || self.shards.values().find_map(|shard| why_not_ready(shard, self.node));
        let not_ready = disk.or_else(shard);
        let mut status = Status {
            cluster: self.cluster.clone(),
            node: self.node.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: self.nodes.clone(),
            ready: not_ready.is_none(),
            reason: not_ready.unwrap_or_default(),
            shards: self.shards.values().cloned().collect(),
            ..Status::default()
        };
        for node in &mut status.nodes {
            let id = NodeId(node.id);
            node.alive = id == self.node || peers.is_connected(id);
        }
        let totals = self.count_shards(metrics);
        let (mut log_bytes, mut segments, mut for_entries) = (0, 0, 0);
        for disk in disks {
            let shown = disk.status();
            log_bytes += shown.log_segments as u64 * disk.engine().segment_bytes();
            segments += shown.log_segments;
            for_entries += shown.log_segments_for_entries;
            let (hits, misses) = disk.engine().cache().hits_and_misses();
            raise(&metrics.cache_hits, hits);
            raise(&metrics.cache_misses, misses);
            status.disks.push(shown);
        }
        metrics.log_segments.set(segments as i64);
        metrics.log_segments_for_entries.set(for_entries as i64);
        metrics.physical_bytes.set((totals.table + totals.file_values + log_bytes) as i64);
        self.cell.set(status);
    }

    fn count_shards(&self, metrics: &Metrics) -> Bytes {
        let (mut bytes, mut lag) = (Bytes::default(), 0);
        let mut all_led = self.failed.is_empty();
        for shard in self.shards.values() {
            let is_led = shard.recovery_wait.is_empty() && shard.leader != 0;
            all_led &= !shard.voters.is_empty() && (is_led || !shard.has_member(self.node.0));
            lag += shard.commit - shard.applied;
            bytes.table += shard.table_bytes;
            bytes.memtable += shard.memtable_bytes as u64;
            bytes.log_values += shard.log_value_bytes;
            bytes.file_values += shard.file_value_bytes;
        }
        metrics.has_leader.set(i64::from(all_led));
        metrics.commit_lag.set(lag as i64);
        metrics.table_bytes.set(bytes.table as i64);
        metrics.memtable_bytes.set(bytes.memtable as i64);
        let logical = bytes.table + bytes.memtable + bytes.log_values + bytes.file_values;
        metrics.logical_bytes.set(logical as i64);
        bytes
    }
}

/// Bytes of all shards of a node.
#[derive(Clone, Copy, Default)]
struct Bytes {
    table: u64,
    memtable: u64,
    log_values: u64,
    file_values: u64,
}

/// The reason for which a shard keeps its node from being ready.
fn why_not_ready(shard: &ShardStatus, node: NodeId) -> Option<String> {
    let id = shard.id;
    if shard.voters.is_empty() {
        return Some(format!("shard {id} waits to be given its members"));
    }
    if !shard.has_member(node.0) {
        return Some(format!("this node is no member of shard {id}"));
    }
    if shard.needs_version != 0 {
        let version = shard.needs_version;
        return Some(format!(
            "shard {id} has entries of version {version}, which this build does not apply: upgrade \
             this node"
        ));
    }
    if !shard.recovery_wait.is_empty() {
        return Some(format!("shard {id} {}", shard.recovery_wait));
    }
    if shard.leader == 0 {
        return Some(format!("shard {id} has no leader"));
    }
    if shard.damaged {
        return Some(format!("shard {id} is damaged and waits for a snapshot of the leader"));
    }
    if shard.leader_commit == 0 {
        return Some(format!("shard {id} waits for a heartbeat of its leader"));
    }
    let committed = shard.commit.max(shard.leader_commit);
    let is_behind = committed > shard.applied + READY_LAG_ENTRIES;
    is_behind.then(|| format!("shard {id} has applied {} of {committed} entries", shard.applied))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_is_ready_once_it_has_applied_what_its_leader_has_committed() {
        let follower =
            ShardStatus { id: 1, leader: 2, voters: vec![1, 2, 3], ..ShardStatus::default() };
        let reason = |leader_commit, commit, applied| {
            let shard = ShardStatus { leader_commit, commit, applied, ..follower.clone() };
            why_not_ready(&shard, NodeId(1))
        };
        let waits = "shard 1 waits for a heartbeat of its leader";
        assert_eq!(reason(0, 1, 1).as_deref(), Some(waits), "the leader's commit is unknown");
        let behind = "shard 1 has applied 1 of 6003 entries";
        assert_eq!(reason(6003, 1, 1).as_deref(), Some(behind), "it knows of one entry alone");
        assert_eq!(reason(6003, 6003, 1).as_deref(), Some(behind));
        assert_eq!(reason(6003, 6003, 6003), None);
        assert_eq!(reason(6003, 6000, 6003 - READY_LAG_ENTRIES), None);
    }
}
