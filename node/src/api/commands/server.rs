//! Commands on the server: its commands, settings, figures and clocks.

use super::decode::{Args, Outcome, answer, unknown_subcommand};
use super::spec::{CommandSpec, Flag, Keys, all, find, spec};
use crate::api::client::Client;
use crate::shard::read::glob;
use crate::shard::reply::Reply;
use bytes::Bytes;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[
    spec("command", -1, Flag::Read, Keys::NONE, command),
    spec("config", -2, Flag::Admin, Keys::NONE, config),
    spec("function", -2, Flag::Admin, Keys::NONE, flush_nothing),
    spec("info", -1, Flag::Read, Keys::NONE, |client, args| answer(Reply::text(client.shared.info(&args[1..])))),
    spec("lastsave", 1, Flag::Fast, Keys::NONE, |_, _| answer(Reply::Int((crate::clock::unix_millis() / 1000) as i64))),
    spec("latency", -2, Flag::Admin, Keys::NONE, |_, _| answer(Reply::Array(vec![]))),
    spec("module", -2, Flag::Admin, Keys::NONE, module),
    spec("role", 1, Flag::Fast, Keys::NONE, role),
    spec("script", -2, Flag::Admin, Keys::NONE, flush_nothing),
    spec("slowlog", -2, Flag::Admin, Keys::NONE, slowlog),
    spec("time", 1, Flag::Fast, Keys::NONE, time),
    spec("wait", 3, Flag::Fast, Keys::NONE, wait),
];

/// FUNCTION FLUSH and SCRIPT FLUSH: there are none.
fn flush_nothing(_: &mut Client, args: &Args) -> Outcome {
    match args.subcommand().as_str() {
        "FLUSH" => answer(Reply::OK),
        _ => unknown_subcommand(args),
    }
}

fn module(_: &mut Client, args: &Args) -> Outcome {
    match args.subcommand().as_str() {
        "LIST" => answer(Reply::Array(vec![])),
        _ => unknown_subcommand(args),
    }
}

fn role(_: &mut Client, _: &Args) -> Outcome {
    answer(Reply::Array(vec![Reply::text("master"), Reply::Int(0), Reply::Array(vec![])]))
}

fn slowlog(_: &mut Client, args: &Args) -> Outcome {
    answer(match args.subcommand().as_str() {
        "LEN" => Reply::Int(0),
        "RESET" => Reply::OK,
        _ => Reply::Array(vec![]),
    })
}

fn time(_: &mut Client, _: &Args) -> Outcome {
    let millis = crate::clock::unix_millis();
    let parts = [(millis / 1000).to_string(), (millis % 1000 * 1000).to_string()];
    answer(Reply::Array(parts.map(Reply::text).into()))
}

/// A write is answered once it is durable on a majority, so WAIT has nothing to wait for.
fn wait(client: &mut Client, _: &Args) -> Outcome {
    answer(Reply::Int(client.shared.nodes.len() as i64 - 1))
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

fn config(_: &mut Client, args: &Args) -> Outcome {
    const SETTINGS: [(&str, &str); 6] = [
        ("save", ""),
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("databases", "1"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
    ];
    match args.subcommand().as_str() {
        "GET" if args.len() > 2 => {
            let wanted = |name: &str| {
                args[2..].iter().any(|pattern| glob(&pattern.to_ascii_lowercase(), name.as_bytes()))
            };
            let found = SETTINGS.into_iter().filter(|(name, _)| wanted(name));
            answer(Reply::Map(found.map(|(k, v)| (Reply::text(k), Reply::text(v))).collect()))
        }
        "RESETSTAT" => answer(Reply::OK),
        "SET" => Err(Reply::err("CONFIG SET is not offered: edit the config file and restart")),
        _ => unknown_subcommand(args),
    }
}
