//! Requests that are done once, however often they are sent (thesis §6.3). A client opens a
//! session and numbers its requests. The table of sessions is part of the shard's state: each keeps
//! the number of its last request and the answer, among the shard's own keys, so it is on every
//! replica, in every snapshot, and durable with what the request did.
//!
//! The table is bounded: when it is full, a session that is opened takes the place of the
//! [`EVICTED`] that were used least recently. That is decided by the log alone, so all replicas
//! agree. Whoever lost its session is told that what it asked may have happened.
//!
//! Stored, little-endian: the table as open sessions u64, next id u64; a session as last request
//! u64, time of its last use u64 (timestamp), then the answer: kind u8 (0 OK, 1 nil, 2 number i64,
//! 3 bytes, 4 error, 5 not kept, with its length u64).

use super::reply::Reply;
use super::system::{self, SESSION, SESSIONS};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Sessions of a shard at most.
pub const SESSIONS_MAX: u64 = 4096;
/// Sessions that make room at once.
pub const EVICTED: usize = 512;
/// Bytes of an answer that is kept.
pub const ANSWER_BYTES_MAX: usize = 4 << 10;

/// The table's head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Table {
    /// Sessions in it.
    pub open: u64,
    /// The id of the last session that was opened.
    pub last: u64,
}

impl Table {
    /// From its stored bytes.
    pub fn decode(stored: &[u8]) -> Option<Table> {
        let mut from = system::unwrap(stored)?;
        Some(Table { open: from.try_get_u64_le().ok()?, last: from.try_get_u64_le().ok()? })
    }

    /// Its stored bytes.
    pub fn encode(self) -> Bytes {
        let mut out = system::wrap();
        out.put_u64_le(self.open);
        out.put_u64_le(self.last);
        out.freeze()
    }

    /// Where it is.
    pub fn key() -> Bytes {
        Bytes::from_static(SESSIONS)
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The number of its last request; 0 before the first.
    pub request: u64,
    /// When that came, as a timestamp.
    pub used: u64,
    /// What was answered.
    pub answer: Answer,
}

/// What is kept of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// All of it.
    Kept(Reply),
    /// It was too long: its bytes.
    Long(u64),
}

impl Answer {
    /// What is kept of a reply to a write.
    pub fn of(reply: &Reply) -> Answer {
        match reply {
            Reply::Bulk(bytes) if bytes.len() > ANSWER_BYTES_MAX => {
                Answer::Long(bytes.len() as u64)
            }
            other => Answer::Kept(other.clone()),
        }
    }

    /// What a repeated request is told.
    pub fn reply(self, request: u64) -> Reply {
        match self {
            Answer::Kept(reply) => reply,
            Answer::Long(bytes) => Reply::err(format!(
                "request {request} was done once; its answer of {bytes} bytes was not kept"
            )),
        }
    }
}

impl Session {
    /// Where a session is.
    pub fn key(id: u64) -> Bytes {
        Bytes::from([SESSION, &id.to_be_bytes()].concat())
    }

    /// From its stored bytes.
    pub fn decode(stored: &[u8]) -> Option<Session> {
        let mut from = system::unwrap(stored)?;
        let (request, used) = (from.try_get_u64_le().ok()?, from.try_get_u64_le().ok()?);
        let text = |from: &[u8]| String::from_utf8_lossy(from).into_owned();
        let answer = match from.try_get_u8().ok()? {
            0 => Answer::Kept(Reply::OK),
            1 => Answer::Kept(Reply::Nil),
            2 => Answer::Kept(Reply::Int(from.try_get_i64_le().ok()?)),
            3 => Answer::Kept(Reply::Bulk(Bytes::copy_from_slice(from))),
            4 => Answer::Kept(Reply::Error(text(from))),
            5 => Answer::Long(from.try_get_u64_le().ok()?),
            _ => return None,
        };
        Some(Session { request, used, answer })
    }

    /// Its stored bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = system::wrap();
        out.put_u64_le(self.request);
        out.put_u64_le(self.used);
        match &self.answer {
            Answer::Kept(Reply::Nil) => out.put_u8(1),
            Answer::Kept(Reply::Int(number)) => {
                out.put_u8(2);
                out.put_i64_le(*number);
            }
            Answer::Kept(Reply::Bulk(bytes)) => put(&mut out, 3, bytes),
            Answer::Kept(Reply::Error(text)) => put(&mut out, 4, text.as_bytes()),
            // No write is answered with anything else.
            Answer::Kept(_) => out.put_u8(0),
            Answer::Long(bytes) => {
                out.put_u8(5);
                out.put_u64_le(*bytes);
            }
        }
        out.freeze()
    }
}

fn put(out: &mut BytesMut, kind: u8, bytes: &[u8]) {
    out.put_u8(kind);
    out.put_slice(bytes);
}

/// What a request of a session that is not there is told.
pub fn not_open(id: u64) -> Reply {
    Reply::Error(format!(
        "UNKNOWN session {id} is not open: what was asked in it before may or may not have \
         happened; read to find out, and open another with KV.SESSION OPEN"
    ))
}

/// What a request is told whose number is below the last.
pub fn out_of_order(request: u64, last: u64) -> Reply {
    Reply::err(format!(
        "request {request} is not done: the session's last request is {last}; numbers rise, and \
         the next is sent when the last was answered"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_read_back() {
        let kept = [
            Reply::OK,
            Reply::Nil,
            Reply::Int(-3),
            Reply::Bulk("x\0y".into()),
            Reply::err("value is not an integer"),
        ];
        let long = Reply::Bulk(vec![0; ANSWER_BYTES_MAX + 1].into());
        for reply in kept.iter().chain([&long]) {
            let session = Session { request: 7, used: 9, answer: Answer::of(reply) };
            assert_eq!(Session::decode(&session.encode()), Some(session));
        }
        assert_eq!(Answer::of(&long), Answer::Long(ANSWER_BYTES_MAX as u64 + 1));
    }
}
