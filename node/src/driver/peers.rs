//! The other nodes: which are connected, which are heard, and the frame to each of them in which
//! the short messages of all shards travel together.
//!
//! A node sends each peer such a frame every [`BEAT_TICKS`] at least, if only an empty one. So a
//! peer is missed once, by the node, however many shards rest that it leads.

use crate::limits::{BEAT_TICKS, SILENT_TICKS};
use crate::raft::{Body, Message, PeerId};
use crate::wire;
use bedstone_engine::ShardId;
use bedstone_net::limits::CONTROL_BYTES_MAX;
use bedstone_net::{Frame, Lane, Outbox};
use bytes::BytesMut;
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct Peers {
    /// When each connected peer was heard last, in ticks.
    up: BTreeMap<PeerId, u64>,
    now: u64,
    /// Bodies of the next frames.
    beats: BTreeMap<PeerId, Vec<BytesMut>>,
}

impl Peers {
    /// A peer connected.
    pub fn connected(&mut self, peer: PeerId) {
        self.up.insert(peer, self.now);
    }

    /// A peer's connection is gone.
    pub fn lost(&mut self, peer: PeerId) {
        self.up.remove(&peer);
        self.beats.remove(&peer);
    }

    /// Something came from a peer.
    pub fn heard(&mut self, peer: PeerId) {
        self.up.entry(peer).and_modify(|heard| *heard = self.now);
    }

    /// Whether a peer is connected.
    pub fn is_up(&self, peer: PeerId) -> bool {
        self.up.contains_key(&peer)
    }

    /// Time passed. Who is missed from now on: each is told once, until it is heard again.
    pub fn tick(&mut self) -> Vec<PeerId> {
        self.now += 1;
        let late = |heard: u64| heard + SILENT_TICKS + 1 == self.now;
        self.up.iter().filter(|(_, heard)| late(**heard)).map(|(&peer, _)| peer).collect()
    }

    /// Ticks until the next frame is due to peers.
    pub fn ticks_to_beat(&self) -> u32 {
        (BEAT_TICKS - self.now % BEAT_TICKS) as u32
    }

    /// Whether a message is one of the short ones that travel together.
    pub fn is_beat(body: &Body) -> bool {
        use Body::{Heartbeat, HeartbeatReply, Quiesce, Unquiesce};
        matches!(body, Heartbeat { .. } | HeartbeatReply { .. } | Quiesce { .. } | Unquiesce)
    }

    /// Adds a message of a shard to the next frame.
    pub fn beat(&mut self, shard: ShardId, message: &Message) {
        let bodies = self.beats.entry(message.peer).or_default();
        if bodies.last().is_none_or(|body| body.len() + wire::BEAT_BYTES_MAX > CONTROL_BYTES_MAX) {
            bodies.push(BytesMut::new());
        }
        bodies.last_mut().into_iter().for_each(|body| wire::put_beat(body, shard, message));
    }

    /// Sends what was gathered. What cannot leave is sent anew soon, as heartbeats are.
    pub fn send_beats(&mut self, ticked: bool, outbox: &mut Outbox) {
        if ticked && self.now.is_multiple_of(BEAT_TICKS) {
            for &peer in self.up.keys() {
                self.beats.entry(peer).or_insert_with(|| vec![BytesMut::new()]);
            }
        }
        for (peer, bodies) in std::mem::take(&mut self.beats) {
            for body in bodies {
                let (lane, kind, body) = (Lane::Control, wire::kind::BEATS, body.freeze());
                let _ = outbox.push(peer, Frame { lane, kind, shard: 0, body });
            }
        }
    }
}
