//! The network between the hosts: connections with streams, as in QUIC. A stream keeps its order. A
//! lost frame is sent again and so arrives late. A connection on which nothing passes for a while
//! ends, and the frames on it are lost. In a harsh world single Raft frames are also lost,
//! duplicated and overtaken, which no stream does.

use super::plan::{MILLI, Plan};
use super::rng::Rng;
use crate::sim::replicas::HostId;
use crate::wire::kind;
use bedstone_net::Frame;
use bedstone_net::frame::StreamId;
use bedstone_net::limits::IDLE_TIME;
use std::collections::BTreeMap;

/// Two nodes, the smaller id first.
pub(super) type Pair = (HostId, HostId);

/// A frame on its way.
#[derive(Clone, Debug)]
pub(super) struct Travelling {
    pub(super) from: HostId,
    pub(super) to: HostId,
    /// The epoch of the connection.
    pub(super) epoch: u64,
    /// The incarnation of the sender.
    pub(super) life: u64,
    pub(super) frame: Frame,
    /// The sender's outbox already counts the frame as sent: the frame waited for a cut to end, or
    /// is a second copy.
    pub(super) settled: bool,
}

/// The state of a connection at its two ends.
#[derive(Default)]
pub(super) struct Connection {
    epoch: u64,
    /// Whether each side considers the connection open, the side with the smaller id first.
    open: [bool; 2],
    /// Since when nothing passes in at least one direction.
    silent_since: Option<u64>,
    /// Frames that wait for a cut to end.
    held: Vec<Travelling>,
}

/// A change of a connection. The first node receives the event; the second is its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionEvent {
    Up(HostId, HostId),
    Down(HostId, HostId),
}

pub(super) struct Network {
    rng: Rng,
    delay: u64,
    harsh: bool,
    /// Loss of one frame in so many, and when the loss ends.
    pub(super) loss: (u64, u64),
    pub(super) connections: BTreeMap<Pair, Connection>,
    /// Until when each direction is cut.
    cut: BTreeMap<(HostId, HostId), u64>,
    /// When each stream delivers its last frame so far.
    busy: BTreeMap<(HostId, HostId, u8), u64>,
    pub(super) lost: u64,
}

fn pair(one: HostId, other: HostId) -> Pair {
    (one.min(other), one.max(other))
}

impl Network {
    pub(super) fn new(plan: &Plan) -> Network {
        let pairs = plan.all().flat_map(|b| (1..b).map(move |a| (a, b)));
        Network {
            rng: Rng::new(plan.seed ^ 0x006e_6574),
            delay: plan.delay,
            harsh: plan.harsh,
            loss: (1, 0),
            connections: pairs.map(|pair| (pair, Connection::default())).collect(),
            cut: BTreeMap::new(),
            busy: BTreeMap::new(),
            lost: 0,
        }
    }

    /// Cuts the direction from one node to the other until the given time.
    pub(super) fn cut(&mut self, from: HostId, to: HostId, until: u64) {
        let end = self.cut.entry((from, to)).or_default();
        *end = until.max(*end);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.loss = (1, 0);
        self.harsh = false;
    }

    /// Whether every connection is open, and no direction is cut.
    pub(super) fn is_whole(&self, now: u64) -> bool {
        let open = |connection: &Connection| connection.open == [true, true];
        self.loss.1 <= now
            && self.cut.values().all(|&until| until <= now)
            && self.connections.values().all(open)
    }

    fn is_cut(&self, from: HostId, to: HostId, now: u64) -> bool {
        self.cut.get(&(from, to)).is_some_and(|&until| now < until)
    }

    /// Sends a frame. Returns when its copies arrive, if any copy does.
    pub(super) fn send(
        &mut self,
        from: HostId,
        life: u64,
        to: HostId,
        frame: Frame,
        now: u64,
    ) -> Vec<(u64, Travelling)> {
        let epoch = self.connections[&pair(from, to)].epoch;
        let stream = StreamId::of(&frame).byte();
        let lossy = now < self.loss.1;
        let mut delay = 50 + self.rng.below(self.delay);
        while lossy && self.rng.one_in(self.loss.0) {
            self.lost += 1;
            delay += 20 * MILLI + self.rng.below(100 * MILLI);
        }
        let travelling = Travelling { from, to, epoch, life, frame, settled: false };
        let is_raft = matches!(travelling.frame.kind, kind::RAFT | kind::COALESCED);
        if self.harsh && is_raft {
            let one_in = if lossy { self.loss.0 } else { 50 };
            let mut copies = Vec::new();
            let lost = self.rng.one_in(one_in);
            self.lost += u64::from(lost);
            // A lost frame arrives in epoch 0, where it is dropped: the sender's window opens all
            // the same.
            copies.push((
                now + delay,
                Travelling { epoch: if lost { 0 } else { epoch }, ..travelling.clone() },
            ));
            if self.rng.one_in(one_in) {
                let later = now + delay + self.rng.below(4 * self.delay);
                copies.push((later, Travelling { settled: true, ..travelling }));
            }
            return copies;
        }
        let busy = self.busy.entry((from, to, stream)).or_default();
        *busy = (now + delay).max(*busy + 1);
        vec![(*busy, travelling)]
    }

    /// Returns a due frame if it arrives. The frame may also wait for a cut to end, or be lost with
    /// its connection.
    pub(super) fn arrive(&mut self, travelling: Travelling, now: u64) -> Option<Travelling> {
        let (from, to) = (travelling.from, travelling.to);
        let is_cut = self.is_cut(from, to, now);
        let connection = self.connections.get_mut(&pair(from, to))?;
        let open = connection.open[usize::from(to > from)];
        if travelling.epoch != connection.epoch || !open {
            self.lost += 1;
            return None;
        }
        if is_cut || !connection.held.is_empty() {
            connection.held.push(Travelling { settled: true, ..travelling });
            return None;
        }
        Some(travelling)
    }

    /// Ends a node. Its peers receive no notice.
    pub(super) fn ended(&mut self, node: HostId) {
        for (&(a, b), connection) in &mut self.connections {
            if a == node || b == node {
                connection.open[usize::from(node == b)] = false;
                connection.held.clear();
            }
        }
    }

    /// Maintains the connections. A connection opens when its ends answer (`answers`) and accept
    /// each other (`agree`), and ends when nothing passes on it. Frames that waited for a cut
    /// continue.
    pub(super) fn maintain(
        &mut self,
        now: u64,
        runs: impl Fn(HostId) -> bool,
        answers: impl Fn(HostId) -> bool,
        agree: impl Fn(HostId, HostId) -> bool,
    ) -> (Vec<ConnectionEvent>, Vec<Travelling>) {
        let (mut events, mut moving) = (Vec::new(), Vec::new());
        let pairs: Vec<Pair> = self.connections.keys().copied().collect();
        for (a, b) in pairs {
            let cut = self.is_cut(a, b, now) || self.is_cut(b, a, now);
            let passes = answers(a) && answers(b) && agree(a, b) && !cut;
            let attempt = self.rng.one_in(3);
            let Some(connection) = self.connections.get_mut(&(a, b)) else { continue };
            let [at_a, at_b] = connection.open;
            if at_a && at_b && passes {
                connection.silent_since = None;
                moving.append(&mut connection.held);
                continue;
            }
            if (at_a || at_b) && !passes {
                let since = *connection.silent_since.get_or_insert(now);
                if now - since < IDLE_TIME.as_micros() as u64 {
                    continue;
                }
            }
            if (at_a || at_b) && (!passes || attempt) {
                // The connection was silent for too long, or one end has restarted.
                events.extend((at_a && runs(a)).then_some(ConnectionEvent::Down(a, b)));
                events.extend((at_b && runs(b)).then_some(ConnectionEvent::Down(b, a)));
                connection.open = [false; 2];
                connection.held.clear();
                connection.epoch += 1;
            }
            if connection.open == [false; 2] && passes && attempt {
                connection.open = [true; 2];
                connection.silent_since = None;
                connection.epoch += 1;
                events.extend([ConnectionEvent::Up(a, b), ConnectionEvent::Up(b, a)]);
            }
        }
        (events, moving)
    }
}
