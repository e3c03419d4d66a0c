//! The form of a command's specification: name, arity, flag, keys and decoder in one place.

use super::decode::{Args, Outcome};
use crate::api::client::Client;

/// The specification of a command.
#[derive(Debug)]
pub struct CommandSpec {
    /// The name in lower case.
    pub name: &'static str,
    /// The number of arguments, the name included. A negative number is the negated minimum.
    pub arity: i64,
    /// The kind of the command.
    pub flag: Flag,
    /// The places of the keys among the arguments.
    pub keys: Keys,
    /// Decodes the arguments.
    pub decode: fn(&mut Client, &Args) -> Outcome,
}

/// The kind of a command, as COMMAND shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Writes data.
    Write,
    /// Reads data.
    Read,
    /// Concerns the server.
    Admin,
    /// Needs no shard: the node replies at once.
    Fast,
}

impl Flag {
    /// The flag's name in RESP.
    pub fn name(self) -> &'static str {
        match self {
            Flag::Write => "write",
            Flag::Read => "readonly",
            Flag::Admin => "admin",
            Flag::Fast => "fast",
        }
    }
}

/// The places of keys among the arguments: each `step`-th argument from `first` to `last`. A
/// negative `last` counts from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The place of the first key; 0 if the command has no key.
    pub first: i64,
    /// The place of the last key.
    pub last: i64,
    /// The distance from one key to the next key.
    pub step: i64,
}

impl Keys {
    /// No keys.
    pub const NONE: Keys = Keys::new(0, 0, 0);
    /// One key, the first argument.
    pub const FIRST: Keys = Keys::new(1, 1, 1);
    /// Every argument is a key.
    pub const ALL: Keys = Keys::new(1, -1, 1);

    /// Keys at these places.
    pub const fn new(first: i64, last: i64, step: i64) -> Keys {
        Keys { first, last, step }
    }

    /// The places of the keys of a request with `count` arguments, the name included.
    pub fn places(self, count: usize) -> impl Iterator<Item = usize> {
        let last = if self.last < 0 { count as i64 + self.last } else { self.last };
        let there = self.first > 0 && count as i64 > self.first;
        let places = there.then(|| (self.first..=last).step_by(self.step as usize));
        places.into_iter().flatten().map(|place| place as usize)
    }
}

pub(super) const fn spec(
    name: &'static str,
    arity: i64,
    flag: Flag,
    keys: Keys,
    decode: fn(&mut Client, &Args) -> Outcome,
) -> CommandSpec {
    CommandSpec { name, arity, flag, keys, decode }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_among_the_arguments() {
        let places = |keys: Keys, count| keys.places(count).collect::<Vec<_>>();
        assert_eq!(places(Keys::FIRST, 2), [1]);
        assert_eq!(places(Keys::ALL, 4), [1, 2, 3]);
        assert_eq!(places(Keys::new(1, -1, 2), 5), [1, 3]);
        assert!(places(Keys::NONE, 2).is_empty() && places(Keys::new(2, 2, 1), 2).is_empty());
    }
}
