//! The limits of the net, with units and relations.

use std::time::Duration;

/// Longest body of a control frame.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;
/// Longest body of an append frame: a Raft entry of the greatest size fits with its framing.
pub const APPEND_BYTES_MAX: usize = 5 << 20;
/// Longest body of a bulk frame.
pub const BULK_BYTES_MAX: usize = 2 << 20;
/// Streams that share the append lane; a shard always uses the same stream.
pub const APPEND_STREAMS: usize = 4;
/// Bytes that may wait for a peer on one lane before a push is refused.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Bytes gathered for one write to a stream.
pub const WRITE_BYTES: usize = 64 << 10;
/// Bodies up to this size are copied into the write; longer ones go by reference.
pub const COPY_BYTES_MAX: usize = 4 << 10;
/// Chunks taken from a stream in one read.
pub const READ_CHUNKS: usize = 32;
/// Greatest number of handshakes under way at once.
pub const INCOMING_MAX: usize = 64;
/// Time limit for a connection and its hello.
pub const CONNECT_TIME: Duration = Duration::from_secs(2);
/// First and longest pause between attempts to connect.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A connection that receives nothing for this long is closed.
pub const IDLE_TIME: Duration = Duration::from_secs(4);
/// The interval at which a silent connection is probed.
pub const KEEP_ALIVE_TIME: Duration = Duration::from_secs(1);
/// Bytes of the UDP socket buffers, in each direction.
pub const SOCKET_BYTES: usize = 4 << 20;
/// QUIC stream and connection windows.
pub const STREAM_WINDOW_BYTES: u32 = 6 << 20;
/// See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes that a connection may have in flight even when many packets are lost.
pub const WINDOW_FLOOR_BYTES: u64 = 64 << 10;

const _: () = assert!(CONTROL_BYTES_MAX < APPEND_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_MAX < STREAM_WINDOW_BYTES as usize);
const _: () = assert!(QUEUE_BYTES_MAX > 2 * APPEND_BYTES_MAX);
