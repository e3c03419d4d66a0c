//! Commands on the connection itself.

use super::decode::{Action, Args, Decoded, Outcome, answer, syntax, unknown_subcommand, word};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::reply::Reply;
use crate::policy::Consistency;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[
    spec("auth", -2, Flag::Fast, Keys::NONE, auth),
    spec("client", -2, Flag::Admin, Keys::NONE, client),
    spec("echo", 2, Flag::Fast, Keys::NONE, |_, args| answer(Reply::Bulk(args[1].clone()))),
    spec("hello", -1, Flag::Fast, Keys::NONE, hello),
    spec("ping", -1, Flag::Fast, Keys::NONE, ping),
    spec("quit", -1, Flag::Fast, Keys::NONE, |_, _| Ok(Decoded::Action(Action::Close(Reply::OK)))),
    spec("readonly", 1, Flag::Fast, Keys::NONE, |client, _| {
        set_consistency(client, Consistency::Weak)
    }),
    spec("readwrite", 1, Flag::Fast, Keys::NONE, |client, _| {
        set_consistency(client, Consistency::Strong)
    }),
    spec("reset", 1, Flag::Fast, Keys::NONE, reset),
    spec("select", 2, Flag::Fast, Keys::NONE, select),
];

fn auth(_: &mut Client, _: &Args) -> Outcome {
    Err(Reply::err(
        "AUTH called without any password configured for the default user. Are you sure your \
         configuration is correct?",
    ))
}

fn ping(_: &mut Client, args: &Args) -> Outcome {
    answer(args.get(1).map_or(Reply::Simple("PONG"), |text| Reply::Bulk(text.clone())))
}

fn select(_: &mut Client, args: &Args) -> Outcome {
    match &args[1][..] {
        b"0" => answer(Reply::OK),
        _ => Err(Reply::err("DB index is out of range")),
    }
}

fn reset(client: &mut Client, _: &Args) -> Outcome {
    client.reset();
    answer(Reply::Simple("RESET"))
}

fn set_consistency(client: &mut Client, consistency: Consistency) -> Outcome {
    client.consistency = consistency;
    answer(Reply::OK)
}

fn hello(client: &mut Client, args: &Args) -> Outcome {
    let mut resp3 = client.resp3;
    if let Some(version) = args.get(1) {
        resp3 = match &version[..] {
            b"2" => false,
            b"3" => true,
            _ => return Err(Reply::Error("NOPROTO unsupported protocol version".into())),
        };
    }
    let mut rest = args.iter().skip(2);
    while let Some(option) = rest.next() {
        match word(option).as_str() {
            "SETNAME" => client.name = rest.next().cloned().ok_or_else(syntax)?,
            "AUTH" => {
                return Err(Reply::err("HELLO AUTH: no users are configured; omit AUTH"));
            }
            _ => return Err(Reply::err("Syntax error in HELLO option")),
        }
    }
    client.resp3 = resp3;
    let pairs = [
        ("server", Reply::text("redis")),
        ("version", Reply::text(crate::REDIS_VERSION)),
        ("proto", Reply::Int(if resp3 { 3 } else { 2 })),
        ("id", Reply::Int(client.id as i64)),
        ("mode", Reply::text("standalone")),
        ("role", Reply::text("master")),
        ("modules", Reply::Array(vec![])),
    ];
    answer(Reply::Map(pairs.map(|(key, value)| (Reply::text(key), value)).into()))
}

fn client(client: &mut Client, args: &Args) -> Outcome {
    answer(match args.subcommand().as_str() {
        "SETNAME" if args.len() == 3 => {
            client.name = args[2].clone();
            Reply::OK
        }
        "GETNAME" if client.name.is_empty() => Reply::Nil,
        "GETNAME" => Reply::Bulk(client.name.clone()),
        "ID" => Reply::Int(client.id as i64),
        "INFO" | "LIST" => Reply::text(format!(
            "id={} name={} resp={} db=0\n",
            client.id,
            String::from_utf8_lossy(&client.name),
            if client.resp3 { 3 } else { 2 },
        )),
        "SETINFO" | "NO-EVICT" | "NO-TOUCH" => Reply::OK,
        _ => return unknown_subcommand(args),
    })
}
