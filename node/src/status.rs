//! What a node says of itself: published by the driver, read by the HTTP side and by INFO.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// One node's view of itself and its cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// This node's id.
    pub node: u64,
    /// Its version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Every node, by id.
    pub nodes: Vec<NodeStatus>,
    /// The shards here.
    pub shards: Vec<Arc<ShardStatus>>,
    /// The disks here.
    pub disks: Vec<DiskStatus>,
    /// Whether this node can serve.
    pub ready: bool,
    /// Why not.
    pub reason: String,
}

impl Status {
    /// Whether a node is connected.
    pub fn is_alive(&self, node: u64) -> bool {
        self.nodes.iter().any(|other| other.id == node && other.alive)
    }
}

/// One node as this one sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub id: u64,
    /// Its client address.
    pub resp: String,
    /// Its HTTP address.
    pub http: String,
    /// Its peer address.
    pub peer: String,
    /// Whether it is connected.
    pub alive: bool,
}

/// One shard's replica here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The shard.
    pub id: u64,
    /// The leader's node id; 0 when none is known.
    pub leader: u64,
    /// What this replica is.
    pub role: String,
    /// The term.
    pub term: u64,
    /// The commit index.
    pub commit: u64,
    /// The last entry applied here.
    pub applied: u64,
    /// The last entry in the log here.
    pub last: u64,
    /// The last durable entry here.
    pub persisted: u64,
    /// What was applied here is damaged, and waits for a snapshot of the leader to take its place.
    #[serde(default)]
    pub damaged: bool,
    /// What a replica with a new or damaged disk waits for; empty when for nothing.
    #[serde(default)]
    pub recovery_wait: String,
    /// The nodes that vote, witnesses included, as far as this replica knows what is committed.
    #[serde(default)]
    pub voters: Vec<u64>,
    /// The nodes that get the log and do not vote.
    #[serde(default)]
    pub learners: Vec<u64>,
    /// Of the voters, those that do not keep the commands.
    #[serde(default)]
    pub witnesses: Vec<u64>,
    /// A change of the members is under way.
    #[serde(default)]
    pub changing: bool,
    /// Entries of each follower still to come, as the leader knows it.
    pub lag: Vec<(u64, u64)>,
    /// Bytes in memtables.
    pub memtable_bytes: usize,
    /// Bytes in tables.
    pub table_bytes: u64,
    /// Bytes of values that tables point to in the log.
    pub log_value_bytes: u64,
    /// Bytes of values that tables point to in value files.
    pub file_value_bytes: u64,
    /// Tables.
    pub tables: usize,
}

impl ShardStatus {
    /// Whether a node is a member, as far as is known here.
    pub fn has_member(&self, node: u64) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    /// The members in words: `1 2 3, learners 4`.
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

/// One disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its directory.
    pub path: String,
    /// Bytes free.
    pub free_bytes: u64,
    /// Log segments in use.
    pub log_segments: usize,
    /// Of them kept because entries are not flushed or a follower may want them, the one being
    /// written included.
    pub log_segments_for_entries: usize,
    /// Of them kept because tables, memtables or readers point to values in them.
    pub log_segments_for_values: usize,
    /// How the log writes.
    pub write_mode: String,
    /// `ok`, or why it stopped.
    pub health: String,
}

/// Where the status is left for readers.
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
    /// The latest.
    pub fn get(&self) -> Status {
        let uptime_seconds = self.started.elapsed().as_secs();
        Status { uptime_seconds, ..self.latest.read().clone() }
    }

    /// Leaves a new one.
    pub fn set(&self, status: Status) {
        *self.latest.write() = status;
    }
}
