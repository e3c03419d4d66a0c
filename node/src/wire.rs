//! The kinds of all frames between nodes, and the messages between nodes other than Raft messages.
//! All numbers are little-endian.
//!
//! | kind | body |
//! |---|---|
//! | 1 Raft | address, then see [`crate::raft::message`] |
//! | 2 forward | requests: id u64, time left u32 (ms), RESP3 u8, command |
//! | 3 reply | replies: id u64, outcome u8 (0 answer, 1 not leader), length u32, bytes |
//! | 4 snapshot begin | address, id u64, term u64, version of the state u16, then the moment |
//! | 5 snapshot chunk | address, id u64, number u64, crc32 u32 of the items, items |
//! | 6 snapshot end | address, id u64, number of chunks u64 |
//! | 7 snapshot ack | address, id u64, chunks received u64, outcome u8: see [`SnapshotOutcome`] |
//! | 8 coalesced heartbeats | each: shard u64, address, length u8, a Raft message |
//!
//! An address: the replica that sent the message u64, the replica that is to receive it u64. A node
//! drops a message for another replica than its own. The shard of a frame with coalesced heartbeats
//! is 0.
//!
//! The moment of a snapshot: log id (term u64, index u64), timestamp u64, oldest exact timestamp
//! u64, time of the deadlines u64; see [`SnapshotHead`].
//!
//! An item of a snapshot: kind u8, timestamp u64, for a value that expires its deadline u64, key
//! length u32, second length u32 (0 for a tombstone), key, then the value or the end key. Kinds: 0
//! tombstone, 1 value, 2 value that expires, 3 deleted range from the key to the end key.

use crate::machine::command::Command;
use crate::raft::{Message, ReplicaId, Undecodable};
use bedstone_engine::key::{NEVER, Value, Version};
use bedstone_engine::lsm::ranges::RangeTombstone;
use bedstone_engine::lsm::{HistoryItem, SnapshotHead};
use bedstone_engine::{Index, LogId, ShardId, Term};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Frame kinds.
pub mod kind {
    /// A Raft message.
    pub const RAFT: u8 = 1;
    /// Requests that a node forwards to the leader.
    pub const FORWARD: u8 = 2;
    /// Replies to forwarded requests.
    pub const REPLY: u8 = 3;
    /// See [`super::Transfer`].
    pub const SNAPSHOT_BEGIN: u8 = 4;
    /// See [`super::Transfer`].
    pub const SNAPSHOT_CHUNK: u8 = 5;
    /// See [`super::Transfer`].
    pub const SNAPSHOT_END: u8 = 6;
    /// See [`super::Transfer`].
    pub const SNAPSHOT_ACK: u8 = 7;
    /// Coalesced heartbeats: short Raft messages of all shards of a node.
    pub const COALESCED: u8 = 8;
}

/// Bytes of requests or replies in one frame at most, unless a single request or reply is longer.
pub const FORWARD_BYTES_MAX: usize = 256 << 10;
/// Bytes of one message in a frame of coalesced heartbeats at most.
pub const COALESCED_BYTES_MAX: usize = 9 + Address::BYTES + 64;

/// The two replicas of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The replica that sent the message.
    pub from: ReplicaId,
    /// The replica that is to receive the message.
    pub to: ReplicaId,
}

impl Address {
    /// Bytes of an encoded address.
    pub const BYTES: usize = 16;

    /// Appends the encoded address.
    pub fn encode(self, out: &mut BytesMut) {
        out.put_u64_le(self.from.0);
        out.put_u64_le(self.to.0);
    }

    /// Removes an address from the front of a body; `None` when the body is too short.
    pub fn take(body: &mut Bytes) -> Option<Address> {
        let mut id = || body.try_get_u64_le().ok().map(ReplicaId);
        Some(Address { from: id()?, to: id()? })
    }
}

/// The body of a frame with a Raft message from a replica to `message.peer`.
pub fn encode_raft(from: ReplicaId, message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    Address { from, to: message.peer }.encode(&mut out);
    message.encode_into(&mut out);
    out.freeze()
}

/// The message in the body of a frame, and the replica that is to receive it.
///
/// # Errors
/// [`Undecodable`].
pub fn decode_raft(mut body: Bytes) -> Result<(ReplicaId, Message), Undecodable> {
    let Address { from, to } = Address::take(&mut body).ok_or(Undecodable::Malformed)?;
    Ok((to, Message::decode(from, body)?))
}

/// Appends a short message from a replica to a frame of coalesced heartbeats.
pub fn put_coalesced(out: &mut BytesMut, shard: ShardId, from: ReplicaId, message: &Message) {
    let bytes = message.encode();
    assert!(
        9 + Address::BYTES + bytes.len() <= COALESCED_BYTES_MAX,
        "a coalesced message must have at most COALESCED_BYTES_MAX bytes"
    );
    out.put_u64_le(shard.0);
    Address { from, to: message.peer }.encode(out);
    out.put_u8(bytes.len() as u8);
    out.put_slice(&bytes);
}

/// A message of a frame of coalesced heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coalesced {
    /// The shard.
    pub shard: ShardId,
    /// The replica that is to receive the message.
    pub to: ReplicaId,
    /// The message. Its peer is the replica that sent it.
    pub message: Message,
}

/// The messages of a frame of coalesced heartbeats; `None` when it is malformed. Messages of kinds
/// that this build does not know are left out.
pub fn take_coalesced(mut body: Bytes) -> Option<Vec<Coalesced>> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let shard = ShardId(body.try_get_u64_le().ok()?);
        let Address { from, to } = Address::take(&mut body)?;
        let len = usize::from(body.try_get_u8().ok()?);
        let bytes = (len <= body.len()).then(|| body.split_to(len))?;
        match Message::decode(from, bytes) {
            Ok(message) => messages.push(Coalesced { shard, to, message }),
            Err(Undecodable::Unknown(_)) => {}
            Err(Undecodable::Malformed) => return None,
        }
    }
    Some(messages)
}

/// Identifies a forwarded request at the node that forwarded it. The first id of each life of a
/// node is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A request that a node forwards to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The id of the request at the node that sent the request.
    pub id: RequestId,
    /// Milliseconds until the client's deadline.
    pub left: u32,
    /// Whether the reply is encoded in RESP3.
    pub resp3: bool,
    /// The command.
    pub command: Command,
}

impl Forwarded {
    /// Appends the encoded request.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.id.0);
        out.put_u32_le(self.left);
        out.put_u8(u8::from(self.resp3));
        self.command.encode(out);
    }

    /// All requests of a frame; `None` when it is malformed. A request with an operation that this
    /// build does not know is an error with the request's id and the operation's number.
    pub fn decode_all(mut body: Bytes) -> Option<Vec<Result<Forwarded, (RequestId, u8)>>> {
        let mut requests = Vec::new();
        while !body.is_empty() {
            let id = RequestId(body.try_get_u64_le().ok()?);
            let left = body.try_get_u32_le().ok()?;
            let resp3 = body.try_get_u8().ok()? != 0;
            requests.push(match Command::decode(&mut body) {
                Ok(command) => Ok(Forwarded { id, left, resp3, command }),
                Err(Undecodable::Unknown(operation)) => Err((id, operation)),
                Err(Undecodable::Malformed) => return None,
            });
        }
        Some(requests)
    }
}

/// The reply to a forwarded request. Without an answer the request had no effect, and the node that
/// sent the request looks for the leader again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replied {
    /// The request's id.
    pub id: RequestId,
    /// The encoded answer; `None` if the node did not execute the request.
    pub answer: Option<Bytes>,
}

impl Replied {
    /// The length of the encoded reply in bytes.
    pub fn encoded_len(&self) -> usize {
        13 + self.answer.as_ref().map_or(0, Bytes::len)
    }

    /// Appends the encoded reply.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.id.0);
        out.put_u8(u8::from(self.answer.is_none()));
        let answer = self.answer.as_deref().unwrap_or_default();
        out.put_u32_le(answer.len() as u32);
        out.put_slice(answer);
    }

    /// All replies of a frame; `None` when it is malformed.
    pub fn decode_all(mut body: Bytes) -> Option<Vec<Replied>> {
        let mut replies = Vec::new();
        while !body.is_empty() {
            let id = RequestId(body.try_get_u64_le().ok()?);
            let again = body.try_get_u8().ok()? != 0;
            let len = body.try_get_u32_le().ok()? as usize;
            let answer = (len <= body.len()).then(|| body.split_to(len))?;
            replies.push(Replied { id, answer: (!again).then_some(answer) });
        }
        Some(replies)
    }
}

/// The messages of a snapshot transfer: begin, chunks, end. At most a few chunks are not
/// acknowledged at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The offer of a snapshot as of log entry `at`.
    Begin {
        /// The id of the transfer.
        id: u64,
        /// The leader's term.
        term: Term,
        /// The newest version among the entries that the snapshot covers.
        version: u16,
        /// The moment of the snapshot.
        head: SnapshotHead,
    },
    /// Deleted ranges, and versions in ascending order of their keys.
    Chunk {
        /// The id of the transfer.
        id: u64,
        /// The number of the chunk, counted from 0.
        number: u64,
        /// The items.
        items: Vec<HistoryItem>,
    },
    /// The end of the snapshot.
    End {
        /// The id of the transfer.
        id: u64,
        /// The number of chunks in the snapshot.
        chunks: u64,
    },
    /// The progress of the receiver.
    Ack {
        /// The id of the transfer.
        id: u64,
        /// The number of chunks received.
        chunks: u64,
        /// The state of the transfer.
        outcome: SnapshotOutcome,
    },
}

/// The state of a snapshot transfer at its receiver. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SnapshotOutcome {
    /// More chunks are expected.
    InProgress = 0,
    /// The snapshot is installed, durably.
    Installed = 1,
    /// The receiver has no use for the snapshot, or could not store it.
    Failed = 2,
}

impl SnapshotOutcome {
    fn from_byte(byte: u8) -> Option<SnapshotOutcome> {
        match byte {
            0 => Some(SnapshotOutcome::InProgress),
            1 => Some(SnapshotOutcome::Installed),
            2 => Some(SnapshotOutcome::Failed),
            _ => None,
        }
    }
}

fn put_item(out: &mut BytesMut, item: &HistoryItem) {
    let (kind, ts, expires, key, second) = match item {
        HistoryItem::Range(RangeTombstone { from, to, ts }) => (3, *ts, NEVER, from, &to[..]),
        HistoryItem::Version(Version { key, ts, expires, value }) => match value {
            Value::Inline(value) if *expires == NEVER => (1, *ts, NEVER, key, &value[..]),
            Value::Inline(value) => (2, *ts, *expires, key, &value[..]),
            // A history has no pointers.
            Value::Tombstone | Value::At(_) => (0, *ts, NEVER, key, &[][..]),
        },
    };
    out.put_u8(kind);
    out.put_u64_le(ts);
    if expires != NEVER {
        out.put_u64_le(expires);
    }
    out.put_u32_le(key.len() as u32);
    out.put_u32_le(second.len() as u32);
    out.put_slice(key);
    out.put_slice(second);
}

fn take_item(body: &mut Bytes) -> Option<HistoryItem> {
    let kind = body.try_get_u8().ok()?;
    let ts = body.try_get_u64_le().ok()?;
    let expires = if kind == 2 { body.try_get_u64_le().ok()? } else { NEVER };
    let key = body.try_get_u32_le().ok()? as usize;
    let second = body.try_get_u32_le().ok()? as usize;
    if key.checked_add(second)? > body.len() {
        return None;
    }
    let (key, second) = (body.split_to(key), body.split_to(second));
    let value = match kind {
        0 if second.is_empty() => Value::Tombstone,
        1 | 2 => Value::Inline(second),
        3 => return Some(HistoryItem::Range(RangeTombstone { from: key, to: second, ts })),
        _ => return None,
    };
    Some(HistoryItem::Version(Version { key, ts, expires, value }))
}

impl Transfer {
    /// The frame kind and body.
    pub fn encode(&self, address: Address) -> (u8, Bytes) {
        let mut out = BytesMut::new();
        address.encode(&mut out);
        let kind = match self {
            Transfer::Begin { id, term, version, head } => {
                let SnapshotHead { at, ts, history_from, now } = *head;
                out.put_u64_le(*id);
                out.put_u64_le(term.0);
                out.put_u16_le(*version);
                for number in [at.term.0, at.index.0, ts, history_from, now] {
                    out.put_u64_le(number);
                }
                kind::SNAPSHOT_BEGIN
            }
            Transfer::Chunk { id, number, items } => {
                out.put_u64_le(*id);
                out.put_u64_le(*number);
                let sum_at = out.len();
                out.put_u32_le(0);
                items.iter().for_each(|item| put_item(&mut out, item));
                // The checks of the connection cover only the bytes on the wire, so the chunk has a
                // checksum too.
                let sum = crc32fast::hash(&out[sum_at + 4..]);
                out[sum_at..sum_at + 4].copy_from_slice(&sum.to_le_bytes());
                kind::SNAPSHOT_CHUNK
            }
            Transfer::End { id, chunks } => {
                out.put_u64_le(*id);
                out.put_u64_le(*chunks);
                kind::SNAPSHOT_END
            }
            Transfer::Ack { id, chunks, outcome } => {
                out.put_u64_le(*id);
                out.put_u64_le(*chunks);
                out.put_u8(*outcome as u8);
                kind::SNAPSHOT_ACK
            }
        };
        (kind, out.freeze())
    }

    fn decode_begin(id: u64, mut body: Bytes) -> Option<Transfer> {
        let term = Term(body.try_get_u64_le().ok()?);
        let version = body.try_get_u16_le().ok()?;
        let mut number = || body.try_get_u64_le().ok();
        let at = LogId { term: Term(number()?), index: Index(number()?) };
        let head = SnapshotHead { at, ts: number()?, history_from: number()?, now: number()? };
        body.is_empty().then_some(Transfer::Begin { id, term, version, head })
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// [`Undecodable`].
    pub fn decode(kind: u8, mut body: Bytes) -> Result<(Address, Transfer), Undecodable> {
        if !(kind::SNAPSHOT_BEGIN..=kind::SNAPSHOT_ACK).contains(&kind) {
            return Err(Undecodable::Unknown(kind));
        }
        let address = Address::take(&mut body).ok_or(Undecodable::Malformed)?;
        let transfer = Self::decode_kind(kind, body).ok_or(Undecodable::Malformed)?;
        Ok((address, transfer))
    }

    fn decode_kind(kind: u8, mut body: Bytes) -> Option<Transfer> {
        let id = body.try_get_u64_le().ok()?;
        if kind == kind::SNAPSHOT_BEGIN {
            return Self::decode_begin(id, body);
        }
        let mut number = || body.try_get_u64_le().ok();
        let transfer = match kind {
            kind::SNAPSHOT_CHUNK => {
                let number = number()?;
                let sum = body.try_get_u32_le().ok()?;
                if crc32fast::hash(&body) != sum {
                    return None;
                }
                let mut items = Vec::new();
                while !body.is_empty() {
                    items.push(take_item(&mut body)?);
                }
                Transfer::Chunk { id, number, items }
            }
            kind::SNAPSHOT_END => Transfer::End { id, chunks: number()? },
            kind::SNAPSHOT_ACK => {
                let chunks = number()?;
                let outcome = SnapshotOutcome::from_byte(body.try_get_u8().ok()?)?;
                Transfer::Ack { id, chunks, outcome }
            }
            _ => return None,
        };
        body.is_empty().then_some(transfer)
    }
}
