//! The options of commands: conditions, replies, expiry and bounds. The codes are part of the log's
//! format and never change.

use super::argument::{Argument, Arguments, Coded};
use bytes::{BufMut, BytesMut};

/// A condition on the presence of a key or of a deadline. Code: 0, 1, 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnlyIf {
    /// No condition.
    #[default]
    Always,
    /// NX: there must be none.
    Absent,
    /// XX: there must be one.
    Present,
}

impl OnlyIf {
    const BITS: u8 = 3;

    /// Whether the condition is met.
    pub fn allows(self, present: bool) -> bool {
        match self {
            OnlyIf::Always => true,
            OnlyIf::Absent => !present,
            OnlyIf::Present => present,
        }
    }

    fn from_bits(code: u8) -> Option<OnlyIf> {
        match code & OnlyIf::BITS {
            0 => Some(OnlyIf::Always),
            1 => Some(OnlyIf::Absent),
            2 => Some(OnlyIf::Present),
            _ => None,
        }
    }
}

/// The reply to a SET.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetReply {
    /// OK if the key was set, otherwise nil.
    #[default]
    Status,
    /// GET: the old value. Code: 4.
    OldValue,
    /// As SETNX replies: 1 if the key was set, otherwise 0. Code: 64.
    Number,
}

/// The options of a SET. Code: the sum of the codes of the parts; 8 for `keep_deadline`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// The condition on the key.
    pub only_if: OnlyIf,
    /// The reply.
    pub reply: SetReply,
    /// KEEPTTL: keep the key's deadline.
    pub keep_deadline: bool,
}

impl Coded for SetOptions {
    fn code(self) -> u8 {
        let reply = match self.reply {
            SetReply::Status => 0,
            SetReply::OldValue => 4,
            SetReply::Number => 64,
        };
        self.only_if as u8 | reply | u8::from(self.keep_deadline) << 3
    }

    fn from_code(code: u8) -> Option<SetOptions> {
        let reply = match code & !(OnlyIf::BITS | 8) {
            0 => SetReply::Status,
            4 => SetReply::OldValue,
            64 => SetReply::Number,
            _ => return None,
        };
        let only_if = OnlyIf::from_bits(code)?;
        Some(SetOptions { only_if, reply, keep_deadline: code & 8 != 0 })
    }
}

/// A condition on a new deadline, compared with the present one. No deadline counts as the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadlineOrder {
    /// No condition.
    #[default]
    Any,
    /// GT: the new deadline must be later. Code: 16.
    Later,
    /// LT: the new deadline must be earlier. Code: 32.
    Earlier,
}

/// The conditions of an EXPIRE. Code: the sum of the codes of the parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireOptions {
    /// The condition on the presence of a deadline.
    pub only_if: OnlyIf,
    /// The condition on the order of the two deadlines.
    pub order: DeadlineOrder,
}

impl Coded for ExpireOptions {
    fn code(self) -> u8 {
        let order = match self.order {
            DeadlineOrder::Any => 0,
            DeadlineOrder::Later => 16,
            DeadlineOrder::Earlier => 32,
        };
        self.only_if as u8 | order
    }

    fn from_code(code: u8) -> Option<ExpireOptions> {
        let order = match code & !OnlyIf::BITS {
            0 => DeadlineOrder::Any,
            16 => DeadlineOrder::Later,
            32 => DeadlineOrder::Earlier,
            _ => return None,
        };
        Some(ExpireOptions { only_if: OnlyIf::from_bits(code)?, order })
    }
}

/// The form in which a key's time to live is replied. Codes: 0 to 3, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// TTL: the remaining seconds.
    SecondsLeft,
    /// PTTL: the remaining milliseconds.
    MillisLeft,
    /// EXPIRETIME: the deadline in seconds since 1970.
    UnixSeconds,
    /// PEXPIRETIME: the deadline in milliseconds since 1970.
    UnixMillis,
}

impl Coded for TimeForm {
    fn code(self) -> u8 {
        self as u8
    }

    fn from_code(code: u8) -> Option<TimeForm> {
        match code {
            0 => Some(TimeForm::SecondsLeft),
            1 => Some(TimeForm::MillisLeft),
            2 => Some(TimeForm::UnixSeconds),
            3 => Some(TimeForm::UnixMillis),
            _ => None,
        }
    }
}

/// The end of a range of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangeEnd {
    /// The end is excluded.
    #[default]
    Excluded,
    /// The end is included. Code: 2.
    Included,
    /// The range reaches to the last key. Code: 4.
    Unbounded,
}

/// The bounds of a range of keys. Code: the sum of the codes of the parts; 1 for `after_start`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeBounds {
    /// Whether the start is excluded.
    pub after_start: bool,
    /// The end.
    pub end: RangeEnd,
}

impl Coded for RangeBounds {
    fn code(self) -> u8 {
        let end = match self.end {
            RangeEnd::Excluded => 0,
            RangeEnd::Included => 2,
            RangeEnd::Unbounded => 4,
        };
        u8::from(self.after_start) | end
    }

    fn from_code(code: u8) -> Option<RangeBounds> {
        let end = match code & !1 {
            0 => RangeEnd::Excluded,
            2 => RangeEnd::Included,
            4 => RangeEnd::Unbounded,
            _ => return None,
        };
        Some(RangeBounds { after_start: code & 1 != 0, end })
    }
}

/// The expiry that a client gives for a key. A relative time counts from the entry's timestamp,
/// which the leader assigns, so that all replicas compute one deadline.
///
/// As an argument: mode u8 (0, 1, 2 in the order below), milliseconds u64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    #[default]
    None,
    /// At a time, in milliseconds since 1970.
    At(u64),
    /// After some milliseconds.
    In(u64),
}

/// The latest deadline, in milliseconds since 1970.
pub const DEADLINE_MAX: u64 = i64::MAX as u64;

impl Expiry {
    /// The deadline, given the entry's time; 0 for never. Both in milliseconds since 1970.
    pub fn deadline(self, now: u64) -> u64 {
        match self {
            Expiry::None => 0,
            Expiry::At(at) => at.max(1),
            Expiry::In(after) => now.saturating_add(after).min(DEADLINE_MAX),
        }
    }
}

impl Argument for Expiry {
    fn encoded_len(&self) -> usize {
        13
    }

    fn encode(&self, out: &mut BytesMut) {
        let (mode, millis) = match *self {
            Expiry::None => (0, 0),
            Expiry::At(at) => (1, at),
            Expiry::In(after) => (2, after),
        };
        out.put_u32_le(9);
        out.put_u8(mode);
        out.put_u64_le(millis);
    }

    fn decode(from: &mut Arguments<'_>) -> Option<Expiry> {
        let [mode, millis @ ..] = from.next_array::<9>()?;
        let millis = u64::from_le_bytes(millis);
        match mode {
            0 => Some(Expiry::None),
            1 => Some(Expiry::At(millis)),
            2 => Some(Expiry::In(millis)),
            _ => None,
        }
    }
}
