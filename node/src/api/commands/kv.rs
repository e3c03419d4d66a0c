//! Bedstone's own commands: ordered scans, reads with a chosen consistency, writes that take effect
//! once.

use super::decode::{Args, Decoded, Outcome, int, read_with, syntax, word, write};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::apply::parse_int;
use crate::machine::argument::Key;
use crate::machine::command::{Read, Write};
use crate::machine::options::{RangeBounds, RangeEnd};
use crate::machine::reply::Reply;
use crate::policy::Consistency;
use bytes::Bytes;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[
    spec("kv.get", -2, Flag::Read, Keys::FIRST, kv_get),
    spec("kv.once", -4, Flag::Write, Keys::NONE, kv_once),
    spec("kv.scan", -3, Flag::Read, Keys::new(1, 2, 1), kv_scan),
    spec("kv.session", -2, Flag::Write, Keys::NONE, kv_session),
];

/// `KV.GET key [STRONG|WEAK]`
fn kv_get(_: &mut Client, args: &Args) -> Outcome {
    let consistency = match args.get(2).map(word).as_deref() {
        None | Some("STRONG") => Consistency::Strong,
        Some("WEAK") => Consistency::Weak,
        Some(_) => return Err(Reply::err("KV.GET key [STRONG|WEAK]")),
    };
    read_with(Read::Get { key: args.key() }, consistency)
}

/// `KV.SCAN start end [LIMIT n] [WEAK|STRONG]`: the keys from `start` (included) to `end`
/// (excluded). `-` stands before the first key and `+` after the last key. `(key` excludes a bound,
/// `[key` includes a bound.
fn kv_scan(_: &mut Client, args: &Args) -> Outcome {
    let mut limit = 100;
    let mut consistency = Consistency::Strong;
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        match word(option).as_str() {
            "LIMIT" => limit = int(rest.next().ok_or_else(syntax)?)?.max(0) as u64,
            "WEAK" => consistency = Consistency::Weak,
            "STRONG" => consistency = Consistency::Strong,
            _ => return Err(Reply::err("KV.SCAN start end [LIMIT n] [WEAK|STRONG]")),
        }
    }
    let mut bounds = RangeBounds::default();
    let start = match &args[1][..] {
        b"-" => Bytes::new(),
        [b'(', ..] => {
            bounds.after_start = true;
            args[1].slice(1..)
        }
        [b'[', ..] => args[1].slice(1..),
        _ => args[1].clone(),
    };
    let end = match &args[2][..] {
        b"+" => {
            bounds.end = RangeEnd::Unbounded;
            Bytes::new()
        }
        [b'[', ..] => {
            bounds.end = RangeEnd::Included;
            args[2].slice(1..)
        }
        [b'(', ..] => args[2].slice(1..),
        _ => args[2].clone(),
    };
    read_with(Read::Range { start: Key(start), end: Key(end), limit, bounds }, consistency)
}

/// `KV.SESSION OPEN`, `KV.SESSION CLOSE session`
fn kv_session(_: &mut Client, args: &Args) -> Outcome {
    match (word(&args[1]).as_str(), args.get(2), args.len()) {
        ("OPEN", None, _) => write(Write::SessionOpen {}),
        ("CLOSE", Some(id), 3) => {
            write(Write::SessionClose { session: ordinal(id, "the session")? })
        }
        _ => Err(Reply::err("KV.SESSION OPEN, or KV.SESSION CLOSE session")),
    }
}

/// `KV.ONCE session request command …`: a write as a numbered request of a session.
fn kv_once(_: &mut Client, args: &Args) -> Outcome {
    let session = ordinal(&args[1], "the session")?;
    let request = ordinal(&args[2], "the request's number")?;
    let inner = args[3..].to_vec();
    if word(&args[3]).starts_with("KV.") {
        return Err(Reply::err("KV.ONCE accepts no command that begins with KV."));
    }
    Ok(Decoded::Once { session, request, inner })
}

/// The number of a session or of a request in a session. `what` names the number in the error.
fn ordinal(arg: &Bytes, what: &str) -> Result<u64, Reply> {
    let number = parse_int(arg).and_then(|number| u64::try_from(number).ok());
    number.filter(|&number| number > 0).ok_or_else(|| Reply::err(format!("{what} must be above 0")))
}
