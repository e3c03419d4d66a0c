//! Answers, and how RESP2 and RESP3 write them.

use bytes::{BufMut, Bytes, BytesMut};
use std::fmt::Write;

/// An answer to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `+text`
    Simple(&'static str),
    /// A number.
    Int(i64),
    /// Bytes.
    Bulk(Bytes),
    /// Nothing there.
    Nil,
    /// A list.
    Array(Vec<Reply>),
    /// Pairs; a flat list in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// An error; the first word is its code.
    Error(String),
}

impl Reply {
    /// `+OK`
    pub const OK: Reply = Reply::Simple("OK");

    /// Bytes of some text.
    pub fn text(text: impl Into<String>) -> Reply {
        Reply::Bulk(Bytes::from(text.into()))
    }

    /// An `ERR`.
    pub fn err(text: impl std::fmt::Display) -> Reply {
        Reply::Error(format!("ERR {text}"))
    }

    /// Appends its bytes.
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
                // A line break in an error would end it early and shift all that follows.
                line(out, '-', text.replace(['\r', '\n'], " "));
            }
        }
    }

    /// Its bytes.
    pub fn render(&self, resp3: bool) -> Bytes {
        let mut out = BytesMut::new();
        self.write(resp3, &mut out);
        out.freeze()
    }
}

fn line(out: &mut BytesMut, kind: char, text: impl std::fmt::Display) {
    let _ = write!(out, "{kind}{text}\r\n");
}
