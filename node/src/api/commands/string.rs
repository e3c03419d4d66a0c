//! Commands on the values of keys.

use super::decode::{
    Args, Outcome, expiry_option, int, millis, shard, stored, syntax, word, wrong_arity,
};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::apply::parse_float;
use crate::machine::command::{Expiry, Operation, byte, flags, number};
use crate::machine::reply::Reply;
use bytes::Bytes;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[
    spec("append", 3, Flag::Write, Keys::FIRST, append),
    spec("decr", 2, Flag::Write, Keys::FIRST, |_, args| incr(args.key(), -1)),
    spec("decrby", 3, Flag::Write, Keys::FIRST, decrby),
    spec("get", 2, Flag::Read, Keys::FIRST, |_, args| shard(Operation::Get, [args.key()])),
    spec("getdel", 2, Flag::Write, Keys::FIRST, |_, args| {
        shard(Operation::GetDelete, [args.key()])
    }),
    spec("getex", -2, Flag::Write, Keys::FIRST, getex),
    spec("getrange", 4, Flag::Read, Keys::FIRST, getrange),
    spec("getset", 3, Flag::Write, Keys::FIRST, |_, args| {
        set_with(args, 2, flags::GET, Expiry::None)
    }),
    spec("incr", 2, Flag::Write, Keys::FIRST, |_, args| incr(args.key(), 1)),
    spec("incrby", 3, Flag::Write, Keys::FIRST, |_, args| incr(args.key(), int(&args[2])?)),
    spec("incrbyfloat", 3, Flag::Write, Keys::FIRST, incrbyfloat),
    spec("mget", -2, Flag::Read, Keys::ALL, |_, args| shard(Operation::GetMany, args.from(1))),
    spec("mset", -3, Flag::Write, Keys::new(1, -1, 2), |_, args| {
        set_many(args, Operation::SetMany)
    }),
    spec("msetnx", -3, Flag::Write, Keys::new(1, -1, 2), |_, args| {
        set_many(args, Operation::SetManyIfNone)
    }),
    spec("psetex", 4, Flag::Write, Keys::FIRST, |_, args| set_expiring(args, 1)),
    spec("set", -3, Flag::Write, Keys::FIRST, set),
    spec("setex", 4, Flag::Write, Keys::FIRST, |_, args| set_expiring(args, 1000)),
    spec("setnx", 3, Flag::Write, Keys::FIRST, |_, args| {
        set_with(args, 2, flags::NX | flags::NUMBER, Expiry::None)
    }),
    spec("setrange", 4, Flag::Write, Keys::FIRST, setrange),
    spec("strlen", 2, Flag::Read, Keys::FIRST, |_, args| shard(Operation::Length, [args.key()])),
    spec("substr", 4, Flag::Read, Keys::FIRST, getrange),
];

fn append(_: &mut Client, args: &Args) -> Outcome {
    shard(Operation::Append, [args.key(), args[2].clone()])
}

/// Sets the key to argument `value`.
fn set_with(args: &Args, value: usize, flag: u8, expiry: Expiry) -> Outcome {
    shard(Operation::Set, [args.key(), stored(&args[value]), byte(flag), expiry.encode()])
}

/// SETEX and PSETEX: key, expiry in units of `unit` milliseconds, value.
fn set_expiring(args: &Args, unit: i64) -> Outcome {
    set_with(args, 3, 0, Expiry::In(millis(args.name(), &args[2], unit)?))
}

/// `SET key value [NX|XX] [GET] [EX n|PX n|EXAT n|PXAT n|KEEPTTL]`
fn set(_: &mut Client, args: &Args) -> Outcome {
    let (mut flag, mut expiry) = (0, Expiry::None);
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        match word(option).as_str() {
            "NX" => flag |= flags::NX,
            "XX" => flag |= flags::XX,
            "GET" => flag |= flags::GET,
            "KEEPTTL" => flag |= flags::KEEP_TTL,
            _ if expiry != Expiry::None => return Err(syntax()),
            other => expiry = expiry_option("set", other, rest.next())?,
        }
    }
    let both = flags::NX | flags::XX;
    if flag & both == both || (flag & flags::KEEP_TTL != 0 && expiry != Expiry::None) {
        return Err(syntax());
    }
    set_with(args, 2, flag, expiry)
}

/// `GETEX key [PERSIST|EX n|PX n|EXAT n|PXAT n]`
fn getex(_: &mut Client, args: &Args) -> Outcome {
    let (persist, expiry) = match args.get(2).map(word).as_deref() {
        None => (0, Expiry::None),
        Some("PERSIST") if args.len() == 3 => (1, Expiry::None),
        Some(option) if args.len() == 4 => (0, expiry_option("getex", option, args.get(3))?),
        _ => return Err(syntax()),
    };
    shard(Operation::GetExpire, [args[1].clone(), byte(persist), expiry.encode()])
}

fn getrange(_: &mut Client, args: &Args) -> Outcome {
    let (start, end) = (int(&args[2])? as u64, int(&args[3])? as u64);
    shard(Operation::GetRange, [args.key(), number(start), number(end)])
}

fn setrange(_: &mut Client, args: &Args) -> Outcome {
    let offset = u64::try_from(int(&args[2])?);
    let offset = offset.map_err(|_| Reply::err("offset is out of range"))?;
    shard(Operation::SetRange, [args.key(), number(offset), args[3].clone()])
}

fn set_many(args: &Args, operation: Operation) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(wrong_arity(args.name()));
    }
    let pairs = args[1..].chunks_exact(2).flat_map(|pair| [pair[0].clone(), stored(&pair[1])]);
    shard(operation, pairs.collect::<Vec<_>>())
}

fn incr(key: Bytes, delta: i64) -> Outcome {
    shard(Operation::IncrBy, [key, number(delta as u64)])
}

fn decrby(_: &mut Client, args: &Args) -> Outcome {
    let delta = int(&args[2])?.checked_neg();
    incr(args.key(), delta.ok_or_else(|| Reply::err("decrement would overflow"))?)
}

fn incrbyfloat(_: &mut Client, args: &Args) -> Outcome {
    parse_float(&args[2]).ok_or_else(|| Reply::err("value is not a valid float"))?;
    shard(Operation::IncrByFloat, [args.key(), args[2].clone()])
}
