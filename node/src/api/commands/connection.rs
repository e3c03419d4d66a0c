//! Commands on the connection itself.

use super::decode::{
    Action, Args, Decoded, Outcome, answer, int, syntax, unknown_subcommand, word, wrong_arity,
};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::api::refusal::Refusal;
use crate::machine::reply::Reply;
use crate::policy::Consistency;
use bytes::Bytes;

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
    if args.len() > 2 {
        return Err(wrong_arity(args.name()));
    }
    answer(args.get(1).map_or(Reply::Simple("PONG"), |text| Reply::Bulk(text.clone())))
}

fn select(client: &mut Client, args: &Args) -> Outcome {
    // Until the client selects database 0, it means other data than this server has.
    client.refusal = Refusal::Database;
    if int(&args[1])? != 0 {
        return Err(Reply::err("DB index is out of range"));
    }
    client.refusal = Refusal::None;
    answer(Reply::OK)
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
    let mut name = None;
    let mut rest = args.iter().skip(2);
    while let Some(option) = rest.next() {
        match word(option).as_str() {
            "SETNAME" => name = Some(checked_name(rest.next().ok_or_else(syntax)?)?),
            "AUTH" => {
                return Err(Reply::err("HELLO AUTH: no users are configured; omit AUTH"));
            }
            _ => return Err(Reply::err("Syntax error in HELLO option")),
        }
    }
    client.resp3 = resp3;
    if let Some(name) = name {
        client.name = name;
    }
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

/// A name of a connection or a library. Spaces and line ends would forge lines of CLIENT LIST.
fn checked_name(name: &Bytes) -> Result<Bytes, Reply> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(name.clone());
    }
    let text = "Client names cannot contain spaces, newlines or special characters.";
    Err(Reply::err(text))
}

fn client(client: &mut Client, args: &Args) -> Outcome {
    answer(match args.subcommand().as_str() {
        "SETNAME" if args.len() == 3 => {
            client.name = checked_name(&args[2])?;
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
        "SETINFO" if args.len() == 4 => match word(&args[2]).as_str() {
            "LIB-NAME" | "LIB-VER" => {
                checked_name(&args[3])?;
                Reply::OK
            }
            _ => return Err(Reply::err("Unrecognized option: use LIB-NAME or LIB-VER")),
        },
        "NO-EVICT" | "NO-TOUCH" if args.len() == 3 => match word(&args[2]).as_str() {
            "ON" | "OFF" => Reply::OK,
            _ => return Err(syntax()),
        },
        _ => return unknown_subcommand(args),
    })
}
