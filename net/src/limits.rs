//! The limits of the net, with units, and how they relate.

use std::time::Duration;

/// Longest body of a control frame.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;
/// Longest body of an append frame: one Raft entry of the greatest size with its framing fits.
pub const APPEND_BYTES_MAX: usize = 5 << 20;
/// Longest body of a bulk frame.
pub const BULK_BYTES_MAX: usize = 2 << 20;
/// Streams that share the append lane; a shard always takes the same one.
pub const APPEND_STREAMS: usize = 4;
/// Bytes that wait for a peer, per lane class, before pushes are refused.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Bytes gathered for one write to a stream.
pub const WRITE_BYTES: usize = 64 << 10;
/// Bodies up to this size are copied into the write; longer ones go by reference.
pub const COPY_BYTES_MAX: usize = 4 << 10;
/// Chunks taken from a stream in one read.
pub const READ_CHUNKS: usize = 32;
/// Handshakes under way at once.
pub const INCOMING_MAX: usize = 64;
/// Time for a connection and its hello.
pub const CONNECT_TIME: Duration = Duration::from_secs(2);
/// First and longest pause between attempts to connect.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A connection that hears nothing for this long is closed.
pub const IDLE_TIME: Duration = Duration::from_secs(4);
/// A silent connection is probed this often.
pub const KEEP_ALIVE_TIME: Duration = Duration::from_secs(1);
/// UDP socket buffers, each way.
pub const SOCKET_BYTES: usize = 4 << 20;
/// QUIC stream and connection windows.
pub const STREAM_WINDOW_BYTES: u32 = 6 << 20;
/// See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes that a connection may have in flight however many packets are lost.
pub const WINDOW_FLOOR_BYTES: u64 = 64 << 10;

const _: () = assert!(CONTROL_BYTES_MAX < APPEND_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_MAX < STREAM_WINDOW_BYTES as usize);
const _: () = assert!(QUEUE_BYTES_MAX > 2 * APPEND_BYTES_MAX);
