//! What a shard keeps of itself among its keys: it travels and is made durable with them. Users can
//! neither read nor write it: their commands with such a key are refused, and its stored value has
//! a tag that no reader takes for a value.

use crate::raft::Conf;
use bedstone_engine::{Op, Result, Tree};
use bytes::{BufMut, Bytes, BytesMut};

/// Keys that begin so are the store's own.
pub const PREFIX: &[u8] = b"\xff\xff\xff\xffbedstone/";
/// Where the members are, as of the last entry applied.
pub const MEMBERS: &[u8] = b"\xff\xff\xff\xffbedstone/members";
/// Where the head of the table of sessions is, see [`super::sessions`].
pub const SESSIONS: &[u8] = b"\xff\xff\xff\xffbedstone/sessions";
/// What the keys of sessions begin with.
pub const SESSION: &[u8] = b"\xff\xff\xff\xffbedstone/session/";
/// The tag of the stored value, see [`super::value`].
const TAG: u8 = 2;

/// Whether a key is the store's own.
pub fn is_system(key: &[u8]) -> bool {
    key.starts_with(PREFIX)
}

/// What a stored value begins with.
pub fn wrap() -> BytesMut {
    BytesMut::from(&[TAG][..])
}

/// What is in a stored value.
pub fn unwrap(stored: &[u8]) -> Option<&[u8]> {
    stored.strip_prefix(&[TAG])
}

/// The change that keeps the members.
pub fn keep_members(conf: &Conf) -> Op {
    let mut bytes = Vec::new();
    conf.encode(&mut bytes);
    let mut stored = wrap();
    stored.put_slice(&bytes);
    Op::Put(Bytes::from_static(MEMBERS), stored.freeze())
}

/// The members as a tree keeps them; `None` in a tree that began without any.
///
/// # Errors
/// When the tree cannot be read.
pub fn members(tree: &Tree) -> Result<Option<Conf>> {
    let stored = tree.get(MEMBERS)?;
    Ok(stored.and_then(|stored| members_in(MEMBERS, &stored)))
}

/// The members, if this is the pair that keeps them.
pub fn members_in(key: &[u8], stored: &[u8]) -> Option<Conf> {
    if key != MEMBERS {
        return None;
    }
    Conf::decode(unwrap(stored)?)
}
