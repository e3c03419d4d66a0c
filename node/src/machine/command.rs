//! The form of commands in the log and on the wire. All numbers are little-endian.
//!
//! **Command**: operation u8, count of arguments u32, then each: length u32, bytes. Arguments that
//! are keys are stored keys, see [`super::system`].
//!
//! **Batch**, the data of a log entry: version u16 (see
//! [`ENTRY_VERSION`](crate::raft::ENTRY_VERSION)), timestamp u64 (hybrid
//! logical clock: milliseconds since 1970 in the upper 48 bits), then commands to the end.

use super::system::stored_key;
use crate::raft::Undecodable;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// The operation of a command. The numbers are part of the log's format and never change.
        /// Numbers below 128 are writes; numbers from 128 on are reads, which never enter the log.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Operation { $($(#[$doc])* $name = $number,)* }

        impl Operation {
            /// The operation of a number.
            pub fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

operations! {
    /// key, stored value, flags u8, expiry.
    Set = 1,
    /// keys.
    Delete = 2,
    /// key, bytes.
    Append = 3,
    /// key, offset u64, bytes.
    SetRange = 4,
    /// key, delta i64.
    IncrBy = 5,
    /// key, delta as decimal text.
    IncrByFloat = 6,
    /// key.
    GetDelete = 7,
    /// key, persist u8, expiry.
    GetExpire = 8,
    /// keys and stored values, alternating.
    SetMany = 9,
    /// keys and stored values, alternating.
    SetManyIfNone = 10,
    /// key, flags u8, expiry.
    Expire = 11,
    /// key.
    Persist = 12,
    /// from, to, only-if-none u8.
    Rename = 13,
    /// from, to, replace u8.
    Copy = 14,
    /// no arguments. Deletes every key of the user space.
    Flush = 15,
    /// no arguments. Changes no key; the entry's timestamp moves the shard's time, so that expiry
    /// becomes visible.
    Tick = 16,
    /// no arguments. Opens a session, see [`super::sessions`].
    SessionOpen = 17,
    /// session u64.
    SessionClose = 18,
    /// session u64, request u64, operation u8 of a write, its arguments.
    Once = 19,
    /// key.
    Get = 128,
    /// keys.
    GetMany = 129,
    /// keys.
    Exists = 130,
    /// key.
    Length = 131,
    /// key, start i64, end i64.
    GetRange = 132,
    /// key, unit u8.
    TimeToLive = 133,
    /// key.
    Type = 134,
    /// the stored key where the scan stopped (empty at the start), count u64, pattern.
    Scan = 135,
    /// pattern.
    Keys = 136,
    /// seed u64. Returns any key.
    RandomKey = 137,
    /// no arguments. Returns the number of keys.
    Size = 138,
    /// start, end, limit u64, bounds u8.
    Range = 139,
    /// key.
    MemoryUsage = 140,
    /// key.
    Encoding = 141,
}

/// Flags of [`Operation::Set`] and [`Operation::Expire`].
pub mod flags {
    /// Only if the key does not exist; for an expiry, only if the key has no deadline.
    pub const NX: u8 = 1;
    /// Only if the key exists; for an expiry, only if the key has a deadline.
    pub const XX: u8 = 2;
    /// Reply with the old value.
    pub const GET: u8 = 4;
    /// Keep the key's deadline.
    pub const KEEP_TTL: u8 = 8;
    /// Only if the new deadline is later than the present one. No deadline counts as the latest.
    pub const GT: u8 = 16;
    /// Only if the new deadline is earlier than the present one. No deadline counts as the latest.
    pub const LT: u8 = 32;
    /// Reply with a number, as SETNX does: 1 if the key was set, otherwise 0.
    pub const NUMBER: u8 = 64;
}

/// The expiry that a client gives for a key. A relative time counts from the entry's timestamp,
/// which the leader assigns, so that all replicas compute one deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    None,
    /// At a time, in milliseconds since 1970.
    At(u64),
    /// After some milliseconds.
    In(u64),
}

impl Expiry {
    /// As an argument: mode u8 (0, 1, 2 in the order above), milliseconds u64.
    pub fn encode(self) -> Bytes {
        let (mode, millis) = match self {
            Expiry::None => (0, 0),
            Expiry::At(at) => (1, at),
            Expiry::In(after) => (2, after),
        };
        let mut out = BytesMut::with_capacity(9);
        out.put_u8(mode);
        out.put_u64_le(millis);
        out.freeze()
    }

    /// The deadline, given the entry's time; 0 for never.
    pub fn resolve(argument: &[u8], now: u64) -> Option<u64> {
        let mut from = argument;
        let mode = from.try_get_u8().ok()?;
        let millis = from.try_get_u64_le().ok()?;
        match mode {
            0 => Some(0),
            1 => Some(millis.max(1)),
            2 => Some(now.saturating_add(millis)),
            _ => None,
        }
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The operation.
    pub operation: Operation,
    /// The arguments, as listed at the operation.
    pub args: SmallVec<[Bytes; 4]>,
}

impl Command {
    /// A command.
    pub fn new(operation: Operation, args: impl IntoIterator<Item = Bytes>) -> Self {
        Self { operation, args: args.into_iter().collect() }
    }

    /// The command, as request `request` of a session.
    pub fn once(self, session: u64, request: u64) -> Command {
        let head = [number(session), number(request), byte(self.operation as u8)];
        Command::new(Operation::Once, head.into_iter().chain(self.args))
    }

    /// The write inside an [`Operation::Once`]; `None` if there is no valid one.
    pub(super) fn inner(&self) -> Option<Command> {
        if self.operation != Operation::Once {
            return None;
        }
        let operation = Operation::from_byte(self.u8(2)?)?;
        let inner = Command::new(operation, self.args.iter().skip(3).cloned());
        let of_sessions = [Operation::Once, Operation::SessionOpen, Operation::SessionClose];
        (!inner.is_read() && !of_sessions.contains(&operation)).then_some(inner)
    }

    /// The places of the keys among the arguments. The write inside an [`Operation::Once`] and the
    /// position of an [`Operation::Scan`] are not listed.
    pub fn key_places(&self) -> impl Iterator<Item = usize> + use<> {
        use Operation::{
            Copy, Delete, Exists, Flush, GetMany, Keys, Once, RandomKey, Range, Rename, Scan,
            SessionClose, SessionOpen, SetMany, SetManyIfNone, Size, Tick,
        };
        let (end, step) = match self.operation {
            Delete | GetMany | Exists => (usize::MAX, 1),
            SetMany | SetManyIfNone => (usize::MAX, 2),
            Rename | Copy | Range => (2, 1),
            Flush | Tick | SessionOpen | SessionClose | Once => (0, 1),
            Scan | Keys | RandomKey | Size => (0, 1),
            _ => (1, 1),
        };
        (0..end.min(self.args.len())).step_by(step)
    }

    /// Replaces each key of a user by its stored key.
    pub fn store_keys(&mut self) {
        for place in self.key_places() {
            self.args[place] = stored_key(&self.args[place]);
        }
    }

    /// Whether the command is a read.
    pub fn is_read(&self) -> bool {
        self.operation as u8 >= 128
    }

    /// Whether the command is accepted while the disk is nearly full. Such a command frees space or
    /// needs very little.
    pub fn allowed_when_nearly_full(&self) -> bool {
        use Operation::{Delete, Expire, Flush, GetDelete, GetExpire, Persist, SessionClose, Tick};
        let spares = [Delete, GetDelete, Flush, Expire, GetExpire, Persist, Tick, SessionClose];
        let once = || self.inner().is_some_and(|inner| inner.allowed_when_nearly_full());
        self.is_read() || spares.contains(&self.operation) || once()
    }

    /// The length of the encoded command in bytes.
    pub fn encoded_len(&self) -> usize {
        5 + self.args.iter().map(|arg| 4 + arg.len()).sum::<usize>()
    }

    /// Appends the encoded command.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.operation as u8);
        out.put_u32_le(self.args.len() as u32);
        for arg in &self.args {
            out.put_u32_le(arg.len() as u32);
            out.put_slice(arg);
        }
    }

    /// Removes one command from the front of `from`. The arguments share the memory of `from`.
    ///
    /// # Errors
    /// [`Undecodable::Unknown`] after a command whose operation this build does not know: `from`
    /// continues behind it. [`Undecodable::Malformed`].
    pub fn decode(from: &mut Bytes) -> Result<Command, Undecodable> {
        let operation = from.try_get_u8().map_err(|_| Undecodable::Malformed)?;
        let args = Self::decode_args(from).ok_or(Undecodable::Malformed)?;
        match Operation::from_byte(operation) {
            Some(operation) => Ok(Command { operation, args }),
            None => Err(Undecodable::Unknown(operation)),
        }
    }

    fn decode_args(from: &mut Bytes) -> Option<SmallVec<[Bytes; 4]>> {
        let count = from.try_get_u32_le().ok()? as usize;
        if count > from.len() / 4 {
            return None;
        }
        let mut args = SmallVec::with_capacity(count);
        for _ in 0..count {
            let len = from.try_get_u32_le().ok()? as usize;
            if len > from.len() {
                return None;
            }
            args.push(from.split_to(len));
        }
        Some(args)
    }

    pub(super) fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.args.get(at)?.as_ref().try_into().ok()?))
    }

    pub(super) fn i64(&self, at: usize) -> Option<i64> {
        self.u64(at).map(|bits| bits as i64)
    }

    pub(super) fn u8(&self, at: usize) -> Option<u8> {
        self.args.get(at)?.first().copied()
    }
}

/// A number as an argument.
pub fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_le_bytes())
}

/// A byte as an argument.
pub fn byte(value: u8) -> Bytes {
    Bytes::copy_from_slice(&[value])
}

/// Encodes commands as the data of a log entry.
pub fn encode_batch<'a>(
    version: u16,
    ts: u64,
    commands: impl IntoIterator<Item = &'a Command>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(1024);
    out.put_u16_le(version);
    out.put_u64_le(ts);
    for command in commands {
        out.reserve(command.encoded_len());
        command.encode(&mut out);
    }
    out.freeze()
}

/// The data of a log entry of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The version of the entry.
    pub version: u16,
    /// The timestamp.
    pub ts: u64,
    /// The commands.
    pub commands: Vec<Command>,
}

/// Decodes the data of a log entry whose version this build applies; `None` when it is malformed.
pub fn decode_batch(mut data: Bytes) -> Option<Batch> {
    let version = data.try_get_u16_le().ok()?;
    let ts = data.try_get_u64_le().ok()?;
    let mut commands = Vec::new();
    while !data.is_empty() {
        commands.push(Command::decode(&mut data).ok()?);
    }
    Some(Batch { version, ts, commands })
}
