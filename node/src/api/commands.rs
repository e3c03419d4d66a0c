//! What each RESP command means: an answer at once, a command for the shard, or a change of the
//! connection.

use super::client::Client;
use crate::limits::COMMAND_BYTES_MAX;
use crate::shard::apply::{parse_float, parse_int};
use crate::shard::command::{Command, Expiry, Operation, byte, flags, number};
use crate::shard::read::glob;
use crate::shard::reply::Reply;
use crate::shard::system::{self, is_system};
use crate::shard::value::Stored;
use bedstone_engine::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use bytes::{BufMut, Bytes, BytesMut};

/// What is to be done about a request.
#[derive(Debug)]
pub enum Action {
    /// Answer this.
    Reply(Reply),
    /// Ask the shard; `weak` forces a read of this node's own state.
    Shard {
        /// What to ask.
        command: Command,
        /// Whether this node's own state will do.
        weak: bool,
    },
    /// Answer this and close.
    Close(Reply),
}

/// One row of the command table: name, arity (negative: at least), flags, first and last key, step.
type Row = (&'static str, i64, &'static str, i64, i64, i64);

/// Every command, with what COMMAND says of it.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("append", 3, "write", 1, 1, 1), ("auth", -2, "fast", 0, 0, 0),
    ("client", -2, "admin", 0, 0, 0), ("cluster", -2, "readonly", 0, 0, 0),
    ("command", -1, "readonly", 0, 0, 0), ("config", -2, "admin", 0, 0, 0),
    ("copy", -3, "write", 1, 2, 1), ("dbsize", 1, "readonly", 0, 0, 0),
    ("decr", 2, "write", 1, 1, 1), ("decrby", 3, "write", 1, 1, 1),
    ("del", -2, "write", 1, -1, 1), ("echo", 2, "fast", 0, 0, 0),
    ("exists", -2, "readonly", 1, -1, 1), ("expire", -3, "write", 1, 1, 1),
    ("expireat", -3, "write", 1, 1, 1), ("expiretime", 2, "readonly", 1, 1, 1),
    ("flushall", -1, "write", 0, 0, 0), ("flushdb", -1, "write", 0, 0, 0),
    ("function", -2, "admin", 0, 0, 0), ("get", 2, "readonly", 1, 1, 1),
    ("getdel", 2, "write", 1, 1, 1), ("getex", -2, "write", 1, 1, 1),
    ("getrange", 4, "readonly", 1, 1, 1), ("getset", 3, "write", 1, 1, 1),
    ("hello", -1, "fast", 0, 0, 0), ("incr", 2, "write", 1, 1, 1),
    ("incrby", 3, "write", 1, 1, 1), ("incrbyfloat", 3, "write", 1, 1, 1),
    ("info", -1, "readonly", 0, 0, 0), ("keys", 2, "readonly", 0, 0, 0),
    ("kv.get", -2, "readonly", 1, 1, 1), ("kv.once", -4, "write", 0, 0, 0),
    ("kv.scan", -3, "readonly", 1, 2, 1), ("kv.session", -2, "write", 0, 0, 0),
    ("lastsave", 1, "fast", 0, 0, 0), ("latency", -2, "admin", 0, 0, 0),
    ("memory", -2, "readonly", 2, 2, 1), ("mget", -2, "readonly", 1, -1, 1),
    ("module", -2, "admin", 0, 0, 0), ("mset", -3, "write", 1, -1, 2),
    ("msetnx", -3, "write", 1, -1, 2), ("object", -2, "readonly", 2, 2, 1),
    ("persist", 2, "write", 1, 1, 1), ("pexpire", -3, "write", 1, 1, 1),
    ("pexpireat", -3, "write", 1, 1, 1), ("pexpiretime", 2, "readonly", 1, 1, 1),
    ("ping", -1, "fast", 0, 0, 0), ("psetex", 4, "write", 1, 1, 1),
    ("pttl", 2, "readonly", 1, 1, 1), ("quit", -1, "fast", 0, 0, 0),
    ("randomkey", 1, "readonly", 0, 0, 0), ("readonly", 1, "fast", 0, 0, 0),
    ("readwrite", 1, "fast", 0, 0, 0), ("rename", 3, "write", 1, 2, 1),
    ("renamenx", 3, "write", 1, 2, 1), ("reset", 1, "fast", 0, 0, 0),
    ("role", 1, "fast", 0, 0, 0), ("scan", -2, "readonly", 0, 0, 0),
    ("script", -2, "admin", 0, 0, 0), ("select", 2, "fast", 0, 0, 0),
    ("set", -3, "write", 1, 1, 1), ("setex", 4, "write", 1, 1, 1),
    ("setnx", 3, "write", 1, 1, 1), ("setrange", 4, "write", 1, 1, 1),
    ("slowlog", -2, "admin", 0, 0, 0), ("strlen", 2, "readonly", 1, 1, 1),
    ("substr", 4, "readonly", 1, 1, 1), ("time", 1, "fast", 0, 0, 0),
    ("touch", -2, "readonly", 1, -1, 1), ("ttl", 2, "readonly", 1, 1, 1),
    ("type", 2, "readonly", 1, 1, 1), ("unlink", -2, "write", 1, -1, 1),
    ("wait", 3, "fast", 0, 0, 0),
];

/// Commands of Redis that users will look for, and what to do instead.
const ABSENT: &[(&str, &str)] = &[
    ("multi", "transactions are not offered; MSET, MSETNX, RENAME and single commands are atomic"),
    ("exec", "transactions are not offered"),
    ("discard", "transactions are not offered"),
    ("watch", "transactions are not offered; use SET with NX, XX or GET"),
    ("unwatch", "transactions are not offered"),
    ("eval", "scripts are not offered"),
    ("evalsha", "scripts are not offered"),
    ("subscribe", "publish and subscribe are not offered"),
    ("publish", "publish and subscribe are not offered"),
];

type Outcome = Result<Action, Reply>;

/// Decides on a request.
pub fn decide(client: &mut Client, args: Vec<Bytes>) -> Action {
    let Some(name) = args.first() else { return Action::Reply(Reply::OK) };
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let Some(row) = TABLE.iter().find(|row| row.0 == name) else {
        return Action::Reply(unknown(&name, &args));
    };
    let count = args.len() as i64;
    if (row.1 >= 0 && count != row.1) || count < -row.1 {
        return Action::Reply(wrong_arity(&name));
    }
    let decided = match row.2 {
        "write" | "readonly" if row.3 > 0 || is_keyless_data(&name) => data(client, &name, &args),
        _ => connection(client, &name, &args),
    };
    match decided {
        Ok(Action::Shard { command, weak }) => match check(&command) {
            Ok(()) => Action::Shard { weak: weak || (client.weak && command.is_read()), command },
            Err(refusal) => Action::Reply(refusal),
        },
        Ok(action) => action,
        Err(refusal) => Action::Reply(refusal),
    }
}

fn is_keyless_data(name: &str) -> bool {
    let keyless = ["dbsize", "keys", "randomkey", "scan", "flushall", "flushdb"];
    keyless.contains(&name) || matches!(name, "kv.once" | "kv.session")
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

fn wrong_arity(name: &str) -> Reply {
    Reply::err(format!("wrong number of arguments for '{name}' command"))
}

fn syntax() -> Reply {
    Reply::err("syntax error")
}

/// Refuses what the engine would not take.
fn check(command: &Command) -> Result<(), Reply> {
    let too_large = |what: &str, found: usize, limit: usize| {
        Err(Reply::Error(format!(
            "TOOLARGE {what} has {found} bytes, the limit is {limit}: split it"
        )))
    };
    if command.encoded_len() > COMMAND_BYTES_MAX {
        return too_large("the command", command.encoded_len(), COMMAND_BYTES_MAX);
    }
    let key_step = match command.operation {
        Operation::SetMany | Operation::SetManyIfNone => 2,
        Operation::Delete | Operation::GetMany | Operation::Exists => 1,
        _ => usize::MAX,
    };
    for key in command.args.iter().step_by(key_step) {
        if key.len() > KEY_BYTES_MAX {
            return too_large("the key", key.len(), KEY_BYTES_MAX);
        }
        reserved(key)?;
    }
    for arg in &command.args {
        // A stored value has one byte of tag, or nine with a deadline.
        if arg.len() > VALUE_BYTES_MAX - 8 {
            return too_large("the value", arg.len(), VALUE_BYTES_MAX - 9);
        }
    }
    if matches!(command.operation, Operation::Rename | Operation::Copy | Operation::Range) {
        let second = command.args.get(1).map_or(0, Bytes::len);
        if second > KEY_BYTES_MAX {
            return too_large("the key", second, KEY_BYTES_MAX);
        }
    }
    if matches!(command.operation, Operation::Rename | Operation::Copy) {
        reserved(command.args.get(1).map_or(&[], |key| key))?;
    }
    Ok(())
}

/// Refuses keys of the store's own.
fn reserved(key: &[u8]) -> Result<(), Reply> {
    match is_system(key) {
        true => {
            let prefix = system::PREFIX.escape_ascii();
            Err(Reply::err(format!("keys that begin with {prefix} are the store's own")))
        }
        false => Ok(()),
    }
}

fn shard(operation: Operation, args: impl IntoIterator<Item = Bytes>) -> Outcome {
    Ok(Action::Shard { command: Command::new(operation, args), weak: false })
}

fn stored(value: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(value.len() + 1);
    out.put_u8(Stored::PLAIN);
    out.put_slice(value);
    out.freeze()
}

fn int(arg: &Bytes) -> Result<i64, Reply> {
    parse_int(arg).ok_or_else(|| Reply::err("value is not an integer or out of range"))
}

fn word(arg: &Bytes) -> String {
    String::from_utf8_lossy(arg).to_ascii_uppercase()
}

/// Milliseconds that an expiry argument means: `unit` milliseconds each, more than none.
fn millis(name: &str, arg: &Bytes, unit: i64) -> Result<u64, Reply> {
    let given = int(arg)?;
    let millis = given.checked_mul(unit).filter(|&millis| given > 0 && millis < i64::MAX / 2);
    millis
        .map(|millis| millis as u64)
        .ok_or_else(|| Reply::err(format!("invalid expire time in '{name}' command")))
}

fn data(client: &mut Client, name: &str, args: &[Bytes]) -> Outcome {
    let key = || args[1].clone();
    match name {
        "get" => shard(Operation::Get, [key()]),
        "kv.get" => kv_get(args),
        "kv.scan" => kv_scan(args),
        "kv.once" => kv_once(client, args),
        "kv.session" => kv_session(args),
        "set" => set(args),
        "setnx" => set_with(key(), &args[2], flags::NX | flags::NUMBER, Expiry::None),
        "getset" => set_with(key(), &args[2], flags::GET, Expiry::None),
        "setex" => set_with(key(), &args[3], 0, Expiry::In(millis(name, &args[2], 1000)?)),
        "psetex" => set_with(key(), &args[3], 0, Expiry::In(millis(name, &args[2], 1)?)),
        "getdel" => shard(Operation::GetDelete, [key()]),
        "getex" => getex(args),
        "mget" => shard(Operation::GetMany, args[1..].iter().cloned()),
        "mset" | "msetnx" => {
            if args.len().is_multiple_of(2) {
                return Err(wrong_arity(name));
            }
            let pairs =
                args[1..].chunks_exact(2).flat_map(|pair| [pair[0].clone(), stored(&pair[1])]);
            let many = if name == "mset" { Operation::SetMany } else { Operation::SetManyIfNone };
            shard(many, pairs.collect::<Vec<_>>())
        }
        "append" => shard(Operation::Append, [key(), args[2].clone()]),
        "strlen" => shard(Operation::Length, [key()]),
        "getrange" | "substr" => {
            let (start, end) = (int(&args[2])? as u64, int(&args[3])? as u64);
            shard(Operation::GetRange, [key(), number(start), number(end)])
        }
        "setrange" => {
            let offset =
                u64::try_from(int(&args[2])?).map_err(|_| Reply::err("offset is out of range"))?;
            shard(Operation::SetRange, [key(), number(offset), args[3].clone()])
        }
        "incr" => incr(key(), 1),
        "decr" => incr(key(), -1),
        "incrby" => incr(key(), int(&args[2])?),
        "decrby" => {
            let delta = int(&args[2])?.checked_neg();
            incr(key(), delta.ok_or_else(|| Reply::err("decrement would overflow"))?)
        }
        "incrbyfloat" => {
            parse_float(&args[2]).ok_or_else(|| Reply::err("value is not a valid float"))?;
            shard(Operation::IncrByFloat, [key(), args[2].clone()])
        }
        "del" | "unlink" => shard(Operation::Delete, args[1..].iter().cloned()),
        "exists" | "touch" => shard(Operation::Exists, args[1..].iter().cloned()),
        "type" => shard(Operation::Type, [key()]),
        "ttl" => shard(Operation::TimeToLive, [key(), byte(0)]),
        "pttl" => shard(Operation::TimeToLive, [key(), byte(1)]),
        "expiretime" => shard(Operation::TimeToLive, [key(), byte(2)]),
        "pexpiretime" => shard(Operation::TimeToLive, [key(), byte(3)]),
        "expire" => expire(args, 1000, true),
        "pexpire" => expire(args, 1, true),
        "expireat" => expire(args, 1000, false),
        "pexpireat" => expire(args, 1, false),
        "persist" => shard(Operation::Persist, [key()]),
        "rename" => shard(Operation::Rename, [key(), args[2].clone(), byte(0)]),
        "renamenx" => shard(Operation::Rename, [key(), args[2].clone(), byte(1)]),
        "copy" => copy(args),
        "object" => match word(&args[1]).as_str() {
            "ENCODING" if args.len() == 3 => shard(Operation::Encoding, [args[2].clone()]),
            _ => Err(Reply::err("only OBJECT ENCODING key is offered")),
        },
        "memory" => match word(&args[1]).as_str() {
            "USAGE" if args.len() >= 3 => shard(Operation::MemoryUsage, [args[2].clone()]),
            _ => Err(Reply::err("only MEMORY USAGE key is offered")),
        },
        "dbsize" => shard(Operation::Size, []),
        "keys" => shard(Operation::Keys, [key()]),
        "randomkey" => shard(Operation::RandomKey, [number(client.draw())]),
        "scan" => scan(client, args),
        "flushdb" | "flushall" if client.shared.allow_flush => shard(Operation::Flush, []),
        "flushdb" | "flushall" => Err(Reply::err(
            "FLUSHALL is off: it deletes every key; set `allow_flush = true` to allow it",
        )),
        _ => Err(Reply::err(format!("'{name}' has no meaning here"))),
    }
}

fn kv_get(args: &[Bytes]) -> Outcome {
    let weak = match args.get(2).map(word).as_deref() {
        None | Some("STRONG") => false,
        Some("WEAK") => true,
        Some(_) => return Err(Reply::err("KV.GET key [STRONG|WEAK]")),
    };
    Ok(Action::Shard { command: Command::new(Operation::Get, [args[1].clone()]), weak })
}

/// `KV.SCAN start end [LIMIT n] [WEAK|STRONG]`: keys from `start` on, below `end`; `-` and `+` are
/// before the first and after the last, `(key` excludes and `[key` includes a bound.
/// A number of a session or of a request in it.
fn ordinal(arg: &Bytes, what: &str) -> Result<u64, Reply> {
    let number = parse_int(arg).and_then(|number| u64::try_from(number).ok());
    number.filter(|&number| number > 0).ok_or_else(|| Reply::err(format!("{what} is not valid")))
}

fn kv_session(args: &[Bytes]) -> Outcome {
    match (word(&args[1]).as_str(), args.get(2), args.len()) {
        ("OPEN", None, _) => shard(Operation::SessionOpen, []),
        ("CLOSE", Some(id), 3) => {
            shard(Operation::SessionClose, [number(ordinal(id, "the session")?)])
        }
        _ => Err(Reply::err("KV.SESSION OPEN, or KV.SESSION CLOSE session")),
    }
}

/// A write as a request of a session.
fn kv_once(client: &mut Client, args: &[Bytes]) -> Outcome {
    let session = ordinal(&args[1], "the session")?;
    let request = ordinal(&args[2], "the request's number")?;
    let inner = args[3..].to_vec();
    if word(&args[3]).starts_with("KV.") {
        return Err(Reply::err("KV.ONCE takes a write other than those of sessions"));
    }
    match decide(client, inner) {
        Action::Shard { command, .. } if !command.is_read() => {
            Ok(Action::Shard { command: command.once(session, request), weak: false })
        }
        Action::Reply(refusal @ Reply::Error(_)) => Err(refusal),
        _ => Err(Reply::err("KV.ONCE takes a write: a read does no harm when it is repeated")),
    }
}

fn kv_scan(args: &[Bytes]) -> Outcome {
    let mut limit = 100;
    let mut weak = false;
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        match word(option).as_str() {
            "LIMIT" => limit = int(rest.next().ok_or_else(syntax)?)?.max(0) as u64,
            "WEAK" => weak = true,
            "STRONG" => weak = false,
            _ => return Err(Reply::err("KV.SCAN start end [LIMIT n] [WEAK|STRONG]")),
        }
    }
    let mut bounds = 0;
    let start = match &args[1][..] {
        b"-" => Bytes::new(),
        [b'(', ..] => {
            bounds |= 1;
            args[1].slice(1..)
        }
        [b'[', ..] => args[1].slice(1..),
        _ => args[1].clone(),
    };
    let end = match &args[2][..] {
        b"+" => {
            bounds |= 4;
            Bytes::new()
        }
        [b'[', ..] => {
            bounds |= 2;
            args[2].slice(1..)
        }
        [b'(', ..] => args[2].slice(1..),
        _ => args[2].clone(),
    };
    let command = Command::new(Operation::Range, [start, end, number(limit), byte(bounds)]);
    Ok(Action::Shard { command, weak })
}

fn set_with(key: Bytes, value: &Bytes, flag: u8, expiry: Expiry) -> Outcome {
    shard(Operation::Set, [key, stored(value), byte(flag), expiry.encode()])
}

/// EX, PX, EXAT or PXAT with its argument.
fn expiry_option(name: &str, option: &str, arg: Option<&Bytes>) -> Result<Expiry, Reply> {
    let arg = arg.ok_or_else(syntax)?;
    Ok(match option {
        "EX" => Expiry::In(millis(name, arg, 1000)?),
        "PX" => Expiry::In(millis(name, arg, 1)?),
        "EXAT" => Expiry::At(millis(name, arg, 1000)?),
        "PXAT" => Expiry::At(millis(name, arg, 1)?),
        _ => return Err(syntax()),
    })
}

fn set(args: &[Bytes]) -> Outcome {
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
    set_with(args[1].clone(), &args[2], flag, expiry)
}

fn getex(args: &[Bytes]) -> Outcome {
    let (persist, expiry) = match args.get(2).map(word).as_deref() {
        None => (0, Expiry::None),
        Some("PERSIST") if args.len() == 3 => (1, Expiry::None),
        Some(option) if args.len() == 4 => (0, expiry_option("getex", option, args.get(3))?),
        _ => return Err(syntax()),
    };
    shard(Operation::GetExpire, [args[1].clone(), byte(persist), expiry.encode()])
}

fn incr(key: Bytes, delta: i64) -> Outcome {
    shard(Operation::IncrBy, [key, number(delta as u64)])
}

fn expire(args: &[Bytes], unit: i64, relative: bool) -> Outcome {
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
        let name = String::from_utf8_lossy(&args[0]).to_ascii_lowercase();
        return Err(Reply::err(format!("invalid expire time in '{name}' command")));
    };
    // A time that has passed deletes the key at once.
    let expiry = match relative {
        true => Expiry::In(millis.max(0) as u64),
        false => Expiry::At(millis.max(1) as u64),
    };
    shard(Operation::Expire, [args[1].clone(), byte(flag), expiry.encode()])
}

fn copy(args: &[Bytes]) -> Outcome {
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

fn scan(client: &mut Client, args: &[Bytes]) -> Outcome {
    let cursor = u64::try_from(int(&args[1])?).map_err(|_| Reply::err("invalid cursor"))?;
    let Some(after) = client.shared.cursors.lock().get(cursor) else {
        return Err(Reply::err("unknown cursor: begin again with 0"));
    };
    let (mut count, mut pattern) = (10, Bytes::from_static(b"*"));
    let mut rest = args[2..].iter();
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or_else(syntax)?;
        match word(option).as_str() {
            "MATCH" => pattern = value.clone(),
            "COUNT" => count = int(value)?,
            "TYPE" if word(value) == "STRING" => {}
            "TYPE" => pattern = Bytes::new(),
            _ => return Err(syntax()),
        }
    }
    if count < 1 {
        return Err(syntax());
    }
    shard(Operation::Scan, [after, number(count as u64), pattern])
}

fn connection(client: &mut Client, name: &str, args: &[Bytes]) -> Outcome {
    let sub = args.get(1).map(word).unwrap_or_default();
    let reply = match name {
        "ping" => match args.get(1) {
            Some(text) => Reply::Bulk(text.clone()),
            None => Reply::Simple("PONG"),
        },
        "echo" => Reply::Bulk(args[1].clone()),
        "quit" => return Ok(Action::Close(Reply::OK)),
        "hello" => hello(client, args)?,
        "auth" => Reply::err(
            "AUTH called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ),
        "select" if &args[1][..] == b"0" => Reply::OK,
        "select" => Reply::err("DB index is out of range"),
        "reset" => {
            client.reset();
            Reply::Simple("RESET")
        }
        "readonly" => {
            client.weak = true;
            Reply::OK
        }
        "readwrite" => {
            client.weak = false;
            Reply::OK
        }
        "client" => describe_client(client, &sub, args)?,
        "cluster" => cluster(client, &sub, args)?,
        "command" => command(&sub, args),
        "config" => config(&sub, args)?,
        "info" => Reply::text(client.shared.info(&args[1..])),
        "time" => {
            let millis = crate::clock::unix_millis();
            let parts = [(millis / 1000).to_string(), (millis % 1000 * 1000).to_string()];
            Reply::Array(parts.map(Reply::text).into())
        }
        "role" => Reply::Array(vec![Reply::text("master"), Reply::Int(0), Reply::Array(vec![])]),
        // A write is answered when a majority has it durably: there is nothing left to wait for.
        "wait" => Reply::Int(client.shared.nodes.len() as i64 - 1),
        "lastsave" => Reply::Int((crate::clock::unix_millis() / 1000) as i64),
        "module" if sub == "LIST" => Reply::Array(vec![]),
        "latency" => Reply::Array(vec![]),
        "slowlog" => match sub.as_str() {
            "LEN" => Reply::Int(0),
            "RESET" => Reply::OK,
            _ => Reply::Array(vec![]),
        },
        "function" | "script" if sub == "FLUSH" => Reply::OK,
        _ => Reply::err(format!(
            "unknown subcommand '{}' of '{name}'",
            sub.chars().take(64).collect::<String>()
        )),
    };
    Ok(Action::Reply(reply))
}

fn hello(client: &mut Client, args: &[Bytes]) -> Result<Reply, Reply> {
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
                return Err(Reply::err("HELLO AUTH: no users are configured; connect without"));
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
    Ok(Reply::Map(pairs.map(|(key, value)| (Reply::text(key), value)).into()))
}

fn describe_client(client: &mut Client, sub: &str, args: &[Bytes]) -> Result<Reply, Reply> {
    Ok(match sub {
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
        _ => return Err(Reply::err(format!("unknown subcommand '{sub}' of 'client'"))),
    })
}

/// This node, as the owner of every slot: whoever is asked can answer for all keys.
fn cluster(client: &Client, sub: &str, args: &[Bytes]) -> Result<Reply, Reply> {
    let (host, port) = (client.local.ip().to_string(), i64::from(client.local.port()));
    let id = format!("{:040x}", client.shared.node);
    Ok(match sub {
        "SLOTS" => {
            let node =
                vec![Reply::text(host), Reply::Int(port), Reply::text(id), Reply::Array(vec![])];
            let range = vec![Reply::Int(0), Reply::Int(16383), Reply::Array(node)];
            Reply::Array(vec![Reply::Array(range)])
        }
        "SHARDS" => {
            let node = [
                ("id", Reply::text(id)),
                ("port", Reply::Int(port)),
                ("ip", Reply::text(host.clone())),
                ("endpoint", Reply::text(host)),
                ("role", Reply::text("master")),
                ("replication-offset", Reply::Int(0)),
                ("health", Reply::text("online")),
            ];
            let node = Reply::Map(node.map(|(key, value)| (Reply::text(key), value)).into());
            let slots = Reply::Array(vec![Reply::Int(0), Reply::Int(16383)]);
            let shard = [("slots", slots), ("nodes", Reply::Array(vec![node]))];
            let shard = shard.map(|(key, value)| (Reply::text(key), value));
            Reply::Array(vec![Reply::Map(shard.into())])
        }
        "NODES" => Reply::text(format!(
            "{id} {host}:{port}@{port} myself,master - 0 0 1 connected 0-16383\n"
        )),
        "INFO" => Reply::text(
            "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
             cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\n\
             cluster_size:1\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n",
        ),
        "MYID" => Reply::text(id),
        "KEYSLOT" if args.len() == 3 => Reply::Int(i64::from(key_slot(&args[2]))),
        _ => return Err(Reply::err(format!("unknown subcommand '{sub}' of 'cluster'"))),
    })
}

/// The slot that Redis Cluster gives a key: CRC-16/XMODEM of the key, or of what is in braces.
fn key_slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&b| b == b'{').and_then(|open| {
        let len = key[open + 1..].iter().position(|&b| b == b'}')?;
        (len > 0).then(|| &key[open + 1..open + 1 + len])
    });
    let crc = tag.unwrap_or(key).iter().fold(0u16, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 }
        })
    });
    crc % 16384
}

fn command(sub: &str, args: &[Bytes]) -> Reply {
    let describe = |row: &Row| {
        let (name, arity, flag, first, last, step) = *row;
        let numbers = [first, last, step].map(Reply::Int);
        let mut fields = vec![Reply::text(name), Reply::Int(arity)];
        fields.push(Reply::Array(vec![Reply::Simple(flag)]));
        fields.extend(numbers);
        // ACL categories, tips, key specifications, subcommands.
        fields.extend((0..4).map(|_| Reply::Array(vec![])));
        Reply::Array(fields)
    };
    let find = |name: &Bytes| {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        TABLE.iter().find(|row| row.0 == name)
    };
    match sub {
        "" => Reply::Array(TABLE.iter().map(describe).collect()),
        "COUNT" => Reply::Int(TABLE.len() as i64),
        "LIST" => Reply::Array(TABLE.iter().map(|row| Reply::text(row.0)).collect()),
        "INFO" if args.len() == 2 => Reply::Array(TABLE.iter().map(describe).collect()),
        "INFO" => {
            let rows = args[2..].iter().map(find);
            Reply::Array(rows.map(|row| row.map_or(Reply::Nil, describe)).collect())
        }
        "DOCS" => Reply::Map(vec![]),
        "GETKEYS" if args.len() > 2 => match find(&args[2]) {
            Some(row) if row.3 > 0 && args.len() - 2 > row.3 as usize => {
                let count = args.len() as i64 - 2;
                let last = if row.4 < 0 { count + row.4 } else { row.4 };
                let keys = (row.3..=last).step_by(row.5 as usize);
                Reply::Array(keys.map(|at| Reply::Bulk(args[2 + at as usize].clone())).collect())
            }
            Some(_) => Reply::err("The command has no key arguments"),
            None => Reply::err("Invalid command specified"),
        },
        _ => Reply::err(format!("unknown subcommand '{sub}' of 'command'")),
    }
}

fn config(sub: &str, args: &[Bytes]) -> Result<Reply, Reply> {
    const SETTINGS: [(&str, &str); 6] = [
        ("save", ""),
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("databases", "1"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
    ];
    match sub {
        "GET" if args.len() > 2 => {
            let wanted = |name: &str| {
                args[2..].iter().any(|pattern| glob(&pattern.to_ascii_lowercase(), name.as_bytes()))
            };
            let found = SETTINGS.into_iter().filter(|(name, _)| wanted(name));
            Ok(Reply::Map(found.map(|(k, v)| (Reply::text(k), Reply::text(v))).collect()))
        }
        "RESETSTAT" => Ok(Reply::OK),
        "SET" => Err(Reply::err("CONFIG SET is not offered: edit the config file and restart")),
        _ => Err(Reply::err(format!("unknown subcommand '{sub}' of 'config'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_slots_are_those_of_redis_cluster() {
        assert_eq!(key_slot(b"123456789"), 12739);
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"{user1000}.followers"));
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by_key(|row| row.0));
    }
}
