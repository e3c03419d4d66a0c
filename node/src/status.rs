//! The status of a node. The worker publishes it; the HTTP server and INFO read it.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// The status of a node and its view of the cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Name of the cluster.
    pub cluster: String,
    /// Id of this node.
    pub node: u64,
    /// Version of this node.
    pub version: String,
    /// Seconds since the start of this node.
    pub uptime_seconds: u64,
    /// Every node of the configuration, by id.
    pub nodes: Vec<NodeStatus>,
    /// The shards on this node.
    pub shards: Vec<Arc<ShardStatus>>,
    /// The disks of this node.
    pub disks: Vec<DiskStatus>,
    /// Whether this node can serve clients.
    pub ready: bool,
    /// The reason why the node is not ready; empty when it is.
    pub reason: String,
}

impl Status {
    /// Whether `node` is alive, as this node sees it.
    pub fn is_alive(&self, node: u64) -> bool {
        self.nodes.iter().any(|other| other.id == node && other.alive)
    }
}

/// A node of the cluster, as this node sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Id of the node.
    pub id: u64,
    /// Client address.
    pub resp: String,
    /// HTTP address.
    pub http: String,
    /// Peer address.
    pub peer: String,
    /// Whether the node is this node, or is connected to it.
    pub alive: bool,
}

/// The replica of a shard on this node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The shard.
    pub id: u64,
    /// Node id of the leader; 0 when no leader is known.
    pub leader: u64,
    /// Raft role of this replica.
    pub role: String,
    /// The term.
    pub term: u64,
    /// The commit index.
    pub commit: u64,
    /// On a follower: the commit index of the leader, from its last heartbeat; 0 before the first
    /// heartbeat. On a leader: its commit index.
    #[serde(default)]
    pub leader_commit: u64,
    /// Index of the last entry that this replica has applied.
    pub applied: u64,
    /// Index of the last entry in the log of this replica.
    pub last: u64,
    /// Index of the last durable entry of this replica.
    pub persisted: u64,
    /// Whether applied data of this replica is damaged. The replica then waits for a snapshot of
    /// the leader, which replaces the data.
    #[serde(default)]
    pub damaged: bool,
    /// The version of log entries that this replica needs and its build does not apply; 0 if its
    /// build applies all. The replica then waits for an upgrade of its node.
    #[serde(default)]
    pub needs_version: u16,
    /// Reason why a replica with a new, damaged or suspect disk waits; empty when it does not wait.
    #[serde(default)]
    pub recovery_wait: String,
    /// The voters, witnesses included, in the last configuration that this replica knows to be
    /// committed.
    #[serde(default)]
    pub voters: Vec<u64>,
    /// The learners, which receive the log and do not vote.
    #[serde(default)]
    pub learners: Vec<u64>,
    /// The voters that are witnesses, which do not store the commands.
    #[serde(default)]
    pub witnesses: Vec<u64>,
    /// Whether a configuration change is under way.
    #[serde(default)]
    pub changing: bool,
    /// Each follower and the number of entries that it lacks, as the leader knows it.
    pub lag: Vec<(u64, u64)>,
    /// Bytes in memtables.
    pub memtable_bytes: usize,
    /// Bytes in tables.
    pub table_bytes: u64,
    /// Bytes of values that tables point to in the log.
    pub log_value_bytes: u64,
    /// Bytes of values that tables point to in value files.
    pub file_value_bytes: u64,
    /// Number of tables.
    pub tables: usize,
}

impl ShardStatus {
    /// Whether `node` is a voter or a learner, as this replica knows.
    pub fn has_member(&self, node: u64) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    /// The members as text: `1 2 3, learners 4`.
    pub fn members(&self) -> String {
        let list = |nodes: &[u64]| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        let of_kind = |kind: &str, nodes: &[u64]| match nodes {
            [] => String::new(),
            nodes => format!(", {kind} {}", list(nodes)),
        };
        let changing = if self.changing { ", changing" } else { "" };
        let witnesses = of_kind("of them witnesses", &self.witnesses);
        format!(
            "{}{witnesses}{}{changing}",
            list(&self.voters),
            of_kind("learners", &self.learners)
        )
    }
}

/// The status of a disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Data directory on the disk.
    pub path: String,
    /// Free bytes.
    pub free_bytes: u64,
    /// Log segments in use.
    pub log_segments: usize,
    /// Log segments that are kept because entries in them are not flushed or a follower may need
    /// them. The segment being written is included.
    pub log_segments_for_entries: usize,
    /// Log segments that are kept only because tables, memtables or readers point to values in
    /// them.
    pub log_segments_for_values: usize,
    /// Write mode of the log.
    pub write_mode: String,
    /// `ok`, or the reason why the log stopped.
    pub health: String,
}

/// Holds the latest status for readers.
pub struct StatusCell {
    latest: RwLock<Status>,
    started: Instant,
}

impl Default for StatusCell {
    fn default() -> Self {
        Self { latest: RwLock::default(), started: crate::clock::now() }
    }
}

impl StatusCell {
    /// The latest status, with the present uptime.
    pub fn get(&self) -> Status {
        let uptime_seconds = self.started.elapsed().as_secs();
        Status { uptime_seconds, ..self.latest.read().clone() }
    }

    /// Publishes a status.
    pub fn set(&self, status: Status) {
        *self.latest.write() = status;
    }
}
