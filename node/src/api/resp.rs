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

/// Removes requests from the front of a buffer. Between two calls the caller may only append to the
/// buffer. The decoder remembers how far it has read an incomplete request, so that each byte is
/// parsed once, however slowly the request arrives.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The buffer must hold at least this many bytes before parsing continues.
    need: usize,
    /// The array at the front of the buffer, as far as it is parsed.
    array: Option<PartialArray>,
    /// Bytes of the inline request at the front of the buffer that have no line end.
    line: usize,
}

/// An array of which some arguments are complete.
#[derive(Debug)]
struct PartialArray {
    /// Arguments to come.
    left: usize,
    /// The place at which the next argument begins.
    at: usize,
    /// The start and the end of each complete argument. A request is shorter than 4 GiB.
    spans: Vec<(u32, u32)>,
}

const _: () = assert!(REQUEST_BYTES_MAX < u32::MAX as usize);

impl Decoder {
    /// The next request's arguments; `None` while the request is incomplete. An empty line gives an
    /// empty list. Memory is bounded by the bytes received, not by the lengths that they announce.
    pub fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Vec<Bytes>>, Malformed> {
        if from.is_empty() || from.len() < self.need {
            return Ok(None);
        }
        let found = if from[0] == b'*' { self.array(from)? } else { self.inline(from)? };
        match found {
            Found::Request(args) => {
                *self = Decoder::default();
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

    fn array(&mut self, from: &mut BytesMut) -> Result<Found, Malformed> {
        let mut array = match self.array.take() {
            Some(array) => array,
            None => {
                let Some((count, at)) = number(from, 1)? else {
                    return Ok(Found::Need(from.len() + 1));
                };
                let limit = ARGUMENTS_MAX;
                if count > limit as i64 {
                    return Err(Malformed::Length { what: "multibulk", limit });
                }
                let left = count.max(0) as usize;
                // An argument has at least four bytes, so the buffer's length bounds the capacity.
                let spans = Vec::with_capacity(left.min(from.len() / 4));
                PartialArray { left, at, spans }
            }
        };
        while array.left > 0 {
            match argument(from, array.at)? {
                Ok((start, end)) => {
                    array.spans.push((start as u32, end as u32));
                    array.at = end + 2;
                    array.left -= 1;
                }
                Err(need) => {
                    self.array = Some(array);
                    return Ok(Found::Need(need));
                }
            }
        }
        let whole = from.split_to(array.at).freeze();
        let args =
            array.spans.iter().map(|&(start, end)| whole.slice(start as usize..end as usize));
        Ok(Found::Request(args.collect()))
    }

    fn inline(&mut self, from: &mut BytesMut) -> Result<Found, Malformed> {
        let line = &from[..from.len().min(INLINE_BYTES_MAX)];
        let Some(end) = line[self.line..].iter().position(|&byte| byte == b'\n') else {
            self.line = line.len();
            return if from.len() >= INLINE_BYTES_MAX {
                Err(Malformed::Line)
            } else {
                Ok(Found::Need(from.len() + 1))
            };
        };
        let end = self.line + end;
        let line = from.split_to(end + 1);
        let line = line.strip_suffix(b"\r\n").unwrap_or(&line[..end]);
        split_line(line).map(Found::Request).ok_or(Malformed::Quotes)
    }
}

enum Found {
    Request(Vec<Bytes>),
    /// The buffer must hold at least this many bytes before parsing continues.
    Need(usize),
}

/// The start and the end of the argument that begins at a place; as the inner error, the bytes that
/// the buffer must hold before the argument can be complete.
fn argument(from: &[u8], at: usize) -> Result<Result<(usize, usize), usize>, Malformed> {
    match from.get(at) {
        None => return Ok(Err(from.len() + 1)),
        Some(b'$') => {}
        Some(&other) => return Err(Malformed::NoBulk(char::from(other))),
    }
    let Some((len, start)) = number(from, at + 1)? else { return Ok(Err(from.len() + 1)) };
    let limit = REQUEST_BYTES_MAX;
    let len = usize::try_from(len).ok().filter(|&len| len <= limit);
    let end = start + len.ok_or(Malformed::Length { what: "bulk", limit })?;
    match from.get(end..end + 2) {
        Some(b"\r\n") => Ok(Ok((start, end))),
        Some(_) => Err(Malformed::MissingLineEnd),
        None => Ok(Err(end + 2)),
    }
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

    /// A request that arrives byte by byte costs no more than one that arrives at once. The decoder
    /// parsed all complete arguments again for each byte before.
    #[test]
    fn each_byte_is_parsed_once() {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        buffer.extend_from_slice(b"*1000000\r\n");
        for _ in 0..200_000 {
            buffer.extend_from_slice(b"$1\r\nx\r\n");
        }
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        for _ in 0..1000 {
            buffer.extend_from_slice(b"$");
            assert_eq!(decoder.decode(&mut buffer), Ok(None));
            let array = decoder.array.as_ref().expect("an array is under way");
            assert_eq!((array.left, array.at + 1), (800_000, buffer.len()));
            buffer.truncate(buffer.len() - 1);
            decoder.need = 0;
        }
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        for _ in 0..1000 {
            buffer.extend_from_slice(b"x");
            assert_eq!(decoder.decode(&mut buffer), Ok(None));
            assert_eq!(decoder.line, buffer.len());
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
