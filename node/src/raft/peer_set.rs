//! A small set of peers: each peer once, in ascending order.

use super::ReplicaId;
use std::ops::Deref;
use thin_vec::ThinVec;

/// A set of peers, see the module. The set has no spare capacity, because sets of peers seldom
/// change and a node keeps many of them. Most sets are empty, and take one word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSet(ThinVec<ReplicaId>);

impl PeerSet {
    /// Adds a peer.
    pub fn insert(&mut self, peer: ReplicaId) {
        self.extend([peer]);
    }

    /// Removes a peer, if it is in the set.
    pub fn remove(&mut self, peer: ReplicaId) {
        self.retain(|other| other != peer);
    }

    /// Removes each peer for which `keep` returns false.
    pub fn retain(&mut self, keep: impl Fn(ReplicaId) -> bool) {
        self.0 = self.iter().copied().filter(|&peer| keep(peer)).collect();
    }

    /// The number of peers that are in only one of the two sets.
    pub fn differences(&self, other: &PeerSet) -> usize {
        let only = |a: &PeerSet, b: &PeerSet| a.iter().filter(|peer| !b.contains(peer)).count();
        only(self, other) + only(other, self)
    }

    fn exact(peers: &[ReplicaId]) -> PeerSet {
        let mut set = ThinVec::with_capacity(peers.len());
        set.extend_from_slice(peers);
        PeerSet(set)
    }

    /// The set of these peers. Returns `None` when the peers do not ascend.
    pub fn from_ascending(peers: Vec<ReplicaId>) -> Option<PeerSet> {
        peers.is_sorted_by(|a, b| a < b).then(|| PeerSet::exact(&peers))
    }
}

impl Deref for PeerSet {
    type Target = [ReplicaId];

    fn deref(&self) -> &[ReplicaId] {
        &self.0
    }
}

impl Extend<ReplicaId> for PeerSet {
    fn extend<I: IntoIterator<Item = ReplicaId>>(&mut self, peers: I) {
        *self = self.iter().copied().chain(peers).collect();
    }
}

impl FromIterator<ReplicaId> for PeerSet {
    fn from_iter<I: IntoIterator<Item = ReplicaId>>(peers: I) -> PeerSet {
        let mut peers: Vec<ReplicaId> = peers.into_iter().collect();
        peers.sort_unstable();
        peers.dedup();
        PeerSet::exact(&peers)
    }
}

impl<'a> IntoIterator for &'a PeerSet {
    type Item = &'a ReplicaId;
    type IntoIter = std::slice::Iter<'a, ReplicaId>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for PeerSet {
    type Item = ReplicaId;
    type IntoIter = thin_vec::IntoIter<ReplicaId>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
