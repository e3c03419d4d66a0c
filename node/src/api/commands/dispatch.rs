//! The decoding of a request: its command's specification, its arguments, and their sizes.

use super::decode::{Action, Args, Decoded, wrong_arity};
use super::table;
use crate::api::client::Client;
use crate::api::refusal;
use crate::limits::COMMAND_BYTES_MAX;
use crate::machine::command::Command;
use crate::machine::reply::Reply;
use crate::machine::value::USER_VALUE_BYTES_MAX;
use crate::policy::Consistency;
use bedstone_engine::limits::USER_KEY_BYTES_MAX;
use bytes::Bytes;
use std::sync::atomic::Ordering;
use tracing::warn;

/// Redis commands that Bedstone does not offer and that users may expect. The texts name an
/// alternative where there is one.
const ABSENT: &[(&str, &str)] = &[
    ("watch", "transactions are not offered; use SET with NX, XX or GET"),
    ("unwatch", "transactions are not offered"),
    ("eval", "scripts are not offered"),
    ("evalsha", "scripts are not offered"),
    ("subscribe", "publish and subscribe are not offered"),
    ("publish", "publish and subscribe are not offered"),
];

/// Decodes a request; a refused request gives the error as its reply.
pub fn decide(client: &mut Client, args: Vec<Bytes>) -> Action {
    let Some(name) = args.first() else { return Action::Reply(Reply::OK) };
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    if name == "post" || name == "host:" {
        return refuse_http(client);
    }
    match refusal::decide(&mut client.refusal, &name) {
        Ok(Some(action)) => action,
        Ok(None) => decode(client, name, args).unwrap_or_else(Action::Reply),
        Err(refused) => Action::Reply(refused),
    }
}

/// Closes a connection that sends HTTP. A page in a browser can send a request with a body to this
/// port, and the lines of the body may be commands.
fn refuse_http(client: &Client) -> Action {
    if !client.shared.counters.http.swap(true, Ordering::Relaxed) {
        warn!(
            "a client sent HTTP to the RESP port and was disconnected, perhaps a browser that a \
             foreign page uses; later ones are not logged"
        );
    }
    Action::Close(Reply::err("this port speaks RESP, not HTTP: the connection is closed"))
}

fn decode(client: &mut Client, name: String, args: Vec<Bytes>) -> Result<Action, Reply> {
    let spec = table::find(&name).ok_or_else(|| unknown(&name, &args))?;
    let count = args.len() as i64;
    if (spec.arity >= 0 && count != spec.arity) || count < -spec.arity {
        return Err(wrong_arity(&name));
    }
    let action = match (spec.decode)(client, &Args::new(name, args))? {
        Decoded::Action(action) => action,
        Decoded::Once { session, request, inner } => {
            let name = inner.first().map_or("", |name| str::from_utf8(name).unwrap_or("?"));
            return once(session, request, decode(client, name.to_ascii_lowercase(), inner)?);
        }
    };
    let Action::Shard { mut command, consistency } = action else { return Ok(action) };
    check(&command)?;
    command.store_keys();
    let is_weak = command.is_read() && client.consistency == Consistency::Weak;
    let consistency = if is_weak { Consistency::Weak } else { consistency };
    Ok(Action::Shard { command, consistency })
}

/// A write as a numbered request of a session.
fn once(session: u64, request: u64, inner: Action) -> Result<Action, Reply> {
    match inner {
        Action::Shard { command: Command::Write(write), .. } => {
            let command = Command::Write(write.once(session, request));
            check(&command)?;
            Ok(Action::Shard { command, consistency: Consistency::Strong })
        }
        Action::Reply(refusal @ Reply::Error(_)) => Err(refusal),
        _ => Err(Reply::err("KV.ONCE accepts only writes: send reads without KV.ONCE")),
    }
}

fn unknown(name: &str, args: &[Bytes]) -> Reply {
    if let Some((_, advice)) = ABSENT.iter().find(|(absent, _)| *absent == name) {
        return Reply::err(format!("{}: {advice}", name.to_ascii_uppercase()));
    }
    let shown = args.iter().skip(1).take(3).map(|arg| {
        let text = String::from_utf8_lossy(&arg[..arg.len().min(32)]).into_owned();
        format!("'{}' ", text.replace(|c: char| c.is_control(), "?"))
    });
    let shown: String = shown.collect();
    Reply::err(format!(
        "unknown command '{}', with args beginning with: {shown}",
        name.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect::<String>()
    ))
}

/// Refuses a command whose sizes the engine does not accept.
fn check(command: &Command) -> Result<(), Reply> {
    let too_large = |what: &str, found: usize, limit: usize| {
        Err(Reply::Error(format!(
            "TOOLARGE {what} has {found} bytes, the limit is {limit}: split it"
        )))
    };
    if command.encoded_len() > COMMAND_BYTES_MAX {
        return too_large("the command", command.encoded_len(), COMMAND_BYTES_MAX);
    }
    let (key, value) = (command.longest_key(), command.longest_value());
    if key > USER_KEY_BYTES_MAX {
        return too_large("the key", key, USER_KEY_BYTES_MAX);
    }
    // A value argument carries its one-byte tag here.
    if value > USER_VALUE_BYTES_MAX + 1 {
        return too_large("the value", value - 1, USER_VALUE_BYTES_MAX);
    }
    Ok(())
}
