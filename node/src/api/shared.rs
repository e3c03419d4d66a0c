//! What all client connections of a node share.

use crate::limits::CONNECTIONS_MAX;
use crate::request::mailbox::ClientBatch;
use crate::router::Router;
use crate::status::StatusCell;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cursors of SCAN that are remembered.
const CURSORS_MAX: usize = 4096;

/// Hands a batch to the worker.
pub type Submit = Box<dyn Fn(ClientBatch) + Send + Sync>;

/// See the module.
pub struct Shared {
    /// This node.
    pub node: u64,
    /// Every node of the cluster.
    pub nodes: Vec<u64>,
    /// Key to shard, for weak reads.
    pub router: Arc<Router>,
    /// Whether FLUSHALL is taken.
    pub allow_flush: bool,
    /// The way to the worker.
    pub submit: Submit,
    /// Where scans stopped.
    pub cursors: Mutex<Cursors>,
    /// The status that the worker publishes.
    pub status: Arc<StatusCell>,
    /// Counters.
    pub counters: Counters,
}

/// Counters of the client side.
#[derive(Default)]
pub struct Counters {
    /// Connections ever taken.
    pub connections: AtomicU64,
    /// Connections now.
    pub connected: AtomicU64,
    /// Requests.
    pub requests: AtomicU64,
    /// Requests refused before they reached a shard.
    pub refused: AtomicU64,
}

impl Shared {
    /// Hands a batch to the worker.
    pub fn submit(&self, batch: ClientBatch) {
        (self.submit)(batch);
    }

    /// The text of INFO, with all sections or those asked for.
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

/// Keys at which scans stopped, by the number that the client holds. The oldest are forgotten.
#[derive(Default)]
pub struct Cursors {
    keys: HashMap<u64, Bytes>,
    order: VecDeque<u64>,
    last: u64,
}

impl Cursors {
    /// The number for a key to go on from; 0 at the end.
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

    /// The key of a number; empty for 0.
    pub fn get(&self, cursor: u64) -> Option<Bytes> {
        if cursor == 0 { Some(Bytes::new()) } else { self.keys.get(&cursor).cloned() }
    }
}
