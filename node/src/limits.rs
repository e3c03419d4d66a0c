//! The node's limits, with units, and how they relate.

use bedstone_engine::limits as engine;
use bedstone_net::limits as net;
use std::time::Duration;

/// The pace of the Raft cores.
pub const TICK: Duration = Duration::from_millis(50);
/// Bytes of commands that go into one log entry, unless a single command is longer.
pub const ENTRY_BYTES_TARGET: usize = 512 << 10;
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
/// Entries kept in the log behind the flushed index, for followers that were away.
pub const LOG_RETAIN_ENTRIES: u64 = 8192;
/// Log segments beyond which memtables are flushed and the whole flushed log is released.
pub const LOG_SEGMENTS_MAX: usize = 8;
/// Bytes of one snapshot chunk, unless a single value is longer.
pub const SNAPSHOT_CHUNK_BYTES: usize = 128 << 10;
/// Snapshot chunks under way to one follower. Small, so that heartbeats find no queue before them.
pub const SNAPSHOT_WINDOW: u64 = 2;
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

const _: () = assert!(COMMAND_BYTES_MAX + ENTRY_BYTES_TARGET < engine::RECORD_BYTES_MAX);
const _: () = assert!(COMMAND_BYTES_MAX + ENTRY_BYTES_TARGET < net::APPEND_BYTES_MAX);
const _: () = assert!(engine::VALUE_BYTES_MAX + engine::KEY_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(ANSWER_BYTES_MAX + (64 << 10) < net::APPEND_BYTES_MAX);
const _: () = assert!(
    SNAPSHOT_CHUNK_BYTES + engine::VALUE_BYTES_MAX + engine::KEY_BYTES_MAX + 64
        < net::BULK_BYTES_MAX
);
