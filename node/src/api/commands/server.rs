//! Commands on the server: its commands, settings, statistics and clock.

use super::decode::{Args, Outcome, answer, int, unknown_subcommand};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::glob::Glob;
use crate::machine::reply::Reply;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[
    spec("config", -2, Flag::Admin, Keys::NONE, config),
    spec("function", -2, Flag::Admin, Keys::NONE, flush_nothing),
    spec("info", -1, Flag::Read, Keys::NONE, |client, args| {
        answer(Reply::text(client.shared.info(&args[1..])))
    }),
    spec("lastsave", 1, Flag::Fast, Keys::NONE, |_, _| {
        answer(Reply::Int((crate::clock::unix_millis() / 1000) as i64))
    }),
    spec("latency", -2, Flag::Admin, Keys::NONE, |_, _| answer(Reply::Array(vec![]))),
    spec("module", -2, Flag::Admin, Keys::NONE, module),
    spec("role", 1, Flag::Fast, Keys::NONE, role),
    spec("script", -2, Flag::Admin, Keys::NONE, flush_nothing),
    spec("slowlog", -2, Flag::Admin, Keys::NONE, slowlog),
    spec("time", 1, Flag::Fast, Keys::NONE, time),
    spec("wait", 3, Flag::Fast, Keys::NONE, wait),
];

/// FUNCTION FLUSH and SCRIPT FLUSH have no effect: Bedstone has no functions and no scripts.
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

/// WAIT returns at once, because a write is answered only after it is durable on a majority.
fn wait(client: &mut Client, args: &Args) -> Outcome {
    int(&args[1])?;
    if int(&args[2])? < 0 {
        return Err(Reply::err("timeout is negative"));
    }
    answer(Reply::Int(client.shared.nodes.len() as i64 - 1))
}

fn config(_: &mut Client, args: &Args) -> Outcome {
    const PATTERN_STEPS_MAX: u64 = 10_000;
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
                args[2..].iter().any(|pattern| {
                    let pattern = Glob::new(&pattern.to_ascii_lowercase());
                    pattern.matches(name.as_bytes(), &mut PATTERN_STEPS_MAX.clone()) == Some(true)
                })
            };
            let found = SETTINGS.into_iter().filter(|(name, _)| wanted(name));
            answer(Reply::Map(found.map(|(k, v)| (Reply::text(k), Reply::text(v))).collect()))
        }
        "RESETSTAT" => answer(Reply::OK),
        "SET" => Err(Reply::err("CONFIG SET is not offered: edit the config file and restart")),
        _ => unknown_subcommand(args),
    }
}
