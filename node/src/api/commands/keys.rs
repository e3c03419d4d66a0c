//! Commands on keys that do not depend on values: deletion, expiry, names.

use super::decode::{Args, Outcome, int, read, syntax, word, write};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::command::{Read, Write};
use crate::machine::options::{DeadlineOrder, ExpireOptions, Expiry, OnlyIf, TimeForm};
use crate::machine::reply::Reply;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[
    spec("copy", -3, Flag::Write, Keys::new(1, 2, 1), copy),
    spec("del", -2, Flag::Write, Keys::ALL, delete),
    spec("exists", -2, Flag::Read, Keys::ALL, exists),
    spec("expire", -3, Flag::Write, Keys::FIRST, |_, args| expire(args, 1000, true)),
    spec("expireat", -3, Flag::Write, Keys::FIRST, |_, args| expire(args, 1000, false)),
    spec("expiretime", 2, Flag::Read, Keys::FIRST, |_, args| {
        time_to_live(args, TimeForm::UnixSeconds)
    }),
    spec("flushall", -1, Flag::Write, Keys::NONE, flush),
    spec("flushdb", -1, Flag::Write, Keys::NONE, flush),
    spec("memory", -2, Flag::Read, Keys::new(2, 2, 1), memory),
    spec("object", -2, Flag::Read, Keys::new(2, 2, 1), object),
    spec("persist", 2, Flag::Write, Keys::FIRST, |_, args| {
        write(Write::Persist { key: args.key() })
    }),
    spec("pexpire", -3, Flag::Write, Keys::FIRST, |_, args| expire(args, 1, true)),
    spec("pexpireat", -3, Flag::Write, Keys::FIRST, |_, args| expire(args, 1, false)),
    spec("pexpiretime", 2, Flag::Read, Keys::FIRST, |_, args| {
        time_to_live(args, TimeForm::UnixMillis)
    }),
    spec("pttl", 2, Flag::Read, Keys::FIRST, |_, args| time_to_live(args, TimeForm::MillisLeft)),
    spec("rename", 3, Flag::Write, Keys::new(1, 2, 1), |_, args| rename(args, false)),
    spec("renamenx", 3, Flag::Write, Keys::new(1, 2, 1), |_, args| rename(args, true)),
    spec("touch", -2, Flag::Read, Keys::ALL, exists),
    spec("ttl", 2, Flag::Read, Keys::FIRST, |_, args| time_to_live(args, TimeForm::SecondsLeft)),
    spec("type", 2, Flag::Read, Keys::FIRST, |_, args| read(Read::Type { key: args.key() })),
    spec("unlink", -2, Flag::Write, Keys::ALL, delete),
];

fn delete(_: &mut Client, args: &Args) -> Outcome {
    write(Write::Delete { keys: args.keys() })
}

fn exists(_: &mut Client, args: &Args) -> Outcome {
    read(Read::Exists { keys: args.keys() })
}

fn time_to_live(args: &Args, form: TimeForm) -> Outcome {
    read(Read::TimeToLive { key: args.key(), form })
}

/// EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT: a time in units of `unit` milliseconds, relative or
/// absolute.
fn expire(args: &Args, unit: i64, relative: bool) -> Outcome {
    let mut options = ExpireOptions::default();
    let ExpireOptions { only_if, order } = &mut options;
    let mut compatible = true;
    for option in &args[3..] {
        compatible &= match word(option).as_str() {
            "NX" => set_once(only_if, OnlyIf::Absent),
            "XX" => set_once(only_if, OnlyIf::Present),
            "GT" => set_once(order, DeadlineOrder::Later),
            "LT" => set_once(order, DeadlineOrder::Earlier),
            other => return Err(Reply::err(format!("Unsupported option {other}"))),
        };
    }
    if !compatible || *only_if == OnlyIf::Absent && *order != DeadlineOrder::Any {
        return Err(Reply::err("NX and XX, GT or LT options at the same time are not compatible"));
    }
    let given = int(&args[2])?;
    let base = if relative { crate::clock::unix_millis() as i64 } else { 0 };
    let Some(millis) = given.checked_mul(unit).filter(|&millis| millis <= i64::MAX - base) else {
        return Err(Reply::err(format!("invalid expire time in '{}' command", args.name())));
    };
    // A deadline in the past deletes the key at once.
    let expiry =
        if relative { Expiry::In(millis.max(0) as u64) } else { Expiry::At(millis.max(1) as u64) };
    write(Write::Expire { key: args.key(), options, expiry })
}

/// Sets an option. Returns false if the option has another value already.
fn set_once<T: Copy + Default + PartialEq>(option: &mut T, value: T) -> bool {
    let was = std::mem::replace(option, value);
    was == T::default() || was == value
}

fn rename(args: &Args, only_if_none: bool) -> Outcome {
    write(Write::Rename { from: args.key(), to: args.key_at(2), only_if_none })
}

/// `COPY from to [DB 0] [REPLACE]`
fn copy(_: &mut Client, args: &Args) -> Outcome {
    let mut replace = false;
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        match word(option).as_str() {
            "REPLACE" => replace = true,
            "DB" if rest.next().is_some_and(|db| &db[..] == b"0") => {}
            "DB" => return Err(Reply::err("DB index is out of range")),
            _ => return Err(syntax()),
        }
    }
    write(Write::Copy { from: args.key(), to: args.key_at(2), replace })
}

fn object(_: &mut Client, args: &Args) -> Outcome {
    match word(&args[1]).as_str() {
        "ENCODING" if args.len() == 3 => read(Read::Encoding { key: args.key_at(2) }),
        _ => Err(Reply::err("only OBJECT ENCODING key is offered")),
    }
}

fn memory(_: &mut Client, args: &Args) -> Outcome {
    match word(&args[1]).as_str() {
        "USAGE" if args.len() >= 3 => read(Read::MemoryUsage { key: args.key_at(2) }),
        _ => Err(Reply::err("only MEMORY USAGE key is offered")),
    }
}

fn flush(client: &mut Client, args: &Args) -> Outcome {
    let option = args.get(1).map(word);
    if args.len() > 2 || !matches!(option.as_deref(), None | Some("ASYNC" | "SYNC")) {
        return Err(syntax());
    }
    if client.shared.allow_flush {
        return write(Write::Flush {});
    }
    Err(Reply::err(format!(
        "{} is off: it deletes every key; set `allow_flush = true` to allow it",
        args.name().to_ascii_uppercase()
    )))
}
