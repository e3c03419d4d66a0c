//! The effect of write commands. All replicas apply identical entries in one order and must reach
//! an identical state. Therefore an effect depends on the entry and the tree only.

use super::argument::Key;
use super::command::{Batch, Write};
use super::decimal::{self, Number};
use super::options::{DeadlineOrder, ExpireOptions, SetOptions, SetReply};
use super::reply::Reply;
use super::sessions::{self, Answer, EVICTED, SESSIONS_MAX, Session, Table};
use super::system::{self, SESSION, user_keys};
use super::value::{Stored, USER_VALUE_BYTES_MAX};
use bedstone_engine::key::is_system;
use bedstone_engine::lsm::InLog;
use bedstone_engine::{LogId, Op, Result, Tree};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;

/// Milliseconds since 1970 of a timestamp.
pub fn millis_of(ts: u64) -> u64 {
    ts >> 16
}

/// The least timestamp of a time; the lower 16 bits are left for a counter.
pub fn ts_of(millis: u64) -> u64 {
    millis << 16
}

/// Applies the commands of one log entry, all at one timestamp, and returns their replies. `entry`
/// is the entry's place in the log: with it, large values stay in the log.
///
/// # Errors
/// The tree cannot be read. Nothing was applied then.
pub fn apply_entry(
    tree: &Tree,
    at: LogId,
    batch: &Batch,
    entry: Option<InLog<'_>>,
) -> Result<Vec<Reply>> {
    let Batch { version, ts, writes } = batch;
    // Timestamps rise with the log even when a new leader's clock is behind.
    let ts = (*ts).max(tree.ts() + 1);
    let mut change = Change { tree, now: millis_of(ts), ts, changes: HashMap::new() };
    let replies = writes.iter().map(|write| change.apply(write)).collect::<Result<_>>()?;
    if let Some(raised) = system::raised_version(tree, *version)? {
        change.changes.insert(Bytes::from_static(system::VERSION), Some(raised));
    }
    let ops = change.changes.into_iter().map(|(key, value)| match value {
        Some(value) if is_system(&key) => Op::Put(key, value),
        // The tree stores the deadline too, so that compaction drops expired keys.
        Some(value) => match Stored::deadline_of(&value) {
            0 => Op::Put(key, value),
            deadline => Op::PutUntil(key, value, deadline),
        },
        None => Op::Delete(key),
    });
    tree.apply(at, ts, entry, ops);
    tree.advance(millis_of(ts));
    Ok(replies)
}

/// The effect of the commands of the entry that are already applied. The following commands of the
/// entry see this effect.
struct Change<'a> {
    tree: &'a Tree,
    now: u64,
    ts: u64,
    changes: HashMap<Bytes, Option<Bytes>>,
}

impl Change<'_> {
    fn apply(&mut self, write: &Write) -> Result<Reply> {
        match write {
            Write::Set { key, stored, options, expiry } => {
                self.set(key, stored, *options, expiry.deadline(self.now))
            }
            Write::Delete { keys } => {
                let mut count = 0;
                for Key(key) in keys {
                    if self.get(key)?.is_some() {
                        self.delete(key);
                        count += 1;
                    }
                }
                Ok(Reply::Int(count))
            }
            Write::Append { key: Key(key), tail } => {
                let old = self.get(key)?.unwrap_or(Stored::plain(Bytes::new()));
                let mut value = BytesMut::from(&old.value[..]);
                value.extend_from_slice(tail);
                Ok(self.put_checked(key, value.freeze(), old.deadline))
            }
            Write::SetRange { key: Key(key), offset, part } => self.set_range(key, *offset, part),
            Write::IncrBy { key: Key(key), delta } => self.incr(key, *delta),
            Write::IncrByFloat { key: Key(key), delta } => self.incr_float(key, delta),
            Write::GetDelete { key: Key(key) } => {
                let old = self.get(key)?;
                if old.is_some() {
                    self.delete(key);
                }
                Ok(value_or_nil(old))
            }
            Write::GetExpire { key: Key(key), persist, expiry } => {
                let deadline = expiry.deadline(self.now);
                let Some(old) = self.get(key)? else { return Ok(Reply::Nil) };
                if *persist || deadline != 0 {
                    self.put(key, Stored { deadline, ..old.clone() });
                }
                Ok(Reply::Bulk(old.value))
            }
            Write::SetMany { pairs } => {
                self.set_many(pairs);
                Ok(Reply::OK)
            }
            Write::SetManyIfNone { pairs } => {
                for (Key(key), _) in pairs {
                    if self.get(key)?.is_some() {
                        return Ok(Reply::Int(0));
                    }
                }
                self.set_many(pairs);
                Ok(Reply::Int(1))
            }
            Write::Expire { key: Key(key), options, expiry } => {
                self.expire(key, *options, expiry.deadline(self.now))
            }
            Write::Persist { key: Key(key) } => match self.get(key)? {
                Some(old) if old.deadline != 0 => {
                    self.put(key, Stored::plain(old.value));
                    Ok(Reply::Int(1))
                }
                _ => Ok(Reply::Int(0)),
            },
            Write::Rename { from: Key(from), to: Key(to), only_if_none } => {
                self.rename(from, to, *only_if_none)
            }
            Write::Copy { from: Key(from), to: Key(to), replace } => {
                let Some(value) = self.get(from)? else { return Ok(Reply::Int(0)) };
                if !replace && self.get(to)?.is_some() {
                    return Ok(Reply::Int(0));
                }
                self.put(to, value);
                Ok(Reply::Int(1))
            }
            Write::Flush {} => self.flush(),
            Write::Tick {} => Ok(Reply::OK),
            Write::SessionOpen {} => self.open_session(),
            Write::SessionClose { session } => self.close_session(*session),
            Write::Once { session, request, write } => self.once(*session, *request, write),
        }
    }

    fn set(
        &mut self,
        Key(key): &Key,
        stored: &Bytes,
        options: SetOptions,
        deadline: u64,
    ) -> Result<Reply> {
        if options == SetOptions::default() && deadline == 0 {
            // The common case needs neither the old value nor a copy of the new value.
            self.changes.insert(key.clone(), Some(stored.clone()));
            return Ok(Reply::OK);
        }
        let Some(new) = Stored::decode(stored.clone()) else {
            return Ok(Reply::err("malformed value in the log"));
        };
        let old = self.get(key)?;
        let wanted = options.only_if.allows(old.is_some());
        if wanted {
            let kept = old.as_ref().map_or(0, |old| old.deadline);
            let deadline = if options.keep_deadline { kept } else { deadline };
            self.put(key, Stored { deadline, value: new.value });
        }
        Ok(match options.reply {
            SetReply::OldValue => value_or_nil(old),
            SetReply::Number => Reply::Int(i64::from(wanted)),
            SetReply::Status if wanted => Reply::OK,
            SetReply::Status => Reply::Nil,
        })
    }

    fn set_range(&mut self, key: &Bytes, offset: u64, part: &Bytes) -> Result<Reply> {
        let old = self.get(key)?.unwrap_or(Stored::plain(Bytes::new()));
        if part.is_empty() {
            return Ok(Reply::Int(old.value.len() as i64));
        }
        let end = offset.saturating_add(part.len() as u64);
        if end > USER_VALUE_BYTES_MAX as u64 {
            return Ok(too_large(end));
        }
        let (start, end) = (offset as usize, end as usize);
        let mut value = BytesMut::from(&old.value[..]);
        if value.len() < end {
            value.resize(end, 0);
        }
        value[start..end].copy_from_slice(part);
        Ok(self.put_checked(key, value.freeze(), old.deadline))
    }

    fn set_many(&mut self, pairs: &[(Key, Bytes)]) {
        for (Key(key), stored) in pairs {
            self.changes.insert(key.clone(), Some(stored.clone()));
        }
    }

    fn incr(&mut self, key: &Bytes, delta: i64) -> Result<Reply> {
        let old = self.get(key)?;
        let text = old.as_ref().map_or(&b"0"[..], |old| &old.value);
        let Some(number) = parse_int(text) else {
            return Ok(Reply::err("value is not an integer or out of range"));
        };
        let Some(sum) = number.checked_add(delta) else {
            return Ok(Reply::err("increment or decrement would overflow"));
        };
        let deadline = old.map_or(0, |old| old.deadline);
        self.put(key, Stored { deadline, value: sum.to_string().into() });
        Ok(Reply::Int(sum))
    }

    fn incr_float(&mut self, key: &Bytes, delta: &[u8]) -> Result<Reply> {
        let old = self.get(key)?;
        let text = old.as_ref().map_or(&b"0"[..], |old| &old.value);
        let (number, delta) = match (Number::parse(text), Number::parse(delta)) {
            (Some(Number::Finite(number)), Some(Number::Finite(delta))) => (number, delta),
            (Some(_), Some(_)) => return Ok(not_finite()),
            _ => return Ok(Reply::err("value is not a valid float")),
        };
        let Some(sum) = decimal::sum(&number, &delta) else { return Ok(not_finite()) };
        let value = Bytes::from(sum);
        let deadline = old.map_or(0, |old| old.deadline);
        self.put(key, Stored { deadline, value: value.clone() });
        Ok(Reply::Bulk(value))
    }

    fn expire(&mut self, key: &Bytes, options: ExpireOptions, deadline: u64) -> Result<Reply> {
        let Some(old) = self.get(key)? else { return Ok(Reply::Int(0)) };
        let present = if old.deadline == 0 { u64::MAX } else { old.deadline };
        let in_order = match options.order {
            DeadlineOrder::Any => true,
            DeadlineOrder::Later => deadline > present,
            DeadlineOrder::Earlier => deadline < present,
        };
        let wanted = in_order && options.only_if.allows(old.deadline != 0);
        if wanted {
            if deadline <= self.now {
                self.delete(key);
            } else {
                self.put(key, Stored { deadline, ..old });
            }
        }
        Ok(Reply::Int(i64::from(wanted)))
    }

    fn rename(&mut self, from: &Bytes, to: &Bytes, only_if_none: bool) -> Result<Reply> {
        let Some(value) = self.get(from)? else { return Ok(Reply::err("no such key")) };
        if only_if_none && self.get(to)?.is_some() {
            return Ok(Reply::Int(0));
        }
        self.delete(from);
        self.put(to, value);
        Ok(if only_if_none { Reply::Int(1) } else { Reply::OK })
    }

    /// Applies the write and stores the reply in the session. If the request is the last request of
    /// the session, returns the stored reply instead.
    fn once(&mut self, id: u64, request: u64, write: &Write) -> Result<Reply> {
        let key = Session::key(id);
        let stored = self.stored(&key)?;
        let Some(session) = stored.as_deref().and_then(Session::decode) else {
            return Ok(sessions::not_open(id));
        };
        if request == session.request {
            return Ok(session.answer.reply(request));
        }
        if request < session.request {
            return Ok(sessions::out_of_order(request, session.request));
        }
        let reply = self.apply(write)?;
        let session = Session { request, used: self.ts, answer: Answer::of(&reply) };
        self.changes.insert(key, Some(session.encode()));
        Ok(reply)
    }

    fn table(&self) -> Result<Table> {
        let stored = self.stored(&Table::key())?;
        Ok(stored.as_deref().and_then(Table::decode).unwrap_or_default())
    }

    fn open_session(&mut self) -> Result<Reply> {
        let mut table = self.table()?;
        if table.open >= SESSIONS_MAX {
            table.open -= self.evict_sessions()?;
        }
        table.open += 1;
        table.last += 1;
        let session = Session { request: 0, used: self.ts, answer: Answer::Kept(Reply::OK) };
        self.changes.insert(Session::key(table.last), Some(session.encode()));
        self.changes.insert(Table::key(), Some(table.encode()));
        Ok(Reply::Int(table.last as i64))
    }

    fn close_session(&mut self, id: u64) -> Result<Reply> {
        let key = Session::key(id);
        if self.stored(&key)?.is_none() {
            return Ok(Reply::Int(0));
        }
        let mut table = self.table()?;
        table.open = table.open.saturating_sub(1);
        self.changes.insert(key, None);
        self.changes.insert(Table::key(), Some(table.encode()));
        Ok(Reply::Int(1))
    }

    /// Closes the [`EVICTED`] sessions that were used least recently, and returns their number.
    fn evict_sessions(&mut self) -> Result<u64> {
        let end = [SESSION, &[0xff; 9]].concat();
        let mut all = HashMap::new();
        for item in self.tree.scan(SESSION.to_vec()..end) {
            let (key, stored) = item?;
            all.insert(key, Some(stored));
        }
        let of_entry = self.changes.iter().filter(|(key, _)| key.starts_with(SESSION));
        all.extend(of_entry.map(|(key, change)| (key.clone(), change.clone())));
        let used = |stored: &Bytes| Session::decode(stored).map_or(0, |session| session.used);
        let mut all: Vec<(u64, Bytes)> = all
            .into_iter()
            .filter_map(|(key, stored)| stored.map(|stored| (used(&stored), key)))
            .collect();
        all.sort_unstable();
        all.truncate(EVICTED);
        let count = all.len() as u64;
        self.changes.extend(all.into_iter().map(|(_, key)| (key, None)));
        Ok(count)
    }

    fn flush(&mut self) -> Result<Reply> {
        let keys = self.tree.scan(user_keys()).map(|item| item.map(|(key, _)| key));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let changed = self.changes.iter_mut().filter(|(key, _)| !is_system(key));
        changed.for_each(|(_, value)| *value = None);
        for key in keys {
            self.delete(&key);
        }
        Ok(Reply::OK)
    }

    fn get(&self, key: &Bytes) -> Result<Option<Stored>> {
        let stored = self.stored(key)?;
        Ok(stored.and_then(Stored::decode).filter(|stored| !stored.expired(self.now)))
    }

    fn stored(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.tree.get(key),
        }
    }

    fn put(&mut self, key: &Bytes, stored: Stored) {
        self.changes.insert(key.clone(), Some(stored.encode()));
    }

    /// Replies with the length of the value.
    fn put_checked(&mut self, key: &Bytes, value: Bytes, deadline: u64) -> Reply {
        let len = value.len();
        if len > USER_VALUE_BYTES_MAX {
            return too_large(len as u64);
        }
        self.put(key, Stored { deadline, value });
        Reply::Int(len as i64)
    }

    fn delete(&mut self, key: &Bytes) {
        self.changes.insert(key.clone(), None);
    }
}

fn not_finite() -> Reply {
    Reply::err("increment would produce NaN or Infinity")
}

fn too_large(found: u64) -> Reply {
    Reply::Error(format!(
        "TOOLARGE the value would have {found} bytes, the limit is {USER_VALUE_BYTES_MAX}: split it"
    ))
}

fn value_or_nil(stored: Option<Stored>) -> Reply {
    stored.map_or(Reply::Nil, |stored| Reply::Bulk(stored.value))
}

/// An integer as Redis accepts it: decimal, no spaces, no plus sign, no leading zeros.
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
