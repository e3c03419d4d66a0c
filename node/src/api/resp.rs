//! The request side of RESP (redis.io/docs/latest/develop/reference/protocol-spec): arrays of bulk
//! strings, and inline commands for people with a terminal.

use crate::limits::{ARGUMENTS_MAX, INLINE_BYTES_MAX, REQUEST_BYTES_MAX};
use bytes::{Bytes, BytesMut};

/// The reason why a request is malformed. The client receives the error, and the connection is
/// closed, because the start of the next request is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A count or length that is not a number, or that exceeds its limit.
    #[error("ERR Protocol error: invalid {what} length: the limit is {limit}")]
    Length {
        /// `multibulk` or `bulk`.
        what: &'static str,
        /// The greatest count or length that is accepted.
        limit: usize,
    },
    /// An argument that does not begin with `$`.
    #[error("ERR Protocol error: expected '$', got '{0}'")]
    NoBulk(char),
    /// An inline request that exceeds the length limit without a line end.
    #[error("ERR Protocol error: too big inline request")]
    Line,
    /// Quotes that do not close.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    Quotes,
    /// An argument that CR LF does not follow.
    #[error("ERR Protocol error: an argument is longer than its stated length")]
    MissingLineEnd,
}

/// Removes requests from the front of a buffer. The decoder remembers how many bytes an incomplete
/// request needs, so that a long request is not parsed again for each packet.
#[derive(Debug, Default)]
pub struct Decoder {
    need: usize,
}

impl Decoder {
    /// The next request's arguments; `None` while the request is incomplete. An empty line gives an
    /// empty list. Memory is bounded by the bytes received, not by the lengths that they announce.
    pub fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Vec<Bytes>>, Malformed> {
        if from.is_empty() || from.len() < self.need {
            return Ok(None);
        }
        let found = if from[0] == b'*' { array(from)? } else { inline(from)? };
        match found {
            Found::Request(args) => {
                self.need = 0;
                Ok(Some(args))
            }
            Found::Need(bytes) => {
                if bytes > REQUEST_BYTES_MAX {
                    return Err(Malformed::Length { what: "bulk", limit: REQUEST_BYTES_MAX });
                }
                self.need = bytes;
                Ok(None)
            }
        }
    }
}

enum Found {
    Request(Vec<Bytes>),
    /// The buffer must hold at least this many bytes before the request is parsed again.
    Need(usize),
}

fn array(from: &mut BytesMut) -> Result<Found, Malformed> {
    let Some((count, mut at)) = number(from, 1)? else { return Ok(Found::Need(from.len() + 1)) };
    let limit = ARGUMENTS_MAX;
    if count > limit as i64 {
        return Err(Malformed::Length { what: "multibulk", limit });
    }
    let count = count.max(0) as usize;
    // An argument has at least four bytes, so the capacity is bounded by the buffer's length.
    let mut spans = Vec::with_capacity(count.min(from.len() / 4));
    for _ in 0..count {
        match from.get(at) {
            None => return Ok(Found::Need(from.len() + 1)),
            Some(b'$') => {}
            Some(&other) => return Err(Malformed::NoBulk(char::from(other))),
        }
        let Some((len, start)) = number(from, at + 1)? else {
            return Ok(Found::Need(from.len() + 1));
        };
        let limit = REQUEST_BYTES_MAX;
        let len = usize::try_from(len).ok().filter(|&len| len <= limit);
        let len = len.ok_or(Malformed::Length { what: "bulk", limit })?;
        let end = start + len;
        if from.len() < end + 2 {
            return Ok(Found::Need(end + 2));
        }
        if from[end..end + 2] != *b"\r\n" {
            return Err(Malformed::MissingLineEnd);
        }
        spans.push(start..end);
        at = end + 2;
    }
    let whole = from.split_to(at).freeze();
    Ok(Found::Request(spans.into_iter().map(|span| whole.slice(span)).collect()))
}

/// The decimal number at `at` that a line end follows, and the place after the line end; `None`
/// while the line is incomplete.
fn number(from: &[u8], at: usize) -> Result<Option<(i64, usize)>, Malformed> {
    const DIGITS_MAX: usize = 20;
    let window = &from[at.min(from.len())..from.len().min(at + DIGITS_MAX + 2)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        if window.len() >= DIGITS_MAX + 2 {
            return Err(Malformed::Length { what: "bulk", limit: REQUEST_BYTES_MAX });
        }
        return Ok(None);
    };
    let digits = window[..end].strip_suffix(b"\r").unwrap_or(&window[..end]);
    let text = std::str::from_utf8(digits).ok();
    match text.and_then(|text| text.parse().ok()) {
        Some(number) => Ok(Some((number, at + end + 1))),
        None => Err(Malformed::Length { what: "bulk", limit: REQUEST_BYTES_MAX }),
    }
}

fn inline(from: &mut BytesMut) -> Result<Found, Malformed> {
    let Some(end) = from.iter().take(INLINE_BYTES_MAX).position(|&byte| byte == b'\n') else {
        return if from.len() >= INLINE_BYTES_MAX {
            Err(Malformed::Line)
        } else {
            Ok(Found::Need(from.len() + 1))
        };
    };
    let line = from.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").unwrap_or(&line[..end]);
    split_line(line).map(Found::Request).ok_or(Malformed::Quotes)
}

/// The arguments of an inline request; `None` if a quote does not close. Double quotes allow
/// escapes, single quotes allow `\'` only.
fn split_line(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line.iter().copied().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(&first) = rest.peek() else { return Some(words) };
        let mut word = Vec::new();
        if first == b'"' || first == b'\'' {
            rest.next();
            loop {
                match rest.next()? {
                    byte if byte == first => break,
                    b'\\' if first == b'"' => word.push(match rest.next()? {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'x' => {
                            let (high, low) = (rest.next()?, rest.next()?);
                            let digit = |byte: u8| char::from(byte).to_digit(16);
                            (digit(high)? * 16 + digit(low)?) as u8
                        }
                        other => other,
                    }),
                    b'\\' if rest.peek() == Some(&b'\'') => word.extend(rest.next()),
                    byte => word.push(byte),
                }
            }
        } else {
            while let Some(byte) = rest.next_if(|byte| !byte.is_ascii_whitespace()) {
                word.push(byte);
            }
        }
        words.push(word.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(wire: &[u8], step: usize) -> Result<Vec<Vec<Bytes>>, Malformed> {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let mut found = Vec::new();
        for piece in wire.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(request) = decoder.decode(&mut buffer)? {
                found.push(request);
            }
        }
        Ok(found)
    }

    #[test]
    fn requests_survive_any_split() {
        let wire = b"*2\r\n$3\r\nGET\r\n$2\r\na\n\r\nPING \"x\\n\" 'y'\r\n*0\r\n*1\r\n$0\r\n\r\n";
        let expected: Vec<Vec<Bytes>> = vec![
            vec!["GET".into(), "a\n".into()],
            vec!["PING".into(), "x\n".into(), "y".into()],
            vec![],
            vec![Bytes::new()],
        ];
        for step in 1..wire.len() {
            assert_eq!(all(wire, step).unwrap(), expected, "step {step}");
        }
    }

    #[test]
    fn malformed_requests_are_refused() {
        for wire in ["*x\r\n", "*1\r\n$-5\r\n", "*1\r\n!3\r\n", "\"open\r\n", "*99999999999\r\n"] {
            assert!(all(wire.as_bytes(), 1).is_err(), "{wire:?}");
        }
        assert!(all(b"*1\r\n$3\r\nabcd\r\n", 99).is_err());
    }
}
