//! The node's limits, with units, and how they relate.

use crate::raft;
use bedstone_engine::limits as engine;
use bedstone_net::limits as net;
use std::time::Duration;

/// The pace of the Raft cores.
pub const TICK: Duration = Duration::from_millis(50);
/// Of them in a second.
pub const TICKS_PER_SECOND: i64 = (1000 / TICK.as_millis()) as i64;
/// Ticks between two frames of coalesced heartbeats to a peer.
pub const PEER_HEARTBEAT_TICKS: u64 = 4;
/// Ticks without a frame after which a connected peer counts as silent: the quiescent shards that
/// the peer leads become active.
pub const PEER_SILENCE_TICKS: u64 = 12;
/// Longest single command, encoded.
pub const COMMAND_BYTES_MAX: usize = 2 << 20;
/// Entries proposed and not yet committed, beyond which commands gather for the next entry: the
/// busier the node, the longer its entries and the fewer its syncs and packets.
pub const PROPOSALS_IN_FLIGHT: usize = 2;
/// Commands that wait to be proposed or forwarded; beyond, clients get UNAVAILABLE.
pub const QUEUED_COMMANDS_MAX: usize = 1 << 16;
/// Inputs that the driver takes before it looks at effects.
pub const INPUTS_PER_STEP: usize = 4096;
/// Frames that wait for the driver, beyond which the net stops reading entries and snapshots.
pub const INBOX_FRAMES_MAX: usize = 1024;
/// Bytes of entries read back from the log at a time, to apply them after a start.
pub const REPLAY_BYTES: usize = 4 << 20;
/// Snapshot chunks under way to one follower. Small, so that heartbeats find no queue before them.
pub const SNAPSHOT_WINDOW: usize = 2;
/// A client request's deadline when it sets none.
pub const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Requests of one connection under way.
pub const PIPELINE_MAX: usize = 4096;
/// Arguments of one request.
pub const ARGUMENTS_MAX: usize = 1 << 20;
/// Bytes of one request on the wire.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Longest inline request line.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Client connections.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Keys in one answer of SCAN and KV.SCAN at most.
pub const SCAN_KEYS_MAX: usize = 10_000;
/// Bytes in one answer of a read; beyond, the command is refused with what to do.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Sizes that shape a shard's replica. [`Limits::DEFAULT`] is for servers; [`Limits::TINY`] makes
/// simulations meet every edge.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of commands that go into one log entry, unless a single command is longer.
    pub entry_bytes: usize,
    /// Entries kept in the log behind the flushed index, for followers that were away.
    pub log_retain_entries: u64,
    /// Log segments beyond which memtables are flushed and the whole flushed log is released.
    pub log_segments: usize,
    /// Log segments beyond which entries are released though a snapshot under way needs them.
    pub log_segments_sending: usize,
    /// Looks of the background work between two at every tree.
    pub looks_between_sweeps: u64,
    /// Bytes of one snapshot chunk, unless a single value is longer.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of snapshots that a node sends in a second.
    pub snapshot_bytes_per_second: u64,
    /// Whether followers answer reads themselves, rather than send them to the leader.
    pub follower_reads: bool,
    /// The Raft core's.
    pub raft: raft::Config,
}

impl Limits {
    /// For servers.
    pub const DEFAULT: Limits = Limits {
        entry_bytes: 512 << 10,
        log_retain_entries: 8192,
        log_segments: 8,
        log_segments_sending: 64,
        looks_between_sweeps: 600,
        snapshot_chunk_bytes: 128 << 10,
        snapshot_bytes_per_second: 100 << 20,
        follower_reads: false,
        raft: raft::Config::DEFAULT,
    };
    /// For simulations.
    pub const TINY: Limits = Limits {
        entry_bytes: 256,
        log_retain_entries: 8,
        log_segments: 4,
        log_segments_sending: 16,
        looks_between_sweeps: 4,
        snapshot_chunk_bytes: 256,
        snapshot_bytes_per_second: 32 << 10,
        follower_reads: false,
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
