//! Requests that take effect once, however often they are sent (thesis §6.3). A client opens a
//! session and numbers its requests. The table of sessions is part of the shard's state: each
//! session stores the number of its last request and the reply, among the shard's own keys.
//! Therefore the table is on every replica, in every snapshot, and durable together with the effect
//! of the request.
//!
//! The table is bounded. When the table is full, opening a session closes the [`EVICTED`] sessions
//! that were used least recently. This choice depends on the log alone, so all replicas agree. A
//! request in a closed session gets an error which states that earlier requests of the session may
//! have happened.
//!
//! Stored form, little-endian. The table: number of open sessions u64, last session id u64. A
//! session: number of the last request u64, timestamp of the last use u64, then the reply: kind u8
//! (0 OK, 1 nil, 2 number i64, 3 bytes, 4 error, 5 not kept, with its length u64).

use super::reply::Reply;
use super::system::{SESSION, SESSIONS};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Sessions of a shard at most.
pub const SESSIONS_MAX: u64 = 4096;
/// Sessions that are closed together when the table is full.
pub const EVICTED: usize = 512;
/// Bytes of a reply that a session stores at most; a longer reply is not stored.
pub const ANSWER_BYTES_MAX: usize = 4 << 10;

/// The head of the table of sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Table {
    /// The number of open sessions.
    pub open: u64,
    /// The id of the last session that was opened.
    pub last: u64,
}

impl Table {
    /// Decodes the stored form.
    pub fn decode(stored: &[u8]) -> Option<Table> {
        let mut from = stored;
        Some(Table { open: from.try_get_u64_le().ok()?, last: from.try_get_u64_le().ok()? })
    }

    /// The stored form.
    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(16);
        out.put_u64_le(self.open);
        out.put_u64_le(self.last);
        out.freeze()
    }

    /// The key of the table's head.
    pub fn key() -> Bytes {
        Bytes::from_static(SESSIONS)
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The number of the last request; 0 before the first request.
    pub request: u64,
    /// The timestamp of the last request, or of the opening before the first request.
    pub used: u64,
    /// The reply to the last request.
    pub answer: Answer,
}

/// The stored form of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The whole reply.
    Kept(Reply),
    /// The length in bytes of a reply that was too long to store.
    Long(u64),
}

impl Answer {
    /// The stored form of a reply to a write.
    pub fn of(reply: &Reply) -> Answer {
        match reply {
            Reply::Bulk(bytes) if bytes.len() > ANSWER_BYTES_MAX => {
                Answer::Long(bytes.len() as u64)
            }
            other => Answer::Kept(other.clone()),
        }
    }

    /// The reply to a repeated request.
    pub fn reply(self, request: u64) -> Reply {
        match self {
            Answer::Kept(reply) => reply,
            Answer::Long(bytes) => Reply::err(format!(
                "request {request} took effect once; its reply of {bytes} bytes was not kept"
            )),
        }
    }
}

impl Session {
    /// The key of a session.
    pub fn key(id: u64) -> Bytes {
        Bytes::from([SESSION, &id.to_be_bytes()].concat())
    }

    /// Decodes the stored form.
    pub fn decode(stored: &[u8]) -> Option<Session> {
        let mut from = stored;
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

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
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
            // A write has no other kind of reply.
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

/// The reply to a request in a session that is not open.
pub fn not_open(id: u64) -> Reply {
    Reply::Error(format!(
        "UNKNOWN session {id} is not open: its earlier requests may or may not have happened; \
         read to find out, and open another session with KV.SESSION OPEN"
    ))
}

/// The reply to a request with a number below the last request's number.
pub fn out_of_order(request: u64, last: u64) -> Reply {
    Reply::err(format!(
        "request {request} is refused: the session's last request is {last}. Use rising numbers, \
         and send a request after the reply to the previous request"
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
