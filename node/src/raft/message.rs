//! What replicas say to each other, and its bytes on the wire (little-endian):
//!
//! kind u8, term u64, then by kind:
//!
//! | kind | fields |
//! |---|---|
//! | 1 pre-vote, 3 vote, 11 vote for who was handed over to | last term u64, last index u64 |
//! | 2 pre-vote reply, 4 vote reply | granted u8, committed term u64, committed index u64 |
//! | 5 append | previous term u64, previous index u64, commit u64, count u32, entries |
//! | 6 append reply | matched u64 |
//! | 7 append refused | index u64, term u64: where the follower's log may agree; refused u64 |
//! | 8 heartbeat | committed term u64, committed index u64, round u64 |
//! | 9 heartbeat reply | round u64 |
//! | 10 time out now, 17 wake | |
//! | 16 rest | last term u64, last index u64 |
//! | 12 recover, 14 read index | question u64 |
//! | 15 read index reply | question u64, term u64, index u64 |
//! | 13 recover reply | question u64, new u8, last term u64, last index u64, commit u64, members |
//!
//! Entry: term u64, kind u8, length u32, data.

use super::conf::Conf;
use super::entries::Entries;
use super::{Index, PeerId, Term};
use bedstone_engine::LogId;
use bedstone_engine::wal::Entry;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes in front of an entry's data on the wire.
const ENTRY_HEADER_BYTES: usize = 13;

/// A message, with the peer it comes from or goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The other side.
    pub peer: PeerId,
    /// The sender's term; a pre-vote carries the term that it would campaign in.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Would you vote for me? Changes nothing at the receiver (thesis §9.6).
    PreVote {
        /// The last entry of the candidate's log.
        last: LogId,
    },
    /// Answer to a pre-vote.
    PreVoteReply {
        /// Whether it would.
        granted: bool,
        /// The last entry that the sender knows to be committed.
        committed: LogId,
    },
    /// Vote for me (§5.2).
    Vote {
        /// The last entry of the candidate's log.
        last: LogId,
        /// The leader asked for it: that it is still heard is no reason to refuse.
        leader_transfer: bool,
    },
    /// Answer to a vote. Leaves only when the vote is durable.
    VoteReply {
        /// Whether the sender votes for the candidate.
        granted: bool,
        /// The last entry that the sender knows to be committed.
        committed: LogId,
    },
    /// Entries that follow `previous` (§5.3).
    Append {
        /// The entry before them.
        previous: LogId,
        /// The entries; none in a probe.
        entries: Entries,
        /// The leader's commit index.
        commit: Index,
    },
    /// The log agrees with the leader's up to here. Leaves only when that is durable.
    AppendReply {
        /// The last index that agrees.
        matched: Index,
    },
    /// The log does not agree at `previous`.
    AppendRefused {
        /// The greatest place at which it may agree.
        hint: LogId,
        /// The index that was refused; 0 when the follower is new, or what it applied is damaged:
        /// it needs a snapshot first.
        refused: Index,
    },
    /// I lead; and, when the reply comes, I did when this left (§6.4 of the thesis).
    Heartbeat {
        /// The last entry that the leader knows to be committed.
        committed: LogId,
        /// The latest round of reads.
        round: u64,
    },
    /// Answer to a heartbeat.
    HeartbeatReply {
        /// The round it answers.
        round: u64,
    },
    /// From which index on is a read of mine linearizable (thesis §6.4)?
    ReadIndex {
        /// Of this life of the sender.
        question: u64,
    },
    /// Answer to that, once a majority has confirmed that the sender leads.
    ReadIndexReply {
        /// The question it answers.
        question: u64,
        /// What the reader must have applied: it is committed.
        at: LogId,
    },
    /// I have lost what I promised, or never promised anything. What do you know?
    Recover {
        /// Of this life of the sender.
        question: u64,
    },
    /// Answer to that. Leaves only when the term is durable.
    RecoverReply {
        /// The question it answers.
        question: u64,
        /// The sender never took part in anything, or lost its disk.
        new: bool,
        /// The last entry of its log.
        last: LogId,
        /// How far it knows its log to be committed.
        commit: Index,
        /// The members as of then.
        conf: Box<Conf>,
    },
    /// Nothing is to do: you have all that I have, and it is committed. I am silent from now on,
    /// and you need not miss me.
    Quiesce {
        /// The last entry.
        at: LogId,
    },
    /// To the leader: somebody does miss you. Tell all that you are there.
    Unquiesce,
    /// Campaign at once: I lead, and hand over to you (thesis §3.10).
    TimeoutNow,
}

impl Message {
    /// Its bytes; the peer is not among them, the connection proves it.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        let head = |out: &mut BytesMut, kind: u8| {
            out.put_u8(kind);
            out.put_u64_le(self.term);
        };
        let put_id = |out: &mut BytesMut, id: &LogId| {
            out.put_u64_le(id.term);
            out.put_u64_le(id.index);
        };
        match &self.body {
            Body::PreVote { last } => {
                head(&mut out, 1);
                put_id(&mut out, last);
            }
            Body::PreVoteReply { granted, committed } => {
                head(&mut out, 2);
                out.put_u8(u8::from(*granted));
                put_id(&mut out, committed);
            }
            Body::Vote { last, leader_transfer } => {
                head(&mut out, if *leader_transfer { 11 } else { 3 });
                put_id(&mut out, last);
            }
            Body::VoteReply { granted, committed } => {
                head(&mut out, 4);
                out.put_u8(u8::from(*granted));
                put_id(&mut out, committed);
            }
            Body::Append { previous, entries, commit } => {
                let data: usize = entries.iter().map(|e| e.data.len() + ENTRY_HEADER_BYTES).sum();
                out.reserve(data);
                head(&mut out, 5);
                put_id(&mut out, previous);
                out.put_u64_le(*commit);
                out.put_u32_le(entries.len() as u32);
                for entry in entries.iter() {
                    out.put_u64_le(entry.id.term);
                    out.put_u8(entry.kind);
                    out.put_u32_le(entry.data.len() as u32);
                    out.put_slice(&entry.data);
                }
            }
            Body::AppendReply { matched } => {
                head(&mut out, 6);
                out.put_u64_le(*matched);
            }
            Body::AppendRefused { hint, refused } => {
                head(&mut out, 7);
                put_id(&mut out, hint);
                out.put_u64_le(*refused);
            }
            Body::Heartbeat { committed, round } => {
                head(&mut out, 8);
                put_id(&mut out, committed);
                out.put_u64_le(*round);
            }
            Body::HeartbeatReply { round } => {
                head(&mut out, 9);
                out.put_u64_le(*round);
            }
            Body::TimeoutNow => head(&mut out, 10),
            Body::Unquiesce => head(&mut out, 17),
            Body::Quiesce { at } => {
                head(&mut out, 16);
                put_id(&mut out, at);
            }
            Body::Recover { question } => {
                head(&mut out, 12);
                out.put_u64_le(*question);
            }
            Body::ReadIndex { question } => {
                head(&mut out, 14);
                out.put_u64_le(*question);
            }
            Body::ReadIndexReply { question, at } => {
                head(&mut out, 15);
                out.put_u64_le(*question);
                put_id(&mut out, at);
            }
            Body::RecoverReply { question, new, last, commit, conf } => {
                head(&mut out, 13);
                out.put_u64_le(*question);
                out.put_u8(u8::from(*new));
                put_id(&mut out, last);
                out.put_u64_le(*commit);
                let mut bytes = Vec::new();
                conf.encode(&mut bytes);
                out.put_slice(&bytes);
            }
        }
        out.freeze()
    }

    /// From its bytes and the peer that sent them. `None` when they are no message. Entries share
    /// the memory of `from`; no more is allocated than it has bytes for.
    pub fn decode(peer: PeerId, mut from: Bytes) -> Option<Message> {
        let from = &mut from;
        let kind = from.try_get_u8().ok()?;
        let term = take_number(from)?;
        let body = match kind {
            1 => Body::PreVote { last: take_id(from)? },
            2 => Body::PreVoteReply { granted: take_bool(from)?, committed: take_id(from)? },
            3 | 11 => Body::Vote { last: take_id(from)?, leader_transfer: kind == 11 },
            4 => Body::VoteReply { granted: take_bool(from)?, committed: take_id(from)? },
            5 => take_append(from)?,
            6 => Body::AppendReply { matched: take_number(from)? },
            7 => {
                let hint = take_id(from)?;
                Body::AppendRefused { hint, refused: take_number(from)? }
            }
            8 => {
                let committed = take_id(from)?;
                Body::Heartbeat { committed, round: take_number(from)? }
            }
            9 => Body::HeartbeatReply { round: take_number(from)? },
            10 => Body::TimeoutNow,
            12 => Body::Recover { question: take_number(from)? },
            13 => {
                let (question, new) = (take_number(from)?, take_bool(from)?);
                let (last, commit) = (take_id(from)?, take_number(from)?);
                let conf = Conf::decode(&from.split_off(0))?.into();
                Body::RecoverReply { question, new, last, commit, conf }
            }
            14 => Body::ReadIndex { question: take_number(from)? },
            15 => {
                let question = take_number(from)?;
                Body::ReadIndexReply { question, at: take_id(from)? }
            }
            16 => Body::Quiesce { at: take_id(from)? },
            17 => Body::Unquiesce,
            _ => return None,
        };
        from.is_empty().then_some(Message { peer, term, body })
    }
}

/// Terms, indexes and rounds count up from 0 by ones: nobody comes near the top half of their
/// range, and refusing it here keeps every sum behind this from overflowing.
fn take_number(from: &mut Bytes) -> Option<u64> {
    from.try_get_u64_le().ok().filter(|&number| number <= u64::MAX >> 1)
}

fn take_id(from: &mut Bytes) -> Option<LogId> {
    let term = take_number(from)?;
    Some(LogId { term, index: take_number(from)? })
}

fn take_bool(from: &mut Bytes) -> Option<bool> {
    match from.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_append(from: &mut Bytes) -> Option<Body> {
    let previous = take_id(from)?;
    let commit = take_number(from)?;
    let count = from.try_get_u32_le().ok()? as usize;
    if count > from.len() / ENTRY_HEADER_BYTES {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    let mut last = previous;
    for _ in 0..count {
        let term = take_number(from)?;
        let kind = from.try_get_u8().ok()?;
        let len = from.try_get_u32_le().ok()? as usize;
        if len > from.len() || term < last.term {
            return None;
        }
        last = LogId { term, index: last.index.checked_add(1)? };
        entries.push(Entry { id: last, kind, data: from.split_to(len) });
    }
    Some(Body::Append { previous, entries: entries.into(), commit })
}
