//! The limits of the node, with units, and the relations between the limits.

use crate::raft;
use bedstone_engine::limits as engine;
use bedstone_net::limits as net;
use std::time::Duration;

/// Duration of a tick of the Raft cores.
pub const TICK: Duration = Duration::from_millis(50);
/// Ticks per second.
pub const TICKS_PER_SECOND: i64 = (1000 / TICK.as_millis()) as i64;
/// Ticks between two frames of coalesced heartbeats to a peer.
pub const PEER_HEARTBEAT_TICKS: u64 = 4;
/// Ticks without a frame after which a connected peer counts as silent: the quiescent shards that
/// the peer leads become active.
pub const PEER_SILENCE_TICKS: u64 = 12;
/// A node is ready while each of its replicas lacks at most this many of the entries that the
/// leader has committed.
pub const READY_LAG_ENTRIES: u64 = 100;
/// Ticks after which a replica that follows another leader awaits no reply of the previous one. A
/// leader that transferred its leadership has replied by then.
pub const FORWARD_GRACE_TICKS: u64 = 3;
/// Ticks for which a stopping node stays connected after it has handed its leaderships over: more
/// than two intervals between heartbeats.
pub const STOP_TICKS: u32 = 5;
/// Most time that a stopping node waits for other leaders of its shards, and then for the replies
/// to its clients.
pub const STOP_TIME: Duration = Duration::from_secs(2);
/// Longest encoded command, in bytes.
pub const COMMAND_BYTES_MAX: usize = 2 << 20;
/// Proposals of entries under way. At this number, further commands wait and share the next entry.
/// Under more load, entries are therefore longer, and syncs and packets are fewer per command.
pub const PROPOSALS_IN_FLIGHT: usize = 2;
/// Commands that wait to be proposed or forwarded. Clients whose commands exceed this number
/// receive UNAVAILABLE.
pub const QUEUED_COMMANDS_MAX: usize = 1 << 16;
/// Inputs that the worker reads in one step, before it handles their effects.
pub const INPUTS_PER_STEP: usize = 4096;
/// Frames that wait for the worker. At this number, the net stops reading entries and snapshots.
pub const INBOX_FRAMES_MAX: usize = 1024;
/// Bytes of entries that a replica reads from the log at a time to apply them.
pub const REPLAY_BYTES: usize = 4 << 20;
/// Snapshot chunks under way to one follower. The number is small, so that heartbeats do not wait
/// behind chunks.
pub const SNAPSHOT_WINDOW: usize = 2;
/// Time from the arrival of a client request to its deadline.
pub const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Time from the first byte of a request to its last one, after which the connection is closed.
pub const UNFINISHED_REQUEST_TIME: Duration = Duration::from_secs(30);
/// Most requests of one connection that are under way.
pub const PIPELINE_MAX: usize = 4096;
/// Most arguments of one request.
pub const ARGUMENTS_MAX: usize = 1 << 20;
/// Most bytes of one request on the wire.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Longest line of an inline request, in bytes.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Most client connections.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Most keys in one answer of SCAN and KV.SCAN.
pub const SCAN_KEYS_MAX: usize = 10_000;
/// Most bytes in one answer of MGET, KEYS and KV.SCAN. MGET and KEYS with a longer answer are
/// refused, and the error names the next step. KV.SCAN stops early, and SCAN at half as many bytes.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The versions of log entries that a build reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryVersions {
    /// The newest version that the build applies.
    pub newest: u16,
    /// The version of the entries that the build proposes.
    pub written: u16,
}

impl EntryVersions {
    /// The versions of this build.
    pub const OWN: EntryVersions =
        EntryVersions { newest: raft::ENTRY_VERSION, written: raft::ENTRY_VERSION };
}

/// Sizes of a replica. [`Limits::DEFAULT`] is for servers. [`Limits::TINY`] is for simulations,
/// which then reach every limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of commands in one log entry, unless a single command is longer.
    pub entry_bytes: usize,
    /// Entries that the log keeps up to the flushed index, for followers that were disconnected.
    pub log_retain_entries: u64,
    /// Log segments with needed entries, above which memtables are flushed and all flushed entries
    /// are released.
    pub log_segments: usize,
    /// Log segments with needed entries, above which entries are released even if a snapshot under
    /// way needs them.
    pub log_segments_sending: usize,
    /// Rounds of the background work between two sweeps over all trees.
    pub rounds_between_sweeps: u64,
    /// Bytes of one snapshot chunk, unless a single value is longer.
    pub snapshot_chunk_bytes: usize,
    /// Most bytes of snapshots that a node sends per second.
    pub snapshot_bytes_per_second: u64,
    /// Whether followers answer reads themselves instead of forwarding them to the leader.
    pub follower_reads: bool,
    /// The versions of log entries.
    pub entry_versions: EntryVersions,
    /// Configuration of the Raft core.
    pub raft: raft::Config,
}

impl Limits {
    /// Limits for servers.
    pub const DEFAULT: Limits = Limits {
        entry_bytes: 512 << 10,
        log_retain_entries: 8192,
        log_segments: 8,
        log_segments_sending: 64,
        rounds_between_sweeps: 600,
        snapshot_chunk_bytes: 128 << 10,
        snapshot_bytes_per_second: 100 << 20,
        follower_reads: false,
        entry_versions: EntryVersions::OWN,
        raft: raft::Config::DEFAULT,
    };
    /// Limits for simulations.
    pub const TINY: Limits = Limits {
        entry_bytes: 256,
        log_retain_entries: 8,
        log_segments: 4,
        log_segments_sending: 16,
        rounds_between_sweeps: 4,
        snapshot_chunk_bytes: 256,
        snapshot_bytes_per_second: 32 << 10,
        follower_reads: false,
        entry_versions: EntryVersions::OWN,
        raft: raft::Config {
            append_bytes_max: 512,
            inflight_bytes_max: 2 << 10,
            inflight_appends_max: 8,
            uncommitted_bytes_max: 16 << 10,
            recent_bytes_max: 1 << 10,
            ..raft::Config::DEFAULT
        },
    };
}

const ENTRY_BYTES_TARGET: usize = Limits::DEFAULT.entry_bytes;
const SNAPSHOT_CHUNK_BYTES: usize = Limits::DEFAULT.snapshot_chunk_bytes;
const _: () = assert!(COMMAND_BYTES_MAX + ENTRY_BYTES_TARGET < engine::RECORD_BYTES_MAX);
const _: () = assert!(COMMAND_BYTES_MAX + ENTRY_BYTES_TARGET < net::APPEND_BYTES_MAX);
const _: () = assert!(engine::VALUE_BYTES_MAX + engine::KEY_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(ANSWER_BYTES_MAX + (64 << 10) < net::APPEND_BYTES_MAX);
const _: () = assert!(
    SNAPSHOT_CHUNK_BYTES + engine::VALUE_BYTES_MAX + engine::KEY_BYTES_MAX + 64
        < net::BULK_BYTES_MAX
);
