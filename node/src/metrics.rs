//! Metrics in the Prometheus text format, with the prefix `bedstone_` and in base units.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Labels of a metric. A metric has few labels, and no label is a key or a client.
type Labels = Vec<(&'static str, String)>;
/// Requests by outcome.
type Requests = Family<Labels, Counter>;
/// Durations by kind of request.
type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// All metrics of a node. A clone of a metric is cheap and shares its value. Updates are atomic.
pub struct Metrics {
    registry: Registry,
    process: Process,
    /// Time from the arrival of a write to its answer.
    pub write_seconds: Histogram,
    /// Time from the arrival of a linearizable read to its answer.
    pub read_seconds: Histogram,
    /// Time of a log commit, sync included.
    pub wal_fsync_seconds: Histogram,
    /// Records in a log commit.
    pub wal_commit_records: Histogram,
    /// Commands in a log entry.
    pub entry_commands: Histogram,
    /// Requests that a shard answered.
    pub answered: Counter,
    /// Requests answered UNAVAILABLE.
    pub unavailable: Counter,
    /// Requests answered UNKNOWN.
    pub unknown: Counter,
    /// Requests refused before they reached a shard.
    pub refused: Counter,
    /// Writes answered UNAVAILABLE or UNKNOWN, and writes refused with NOSPACE.
    pub proposals_failed: Counter,
    /// Time to apply the committed entries of a step.
    pub apply_seconds: Histogram,
    /// Time of a flush or a compaction.
    pub compaction_seconds: Histogram,
    /// Bytes of snapshots sent to other nodes.
    pub snapshot_bytes: Counter,
    /// Snapshots received from other nodes that continued after an interruption.
    pub snapshots_resumed: Counter,
    /// Bytes of tables and values that the scrub read and checked.
    pub scrubbed_bytes: Counter,
    /// Damage that the scrub found.
    pub damage_found: Counter,
    /// Replicas that were found damaged and requested a snapshot of the leader.
    pub shards_damaged: Counter,
    /// Replicas that no longer had an entry which the leader counted as acknowledged by them.
    pub durability_lost: Counter,
    /// Bytes of tables and of log segments in use.
    pub physical_bytes: Gauge,
    /// Bytes of memtables, tables and the values they point to.
    pub logical_bytes: Gauge,
    /// Round-trip times to the other nodes.
    pub peer_rtt: Family<Labels, Gauge<f64, AtomicU64>>,
    /// Changes of leader that the replicas on this node noticed.
    pub leader_changes: Counter,
    /// 1 when this node knows the leader of every shard that has the node as a member, and no
    /// replica of such a shard waits for recovery; 0 otherwise.
    pub has_leader: Gauge,
    /// Active shards on this node: shards that are not quiescent.
    pub active_shards: Gauge,
    /// Commands that wait to be proposed or forwarded.
    pub pending: Gauge,
    /// Entries committed and not yet applied on this node.
    pub commit_lag: Gauge,
    /// Client connections.
    pub connections: Gauge,
    /// Log segments in use.
    pub log_segments: Gauge,
    /// Log segments kept for their entries.
    pub log_segments_for_entries: Gauge,
    /// Bytes in tables.
    pub table_bytes: Gauge,
    /// Bytes in memtables.
    pub memtable_bytes: Gauge,
    /// Block cache lookups that found their block.
    pub cache_hits: Counter,
    /// Block cache lookups that did not find their block.
    pub cache_misses: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations = Durations::new_with_constructor(seconds);
        let duration = |op: &str| {
            let labels = [("api", "resp"), ("op", op), ("level", "strong")];
            let labels: Labels = labels.map(|(name, value)| (name, value.to_owned())).into();
            durations.get_or_create(&labels).clone()
        };
        let requests = Requests::default();
        let ended = |code: &str| requests.get_or_create(&vec![("code", code.to_owned())]).clone();
        let counts = || Histogram::new(exponential_buckets(1.0, 2.0, 14));
        let mut metrics = Metrics {
            registry: Registry::default(),
            process: Process::default(),
            write_seconds: duration("write"),
            read_seconds: duration("read"),
            wal_fsync_seconds: seconds(),
            wal_commit_records: counts(),
            entry_commands: counts(),
            answered: ended("ok"),
            unavailable: ended("unavailable"),
            unknown: ended("unknown"),
            refused: ended("refused"),
            proposals_failed: Counter::default(),
            apply_seconds: seconds(),
            compaction_seconds: seconds(),
            snapshot_bytes: Counter::default(),
            snapshots_resumed: Counter::default(),
            scrubbed_bytes: Counter::default(),
            damage_found: Counter::default(),
            shards_damaged: Counter::default(),
            durability_lost: Counter::default(),
            physical_bytes: Gauge::default(),
            peer_rtt: Family::default(),
            leader_changes: Counter::default(),
            has_leader: Gauge::default(),
            active_shards: Gauge::default(),
            pending: Gauge::default(),
            commit_lag: Gauge::default(),
            connections: Gauge::default(),
            log_segments: Gauge::default(),
            log_segments_for_entries: Gauge::default(),
            logical_bytes: Gauge::default(),
            table_bytes: Gauge::default(),
            memtable_bytes: Gauge::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
        };
        metrics.register(durations, requests);
        metrics
    }
}

impl Metrics {
    fn register(&mut self, durations: Durations, requests: Requests) {
        self.process.register(&mut self.registry);
        let registry = self.registry.sub_registry_with_prefix("bedstone");
        let help = "Time from the arrival of a request to its answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, durations);
        registry.register("requests", "Client requests by outcome", requests);
        let help = "Round-trip time to another node";
        registry.register_with_unit("peer_rtt", help, Unit::Seconds, self.peer_rtt.clone());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of this node", build);
        let mut histogram =
            |name: &str, help: &str, unit: Option<Unit>, metric: &Histogram| match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
                None => registry.register(name, help, metric.clone()),
            };
        let seconds = || Some(Unit::Seconds);
        let help = "Time of a flush or a compaction";
        histogram("compaction_duration", help, seconds(), &self.compaction_seconds);
        histogram("apply_duration", "Time to apply a step", seconds(), &self.apply_seconds);
        histogram("wal_fsync_duration", "Log commit time", seconds(), &self.wal_fsync_seconds);
        histogram("wal_commit_records", "Records in a log commit", None, &self.wal_commit_records);
        histogram("raft_entry_commands", "Commands in a log entry", None, &self.entry_commands);
        let mut counter = |name: &str, help: &str, metric: &Counter| {
            registry.register(name, help, metric.clone());
        };
        counter("raft_proposals_failed", "Writes without success reply", &self.proposals_failed);
        counter("snapshot_sent_bytes", "Bytes of snapshots sent", &self.snapshot_bytes);
        let help = "Received snapshots that continued after an interruption";
        counter("snapshots_resumed", help, &self.snapshots_resumed);
        counter("storage_scrubbed_bytes", "Bytes checked by the scrub", &self.scrubbed_bytes);
        counter("storage_damage_found", "Damage found by the scrub", &self.damage_found);
        let help = "Replicas found damaged; each requests a snapshot of the leader";
        counter("shards_damaged", help, &self.shards_damaged);
        let help = "Replicas that lacked an entry which they had acknowledged";
        counter("raft_durability_lost", help, &self.durability_lost);
        counter("raft_leader_changes", "Leader changes noticed", &self.leader_changes);
        counter("cache_hits", "Blocks found in the cache", &self.cache_hits);
        counter("cache_misses", "Blocks read from files", &self.cache_misses);
        let mut gauge = |name: &str, help: &str, metric: &Gauge| {
            registry.register(name, help, metric.clone());
        };
        gauge("raft_has_leader", "1 if all shards have a leader", &self.has_leader);
        gauge("raft_shards_active", "Shards that are not quiescent", &self.active_shards);
        gauge("raft_proposals_pending", "Commands waiting for a proposal", &self.pending);
        gauge("raft_commit_lag_entries", "Entries committed, not applied", &self.commit_lag);
        gauge("client_connections", "Client connections", &self.connections);
        gauge("wal_segments", "Log segments in use", &self.log_segments);
        gauge(
            "wal_segments_for_entries",
            "Log segments kept for entries; the others contain live values",
            &self.log_segments_for_entries,
        );
        let mut bytes = |name: &str, help: &str, metric: &Gauge| {
            registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
        };
        bytes("storage_physical", "Tables, value files and log segments", &self.physical_bytes);
        bytes("storage_logical", "Memtables, tables and live values", &self.logical_bytes);
        bytes("storage_table", "Size of all tables", &self.table_bytes);
        bytes("storage_memtable", "Size of all memtables", &self.memtable_bytes);
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        self.process.update();
        let mut out = String::new();
        // A write to a string cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

/// Values that the kernel counts for this process, under the standard Prometheus names.
#[derive(Default)]
struct Process {
    cpu_seconds: Counter<f64, AtomicU64>,
    resident_bytes: Gauge,
    open_fds: Gauge,
}

impl Process {
    fn register(&self, registry: &mut Registry) {
        let (cpu, memory) = (self.cpu_seconds.clone(), self.resident_bytes.clone());
        registry.register_with_unit("process_cpu", "CPU time: user, system", Unit::Seconds, cpu);
        registry.register_with_unit("process_resident_memory", "Memory used", Unit::Bytes, memory);
        registry.register("process_open_fds", "Open file descriptors", self.open_fds.clone());
    }

    /// Reads `/proc`. A value that cannot be read stays as it was.
    fn update(&self) {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as i64;
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        if let (Some(user), Some(system)) = (field(11), field(12)) {
            let total = (user + system) / ticks;
            self.cpu_seconds.inc_by((total - self.cpu_seconds.get()).max(0.0));
        }
        if let Some(pages) = field(21) {
            self.resident_bytes.set(pages as i64 * page);
        }
        if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(fds.count() as i64);
        }
    }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 18))
}

/// Raises a counter to a total that another place counts.
pub fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
