//! Commands as the log and the wire have them. All numbers are little-endian.
//!
//! **Command**: operation u8, count of arguments u32, then each: length u32, bytes.
//!
//! **Batch**, the data of a log entry: timestamp u64 (hybrid logical clock: milliseconds since 1970
//! in the upper 48 bits), then commands to the end.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a command does. Numbers are part of the log's format and never change; below 128
        /// are writes, from 128 on reads, which never enter the log.
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
    /// keys and stored values in turn.
    SetMany = 9,
    /// keys and stored values in turn.
    SetManyIfNone = 10,
    /// key, flags u8, expiry.
    Expire = 11,
    /// key.
    Persist = 12,
    /// from, to, only-if-none u8.
    Rename = 13,
    /// from, to, replace u8.
    Copy = 14,
    /// Deletes everything.
    Flush = 15,
    /// Nothing but the entry's timestamp: expiry becomes visible.
    Tick = 16,
    /// Opens a session, see [`super::sessions`].
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
    /// cursor key, count u64, pattern.
    Scan = 135,
    /// pattern.
    Keys = 136,
    /// Any key: a seed u64.
    RandomKey = 137,
    /// Number of keys.
    Size = 138,
    /// start, end, limit u64, reverse u8, bounds u8.
    Range = 139,
    /// key.
    MemoryUsage = 140,
    /// key.
    Encoding = 141,
}

/// Flags of [`Operation::Set`] and [`Operation::Expire`].
pub mod flags {
    /// Only if the key is not there; for expiry, only if there is none.
    pub const NX: u8 = 1;
    /// Only if the key is there; for expiry, only if there is one.
    pub const XX: u8 = 2;
    /// Answer the old value.
    pub const GET: u8 = 4;
    /// Keep the key's expiry.
    pub const KEEP_TTL: u8 = 8;
    /// Only if later than the present expiry.
    pub const GT: u8 = 16;
    /// Only if earlier than the present expiry.
    pub const LT: u8 = 32;
    /// Answer as SETNX does, with a number.
    pub const NUMBER: u8 = 64;
}

/// When a key expires, as a client gives it. Relative times count from the entry's timestamp, which
/// the leader gives, so that all replicas agree.
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
    /// What it does.
    pub operation: Operation,
    /// To what.
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

    /// The command that is to be done once.
    pub(super) fn inner(&self) -> Option<Command> {
        if self.operation != Operation::Once {
            return None;
        }
        let operation = Operation::from_byte(self.u8(2)?)?;
        let inner = Command::new(operation, self.args.iter().skip(3).cloned());
        let of_sessions = [Operation::Once, Operation::SessionOpen, Operation::SessionClose];
        (!inner.is_read() && !of_sessions.contains(&operation)).then_some(inner)
    }

    /// Whether it leaves everything as it is.
    pub fn is_read(&self) -> bool {
        self.operation as u8 >= 128
    }

    /// Whether it is taken while the disk is nearly full: it makes room, or needs next to none.
    pub fn spares_room(&self) -> bool {
        use Operation::{Delete, Expire, Flush, GetDelete, GetExpire, Persist, SessionClose, Tick};
        let spares = [Delete, GetDelete, Flush, Expire, GetExpire, Persist, Tick, SessionClose];
        let once = || self.inner().is_some_and(|inner| inner.spares_room());
        self.is_read() || spares.contains(&self.operation) || once()
    }

    /// Bytes when encoded.
    pub fn encoded_len(&self) -> usize {
        5 + self.args.iter().map(|arg| 4 + arg.len()).sum::<usize>()
    }

    /// Appends its bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.operation as u8);
        out.put_u32_le(self.args.len() as u32);
        for arg in &self.args {
            out.put_u32_le(arg.len() as u32);
            out.put_slice(arg);
        }
    }

    /// Takes one off the front. Arguments share the memory of `from`.
    pub fn decode(from: &mut Bytes) -> Option<Command> {
        let operation = Operation::from_byte(from.try_get_u8().ok()?)?;
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
        Some(Command { operation, args })
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

/// Packs commands into the data of a log entry.
pub fn encode_batch<'a>(ts: u64, commands: impl IntoIterator<Item = &'a Command>) -> Bytes {
    let mut out = BytesMut::with_capacity(1024);
    out.put_u64_le(ts);
    for command in commands {
        out.reserve(command.encoded_len());
        command.encode(&mut out);
    }
    out.freeze()
}

/// Unpacks the data of a log entry.
pub fn decode_batch(mut data: Bytes) -> Option<(u64, Vec<Command>)> {
    let ts = data.try_get_u64_le().ok()?;
    let mut commands = Vec::new();
    while !data.is_empty() {
        commands.push(Command::decode(&mut data)?);
    }
    Some((ts, commands))
}
