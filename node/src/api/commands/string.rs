//! Commands on the values of keys.

use super::decode::{
    Args, Outcome, expiry_option, int, read, stored, syntax, word, write, wrong_arity,
};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::argument::Key;
use crate::machine::command::{Read, Write};
use crate::machine::decimal::Number;
use crate::machine::options::{Expiry, OnlyIf, SetOptions, SetReply};
use crate::machine::reply::Reply;
use bytes::Bytes;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[
    spec("append", 3, Flag::Write, Keys::FIRST, append),
    spec("decr", 2, Flag::Write, Keys::FIRST, |_, args| incr(args.key(), -1)),
    spec("decrby", 3, Flag::Write, Keys::FIRST, decrby),
    spec("get", 2, Flag::Read, Keys::FIRST, |_, args| read(Read::Get { key: args.key() })),
    spec("getdel", 2, Flag::Write, Keys::FIRST, |_, args| {
        write(Write::GetDelete { key: args.key() })
    }),
    spec("getex", -2, Flag::Write, Keys::FIRST, getex),
    spec("getrange", 4, Flag::Read, Keys::FIRST, getrange),
    spec("getset", 3, Flag::Write, Keys::FIRST, |_, args| {
        let options = SetOptions { reply: SetReply::OldValue, ..SetOptions::default() };
        set_with(args, 2, options, Expiry::None)
    }),
    spec("incr", 2, Flag::Write, Keys::FIRST, |_, args| incr(args.key(), 1)),
    spec("incrby", 3, Flag::Write, Keys::FIRST, |_, args| incr(args.key(), int(&args[2])?)),
    spec("incrbyfloat", 3, Flag::Write, Keys::FIRST, incrbyfloat),
    spec("mget", -2, Flag::Read, Keys::ALL, |_, args| read(Read::GetMany { keys: args.keys() })),
    spec("mset", -3, Flag::Write, Keys::new(1, -1, 2), |_, args| {
        write(Write::SetMany { pairs: pairs(args)? })
    }),
    spec("msetnx", -3, Flag::Write, Keys::new(1, -1, 2), |_, args| {
        write(Write::SetManyIfNone { pairs: pairs(args)? })
    }),
    spec("psetex", 4, Flag::Write, Keys::FIRST, |_, args| set_expiring(args, "PX")),
    spec("set", -3, Flag::Write, Keys::FIRST, set),
    spec("setex", 4, Flag::Write, Keys::FIRST, |_, args| set_expiring(args, "EX")),
    spec("setnx", 3, Flag::Write, Keys::FIRST, |_, args| {
        let (only_if, reply) = (OnlyIf::Absent, SetReply::Number);
        set_with(args, 2, SetOptions { only_if, reply, keep_deadline: false }, Expiry::None)
    }),
    spec("setrange", 4, Flag::Write, Keys::FIRST, setrange),
    spec("strlen", 2, Flag::Read, Keys::FIRST, |_, args| read(Read::Length { key: args.key() })),
    spec("substr", 4, Flag::Read, Keys::FIRST, getrange),
];

fn append(_: &mut Client, args: &Args) -> Outcome {
    write(Write::Append { key: args.key(), tail: args[2].clone() })
}

/// Sets the key to argument `value`.
fn set_with(args: &Args, value: usize, options: SetOptions, expiry: Expiry) -> Outcome {
    write(Write::Set { key: args.key(), stored: stored(&args[value]), options, expiry })
}

/// SETEX and PSETEX, which are SET with EX or PX: key, expiry, value.
fn set_expiring(args: &Args, option: &str) -> Outcome {
    let expiry = expiry_option(args.name(), option, args.get(2))?;
    set_with(args, 3, SetOptions::default(), expiry)
}

/// `SET key value [NX|XX] [GET] [EX n|PX n|EXAT n|PXAT n|KEEPTTL]`
fn set(_: &mut Client, args: &Args) -> Outcome {
    let (mut options, mut expiry) = (SetOptions::default(), Expiry::None);
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        match word(option).as_str() {
            "NX" if options.only_if != OnlyIf::Present => options.only_if = OnlyIf::Absent,
            "XX" if options.only_if != OnlyIf::Absent => options.only_if = OnlyIf::Present,
            "NX" | "XX" => return Err(syntax()),
            "GET" => options.reply = SetReply::OldValue,
            "KEEPTTL" => options.keep_deadline = true,
            _ if expiry != Expiry::None => return Err(syntax()),
            other => expiry = expiry_option("set", other, rest.next())?,
        }
    }
    if options.keep_deadline && expiry != Expiry::None {
        return Err(syntax());
    }
    set_with(args, 2, options, expiry)
}

/// `GETEX key [PERSIST|EX n|PX n|EXAT n|PXAT n]`
fn getex(_: &mut Client, args: &Args) -> Outcome {
    let (persist, expiry) = match args.get(2).map(word).as_deref() {
        None => (false, Expiry::None),
        Some("PERSIST") if args.len() == 3 => (true, Expiry::None),
        Some(option) if args.len() == 4 => (false, expiry_option("getex", option, args.get(3))?),
        _ => return Err(syntax()),
    };
    write(Write::GetExpire { key: args.key(), persist, expiry })
}

fn getrange(_: &mut Client, args: &Args) -> Outcome {
    read(Read::GetRange { key: args.key(), start: int(&args[2])?, end: int(&args[3])? })
}

fn setrange(_: &mut Client, args: &Args) -> Outcome {
    let offset = u64::try_from(int(&args[2])?);
    let offset = offset.map_err(|_| Reply::err("offset is out of range"))?;
    write(Write::SetRange { key: args.key(), offset, part: args[3].clone() })
}

/// The keys and stored values of MSET and MSETNX.
fn pairs(args: &Args) -> Result<Vec<(Key, Bytes)>, Reply> {
    if args.len().is_multiple_of(2) {
        return Err(wrong_arity(args.name()));
    }
    let pairs = args[1..].chunks_exact(2).map(|pair| (Key(pair[0].clone()), stored(&pair[1])));
    Ok(pairs.collect())
}

fn incr(key: Key, delta: i64) -> Outcome {
    write(Write::IncrBy { key, delta })
}

fn decrby(_: &mut Client, args: &Args) -> Outcome {
    let delta = int(&args[2])?.checked_neg();
    incr(args.key(), delta.ok_or_else(|| Reply::err("decrement would overflow"))?)
}

fn incrbyfloat(_: &mut Client, args: &Args) -> Outcome {
    match Number::parse(&args[2]) {
        Some(Number::Finite(_)) => {}
        Some(Number::Infinite) => {
            return Err(Reply::err("increment would produce NaN or Infinity"));
        }
        None => return Err(Reply::err("value is not a valid float")),
    }
    write(Write::IncrByFloat { key: args.key(), delta: args[2].clone() })
}
