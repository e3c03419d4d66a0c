//! A few peers, each once, ascending.

use super::PeerId;
use std::ops::Deref;

/// See the module. Without room for more: sets of peers seldom change and many are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSet(Box<[PeerId]>);

impl PeerSet {
    /// Adds one.
    pub fn insert(&mut self, peer: PeerId) {
        self.extend([peer]);
    }

    /// Takes one out, if it is there.
    pub fn remove(&mut self, peer: PeerId) {
        self.retain(|other| other != peer);
    }

    /// Takes out those for whom `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(PeerId) -> bool) {
        self.0 = self.iter().copied().filter(|&peer| keep(peer)).collect();
    }

    /// How many are in one of two sets only.
    pub fn differences(&self, other: &PeerSet) -> usize {
        let only = |a: &PeerSet, b: &PeerSet| a.iter().filter(|peer| !b.contains(peer)).count();
        only(self, other) + only(other, self)
    }

    /// The set of these; `None` when they are not ascending.
    pub fn from_ascending(peers: Vec<PeerId>) -> Option<PeerSet> {
        peers.is_sorted_by(|a, b| a < b).then(|| PeerSet(peers.into()))
    }
}

impl Deref for PeerSet {
    type Target = [PeerId];

    fn deref(&self) -> &[PeerId] {
        &self.0
    }
}

impl Extend<PeerId> for PeerSet {
    fn extend<I: IntoIterator<Item = PeerId>>(&mut self, peers: I) {
        *self = self.iter().copied().chain(peers).collect();
    }
}

impl FromIterator<PeerId> for PeerSet {
    fn from_iter<I: IntoIterator<Item = PeerId>>(peers: I) -> PeerSet {
        let mut peers: Vec<PeerId> = peers.into_iter().collect();
        peers.sort_unstable();
        peers.dedup();
        PeerSet(peers.into())
    }
}

impl<'a> IntoIterator for &'a PeerSet {
    type Item = &'a PeerId;
    type IntoIter = std::slice::Iter<'a, PeerId>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for PeerSet {
    type Item = PeerId;
    type IntoIter = std::vec::IntoIter<PeerId>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_vec().into_iter()
    }
}
