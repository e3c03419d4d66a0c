//! Replies, and their encoding in RESP2 and RESP3.

use bytes::{BufMut, Bytes, BytesMut};
use std::fmt::Write;

/// A reply to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `+text`
    Simple(&'static str),
    /// A number.
    Int(i64),
    /// Bytes.
    Bulk(Bytes),
    /// No value.
    Nil,
    /// A list.
    Array(Vec<Reply>),
    /// Pairs. RESP2 encodes them as a flat list.
    Map(Vec<(Reply, Reply)>),
    /// An error; the first word is its code.
    Error(String),
}

impl Reply {
    /// `+OK`
    pub const OK: Reply = Reply::Simple("OK");

    /// The bytes of a text.
    pub fn text(text: impl Into<String>) -> Reply {
        Reply::Bulk(Bytes::from(text.into()))
    }

    /// An error with the code `ERR`.
    pub fn err(text: impl std::fmt::Display) -> Reply {
        Reply::Error(format!("ERR {text}"))
    }

    /// Appends the encoded reply.
    pub fn write(&self, resp3: bool, out: &mut BytesMut) {
        match self {
            Reply::Simple(text) => line(out, '+', text),
            Reply::Int(number) => line(out, ':', number),
            Reply::Bulk(bytes) => {
                line(out, '$', bytes.len());
                out.put_slice(bytes);
                out.put_slice(b"\r\n");
            }
            Reply::Nil if resp3 => out.put_slice(b"_\r\n"),
            Reply::Nil => out.put_slice(b"$-1\r\n"),
            Reply::Array(items) => {
                line(out, '*', items.len());
                items.iter().for_each(|item| item.write(resp3, out));
            }
            Reply::Map(pairs) => {
                if resp3 {
                    line(out, '%', pairs.len());
                } else {
                    line(out, '*', 2 * pairs.len());
                }
                for (key, value) in pairs {
                    key.write(resp3, out);
                    value.write(resp3, out);
                }
            }
            Reply::Error(text) => {
                // A line break in the text would end the error early, and the client would read the
                // remaining text as the next reply.
                line(out, '-', text.replace(['\r', '\n'], " "));
            }
        }
    }

    /// The encoded reply.
    pub fn render(&self, resp3: bool) -> Bytes {
        let mut out = BytesMut::new();
        self.write(resp3, &mut out);
        out.freeze()
    }
}

fn line(out: &mut BytesMut, kind: char, text: impl std::fmt::Display) {
    let _ = write!(out, "{kind}{text}\r\n");
}
