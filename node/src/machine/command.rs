//! The form of commands in the log and on the wire. All numbers are little-endian.
//!
//! **Command**: operation u8, count of arguments u32, then the arguments, see
//! [`argument`](super::argument). Keys are stored keys, see [`super::system`].
//!
//! **Batch**, the data of a log entry: version u16 (see
//! [`ENTRY_VERSION`](crate::raft::ENTRY_VERSION)), timestamp u64 (hybrid
//! logical clock: milliseconds since 1970 in the upper 48 bits), then writes to the end.

use super::argument::{Argument, Arguments, Key};
use super::options::{ExpireOptions, Expiry, RangeBounds, SetOptions, TimeForm};
use crate::raft::Undecodable;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// The keys of a command that accepts any number of keys.
pub type Keys = SmallVec<[Key; 1]>;

/// Declares the commands of an enum: for each the number of its operation, and its arguments in the
/// order of the format.
macro_rules! commands {
    (
        $(#[$doc:meta])* $kind:ident:
        $(
            $(#[$name_doc:meta])* $number:literal $name:ident
            { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }
        )*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $kind {
            $($(#[$name_doc])* $name { $($(#[$field_doc])* $field: $type,)* },)*
        }

        impl $kind {
            /// The number of the operation.
            fn operation(&self) -> u8 {
                match self { $(Self::$name { .. } => $number,)* }
            }

            fn count(&self) -> usize {
                match self { $(Self::$name { $($field,)* } => 0 $(+ $field.count())*,)* }
            }

            fn arguments_len(&self) -> usize {
                match self { $(Self::$name { $($field,)* } => 0 $(+ $field.encoded_len())*,)* }
            }

            #[allow(unused_variables)] // for a command without arguments
            fn encode_arguments(&self, out: &mut BytesMut) {
                match self { $(Self::$name { $($field,)* } => { $($field.encode(out);)* })* }
            }

            fn decode(operation: u8, from: &mut Arguments<'_>) -> Option<Self> {
                match operation {
                    $($number => Some(Self::$name { $($field: Argument::decode(from)?,)* }),)*
                    _ => None,
                }
            }

            fn store_keys(&mut self) {
                match self { $(Self::$name { $($field,)* } => { $($field.store_keys();)* })* }
            }

            fn longest_key(&self) -> usize {
                match self {
                    $(Self::$name { $($field,)* } => 0 $(.max($field.longest_key()))*,)*
                }
            }

            fn longest_value(&self) -> usize {
                match self {
                    $(Self::$name { $($field,)* } => 0 $(.max($field.longest_value()))*,)*
                }
            }

            /// The length of the encoded command in bytes.
            pub fn encoded_len(&self) -> usize {
                5 + self.arguments_len()
            }

            /// Appends the encoded command.
            pub fn encode(&self, out: &mut BytesMut) {
                out.put_u8(self.operation());
                out.put_u32_le(self.count() as u32);
                self.encode_arguments(out);
            }
        }
    };
}

/// The number of the first read.
const FIRST_READ: u8 = 128;

commands! {
    /// A command that may change keys. The numbers are part of the log's format and never change;
    /// they are below 128.
    Write:
    /// Sets a key.
    1 Set {
        /// The key.
        key: Key,
        /// The stored value, without a deadline.
        stored: Bytes,
        /// The options.
        options: SetOptions,
        /// The expiry.
        expiry: Expiry,
    }
    /// Deletes keys. Replies with the number of keys that existed.
    2 Delete {
        /// The keys.
        keys: Keys,
    }
    /// Appends to a value. Replies with the length of the value.
    3 Append {
        /// The key.
        key: Key,
        /// The bytes to append.
        tail: Bytes,
    }
    /// Overwrites a part of a value. Replies with the length of the value.
    4 SetRange {
        /// The key.
        key: Key,
        /// The place of the first byte.
        offset: u64,
        /// The bytes.
        part: Bytes,
    }
    /// Adds to an integer. Replies with the sum.
    5 IncrBy {
        /// The key.
        key: Key,
        /// The number to add.
        delta: i64,
    }
    /// Adds to a decimal number. Replies with the sum.
    6 IncrByFloat {
        /// The key.
        key: Key,
        /// The number to add, as decimal text.
        delta: Bytes,
    }
    /// Deletes a key. Replies with the value.
    7 GetDelete {
        /// The key.
        key: Key,
    }
    /// Changes the deadline of a key. Replies with the value.
    8 GetExpire {
        /// The key.
        key: Key,
        /// Whether the deadline is removed.
        persist: bool,
        /// The new deadline, if any.
        expiry: Expiry,
    }
    /// Sets keys.
    9 SetMany {
        /// The keys and stored values.
        pairs: Vec<(Key, Bytes)>,
    }
    /// Sets keys if none of them exists.
    10 SetManyIfNone {
        /// The keys and stored values.
        pairs: Vec<(Key, Bytes)>,
    }
    /// Changes the deadline of a key. Replies whether the deadline changed.
    11 Expire {
        /// The key.
        key: Key,
        /// The conditions.
        options: ExpireOptions,
        /// The deadline.
        expiry: Expiry,
    }
    /// Removes the deadline of a key. Replies whether there was one.
    12 Persist {
        /// The key.
        key: Key,
    }
    /// Renames a key.
    13 Rename {
        /// The present name.
        from: Key,
        /// The new name.
        to: Key,
        /// Whether the new name must be free.
        only_if_none: bool,
    }
    /// Copies a value with its deadline.
    14 Copy {
        /// The key of the value.
        from: Key,
        /// The key of the copy.
        to: Key,
        /// Whether an existing value is replaced.
        replace: bool,
    }
    /// Deletes every key of the user space.
    15 Flush {}
    /// Changes no key. The entry's timestamp moves the shard's time, so that expiry becomes
    /// visible.
    16 Tick {}
    /// Opens a session, see [`super::sessions`]. Replies with its id.
    17 SessionOpen {}
    /// Closes a session.
    18 SessionClose {
        /// The session.
        session: u64,
    }
    /// A write that takes effect once, as a numbered request of a session.
    19 Once {
        /// The session.
        session: u64,
        /// The number of the request.
        request: u64,
        /// The write, with stored keys: no `Once` and no write on sessions.
        write: Box<Write>,
    }
}

commands! {
    /// A command that changes nothing, and never enters the log. The numbers are part of the format
    /// on the wire and never change; they are from 128 on.
    Read:
    /// The value of a key.
    128 Get {
        /// The key.
        key: Key,
    }
    /// The values of keys.
    129 GetMany {
        /// The keys.
        keys: Keys,
    }
    /// The number of the keys that exist.
    130 Exists {
        /// The keys.
        keys: Keys,
    }
    /// The length of a value.
    131 Length {
        /// The key.
        key: Key,
    }
    /// A part of a value. Negative places count from the end.
    132 GetRange {
        /// The key.
        key: Key,
        /// The place of the first byte.
        start: i64,
        /// The place of the last byte.
        end: i64,
    }
    /// The time to live of a key.
    133 TimeToLive {
        /// The key.
        key: Key,
        /// The form of the reply.
        form: TimeForm,
    }
    /// The type of a key.
    134 Type {
        /// The key.
        key: Key,
    }
    /// The next keys of an iteration over all keys.
    135 Scan {
        /// The stored key where the iteration stopped; empty at its beginning.
        after: Bytes,
        /// The number of keys to examine.
        count: u64,
        /// The pattern of the keys to return.
        pattern: Bytes,
    }
    /// The keys that match a pattern.
    136 Keys {
        /// The pattern.
        pattern: Bytes,
    }
    /// Any key.
    137 RandomKey {
        /// A random number.
        seed: u64,
    }
    /// The number of keys.
    138 Size {}
    /// The keys and values of a range.
    139 Range {
        /// The start.
        start: Key,
        /// The end.
        end: Key,
        /// The number of keys at most.
        limit: u64,
        /// The meaning of start and end.
        bounds: RangeBounds,
    }
    /// The approximate memory of a key and its value in bytes.
    140 MemoryUsage {
        /// The key.
        key: Key,
    }
    /// The encoding that Redis would report for a value.
    141 Encoding {
        /// The key.
        key: Key,
    }
}

impl Write {
    /// The numbers of the writes that [`Write::Once`] accepts.
    const IN_ONCE: std::ops::RangeInclusive<u8> = 1..=16;

    /// The write, as request `request` of a session.
    ///
    /// # Panics
    /// If the write is a [`Write::Once`] or a write on sessions.
    pub fn once(self, session: u64, request: u64) -> Write {
        assert!(Write::IN_ONCE.contains(&self.operation()), "a session accepts writes of keys");
        Write::Once { session, request, write: Box::new(self) }
    }

    /// Whether the write is accepted while the disk is nearly full. Such a write frees space or
    /// needs very little.
    pub fn allowed_when_nearly_full(&self) -> bool {
        match self {
            Write::Delete { .. } | Write::GetDelete { .. } | Write::Flush {} => true,
            Write::Expire { .. } | Write::GetExpire { .. } | Write::Persist { .. } => true,
            Write::Tick {} | Write::SessionClose { .. } => true,
            Write::Once { write, .. } => write.allowed_when_nearly_full(),
            _ => false,
        }
    }
}

/// The write inside a [`Write::Once`]: its operation, then its arguments. Its keys are stored keys,
/// and its sizes were checked before it became part of the other write.
impl Argument for Box<Write> {
    fn count(&self) -> usize {
        1 + Write::count(self)
    }

    fn encoded_len(&self) -> usize {
        5 + self.arguments_len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(1);
        out.put_u8(self.operation());
        self.encode_arguments(out);
    }

    fn decode(from: &mut Arguments<'_>) -> Option<Self> {
        let [operation] = from.next_array()?;
        // Another `Once` is refused before it is decoded, which bounds the depth.
        let accepted = Write::IN_ONCE.contains(&operation);
        accepted.then(|| Write::decode(operation, from).map(Box::new))?
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A command that may change keys.
    Write(Write),
    /// A command that changes nothing.
    Read(Read),
}

impl Command {
    /// Whether the command is a read.
    pub fn is_read(&self) -> bool {
        matches!(self, Command::Read(_))
    }

    /// The length of the encoded command in bytes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Command::Write(write) => write.encoded_len(),
            Command::Read(read) => read.encoded_len(),
        }
    }

    /// Appends the encoded command.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Command::Write(write) => write.encode(out),
            Command::Read(read) => read.encode(out),
        }
    }

    /// Removes one command from the front of `from`. Keys and values share the memory of `from`.
    ///
    /// # Errors
    /// [`Undecodable::Unknown`] after a command whose operation or arguments this build does not
    /// know: `from` continues behind it. [`Undecodable::Malformed`].
    pub fn decode(from: &mut Bytes) -> Result<Command, Undecodable> {
        let operation = from.try_get_u8().map_err(|_| Undecodable::Malformed)?;
        let mut arguments = Arguments::begin(from).ok_or(Undecodable::Malformed)?;
        let command = match operation {
            FIRST_READ.. => Read::decode(operation, &mut arguments).map(Command::Read),
            _ => Write::decode(operation, &mut arguments).map(Command::Write),
        };
        let command = command.filter(|_| arguments.is_empty());
        arguments.finish().ok_or(Undecodable::Malformed)?;
        command.ok_or(Undecodable::Unknown(operation))
    }

    /// Replaces each key of a user by its stored key.
    pub fn store_keys(&mut self) {
        match self {
            Command::Write(write) => write.store_keys(),
            Command::Read(read) => read.store_keys(),
        }
    }

    /// The length of the longest key of a user in bytes. The write inside a [`Write::Once`] does
    /// not count.
    pub fn longest_key(&self) -> usize {
        match self {
            Command::Write(write) => write.longest_key(),
            Command::Read(read) => read.longest_key(),
        }
    }

    /// The length of the longest value or pattern in bytes. The write inside a [`Write::Once`] does
    /// not count.
    pub fn longest_value(&self) -> usize {
        match self {
            Command::Write(write) => write.longest_value(),
            Command::Read(read) => read.longest_value(),
        }
    }
}

/// Encodes writes as the data of a log entry.
pub fn encode_batch<'a>(
    version: u16,
    ts: u64,
    writes: impl IntoIterator<Item = &'a Write>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(1024);
    out.put_u16_le(version);
    out.put_u64_le(ts);
    for write in writes {
        out.reserve(write.encoded_len());
        write.encode(&mut out);
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
    /// The writes.
    pub writes: Vec<Write>,
}

/// Decodes the data of a log entry whose version this build applies; `None` when it is malformed.
pub fn decode_batch(mut data: Bytes) -> Option<Batch> {
    let version = data.try_get_u16_le().ok()?;
    let ts = data.try_get_u64_le().ok()?;
    let mut writes = Vec::new();
    while !data.is_empty() {
        match Command::decode(&mut data).ok()? {
            Command::Write(write) => writes.push(write),
            Command::Read(_) => return None,
        }
    }
    Some(Batch { version, ts, writes })
}

#[cfg(test)]
mod tests {
    use super::super::options::{DeadlineOrder, OnlyIf, SetReply};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn encoded(operation: u8, arguments: &[Vec<u8>]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(operation);
        out.put_u32_le(arguments.len() as u32);
        for argument in arguments {
            out.put_u32_le(argument.len() as u32);
            out.put_slice(argument);
        }
        out.freeze()
    }

    fn decode(bytes: &Bytes) -> Result<Command, Undecodable> {
        let mut from = bytes.clone();
        let command = Command::decode(&mut from);
        assert!(from.is_empty() || command == Err(Undecodable::Malformed));
        command
    }

    fn key() -> Key {
        Key(Bytes::from_static(b"key"))
    }

    #[test]
    fn commands_round_trip() {
        let keys = || Keys::from_iter([key(), key()]);
        let stored = Bytes::from_static(b"\0value");
        let options =
            SetOptions { only_if: OnlyIf::Present, reply: SetReply::OldValue, keep_deadline: true };
        let expire = ExpireOptions { only_if: OnlyIf::Present, order: DeadlineOrder::Earlier };
        let set = Write::Set { key: key(), stored: stored.clone(), options, expiry: Expiry::None };
        let writes = [
            set.clone(),
            set.once(7, 8),
            Write::Delete { keys: keys() },
            Write::SetMany { pairs: vec![(key(), stored.clone()), (key(), stored)] },
            Write::Expire { key: key(), options: expire, expiry: Expiry::In(1) },
            Write::GetExpire { key: key(), persist: true, expiry: Expiry::At(2) },
            Write::Flush {},
        ];
        let reads = [
            Read::GetRange { key: key(), start: -1, end: 5 },
            Read::Exists { keys: keys() },
            Read::Size {},
        ];
        let writes = writes.into_iter().map(Command::Write);
        for command in writes.chain(reads.into_iter().map(Command::Read)) {
            let mut out = BytesMut::new();
            command.encode(&mut out);
            assert_eq!(out.len(), command.encoded_len(), "{command:?}");
            assert_eq!(decode(&out.freeze()), Ok(command));
        }
    }

    #[test]
    fn a_write_inside_a_write_is_a_plain_one() {
        let number = |number: u64| number.to_le_bytes().to_vec();
        let once = |inner: u8, rest: &[Vec<u8>]| {
            let head = [number(1), number(2), vec![inner]];
            decode(&encoded(19, &[&head, rest].concat()))
        };
        assert!(once(2, &[b"key".to_vec()]).is_ok());
        for refused in [17, 18, 19, 128] {
            assert_eq!(once(refused, &[number(1)]), Err(Undecodable::Unknown(19)), "{refused}");
        }
    }

    #[test]
    fn the_command_after_an_unknown_one_is_found() {
        let unknown_operation = encoded(99, &[vec![1; 3], vec![]]);
        let unknown_flag = encoded(11, &[b"key".to_vec(), vec![64], vec![0; 9]]);
        let one_argument_more = encoded(7, &[b"key".to_vec(), vec![]]);
        let size = encoded(138, &[]);
        for (operation, unknown) in
            [(99, unknown_operation), (11, unknown_flag), (7, one_argument_more)]
        {
            let mut from = Bytes::from([&unknown[..], &size[..]].concat());
            assert_eq!(Command::decode(&mut from), Err(Undecodable::Unknown(operation)));
            assert_eq!(Command::decode(&mut from), Ok(Command::Read(Read::Size {})));
        }
    }

    #[test]
    fn a_command_that_ends_early_is_malformed() {
        let bytes = encoded(2, &[b"key".to_vec(), b"other".to_vec()]);
        for len in 0..bytes.len() {
            assert_eq!(
                Command::decode(&mut bytes.slice(..len)),
                Err(Undecodable::Malformed),
                "{len}"
            );
        }
    }

    #[test]
    fn the_log_has_no_reads() {
        let entry = |command: &[u8]| Bytes::from([&[1, 0][..], &[0; 8], command].concat());
        assert!(decode_batch(entry(&encoded(15, &[]))).is_some());
        assert_eq!(decode_batch(entry(&encoded(138, &[]))), None);
    }

    fn argument() -> impl Strategy<Value = Vec<u8>> {
        let code = (0..70u8).prop_map(|code| vec![code]);
        let expiry = (0..4u8, any::<u64>())
            .prop_map(|(mode, millis)| [&[mode][..], &millis.to_le_bytes()].concat());
        prop_oneof![code, vec(any::<u8>(), 8), expiry, vec(any::<u8>(), 0..4)]
    }

    proptest! {
        /// Bytes that decode are the only encoding of the decoded command.
        #[test]
        fn a_command_has_one_encoding(
            operation in prop_oneof![0..21u8, 127..143u8],
            arguments in vec(argument(), 0..6),
        ) {
            let bytes = encoded(operation, &arguments);
            if let Ok(command) = decode(&bytes) {
                let mut out = BytesMut::new();
                command.encode(&mut out);
                prop_assert_eq!(out.freeze(), bytes);
            }
        }
    }
}
