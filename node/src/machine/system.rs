//! The stored keys of a shard: each begins with a byte that names its space ([`space`]). The keys
//! of users lie in the user space. The system space holds the shard's own records, so that
//! snapshots contain these records and they become durable together with the keys. No command can
//! name a key of the system space, and the bounds of a shard do not limit this space.

use crate::raft::Conf;
use bedstone_engine::key::space;
use bedstone_engine::{Op, Result, Tree};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::ops::Range;

/// The key of the members as of the last applied entry.
pub const MEMBERS: &[u8] = b"\0members";
/// The key of the newest version among the applied entries; see [`version`].
pub const VERSION: &[u8] = b"\0version";
/// The key of the head of the table of sessions, see [`super::sessions`].
pub const SESSIONS: &[u8] = b"\0sessions";
/// The prefix of the keys of sessions.
pub const SESSION: &[u8] = b"\0session/";

/// The stored key of a user's key.
pub fn stored_key(user: &[u8]) -> Bytes {
    let mut stored = BytesMut::with_capacity(1 + user.len());
    stored.put_u8(space::USER);
    stored.put_slice(user);
    stored.freeze()
}

/// The user's key in a stored key of the user space.
pub fn user_key(mut stored: Bytes) -> Bytes {
    assert!(stored.first() == Some(&space::USER), "the key lies in the user space");
    stored.split_off(1)
}

/// The range of all stored keys of users.
pub fn user_keys() -> Range<Vec<u8>> {
    vec![space::USER]..vec![space::USER + 1]
}

/// The version of a state without a record of its version.
const FIRST_VERSION: u16 = 1;

/// The newest version among the entries that a tree has applied. A build that does not apply
/// entries of this version cannot continue from the state, since it does not know what the state
/// means.
///
/// # Errors
/// The tree cannot be read.
pub fn version(tree: &Tree) -> Result<u16> {
    let stored = tree.get(VERSION)?;
    let version = stored.and_then(|mut stored| stored.try_get_u16_le().ok());
    Ok(version.unwrap_or(FIRST_VERSION))
}

/// The stored version after an entry of `version`, if the entry changes it.
///
/// # Errors
/// The tree cannot be read.
pub fn raised_version(tree: &Tree, entry: u16) -> Result<Option<Bytes>> {
    if entry <= FIRST_VERSION || entry <= version(tree)? {
        return Ok(None);
    }
    Ok(Some(Bytes::copy_from_slice(&entry.to_le_bytes())))
}

/// The change that stores the members.
pub fn keep_members(conf: &Conf) -> Op {
    let mut bytes = Vec::new();
    conf.encode(&mut bytes);
    Op::Put(Bytes::from_static(MEMBERS), bytes.into())
}

/// The members that a tree stores; `None` if the tree stores no members.
///
/// # Errors
/// The tree cannot be read.
pub fn members(tree: &Tree) -> Result<Option<Conf>> {
    let stored = tree.get(MEMBERS)?;
    Ok(stored.and_then(|stored| members_in(MEMBERS, &stored)))
}

/// The members in a pair of key and stored value; `None` if the key is not [`MEMBERS`] or the value
/// cannot be decoded.
pub fn members_in(key: &[u8], stored: &[u8]) -> Option<Conf> {
    if key != MEMBERS {
        return None;
    }
    Conf::decode(stored)
}
