//! The table of all commands, and COMMAND, which shows it.

use super::decode::{Args, Outcome, answer, unknown_subcommand};
use super::spec::{CommandSpec, Flag, Keys, spec};
use super::{cluster, connection, keys, kv, scan, server, string};
use crate::api::client::Client;
use crate::machine::reply::Reply;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::LazyLock;

const SPECS: &[CommandSpec] = &[spec("command", -1, Flag::Read, Keys::NONE, command)];

const FAMILIES: [&[CommandSpec]; 8] = [
    SPECS,
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

/// The command with this name, which is in lower case.
pub fn find(name: &str) -> Option<&'static CommandSpec> {
    BY_NAME.get(name).copied()
}

fn describe(spec: &CommandSpec) -> Reply {
    let Keys { first, last, step } = spec.keys;
    let flags = Reply::Array(vec![Reply::Simple(spec.flag.name())]);
    let mut fields = vec![Reply::text(spec.name), Reply::Int(spec.arity), flags];
    fields.extend([first, last, step].map(Reply::Int));
    // ACL categories, tips, key specifications, subcommands.
    fields.extend((0..4).map(|_| Reply::Array(vec![])));
    Reply::Array(fields)
}

/// `COMMAND [COUNT|LIST|INFO [name …]|DOCS|GETKEYS command …]`
fn command(_: &mut Client, args: &Args) -> Outcome {
    let find = |name: &Bytes| find(&String::from_utf8_lossy(name).to_ascii_lowercase());
    let sub = args.subcommand();
    match sub.as_str() {
        "" => answer(Reply::Array(all().map(describe).collect())),
        "COUNT" => answer(Reply::Int(all().count() as i64)),
        "LIST" => answer(Reply::Array(all().map(|spec| Reply::text(spec.name)).collect())),
        "INFO" if args.len() == 2 => answer(Reply::Array(all().map(describe).collect())),
        "INFO" => {
            let specs = args[2..].iter().map(find);
            answer(Reply::Array(specs.map(|spec| spec.map_or(Reply::Nil, describe)).collect()))
        }
        "DOCS" => answer(Reply::Map(vec![])),
        "GETKEYS" if args.len() > 2 => {
            let Some(spec) = find(&args[2]) else {
                return Err(Reply::err("Invalid command specified"));
            };
            let places: Vec<usize> = spec.keys.places(args.len() - 2).collect();
            if places.is_empty() {
                return Err(Reply::err("The command has no key arguments"));
            }
            let keys = places.into_iter().map(|at| Reply::Bulk(args[2 + at].clone()));
            answer(Reply::Array(keys.collect()))
        }
        _ => unknown_subcommand(args),
    }
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

    /// Every command that the node offers is documented.
    #[test]
    fn the_document_names_every_command() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/COMMANDS.md");
        let text = std::fs::read_to_string(path).expect("docs/COMMANDS.md can be read");
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let words: Vec<&str> = text.split(|c| !is_part(c)).map(|w| w.trim_matches('.')).collect();
        for spec in all() {
            let name = spec.name.to_ascii_uppercase();
            assert!(words.contains(&name.as_str()), "docs/COMMANDS.md does not name {name}");
        }
    }
}
