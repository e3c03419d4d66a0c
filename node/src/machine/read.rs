//! The replies to read commands, from a tree, at the tree's own time.
//!
//! A key expires when the shard's time has passed the key's deadline. Only log entries move the
//! shard's time. A read at the leader may find a key whose deadline the leader's clock has passed
//! and the shard's time has not: the result is [`ReadOutcome::ExpiryDue`], and the leader logs a
//! tick and reads again. Therefore the leader's clock alone decides on expiry, and a new leader
//! whose clock is behind never shows an expired key again.

use super::apply::{millis_of, parse_int};
use super::argument::Key;
use super::command::Read;
use super::glob::Glob;
use super::options::{RangeBounds, RangeEnd, TimeForm};
use super::reply::Reply;
use super::system::{user_key, user_keys};
use super::value::Stored;
use super::{ReadOutcome, ReadTime};
use crate::limits::{ANSWER_BYTES_MAX, SCAN_KEYS_MAX};
use bedstone_engine::{Result, Tree};
use bytes::Bytes;
use std::ops::{Bound, Range};

/// Steps that a request may spend on the comparison of keys with a pattern: some ten milliseconds.
const PATTERN_STEPS_MAX: u64 = 10_000_000;
/// Keys from which RANDOMKEY draws one.
const RANDOM_KEYS: usize = 64;
/// Bytes of a key that RANDOMKEY draws before.
const RANDOM_LEVELS: usize = 16;
/// Keys that a scan examines at most for one reply.
const SCAN_STEPS_MAX: u64 = 100_000;

/// Replies to a read of a tree.
pub fn answer(tree: &Tree, read: &Read, time: ReadTime) -> Result<ReadOutcome> {
    let clock = match time {
        ReadTime::Applied => 0,
        ReadTime::Leader(unix_millis) => unix_millis,
    };
    let mut reader = Reader { tree, now: millis_of(tree.ts()), clock, expiry_due: false };
    let reply = reader.reply(read)?;
    if reader.expiry_due {
        return Ok(ReadOutcome::ExpiryDue);
    }
    Ok(ReadOutcome::Reply(reply))
}

struct Reader<'a> {
    tree: &'a Tree,
    now: u64,
    /// The leader's clock in milliseconds since 1970; 0 for a weak read.
    clock: u64,
    expiry_due: bool,
}

impl Reader<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Stored>> {
        let found = self.tree.get(key)?;
        Ok(self.live(found))
    }

    fn live(&mut self, stored: Option<Bytes>) -> Option<Stored> {
        let stored = stored.and_then(Stored::decode)?;
        if stored.expired(self.now) {
            return None;
        }
        self.expiry_due |= stored.expired(self.clock);
        Some(stored)
    }

    fn reply(&mut self, read: &Read) -> Result<Reply> {
        Ok(match read {
            Read::Get { key: Key(key) } => match self.get(key)? {
                Some(stored) => Reply::Bulk(stored.value),
                None => Reply::Nil,
            },
            Read::GetMany { keys } => {
                let mut values = Vec::with_capacity(keys.len());
                let mut bytes = 0;
                for Key(key) in keys {
                    let stored = self.get(key)?;
                    bytes += stored.as_ref().map_or(0, |stored| stored.value.len());
                    if bytes > ANSWER_BYTES_MAX {
                        return Ok(answer_too_large("request fewer keys"));
                    }
                    values.push(stored.map_or(Reply::Nil, |stored| Reply::Bulk(stored.value)));
                }
                Reply::Array(values)
            }
            Read::Exists { keys } => {
                let mut count = 0;
                for Key(key) in keys {
                    count += i64::from(self.get(key)?.is_some());
                }
                Reply::Int(count)
            }
            Read::Length { key: Key(key) } => {
                Reply::Int(self.get(key)?.map_or(0, |stored| stored.value.len() as i64))
            }
            Read::GetRange { key: Key(key), start, end } => {
                let value = self.get(key)?.map_or(Bytes::new(), |stored| stored.value);
                Reply::Bulk(substring(&value, *start, *end))
            }
            Read::TimeToLive { key: Key(key), form } => self.time_to_live(key, *form)?,
            Read::Type { key: Key(key) } => {
                Reply::Simple(if self.get(key)?.is_some() { "string" } else { "none" })
            }
            Read::MemoryUsage { key: Key(key) } => match self.get(key)? {
                Some(stored) => Reply::Int((key.len() + stored.value.len() + 31) as i64),
                None => Reply::Nil,
            },
            Read::Encoding { key: Key(key) } => match self.get(key)? {
                Some(stored) if parse_int(&stored.value).is_some() => Reply::text("int"),
                Some(stored) if stored.value.len() <= 44 => Reply::text("embstr"),
                Some(_) => Reply::text("raw"),
                None => Reply::Nil,
            },
            Read::Keys { pattern } => self.keys(pattern)?,
            Read::RandomKey { seed } => self.random_key(*seed)?,
            Read::Size {} => self.size()?,
            Read::Scan { after, count, pattern } => self.scan(after, *count, pattern)?,
            Read::Range { start: Key(start), end: Key(end), limit, bounds } => {
                self.range(start, end, *limit, *bounds)?
            }
        })
    }

    fn time_to_live(&mut self, key: &[u8], form: TimeForm) -> Result<Reply> {
        let Some(stored) = self.get(key)? else { return Ok(Reply::Int(-2)) };
        if stored.deadline == 0 {
            return Ok(Reply::Int(-1));
        }
        let left = stored.deadline.saturating_sub(self.now.max(self.clock));
        Ok(Reply::Int(match form {
            TimeForm::SecondsLeft => left.saturating_add(500) / 1000,
            TimeForm::MillisLeft => left,
            TimeForm::UnixSeconds => stored.deadline.saturating_add(500) / 1000,
            TimeForm::UnixMillis => stored.deadline,
        } as i64))
    }

    fn size(&mut self) -> Result<Reply> {
        let mut count = 0;
        for item in self.tree.scan(user_keys()) {
            let (_, value) = item?;
            count += i64::from(self.live(Some(value)).is_some());
        }
        Ok(Reply::Int(count))
    }

    /// One of the keys from a drawn key on. With few keys, each is equally likely.
    fn random_key(&mut self, seed: u64) -> Result<Reply> {
        let Range { start, end } = user_keys();
        let Some(from) = drawn_key(self.tree, seed)? else { return Ok(Reply::Nil) };
        let (tree, ranges) = (self.tree, [from.to_vec()..end, start..from.to_vec()]);
        let mut live = Vec::new();
        for item in ranges.into_iter().flat_map(|range| tree.scan(range)) {
            let (key, value) = item?;
            if self.live(Some(value)).is_some() {
                live.push(key);
            }
            if live.len() == RANDOM_KEYS {
                break;
            }
        }
        let drawn = (seed >> 32) as usize % live.len().max(1);
        Ok(live.into_iter().nth(drawn).map_or(Reply::Nil, |key| Reply::Bulk(user_key(key))))
    }

    fn keys(&mut self, pattern: &[u8]) -> Result<Reply> {
        let (pattern, mut steps) = (Glob::new(pattern), PATTERN_STEPS_MAX);
        let (mut keys, mut bytes) = (Vec::new(), 0);
        for item in self.tree.scan(user_keys()) {
            let (stored, value) = item?;
            let key = user_key(stored);
            let Some(matches) = pattern.matches(&key, &mut steps) else {
                return Ok(pattern_too_costly());
            };
            if matches && self.live(Some(value)).is_some() {
                bytes += key.len() + 16;
                if bytes > ANSWER_BYTES_MAX {
                    return Ok(answer_too_large("use SCAN or KV.SCAN"));
                }
                keys.push(Reply::Bulk(key));
            }
        }
        Ok(Reply::Array(keys))
    }

    /// Keys after the stored key `after`; from the first key if it is empty. The first element of
    /// the reply is the stored key after which the next scan continues; it is empty at the end.
    fn scan(&mut self, after: &[u8], count: u64, pattern: &[u8]) -> Result<Reply> {
        let Range { start, end } = user_keys();
        let from = match after {
            [] => Bound::Included(start),
            after => Bound::Excluded(start.max(after.to_vec())),
        };
        let (pattern, mut pattern_steps) = (Glob::new(pattern), PATTERN_STEPS_MAX);
        let (mut keys, mut steps, mut bytes) = (Vec::new(), 0, 0);
        let limit = count.clamp(1, SCAN_KEYS_MAX as u64).min(SCAN_STEPS_MAX);
        let mut last: Option<Bytes> = None;
        for item in self.tree.scan((from, Bound::Excluded(end))) {
            let (stored, value) = item?;
            steps += 1;
            let key = user_key(stored.clone());
            // A page ends early when it is long or its pattern costs much. The next page continues
            // after the last key that was compared.
            let Some(matches) = pattern.matches(&key, &mut pattern_steps) else {
                return Ok(last.map_or_else(pattern_too_costly, |last| {
                    Reply::Array(vec![Reply::Bulk(last), Reply::Array(keys)])
                }));
            };
            if matches && self.live(Some(value)).is_some() {
                bytes += key.len() + 16;
                keys.push(Reply::Bulk(key));
            }
            last = Some(stored.clone());
            if steps >= limit || bytes > ANSWER_BYTES_MAX / 2 {
                return Ok(Reply::Array(vec![Reply::Bulk(stored), Reply::Array(keys)]));
            }
        }
        Ok(Reply::Array(vec![Reply::Bulk(Bytes::new()), Reply::Array(keys)]))
    }

    /// Keys and values, alternating.
    fn range(
        &mut self,
        start: &Bytes,
        end: &Bytes,
        limit: u64,
        bounds: RangeBounds,
    ) -> Result<Reply> {
        let keys = user_keys();
        let first = keys.start.max(start.to_vec());
        let from = if bounds.after_start { Bound::Excluded(first) } else { Bound::Included(first) };
        let to = match bounds.end {
            RangeEnd::Unbounded => Bound::Excluded(keys.end),
            RangeEnd::Included => Bound::Included(end.to_vec()),
            RangeEnd::Excluded => Bound::Excluded(end.to_vec()),
        };
        let (mut items, mut bytes) = (Vec::new(), 0);
        let limit = limit.min(SCAN_KEYS_MAX as u64) as usize;
        for item in self.tree.scan((from, to)) {
            if items.len() >= 2 * limit {
                break;
            }
            let (key, value) = item?;
            let Some(stored) = self.live(Some(value)) else { continue };
            bytes += key.len() + stored.value.len() + 32;
            if bytes > ANSWER_BYTES_MAX && !items.is_empty() {
                break;
            }
            items.push(Reply::Bulk(user_key(key)));
            items.push(Reply::Bulk(stored.value));
        }
        Ok(Reply::Array(items))
    }
}

/// A drawn stored key, or `None` without keys. Each level draws one of the bytes in which the keys
/// of a range differ first, and continues with the keys that have this byte.
fn drawn_key(tree: &Tree, seed: u64) -> Result<Option<Bytes>> {
    let Range { start, end } = user_keys();
    let first = tree.scan(start.clone()..end.clone()).next().transpose()?;
    let last = tree.scan_back(start..end).next().transpose()?;
    let (Some((mut low, _)), Some((mut high, _))) = (first, last) else { return Ok(None) };
    let mut draw = seed | 1;
    for _ in 0..RANDOM_LEVELS {
        let at = low.iter().zip(&high).take_while(|(one, other)| one == other).count();
        let Some(&greatest) = high.get(at) else { break };
        let least = low.get(at).copied().unwrap_or(0);
        // The generator of MMIX (Knuth); its upper bits are the good ones.
        draw = draw.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        let byte = least + ((draw >> 33) % (u64::from(greatest - least) + 1)) as u8;
        let from = low.clone().max([&low[..at], &[byte]].concat().into());
        let range = (Bound::Included(from.to_vec()), Bound::Included(high.to_vec()));
        let Some((first, _)) = tree.scan(range).next().transpose()? else { break };
        // Without a key that has the drawn byte, the next key gives the byte.
        let end = match first.get(at).and_then(|byte| byte.checked_add(1)) {
            Some(next) => Bound::Excluded([&low[..at], &[next]].concat()),
            None => Bound::Included(high.to_vec()),
        };
        let last = tree.scan_back((Bound::Included(first.to_vec()), end)).next().transpose()?;
        high = last.map_or(first.clone(), |(last, _)| last);
        low = first;
    }
    Ok(Some(low))
}

fn pattern_too_costly() -> Reply {
    Reply::Error("TOOLARGE the pattern costs too many steps: use a pattern with fewer stars".into())
}

fn answer_too_large(advice: &str) -> Reply {
    Reply::Error(format!("TOOLARGE the answer is over {ANSWER_BYTES_MAX} bytes: {advice}"))
}

/// The bytes from `start` to `end`, both inclusive. A negative place counts from the end.
fn substring(value: &Bytes, start: i64, end: i64) -> Bytes {
    let len = value.len() as i64;
    let place = |at: i64| if at < 0 { (len + at).max(0) } else { at };
    let (start, end) = (place(start), place(end).min(len - 1));
    if start > end || len == 0 {
        return Bytes::new();
    }
    value.slice(start as usize..=end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substrings_count_from_both_ends() {
        let value = Bytes::from_static(b"This is a string");
        for (start, end, expected) in
            [(0, 3, "This"), (-3, -1, "ing"), (0, -1, "This is a string"), (10, 100, "string")]
        {
            assert_eq!(substring(&value, start, end), expected.as_bytes());
        }
        assert_eq!(substring(&value, 5, 3), "");
        assert_eq!(substring(&Bytes::new(), 0, -1), "");
    }
}
