//! The arguments of a request, and the functions that the commands of all families use to decode
//! arguments.

use crate::machine::apply::parse_int;
use crate::machine::argument::Key;
use crate::machine::command::{Command, Keys, Read, Write};
use crate::machine::options::Expiry;
use crate::machine::reply::Reply;
use crate::machine::value::Stored;
use crate::policy::Consistency;
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Deref;

/// The consequence of a request.
#[derive(Debug)]
pub enum Action {
    /// Send this reply.
    Reply(Reply),
    /// Submit this command to its shard.
    Shard {
        /// The command.
        command: Command,
        /// The consistency, if the command is a read.
        consistency: Consistency,
    },
    /// Send this reply and close the connection.
    Close(Reply),
}

/// A request as its command's decoder reads it.
#[derive(Debug)]
pub enum Decoded {
    /// The consequence is known.
    Action(Action),
    /// Another request, which takes effect once as a numbered request of a session.
    Once {
        /// The session.
        session: u64,
        /// The number of the request in the session.
        request: u64,
        /// The arguments of the other request.
        inner: Vec<Bytes>,
    },
}

/// A decoded request, or the error that refuses it.
pub type Outcome = Result<Decoded, Reply>;

/// The arguments of a request. The command's name is argument 0.
pub struct Args {
    name: String,
    all: Vec<Bytes>,
}

impl Args {
    /// The arguments of a request with at least one argument.
    pub fn new(name: String, all: Vec<Bytes>) -> Args {
        Args { name, all }
    }

    /// The command's name in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first argument after the name: the key, for commands with one key.
    pub fn key(&self) -> Key {
        self.key_at(1)
    }

    /// The argument at a place, as a key.
    pub fn key_at(&self, place: usize) -> Key {
        Key(self.all[place].clone())
    }

    /// All arguments after the name, as keys.
    pub fn keys(&self) -> Keys {
        self.all[1..].iter().cloned().map(Key).collect()
    }

    /// The first argument after the name in upper case; empty when there is none.
    pub fn subcommand(&self) -> String {
        self.get(1).map(word).unwrap_or_default()
    }
}

impl Deref for Args {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        &self.all
    }
}

/// Replies at once.
pub fn answer(reply: Reply) -> Outcome {
    Ok(Decoded::Action(Action::Reply(reply)))
}

/// Submits a write to its shard.
pub fn write(write: Write) -> Outcome {
    let (command, consistency) = (Command::Write(write), Consistency::Strong);
    Ok(Decoded::Action(Action::Shard { command, consistency }))
}

/// Submits a read to its shard.
pub fn read(read: Read) -> Outcome {
    read_with(read, Consistency::Strong)
}

/// Submits a read of a consistency to its shard.
pub fn read_with(read: Read, consistency: Consistency) -> Outcome {
    let command = Command::Read(read);
    Ok(Decoded::Action(Action::Shard { command, consistency }))
}

/// Refuses a request with too few or too many arguments.
pub fn wrong_arity(name: &str) -> Reply {
    Reply::err(format!("wrong number of arguments for '{name}' command"))
}

/// Refuses a request whose options are unknown or contradict each other.
pub fn syntax() -> Reply {
    Reply::err("syntax error")
}

/// Refuses a subcommand that is not offered.
pub fn unknown_subcommand(args: &Args) -> Outcome {
    let sub: String = args.subcommand().chars().take(64).collect();
    Err(Reply::err(format!("unknown subcommand '{sub}' of '{}'", args.name())))
}

/// The stored form of a value without a deadline.
pub fn stored(value: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(value.len() + 1);
    out.put_u8(Stored::PLAIN);
    out.put_slice(value);
    out.freeze()
}

/// An integer argument.
pub fn int(arg: &Bytes) -> Result<i64, Reply> {
    parse_int(arg).ok_or_else(|| Reply::err("value is not an integer or out of range"))
}

/// An argument in upper case, for comparison with options.
pub fn word(arg: &Bytes) -> String {
    String::from_utf8_lossy(arg).to_ascii_uppercase()
}

/// An expiry argument in units of `unit` milliseconds, as milliseconds; at least 1. The argument
/// counts from `base`, in milliseconds since 1970, and the sum is a time that fits 63 bits.
fn millis(name: &str, arg: &Bytes, unit: i64, base: u64) -> Result<u64, Reply> {
    let given = int(arg)?;
    let latest = i64::MAX - base as i64;
    let millis = given.checked_mul(unit).filter(|&millis| given > 0 && millis <= latest);
    millis
        .map(|millis| millis as u64)
        .ok_or_else(|| Reply::err(format!("invalid expire time in '{name}' command")))
}

/// EX, PX, EXAT or PXAT with its argument.
pub fn expiry_option(name: &str, option: &str, arg: Option<&Bytes>) -> Result<Expiry, Reply> {
    let arg = arg.ok_or_else(syntax)?;
    let now = crate::clock::unix_millis();
    Ok(match option {
        "EX" => Expiry::In(millis(name, arg, 1000, now)?),
        "PX" => Expiry::In(millis(name, arg, 1, now)?),
        "EXAT" => Expiry::At(millis(name, arg, 1000, 0)?),
        "PXAT" => Expiry::At(millis(name, arg, 1, 0)?),
        _ => return Err(syntax()),
    })
}
