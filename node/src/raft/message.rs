//! The messages between replicas, and their bytes on the wire (little-endian):
//!
//! kind u8, term u64, then by kind:
//!
//! | kind | fields |
//! |---|---|
//! | 1 pre-vote, 3 vote, 11 vote in a leader transfer | last term u64, last index u64 |
//! | 2 pre-vote reply, 4 vote reply | granted u8, committed term u64, committed index u64 |
//! | 5 append | previous term u64, previous index u64, commit u64, count u32, entries |
//! | 6 append reply | matched u64 |
//! | 7 append refused | term u64, index u64: where the follower's log may agree; refused u64 |
//! | 8 heartbeat | committed term u64, index u64, round u64, acknowledged term u64, index u64 |
//! | 9 heartbeat reply | round u64 |
//! | 10 time out now, 17 unquiesce | |
//! | 16 quiesce | last term u64, last index u64 |
//! | 12 recover | query id u64, lost u8 |
//! | 14 read index | query id u64 |
//! | 15 read index reply | query id u64, term u64, index u64 |
//! | 13 recover reply | query id u64, new u8, last term u64, last index u64, commit u64, members |
//!
//! Entry: term u64, kind u8, length u32, data.

use super::conf::Conf;
use super::entries::Entries;
use super::{EntryKind, Index, ReplicaId, Term};
use bedstone_engine::LogId;
use bedstone_engine::wal::Entry;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The greatest kind of a message.
const KIND_MAX: u8 = 17;
/// Bytes in front of an entry's data on the wire.
const ENTRY_HEADER_BYTES: usize = 13;

/// The reason why bytes from another node are not a value that this build knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// A later build wrote the bytes: this build does not know the kind or operation with this
    /// number.
    Unknown(u8),
    /// The bytes are not a value of any build.
    Malformed,
}

/// A message, with the peer that sent it or is to receive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The other replica.
    pub peer: ReplicaId,
    /// The sender's term. A pre-vote and a granted reply carry the term of the planned election.
    pub term: Term,
    /// The content.
    pub body: Body,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Queries whether the receiver would vote for the sender. Changes neither the term nor the
    /// vote of the receiver (thesis §9.6).
    PreVote {
        /// The last entry of the candidate's log.
        last: LogId,
    },
    /// Reply to a pre-vote.
    PreVoteReply {
        /// Whether the sender would vote for the candidate.
        granted: bool,
        /// The last entry that the sender knows to be committed.
        committed: LogId,
    },
    /// Requests the vote of the receiver (§5.2).
    Vote {
        /// The last entry of the candidate's log.
        last: LogId,
        /// The leader requested this election, so a leader that is still heard is no reason to
        /// refuse.
        leader_transfer: bool,
    },
    /// Reply to a vote request. Leaves only when the vote is durable.
    VoteReply {
        /// Whether the sender votes for the candidate.
        granted: bool,
        /// The last entry that the sender knows to be committed.
        committed: LogId,
    },
    /// Entries that follow `previous` (§5.3).
    Append {
        /// The entry before `entries`.
        previous: LogId,
        /// The entries. An append without entries only probes the follower's log.
        entries: Entries,
        /// The leader's commit index.
        commit: Index,
    },
    /// The log agrees with the leader's log up to `matched`. Leaves only when the log up to that
    /// index is durable.
    AppendReply {
        /// The last index that agrees.
        matched: Index,
    },
    /// The log does not agree at `previous`.
    AppendRefused {
        /// The last place at which the logs may agree.
        hint: LogId,
        /// The refused index. 0 when the follower needs a snapshot first, because it is new or its
        /// applied state is damaged.
        refused: Index,
    },
    /// The sender leads. The replies of a majority prove that the sender led when the heartbeat
    /// left (thesis §6.4).
    Heartbeat {
        /// The last entry that the leader knows to be committed.
        committed: LogId,
        /// The latest round of reads.
        round: u64,
        /// The last entry that the receiver acknowledged, as far as the leader knows. A receiver
        /// without this entry has lost it. The term is 0 when the leader's log has released the
        /// entry.
        acknowledged: LogId,
    },
    /// Reply to a heartbeat.
    HeartbeatReply {
        /// The round of the heartbeat.
        round: u64,
    },
    /// Queries from which index on a read of the sender is linearizable (thesis §6.4).
    ReadIndex {
        /// The number of the query, which belongs to the present life of the sender.
        query_id: u64,
    },
    /// Reply to [`Body::ReadIndex`]. Leaves once a majority has confirmed that the sender leads.
    ReadIndexReply {
        /// The number of the query.
        query_id: u64,
        /// The committed entry that the reader must have applied.
        at: LogId,
    },
    /// The sender has lost its votes and acknowledgements, or never gave any. Queries the state of
    /// the receiver.
    Recover {
        /// The number of the query, which belongs to the present life of the sender.
        query_id: u64,
        /// The sender lost entries that it had acknowledged, so it answers no such query itself.
        lost: bool,
    },
    /// Reply to [`Body::Recover`]. Leaves only when the term is durable.
    RecoverReply {
        /// The number of the query.
        query_id: u64,
        /// The sender has never taken part in the group, or lost its disk.
        new: bool,
        /// The last entry of the sender's log.
        last: LogId,
        /// The commit index of the sender.
        commit: Index,
        /// The configuration of the sender at that commit index.
        conf: Box<Conf>,
    },
    /// The group has no work: the receiver has all entries of the leader, and all are committed.
    /// The leader is silent from now on, and its silence is no reason to campaign.
    Quiesce {
        /// The last entry of the leader's log.
        at: LogId,
    },
    /// To the leader: a replica is active and needs to hear the leader. The leader becomes active
    /// and sends heartbeats to all members.
    Unquiesce,
    /// Requests the receiver to campaign at once: the sender leads and transfers leadership to the
    /// receiver (thesis §3.10).
    TimeoutNow,
}

impl Message {
    /// Encodes the message without `peer`, which the frame around the message names.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        self.encode_into(&mut out);
        out.freeze()
    }

    /// Appends the encoded message without `peer`.
    pub fn encode_into(&self, out: &mut BytesMut) {
        let head = |out: &mut BytesMut, kind: u8| {
            out.put_u8(kind);
            out.put_u64_le(self.term.0);
        };
        let put_id = |out: &mut BytesMut, id: &LogId| {
            out.put_u64_le(id.term.0);
            out.put_u64_le(id.index.0);
        };
        match &self.body {
            Body::PreVote { last } => {
                head(out, 1);
                put_id(out, last);
            }
            Body::PreVoteReply { granted, committed } => {
                head(out, 2);
                out.put_u8(u8::from(*granted));
                put_id(out, committed);
            }
            Body::Vote { last, leader_transfer } => {
                head(out, if *leader_transfer { 11 } else { 3 });
                put_id(out, last);
            }
            Body::VoteReply { granted, committed } => {
                head(out, 4);
                out.put_u8(u8::from(*granted));
                put_id(out, committed);
            }
            Body::Append { previous, entries, commit } => {
                let data: usize = entries.iter().map(|e| e.data.len() + ENTRY_HEADER_BYTES).sum();
                out.reserve(data);
                head(out, 5);
                put_id(out, previous);
                out.put_u64_le(commit.0);
                out.put_u32_le(entries.len() as u32);
                for entry in entries.iter() {
                    out.put_u64_le(entry.id.term.0);
                    out.put_u8(entry.kind.0);
                    out.put_u32_le(entry.data.len() as u32);
                    out.put_slice(&entry.data);
                }
            }
            Body::AppendReply { matched } => {
                head(out, 6);
                out.put_u64_le(matched.0);
            }
            Body::AppendRefused { hint, refused } => {
                head(out, 7);
                put_id(out, hint);
                out.put_u64_le(refused.0);
            }
            Body::Heartbeat { committed, round, acknowledged } => {
                head(out, 8);
                put_id(out, committed);
                out.put_u64_le(*round);
                put_id(out, acknowledged);
            }
            Body::HeartbeatReply { round } => {
                head(out, 9);
                out.put_u64_le(*round);
            }
            Body::TimeoutNow => head(out, 10),
            Body::Unquiesce => head(out, 17),
            Body::Quiesce { at } => {
                head(out, 16);
                put_id(out, at);
            }
            Body::Recover { query_id, lost } => {
                head(out, 12);
                out.put_u64_le(*query_id);
                out.put_u8(u8::from(*lost));
            }
            Body::ReadIndex { query_id } => {
                head(out, 14);
                out.put_u64_le(*query_id);
            }
            Body::ReadIndexReply { query_id, at } => {
                head(out, 15);
                out.put_u64_le(*query_id);
                put_id(out, at);
            }
            Body::RecoverReply { query_id, new, last, commit, conf } => {
                head(out, 13);
                out.put_u64_le(*query_id);
                out.put_u8(u8::from(*new));
                put_id(out, last);
                out.put_u64_le(commit.0);
                let mut bytes = Vec::new();
                conf.encode(&mut bytes);
                out.put_slice(&bytes);
            }
        }
    }

    /// Decodes a message that `peer` sent. Entries share the memory of `from`. The decoder
    /// allocates no more than the bytes in `from` justify.
    ///
    /// # Errors
    /// [`Undecodable`].
    pub fn decode(peer: ReplicaId, mut from: Bytes) -> Result<Message, Undecodable> {
        let kind = from.try_get_u8().map_err(|_| Undecodable::Malformed)?;
        if !(1..=KIND_MAX).contains(&kind) {
            return Err(Undecodable::Unknown(kind));
        }
        Self::decode_kind(peer, kind, from).ok_or(Undecodable::Malformed)
    }

    fn decode_kind(peer: ReplicaId, kind: u8, mut from: Bytes) -> Option<Message> {
        let from = &mut from;
        let term = decode_number(from).map(Term)?;
        let body = match kind {
            1 => Body::PreVote { last: decode_id(from)? },
            2 => Body::PreVoteReply { granted: decode_bool(from)?, committed: decode_id(from)? },
            3 | 11 => Body::Vote { last: decode_id(from)?, leader_transfer: kind == 11 },
            4 => Body::VoteReply { granted: decode_bool(from)?, committed: decode_id(from)? },
            5 => decode_append(from)?,
            6 => Body::AppendReply { matched: decode_index(from)? },
            7 => {
                let hint = decode_id(from)?;
                Body::AppendRefused { hint, refused: decode_index(from)? }
            }
            8 => {
                let (committed, round) = (decode_id(from)?, decode_number(from)?);
                Body::Heartbeat { committed, round, acknowledged: decode_id(from)? }
            }
            9 => Body::HeartbeatReply { round: decode_number(from)? },
            10 => Body::TimeoutNow,
            12 => Body::Recover { query_id: decode_number(from)?, lost: decode_bool(from)? },
            13 => {
                let (query_id, new) = (decode_number(from)?, decode_bool(from)?);
                let (last, commit) = (decode_id(from)?, decode_index(from)?);
                let conf = Conf::decode(&from.split_off(0))?.into();
                Body::RecoverReply { query_id, new, last, commit, conf }
            }
            14 => Body::ReadIndex { query_id: decode_number(from)? },
            15 => {
                let query_id = decode_number(from)?;
                Body::ReadIndexReply { query_id, at: decode_id(from)? }
            }
            16 => Body::Quiesce { at: decode_id(from)? },
            17 => Body::Unquiesce,
            _ => return None,
        };
        from.is_empty().then_some(Message { peer, term, body })
    }
}

/// Decodes a number. Terms, indexes and rounds count up from 0 by ones, so no replica comes near
/// the upper half of the range. The refusal of that half here keeps every later sum from overflow.
fn decode_number(from: &mut Bytes) -> Option<u64> {
    from.try_get_u64_le().ok().filter(|&number| number <= u64::MAX >> 1)
}

fn decode_index(from: &mut Bytes) -> Option<Index> {
    decode_number(from).map(Index)
}

fn decode_id(from: &mut Bytes) -> Option<LogId> {
    let term = decode_number(from).map(Term)?;
    Some(LogId { term, index: decode_index(from)? })
}

fn decode_bool(from: &mut Bytes) -> Option<bool> {
    match from.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn decode_append(from: &mut Bytes) -> Option<Body> {
    let previous = decode_id(from)?;
    let commit = decode_index(from)?;
    let count = from.try_get_u32_le().ok()? as usize;
    if count > from.len() / ENTRY_HEADER_BYTES {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    let mut last = previous;
    for _ in 0..count {
        let term = decode_number(from).map(Term)?;
        let kind = EntryKind(from.try_get_u8().ok()?);
        let len = from.try_get_u32_le().ok()? as usize;
        if len > from.len() || term < last.term {
            return None;
        }
        last = LogId { term, index: last.index + 1 };
        entries.push(Entry { id: last, kind, data: from.split_to(len) });
    }
    Some(Body::Append { previous, entries: entries.into(), commit })
}
