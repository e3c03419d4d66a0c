//! One specification per command: the only place that names a command, its arity, flag, keys and
//! decoder. The families list theirs; COMMAND and `docs/COMMANDS.md` follow from them.

use super::decode::{Args, Outcome};
use super::{cluster, connection, keys, kv, scan, server, string};
use crate::api::client::Client;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The specification of a command.
#[derive(Debug)]
pub struct CommandSpec {
    /// The name in lower case.
    pub name: &'static str,
    /// Arguments with the name; a negative number is a minimum.
    pub arity: i64,
    /// The kind of the command.
    pub flag: Flag,
    /// The places of its keys.
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
    /// Is answered from the connection alone.
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

/// The places of keys among the arguments: from `first` to `last` (counted from the end when
/// negative), each `step`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first key; 0 for none.
    pub first: i64,
    /// The last key.
    pub last: i64,
    /// From one key to the next.
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

const FAMILIES: [&[CommandSpec]; 7] = [
    connection::SPECS,
    server::SPECS,
    string::SPECS,
    keys::SPECS,
    scan::SPECS,
    kv::SPECS,
    cluster::SPECS,
];

static BY_NAME: LazyLock<HashMap<&'static str, &'static CommandSpec>> =
    LazyLock::new(|| all().map(|spec| (spec.name, spec)).collect());

/// Every command.
pub fn all() -> impl Iterator<Item = &'static CommandSpec> {
    FAMILIES.into_iter().flatten()
}

/// The command of a name in lower case.
pub fn find(name: &str) -> Option<&'static CommandSpec> {
    BY_NAME.get(name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_specified_once() {
        assert_eq!(BY_NAME.len(), all().count());
        for spec in all() {
            assert_eq!(spec.name, spec.name.to_ascii_lowercase());
            assert!(spec.arity != 0 && spec.keys.first <= spec.arity.abs(), "{}", spec.name);
        }
    }

    /// A command that is offered is documented, and the other way round.
    #[test]
    fn the_document_names_every_command() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/COMMANDS.md");
        let text = std::fs::read_to_string(path).expect("the document is there");
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let words: Vec<&str> = text.split(|c| !is_part(c)).map(|w| w.trim_matches('.')).collect();
        for spec in all() {
            let name = spec.name.to_ascii_uppercase();
            assert!(words.contains(&name.as_str()), "docs/COMMANDS.md does not name {name}");
        }
    }

    #[test]
    fn keys_are_found_among_the_arguments() {
        let places = |keys: Keys, count| keys.places(count).collect::<Vec<_>>();
        assert_eq!(places(Keys::FIRST, 2), [1]);
        assert_eq!(places(Keys::ALL, 4), [1, 2, 3]);
        assert_eq!(places(Keys::new(1, -1, 2), 5), [1, 3]);
        assert!(places(Keys::NONE, 2).is_empty() && places(Keys::new(2, 2, 1), 2).is_empty());
    }
}
