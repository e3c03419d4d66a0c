//! Commands that scan many keys.

use super::decode::{Args, Outcome, int, read, syntax, word};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::command::Read;
use crate::machine::glob::PATTERN_BYTES_MAX;
use crate::machine::reply::Reply;
use bytes::Bytes;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[
    spec("dbsize", 1, Flag::Read, Keys::NONE, |_, _| read(Read::Size {})),
    spec("keys", 2, Flag::Read, Keys::NONE, |_, args| {
        read(Read::Keys { pattern: checked_pattern(&args[1])? })
    }),
    spec("randomkey", 1, Flag::Read, Keys::NONE, |client, _| {
        read(Read::RandomKey { seed: client.draw() })
    }),
    spec("scan", -2, Flag::Read, Keys::NONE, scan),
];

/// A pattern that is not too long.
fn checked_pattern(pattern: &Bytes) -> Result<Bytes, Reply> {
    if pattern.len() > PATTERN_BYTES_MAX {
        let (found, limit) = (pattern.len(), PATTERN_BYTES_MAX);
        return Err(Reply::Error(format!(
            "TOOLARGE the pattern has {found} bytes, the limit is {limit}: use a shorter pattern"
        )));
    }
    Ok(pattern.clone())
}

/// `SCAN cursor [MATCH pattern] [COUNT n] [TYPE string]`
fn scan(client: &mut Client, args: &Args) -> Outcome {
    let cursor = u64::try_from(int(&args[1])?).map_err(|_| Reply::err("invalid cursor"))?;
    let Some(after) = client.shared.cursors.lock().get(cursor) else {
        return Err(Reply::err("unknown cursor: begin again with 0"));
    };
    let (mut count, mut pattern) = (10, Bytes::from_static(b"*"));
    let mut rest = args[2..].iter();
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or_else(syntax)?;
        match word(option).as_str() {
            "MATCH" => pattern = checked_pattern(value)?,
            "COUNT" => count = int(value)?,
            "TYPE" if word(value) == "STRING" => {}
            "TYPE" => pattern = Bytes::new(),
            _ => return Err(syntax()),
        }
    }
    let count = u64::try_from(count).ok().filter(|&count| count > 0).ok_or_else(syntax)?;
    read(Read::Scan { after, count, pattern })
}
