//! Frames on a stream. All numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | body length |
//! | 4 | 1 | kind, defined by the node; 0 is the hello |
//! | 5 | 3 | zero |
//! | 8 | 8 | shard |
//! | 16 | 4 | CRC of bytes 0..16 and of the body |
//!
//! The body follows. The checksum detects bugs of this code; TLS protects the bytes on the wire. A
//! stream begins with one byte that names its lane: 0 control, 1..=4 append, 8 bulk.

use crate::error::Violation;
use crate::limits::{APPEND_BYTES_MAX, APPEND_STREAMS, BULK_BYTES_MAX, CONTROL_BYTES_MAX};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes in front of a body.
pub const HEADER_BYTES: usize = 20;

/// The priority of a frame. Order holds within a lane and a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes, heartbeats, acknowledgements, read rounds, forwarded requests: small frames that go
    /// first.
    Control,
    /// Log entries.
    Append,
    /// Snapshots, which go last.
    Bulk,
}

impl Lane {
    /// Longest body on this lane.
    pub fn body_bytes_max(self) -> usize {
        match self {
            Lane::Control => CONTROL_BYTES_MAX,
            Lane::Append => APPEND_BYTES_MAX,
            Lane::Bulk => BULK_BYTES_MAX,
        }
    }
}

/// One of the streams that a connection keeps open in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(u8);

impl StreamId {
    /// The number of streams.
    pub const COUNT: usize = 2 + APPEND_STREAMS;
    const BULK: u8 = 8;

    /// Every stream.
    pub fn all() -> impl Iterator<Item = StreamId> {
        (0..=APPEND_STREAMS as u8).chain([Self::BULK]).map(StreamId)
    }

    /// The stream of a frame.
    pub fn of(frame: &Frame) -> StreamId {
        match frame.lane {
            Lane::Control => StreamId(0),
            Lane::Append => StreamId(1 + (frame.shard % APPEND_STREAMS as u64) as u8),
            Lane::Bulk => StreamId(Self::BULK),
        }
    }

    /// The byte that begins the stream.
    pub fn byte(self) -> u8 {
        self.0
    }

    /// The stream that begins with `byte`.
    pub fn from_byte(byte: u8) -> Result<StreamId, Violation> {
        Self::all().find(|stream| stream.0 == byte).ok_or(Violation::Lane(byte))
    }

    /// The lane of the stream.
    pub fn lane(self) -> Lane {
        match self.0 {
            0 => Lane::Control,
            Self::BULK => Lane::Bulk,
            _ => Lane::Append,
        }
    }

    /// The position of the stream among all streams.
    pub fn position(self) -> usize {
        usize::from(self.0).min(Self::COUNT - 1)
    }
}

/// One message.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The lane.
    pub lane: Lane,
    /// The kind, defined by the node.
    pub kind: u8,
    /// The shard that the frame concerns.
    pub shard: u64,
    /// Its content.
    pub body: Bytes,
}

impl std::fmt::Debug for Frame {
    /// Omits the content, which is data of users.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Frame { lane, kind, shard, body } = self;
        write!(f, "Frame({lane:?}, kind {kind}, shard {shard}, {} bytes)", body.len())
    }
}

impl Frame {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Always `false`: a frame has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The header that goes before the body.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let mut fields = &mut header[..16];
        fields.put_u32_le(self.body.len() as u32);
        fields.put_u32_le(u32::from(self.kind));
        fields.put_u64_le(self.shard);
        let sum = checksum(&header[..16], &self.body);
        header[16..].copy_from_slice(&sum.to_le_bytes());
        header
    }

    /// Removes the next frame from the front of `from`; `None` while the frame is incomplete. The
    /// announced length is checked before its body arrives.
    pub fn decode(from: &mut BytesMut, lane: Lane) -> Result<Option<Frame>, Violation> {
        let Some(mut header) = from.get(..HEADER_BYTES) else { return Ok(None) };
        let len = header.get_u32_le() as usize;
        let kind = header.get_u32_le();
        let shard = header.get_u64_le();
        let sum = header.get_u32_le();
        let limit = lane.body_bytes_max();
        if len > limit {
            return Err(Violation::TooLarge { found: len, limit });
        }
        if from.len() < HEADER_BYTES + len {
            return Ok(None);
        }
        let whole = from.split_to(HEADER_BYTES + len).freeze();
        let body = whole.slice(HEADER_BYTES..);
        match u8::try_from(kind) {
            Ok(kind) if checksum(&whole[..16], &body) == sum => {
                Ok(Some(Frame { lane, kind, shard, body }))
            }
            _ => Err(Violation::Checksum),
        }
    }
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_split(
            bodies in vec(vec(any::<u8>(), 0..300), 1..8),
            step in 1usize..64,
        ) {
            let frames: Vec<Frame> = bodies
                .into_iter()
                .enumerate()
                .map(|(i, body)| Frame {
                    lane: Lane::Append, kind: i as u8, shard: i as u64, body: body.into(),
                })
                .collect();
            let wire: Vec<u8> =
                frames.iter().flat_map(|f| [&f.header()[..], &f.body[..]].concat()).collect();
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = Frame::decode(&mut buffer, Lane::Append).unwrap() {
                    found.push(frame);
                }
            }
            prop_assert_eq!(found, frames);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_body_comes() {
        let mut wire = BytesMut::new();
        wire.put_u32_le(u32::MAX);
        wire.put_bytes(0, 16);
        let refused = Frame::decode(&mut wire, Lane::Control).unwrap_err();
        assert!(matches!(refused, Violation::TooLarge { limit: CONTROL_BYTES_MAX, .. }));
    }
}
