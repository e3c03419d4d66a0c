//! The other nodes: which are connected, which are silent, and the frame to each node in which the
//! short messages of all shards travel together (coalesced heartbeats).
//!
//! A node sends each connected peer such a frame every [`PEER_HEARTBEAT_TICKS`] at least, an empty
//! one if need be. Therefore the silence of a peer is noticed once, by the node, whatever the
//! number of quiescent shards that the peer leads.

use crate::limits::{PEER_HEARTBEAT_TICKS, PEER_SILENCE_TICKS};
use crate::raft::{Message, ReplicaId};
use crate::replica::Network;
use crate::wire;
use bedstone_engine::ShardId;
use bedstone_net::limits::CONTROL_BYTES_MAX;
use bedstone_net::{Frame, Lane, NodeId, Outbox};
use bytes::BytesMut;
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct Peers {
    /// The tick of the last frame from each connected peer.
    last_heard: BTreeMap<NodeId, u64>,
    now: u64,
    /// The bodies of the next frames of coalesced heartbeats.
    coalesced: BTreeMap<NodeId, Vec<BytesMut>>,
}

impl Peers {
    /// A peer connected.
    pub fn connected(&mut self, peer: NodeId) {
        self.last_heard.insert(peer, self.now);
    }

    /// The connection to a peer is lost.
    pub fn disconnected(&mut self, peer: NodeId) {
        self.last_heard.remove(&peer);
        self.coalesced.remove(&peer);
    }

    /// A frame of a peer arrived.
    pub fn heard(&mut self, peer: NodeId) {
        if let Some(last) = self.last_heard.get_mut(&peer) {
            *last = self.now;
        }
    }

    /// Whether a peer is connected.
    pub fn is_connected(&self, peer: NodeId) -> bool {
        self.last_heard.contains_key(&peer)
    }

    /// A tick passed. Returns the peers that are silent from this tick on; a peer is returned once,
    /// until its next frame.
    pub fn tick(&mut self) -> Vec<NodeId> {
        self.now += 1;
        let is_late = |last: u64| last + PEER_SILENCE_TICKS + 1 == self.now;
        self.last_heard.iter().filter(|(_, last)| is_late(**last)).map(|(&peer, _)| peer).collect()
    }

    /// Ticks until the next frame to the peers is due.
    pub fn ticks_to_heartbeat(&self) -> u32 {
        (PEER_HEARTBEAT_TICKS - self.now % PEER_HEARTBEAT_TICKS) as u32
    }

    fn coalesce(&mut self, node: NodeId, shard: ShardId, from: ReplicaId, message: &Message) {
        let bodies = self.coalesced.entry(node).or_default();
        let is_full = |body: &BytesMut| body.len() + wire::COALESCED_BYTES_MAX > CONTROL_BYTES_MAX;
        match bodies.last_mut() {
            Some(body) if !is_full(body) => wire::put_coalesced(body, shard, from, message),
            _ => {
                let mut body = BytesMut::new();
                wire::put_coalesced(&mut body, shard, from, message);
                bodies.push(body);
            }
        }
    }

    /// Sends the coalesced heartbeats. A frame that cannot leave is dropped: heartbeats repeat.
    pub fn send_coalesced(&mut self, ticked: bool, outbox: &mut Outbox) {
        if ticked && self.now.is_multiple_of(PEER_HEARTBEAT_TICKS) {
            for &peer in self.last_heard.keys() {
                self.coalesced.entry(peer).or_insert_with(|| vec![BytesMut::new()]);
            }
        }
        for (peer, bodies) in std::mem::take(&mut self.coalesced) {
            for body in bodies {
                let (lane, kind, body) = (Lane::Control, wire::kind::COALESCED, body.freeze());
                let _ = outbox.push(peer, Frame { lane, kind, shard: 0, body });
            }
        }
    }
}

/// The peers together with the way to the net.
pub struct PeerNetwork<'a> {
    /// The peers.
    pub peers: &'a mut Peers,
    /// The way to the net.
    pub outbox: &'a mut Outbox,
}

impl Network for PeerNetwork<'_> {
    fn is_connected(&self, peer: NodeId) -> bool {
        self.peers.is_connected(peer)
    }

    fn push(&mut self, peer: NodeId, frame: Frame) -> bool {
        self.outbox.push(peer, frame).is_ok()
    }

    fn coalesce(&mut self, node: NodeId, shard: ShardId, from: ReplicaId, message: &Message) {
        self.peers.coalesce(node, shard, from, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_reported_once_until_its_next_frame() {
        let mut peers = Peers::default();
        peers.connected(NodeId(2));
        let silent = |peers: &mut Peers, ticks: u64| -> Vec<NodeId> {
            (0..ticks).flat_map(|_| peers.tick()).collect()
        };
        assert!(silent(&mut peers, PEER_SILENCE_TICKS).is_empty());
        assert_eq!(silent(&mut peers, 3 * PEER_SILENCE_TICKS), [NodeId(2)]);
        peers.heard(NodeId(2));
        assert_eq!(silent(&mut peers, 2 * PEER_SILENCE_TICKS), [NodeId(2)]);
        peers.disconnected(NodeId(2));
        assert!(!peers.is_connected(NodeId(2)));
    }
}
