//! The arguments of commands in the log and on the wire. Each argument is: length u32, bytes.
//! Numbers are little-endian.

use super::system::stored_key;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// The key in a command: a key as the user gave it, until
/// [`Command::store_keys`](super::command::Command::store_keys) replaces it by the stored key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(pub Bytes);

/// The arguments that a decoder has not read yet.
pub(super) struct Arguments<'a> {
    from: &'a mut Bytes,
    left: u32,
    /// An argument is longer than the bytes that are there.
    malformed: bool,
}

impl<'a> Arguments<'a> {
    /// Takes the number of arguments from the front of `from`; `None` when `from` is too short for
    /// so many.
    pub(super) fn begin(from: &'a mut Bytes) -> Option<Arguments<'a>> {
        let left = from.try_get_u32_le().ok()?;
        let fits = left as usize <= from.len() / 4;
        fits.then_some(Arguments { from, left, malformed: false })
    }

    /// Whether all arguments were taken.
    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes the next argument. It shares the memory of the bytes that it was read from.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.left = self.left.checked_sub(1)?;
        let len = self.from.try_get_u32_le().ok().map(|len| len as usize);
        let argument = len.filter(|&len| len <= self.from.len()).map(|len| self.from.split_to(len));
        if argument.is_none() {
            self.left = 0;
            self.malformed = true;
        }
        argument
    }

    /// Skips the arguments that are left. `None` if an argument is malformed: the bytes behind the
    /// arguments cannot be found then.
    pub(super) fn finish(mut self) -> Option<()> {
        while !self.is_empty() {
            self.next();
        }
        (!self.malformed).then_some(())
    }

    /// Takes the next argument if it has this length.
    pub(super) fn next_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.next()?.as_ref().try_into().ok()
    }
}

/// One argument of a command, or a list of arguments.
pub(super) trait Argument: Sized {
    /// The number of arguments.
    fn count(&self) -> usize {
        1
    }

    /// Bytes of the arguments with their lengths.
    fn encoded_len(&self) -> usize;

    /// Appends the arguments.
    fn encode(&self, out: &mut BytesMut);

    /// Takes the arguments; `None` when they are missing or of another type.
    fn decode(from: &mut Arguments<'_>) -> Option<Self>;

    /// Replaces keys of users by stored keys.
    fn store_keys(&mut self) {}

    /// The length of the longest key of a user in bytes.
    fn longest_key(&self) -> usize {
        0
    }

    /// The length of the longest value or pattern in bytes.
    fn longest_value(&self) -> usize {
        0
    }
}

fn encode_bytes(bytes: &[u8], out: &mut BytesMut) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

impl Argument for Bytes {
    fn encoded_len(&self) -> usize {
        4 + self.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        encode_bytes(self, out);
    }

    fn decode(from: &mut Arguments<'_>) -> Option<Self> {
        from.next()
    }

    fn longest_value(&self) -> usize {
        self.len()
    }
}

impl Argument for Key {
    fn encoded_len(&self) -> usize {
        4 + self.0.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        encode_bytes(&self.0, out);
    }

    fn decode(from: &mut Arguments<'_>) -> Option<Self> {
        from.next().map(Key)
    }

    fn store_keys(&mut self) {
        self.0 = stored_key(&self.0);
    }

    fn longest_key(&self) -> usize {
        self.0.len()
    }
}

/// All remaining arguments.
impl Argument for SmallVec<[Key; 1]> {
    fn count(&self) -> usize {
        self.len()
    }

    fn encoded_len(&self) -> usize {
        self.iter().map(Key::encoded_len).sum()
    }

    fn encode(&self, out: &mut BytesMut) {
        self.iter().for_each(|key| key.encode(out));
    }

    fn decode(from: &mut Arguments<'_>) -> Option<Self> {
        let mut keys = SmallVec::with_capacity(from.left as usize);
        while !from.is_empty() {
            keys.push(Key::decode(from)?);
        }
        Some(keys)
    }

    fn store_keys(&mut self) {
        self.iter_mut().for_each(Key::store_keys);
    }

    fn longest_key(&self) -> usize {
        self.iter().map(Key::longest_key).max().unwrap_or(0)
    }
}

/// All remaining arguments: keys and stored values, alternating.
impl Argument for Vec<(Key, Bytes)> {
    fn count(&self) -> usize {
        2 * self.len()
    }

    fn encoded_len(&self) -> usize {
        self.iter().map(|(key, value)| key.encoded_len() + value.encoded_len()).sum()
    }

    fn encode(&self, out: &mut BytesMut) {
        for (key, value) in self {
            key.encode(out);
            value.encode(out);
        }
    }

    fn decode(from: &mut Arguments<'_>) -> Option<Self> {
        let mut pairs = Vec::with_capacity(from.left as usize / 2);
        while !from.is_empty() {
            pairs.push((Key::decode(from)?, from.next()?));
        }
        Some(pairs)
    }

    fn store_keys(&mut self) {
        self.iter_mut().for_each(|(key, _)| key.store_keys());
    }

    fn longest_key(&self) -> usize {
        self.iter().map(|(key, _)| key.longest_key()).max().unwrap_or(0)
    }

    fn longest_value(&self) -> usize {
        self.iter().map(|(_, value)| value.len()).max().unwrap_or(0)
    }
}

impl Argument for u64 {
    fn encoded_len(&self) -> usize {
        12
    }

    fn encode(&self, out: &mut BytesMut) {
        encode_bytes(&self.to_le_bytes(), out);
    }

    fn decode(from: &mut Arguments<'_>) -> Option<Self> {
        from.next_array().map(u64::from_le_bytes)
    }
}

impl Argument for i64 {
    fn encoded_len(&self) -> usize {
        12
    }

    fn encode(&self, out: &mut BytesMut) {
        encode_bytes(&self.to_le_bytes(), out);
    }

    fn decode(from: &mut Arguments<'_>) -> Option<Self> {
        from.next_array().map(i64::from_le_bytes)
    }
}

/// A value with one byte as its code.
pub(super) trait Coded: Copy {
    /// The code.
    fn code(self) -> u8;

    /// The value of a code; `None` for a code without a value.
    fn from_code(code: u8) -> Option<Self>;
}

impl<T: Coded> Argument for T {
    fn encoded_len(&self) -> usize {
        5
    }

    fn encode(&self, out: &mut BytesMut) {
        encode_bytes(&[self.code()], out);
    }

    fn decode(from: &mut Arguments<'_>) -> Option<Self> {
        let [code] = from.next_array()?;
        T::from_code(code)
    }
}

impl Coded for bool {
    fn code(self) -> u8 {
        u8::from(self)
    }

    fn from_code(code: u8) -> Option<bool> {
        match code {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}
