//! Metrics, in the Prometheus text format, prefix `bedstone_`, base units.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Everything a node counts. Cheap to clone parts of; updates are atomic.
pub struct Metrics {
    registry: Registry,
    /// Time from a write's arrival to its answer.
    pub write_seconds: Histogram,
    /// Time from a strong read's arrival to its answer.
    pub read_seconds: Histogram,
    /// Time of a log commit, sync included.
    pub wal_fsync_seconds: Histogram,
    /// Records in a log commit.
    pub wal_commit_records: Histogram,
    /// Commands in a log entry.
    pub entry_commands: Histogram,
    /// Answers that were errors of the cluster: UNAVAILABLE and UNKNOWN.
    pub failed: Counter,
    /// Changes of leader seen.
    pub leader_changes: Counter,
    /// Whether a leader is known.
    pub has_leader: Gauge,
    /// Commands that wait.
    pub pending: Gauge,
    /// Entries committed and not applied here.
    pub commit_lag: Gauge,
    /// Client connections.
    pub connections: Gauge,
    /// Client requests.
    pub requests: Counter,
    /// Log segments in use.
    pub log_segments: Gauge,
    /// Bytes in tables.
    pub table_bytes: Gauge,
    /// Bytes in memtables.
    pub memtable_bytes: Gauge,
    /// Block cache lookups that found their block.
    pub cache_hits: Counter,
    /// Block cache lookups that did not.
    pub cache_misses: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(50e-6, 2.0, 18));
        let counts = || Histogram::new(exponential_buckets(1.0, 2.0, 14));
        let mut metrics = Metrics {
            registry: Registry::with_prefix("bedstone"),
            write_seconds: seconds(),
            read_seconds: seconds(),
            wal_fsync_seconds: seconds(),
            wal_commit_records: counts(),
            entry_commands: counts(),
            failed: Counter::default(),
            leader_changes: Counter::default(),
            has_leader: Gauge::default(),
            pending: Gauge::default(),
            commit_lag: Gauge::default(),
            connections: Gauge::default(),
            requests: Counter::default(),
            log_segments: Gauge::default(),
            table_bytes: Gauge::default(),
            memtable_bytes: Gauge::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);
        let mut histogram =
            |name: &str, help: &str, unit: Option<Unit>, metric: &Histogram| match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
                None => registry.register(name, help, metric.clone()),
            };
        let seconds = || Some(Unit::Seconds);
        histogram("write_duration", "Arrival to answer of writes", seconds(), &self.write_seconds);
        histogram(
            "read_duration",
            "Arrival to answer of strong reads",
            seconds(),
            &self.read_seconds,
        );
        histogram("wal_fsync_duration", "Log commits", seconds(), &self.wal_fsync_seconds);
        histogram("wal_commit_records", "Records in a log commit", None, &self.wal_commit_records);
        histogram("raft_entry_commands", "Commands in a log entry", None, &self.entry_commands);
        let mut counter = |name: &str, help: &str, metric: &Counter| {
            registry.register(name, help, metric.clone());
        };
        counter("requests_failed", "Answers UNAVAILABLE or UNKNOWN", &self.failed);
        counter("raft_leader_changes", "Changes of leader seen", &self.leader_changes);
        counter("requests", "Client requests", &self.requests);
        counter("cache_hits", "Blocks found in the cache", &self.cache_hits);
        counter("cache_misses", "Blocks read from files", &self.cache_misses);
        let mut gauge = |name: &str, help: &str, metric: &Gauge| {
            registry.register(name, help, metric.clone());
        };
        gauge("raft_has_leader", "Whether a leader is known", &self.has_leader);
        gauge("raft_proposals_pending", "Commands that wait", &self.pending);
        gauge("raft_commit_lag_entries", "Entries committed, not applied", &self.commit_lag);
        gauge("client_connections", "Client connections", &self.connections);
        gauge("wal_segments", "Log segments in use", &self.log_segments);
        let mut bytes = |name: &str, help: &str, metric: &Gauge| {
            registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
        };
        bytes("storage_table", "Table files", &self.table_bytes);
        bytes("storage_memtable", "Memtables", &self.memtable_bytes);
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

/// Moves a counter to a total that is counted elsewhere.
pub fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
