//! Commands on keys that do not depend on values: deletion, expiry, names.

use super::decode::{Args, Outcome, int, shard, syntax, word};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::command::{Expiry, Operation, byte, flags};
use crate::machine::reply::Reply;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[
    spec("copy", -3, Flag::Write, Keys::new(1, 2, 1), copy),
    spec("del", -2, Flag::Write, Keys::ALL, delete),
    spec("exists", -2, Flag::Read, Keys::ALL, exists),
    spec("expire", -3, Flag::Write, Keys::FIRST, |_, args| expire(args, 1000, true)),
    spec("expireat", -3, Flag::Write, Keys::FIRST, |_, args| expire(args, 1000, false)),
    spec("expiretime", 2, Flag::Read, Keys::FIRST, |_, args| time_to_live(args, 2)),
    spec("flushall", -1, Flag::Write, Keys::NONE, flush),
    spec("flushdb", -1, Flag::Write, Keys::NONE, flush),
    spec("memory", -2, Flag::Read, Keys::new(2, 2, 1), memory),
    spec("object", -2, Flag::Read, Keys::new(2, 2, 1), object),
    spec("persist", 2, Flag::Write, Keys::FIRST, |_, args| shard(Operation::Persist, [args.key()])),
    spec("pexpire", -3, Flag::Write, Keys::FIRST, |_, args| expire(args, 1, true)),
    spec("pexpireat", -3, Flag::Write, Keys::FIRST, |_, args| expire(args, 1, false)),
    spec("pexpiretime", 2, Flag::Read, Keys::FIRST, |_, args| time_to_live(args, 3)),
    spec("pttl", 2, Flag::Read, Keys::FIRST, |_, args| time_to_live(args, 1)),
    spec("rename", 3, Flag::Write, Keys::new(1, 2, 1), |_, args| rename(args, 0)),
    spec("renamenx", 3, Flag::Write, Keys::new(1, 2, 1), |_, args| rename(args, 1)),
    spec("touch", -2, Flag::Read, Keys::ALL, exists),
    spec("ttl", 2, Flag::Read, Keys::FIRST, |_, args| time_to_live(args, 0)),
    spec("type", 2, Flag::Read, Keys::FIRST, |_, args| shard(Operation::Type, [args.key()])),
    spec("unlink", -2, Flag::Write, Keys::ALL, delete),
];

fn delete(_: &mut Client, args: &Args) -> Outcome {
    shard(Operation::Delete, args.from(1))
}

fn exists(_: &mut Client, args: &Args) -> Outcome {
    shard(Operation::Exists, args.from(1))
}

/// Units: 0 TTL, 1 PTTL, 2 EXPIRETIME, 3 PEXPIRETIME.
fn time_to_live(args: &Args, unit: u8) -> Outcome {
    shard(Operation::TimeToLive, [args.key(), byte(unit)])
}

/// EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT: a time in units of `unit` milliseconds, relative or
/// absolute.
fn expire(args: &Args, unit: i64, relative: bool) -> Outcome {
    let mut flag = 0;
    for option in &args[3..] {
        flag |= match word(option).as_str() {
            "NX" => flags::NX,
            "XX" => flags::XX,
            "GT" => flags::GT,
            "LT" => flags::LT,
            other => return Err(Reply::err(format!("Unsupported option {other}"))),
        };
    }
    let both = flags::GT | flags::LT;
    if (flag & flags::NX != 0 && flag != flags::NX) || flag & both == both {
        return Err(Reply::err("NX and XX, GT or LT options at the same time are not compatible"));
    }
    let given = int(&args[2])?;
    let Some(millis) = given.checked_mul(unit).filter(|&m| m < i64::MAX / 2) else {
        return Err(Reply::err(format!("invalid expire time in '{}' command", args.name())));
    };
    // A deadline in the past deletes the key at once.
    let expiry =
        if relative { Expiry::In(millis.max(0) as u64) } else { Expiry::At(millis.max(1) as u64) };
    shard(Operation::Expire, [args[1].clone(), byte(flag), expiry.encode()])
}

fn rename(args: &Args, only_if_none: u8) -> Outcome {
    shard(Operation::Rename, [args.key(), args[2].clone(), byte(only_if_none)])
}

/// `COPY from to [DB 0] [REPLACE]`
fn copy(_: &mut Client, args: &Args) -> Outcome {
    let mut replace = 0;
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        match word(option).as_str() {
            "REPLACE" => replace = 1,
            "DB" if rest.next().is_some_and(|db| &db[..] == b"0") => {}
            "DB" => return Err(Reply::err("DB index is out of range")),
            _ => return Err(syntax()),
        }
    }
    shard(Operation::Copy, [args[1].clone(), args[2].clone(), byte(replace)])
}

fn object(_: &mut Client, args: &Args) -> Outcome {
    match word(&args[1]).as_str() {
        "ENCODING" if args.len() == 3 => shard(Operation::Encoding, [args[2].clone()]),
        _ => Err(Reply::err("only OBJECT ENCODING key is offered")),
    }
}

fn memory(_: &mut Client, args: &Args) -> Outcome {
    match word(&args[1]).as_str() {
        "USAGE" if args.len() >= 3 => shard(Operation::MemoryUsage, [args[2].clone()]),
        _ => Err(Reply::err("only MEMORY USAGE key is offered")),
    }
}

fn flush(client: &mut Client, _: &Args) -> Outcome {
    if client.shared.allow_flush {
        return shard(Operation::Flush, []);
    }
    Err(Reply::err("FLUSHALL is off: it deletes every key; set `allow_flush = true` to allow it"))
}
