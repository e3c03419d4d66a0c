//! The homes of the members of a group: the node and the disk that each replica lives on.
//!
//! The core knows replicas by their ids alone. The ids of a group are never used twice, so a
//! replica on a new disk of a node is another replica. The configuration maps an id to its home.

use super::ReplicaId;
use bedstone_net::NodeId;
use bytes::{Buf, BufMut};

/// The place of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The number of the node.
    pub node: NodeId,
    /// The id of the disk; 0 for the only disk of a node.
    pub disk: u128,
}

/// A member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The id of the replica.
    pub id: ReplicaId,
    /// The place of the replica.
    pub home: Home,
}

impl Member {
    /// The first replica of a group on a node with one disk. Its id is the number of the node.
    pub fn first_on(node: NodeId) -> Member {
        Member { id: ReplicaId(node.0), home: Home { node, disk: 0 } }
    }

    /// Bytes of an encoded member.
    pub(super) const BYTES: usize = 32;

    /// Appends the encoded member: id u64, node u64, disk u128, little-endian.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.id.0);
        out.put_u64_le(self.home.node.0);
        out.put_u128_le(self.home.disk);
    }

    pub(super) fn decode(from: &mut &[u8]) -> Option<Member> {
        let id = ReplicaId(from.try_get_u64_le().ok()?);
        let node = NodeId(from.try_get_u64_le().ok()?);
        Some(Member { id, home: Home { node, disk: from.try_get_u128_le().ok()? } })
    }
}

/// A replica with the id of its node.
impl From<ReplicaId> for Member {
    fn from(id: ReplicaId) -> Member {
        Member::first_on(NodeId(id.0))
    }
}

/// The homes of the members, in ascending order of their ids. The list has no spare capacity, since
/// a node keeps many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Homes(Box<[Member]>);

impl Homes {
    /// The home of a member.
    pub fn get(&self, id: ReplicaId) -> Option<Home> {
        let at = self.0.binary_search_by_key(&id, |member| member.id).ok()?;
        Some(self.0[at].home)
    }

    /// The members with their homes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }

    /// The homes of these members, and of the present ones for which `keep` is true. The home of a
    /// present member stays.
    pub(super) fn with(&self, added: &[Member], keep: impl Fn(ReplicaId) -> bool) -> Homes {
        let mut all: Vec<Member> = self.0.iter().chain(added).copied().collect();
        all.retain(|member| keep(member.id));
        all.sort_by_key(|member| member.id);
        all.dedup_by_key(|member| member.id);
        Homes(all.into())
    }

    /// The homes of these members; `None` when their ids do not ascend.
    pub(super) fn from_ascending(members: Vec<Member>) -> Option<Homes> {
        members.is_sorted_by(|a, b| a.id < b.id).then(|| Homes(members.into()))
    }
}

impl FromIterator<Member> for Homes {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Homes {
        let members: Vec<Member> = members.into_iter().collect();
        Homes::default().with(&members, |_| true)
    }
}
