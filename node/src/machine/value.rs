//! The stored value of a key: a tag, then the deadline if the tag is 1, then the value.
//!
//! | tag | meaning |
//! |---|---|
//! | 0 | the value follows |
//! | 1 | deadline u64, milliseconds since 1970, little-endian; then the value |

use bedstone_engine::limits::VALUE_BYTES_MAX;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Most bytes of a value of a user. A stored value has up to nine bytes in front.
pub const USER_VALUE_BYTES_MAX: usize = VALUE_BYTES_MAX - 9;

/// A value with its deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The time at which the key expires, in milliseconds since 1970; 0 for never.
    pub deadline: u64,
    /// The value.
    pub value: Bytes,
}

impl Stored {
    /// The tag before a value without a deadline.
    pub const PLAIN: u8 = 0;

    /// A value that does not expire.
    pub fn plain(value: Bytes) -> Self {
        Self { deadline: 0, value }
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(9 + self.value.len());
        if self.deadline == 0 {
            out.put_u8(Self::PLAIN);
        } else {
            out.put_u8(1);
            out.put_u64_le(self.deadline);
        }
        out.put_slice(&self.value);
        out.freeze()
    }

    /// Decodes the stored form; `None` when the tag is another one or bytes are missing. The value
    /// shares the memory of `bytes`.
    pub fn decode(mut bytes: Bytes) -> Option<Stored> {
        let deadline = match bytes.try_get_u8().ok()? {
            0 => 0,
            1 => bytes.try_get_u64_le().ok()?,
            _ => return None,
        };
        Some(Stored { deadline, value: bytes })
    }

    /// The deadline in the stored form; 0 for none.
    pub fn deadline_of(stored: &[u8]) -> u64 {
        match stored.split_first() {
            Some((1, mut rest)) => rest.try_get_u64_le().unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether the key has expired at the time `now`, in milliseconds since 1970.
    pub fn expired(&self, now: u64) -> bool {
        self.deadline != 0 && self.deadline <= now
    }
}
