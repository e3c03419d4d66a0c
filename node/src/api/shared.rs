//! The state that all client connections of a node share.

use crate::limits::CONNECTIONS_MAX;
use crate::request::mailbox::ClientBatch;
use crate::router::Router;
use crate::status::StatusCell;
use bedstone_net::NodeId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;

/// Cursors of SCAN that the node remembers at most.
const CURSORS_MAX: usize = 4096;

/// Submits a batch to the worker.
pub type Submit = Box<dyn Fn(ClientBatch) + Send + Sync>;

/// The state that all client connections of a node share.
pub struct Shared {
    /// The id of this node.
    pub node: NodeId,
    /// The ids of all nodes of the cluster.
    pub nodes: Vec<NodeId>,
    /// Maps a key to its shard, for weak reads.
    pub router: Arc<Router>,
    /// Whether FLUSHALL is allowed.
    pub allow_flush: bool,
    /// Submits a batch to the worker.
    pub submit: Submit,
    /// The keys at which scans stopped.
    pub cursors: Mutex<Cursors>,
    /// The status that the worker publishes.
    pub status: Arc<StatusCell>,
    /// The counters of the client connections.
    pub counters: Counters,
    /// Becomes true when the node is about to stop.
    pub stops: watch::Receiver<bool>,
}

/// Counters of the client connections.
#[derive(Default)]
pub struct Counters {
    /// Connections accepted since the start of the node.
    pub connections: AtomicU64,
    /// Open connections.
    pub connected: AtomicU64,
    /// Requests received.
    pub requests: AtomicU64,
    /// Requests refused before they reached a shard.
    pub refused: AtomicU64,
    /// Whether a client has sent HTTP.
    pub http: AtomicBool,
}

impl Shared {
    /// Submits a batch to the worker.
    pub fn submit(&self, batch: ClientBatch) {
        (self.submit)(batch);
    }

    /// The text of INFO: all sections if `wanted` is empty, otherwise the sections that it names.
    pub fn info(&self, wanted: &[Bytes]) -> String {
        let status = self.status.get();
        let (mut memtable_bytes, mut versions) = (0, 0);
        for stats in self.router.machines().map(|machine| machine.stats()) {
            memtable_bytes += stats.memtable_bytes;
            versions += stats.versions;
        }
        let connected = self.counters.connected.load(Ordering::Relaxed);
        let sections = [
            (
                "Server",
                format!(
                    "redis_version:{}\r\nbedstone_version:{}\r\nredis_mode:standalone\r\n\
                     process_id:{}\r\nuptime_in_seconds:{}\r\n",
                    crate::REDIS_VERSION,
                    env!("CARGO_PKG_VERSION"),
                    std::process::id(),
                    status.uptime_seconds
                ),
            ),
            (
                "Clients",
                format!("connected_clients:{connected}\r\nmaxclients:{CONNECTIONS_MAX}\r\n"),
            ),
            ("Memory", format!("used_memory:{}\r\nmaxmemory:0\r\n", memtable_bytes)),
            (
                "Persistence",
                "loading:0\r\naof_enabled:1\r\naof_last_write_status:ok\r\n".to_owned(),
            ),
            (
                "Stats",
                format!(
                    "total_connections_received:{}\r\ntotal_commands_processed:{}\r\n",
                    self.counters.connections.load(Ordering::Relaxed),
                    self.counters.requests.load(Ordering::Relaxed)
                ),
            ),
            (
                "Replication",
                format!("role:master\r\nconnected_slaves:{}\r\n", self.nodes.len() - 1),
            ),
            ("Cluster", "cluster_enabled:0\r\n".to_owned()),
            ("Keyspace", format!("db0:keys={},expires=0,avg_ttl=0\r\n", versions)),
        ];
        let all = wanted.is_empty()
            || wanted.iter().any(|w| {
                matches!(w.to_ascii_lowercase().as_slice(), b"all" | b"everything" | b"default")
            });
        let mut out = String::new();
        for (name, text) in sections {
            if all || wanted.iter().any(|w| w.eq_ignore_ascii_case(name.as_bytes())) {
                let _ = write!(out, "# {name}\r\n{text}\r\n");
            }
        }
        out
    }
}

/// Keys at which scans stopped, by the cursor number that the client received. The number of
/// keys is bounded: a new key removes the oldest.
#[derive(Default)]
pub struct Cursors {
    keys: HashMap<u64, Bytes>,
    order: VecDeque<u64>,
    last: u64,
}

impl Cursors {
    /// Stores the key from which a scan continues, and returns its number. An empty key (the end of
    /// a scan) gives 0.
    pub fn put(&mut self, key: Bytes) -> u64 {
        if key.is_empty() {
            return 0;
        }
        self.last += 1;
        self.keys.insert(self.last, key);
        self.order.push_back(self.last);
        if self.order.len() > CURSORS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        self.last
    }

    /// The key of a number: empty for 0, `None` if the number is unknown.
    pub fn get(&self, cursor: u64) -> Option<Bytes> {
        if cursor == 0 { Some(Bytes::new()) } else { self.keys.get(&cursor).cloned() }
    }
}
