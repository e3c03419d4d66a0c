//! The shard's own data, stored among the shard's keys, so that snapshots contain this data and it
//! becomes durable together with the keys. Clients can neither read nor write the shard's own keys:
//! commands with such a key are refused, and the stored value has a tag which reads skip.

use crate::raft::Conf;
use bedstone_engine::{Op, Result, Tree};
use bytes::{BufMut, Bytes, BytesMut};

/// The prefix of the store's own keys.
pub const PREFIX: &[u8] = b"\xff\xff\xff\xffbedstone/";
/// The key of the members as of the last applied entry.
pub const MEMBERS: &[u8] = b"\xff\xff\xff\xffbedstone/members";
/// The key of the head of the table of sessions, see [`super::sessions`].
pub const SESSIONS: &[u8] = b"\xff\xff\xff\xffbedstone/sessions";
/// The prefix of the keys of sessions.
pub const SESSION: &[u8] = b"\xff\xff\xff\xffbedstone/session/";
/// The tag of the store's own values, see [`super::value`].
const TAG: u8 = 2;

/// Whether a key is the store's own.
pub fn is_system(key: &[u8]) -> bool {
    key.starts_with(PREFIX)
}

/// A buffer that begins a stored value with the tag.
pub fn wrap() -> BytesMut {
    BytesMut::from(&[TAG][..])
}

/// A stored value without its tag; `None` if the tag is another one.
pub fn unwrap(stored: &[u8]) -> Option<&[u8]> {
    stored.strip_prefix(&[TAG])
}

/// The change that stores the members.
pub fn keep_members(conf: &Conf) -> Op {
    let mut bytes = Vec::new();
    conf.encode(&mut bytes);
    let mut stored = wrap();
    stored.put_slice(&bytes);
    Op::Put(Bytes::from_static(MEMBERS), stored.freeze())
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
    Conf::decode(unwrap(stored)?)
}
