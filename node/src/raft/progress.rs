//! The leader's knowledge of a follower, and the rules for sending to that follower.

use super::{Index, ReplicaId, Tick};
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use thin_vec::ThinVec;

/// How a leader sends to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The leader does not know where the follower's log agrees. One append at a time leaves, until
    /// the follower accepts one.
    Probe {
        /// No append may leave: one is under way, or the next one waits for the next heartbeat.
        sent: bool,
    },
    /// The follower's log agrees. Appends follow each other without waiting for replies.
    Replicate,
    /// The entries that the follower lacks were released. A snapshot is on its way.
    Snapshot,
}

/// The progress of a follower, see the module. Invariants:
///
/// - `matched < next`. Only a loss of entries lowers `matched`.
/// - `inflight` is empty unless `mode` is [`Mode::Replicate`]. The indexes in `inflight` ascend.
/// - `inflight_bytes` is the sum of the bytes in `inflight`.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The id of the follower.
    peer: ReplicaId,
    /// The last index that is known to agree and to be durable at the follower.
    matched: Index,
    /// The next index to send.
    next: Index,
    /// How the leader sends.
    mode: Mode,
    /// The latest read round that the follower answered.
    round: u64,
    /// When the follower last answered a message.
    heard: Tick,
    /// The follower is not connected, as far as the leader knows.
    disconnected: bool,
    /// When the follower last acknowledged an append, or when the first append under way left.
    waiting_since: Tick,
    /// Appends under way: last index and bytes of each.
    inflight: VecDeque<(Index, usize)>,
    inflight_bytes: usize,
}

impl Progress {
    /// A follower of a new leader whose log ends before `next`.
    pub fn new(peer: ReplicaId, next: Index, now: Tick) -> Self {
        Self {
            peer,
            matched: Index(0),
            next,
            mode: Mode::Probe { sent: false },
            round: 0,
            heard: now,
            disconnected: false,
            waiting_since: now,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    /// The id of the follower.
    pub fn peer(&self) -> ReplicaId {
        self.peer
    }

    /// The last index that is known to agree and to be durable at the follower.
    pub fn matched(&self) -> Index {
        self.matched
    }

    /// The next index to send.
    pub fn next(&self) -> Index {
        self.next
    }

    /// How the leader sends.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The latest read round that the follower answered.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// When the follower last answered a message.
    pub(super) fn heard(&self) -> Tick {
        self.heard
    }

    /// Whether the follower is not connected, as far as the leader knows.
    pub(super) fn disconnected(&self) -> bool {
        self.disconnected
    }

    /// Whether an append may leave now.
    pub fn may_send(&self, bytes_max: usize, appends_max: usize) -> bool {
        match self.mode {
            Mode::Probe { sent } => !sent,
            Mode::Replicate => self.inflight_bytes < bytes_max && self.inflight.len() < appends_max,
            Mode::Snapshot => false,
        }
    }

    /// An append with entries up to `last` leaves.
    pub fn sent(&mut self, last: Index, bytes: usize, now: Tick) {
        if self.inflight.is_empty() {
            self.waiting_since = now;
        }
        match &mut self.mode {
            Mode::Probe { sent } => *sent = true,
            _ => {
                assert!(last + 1 >= self.next, "appends leave in the order of the log");
                self.next = last + 1;
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
            }
        }
    }

    /// The follower answered a message.
    pub fn hear(&mut self, now: Tick) {
        self.heard = now;
        self.disconnected = false;
    }

    /// The leader was quiescent, and its followers had no message to answer.
    pub(super) fn hear_again(&mut self, now: Tick) {
        self.heard = now;
    }

    /// The follower is connected.
    pub(super) fn connect(&mut self) {
        self.disconnected = false;
    }

    /// The follower is not connected any more. Returns whether it was until now.
    pub(super) fn disconnect(&mut self) -> bool {
        !std::mem::replace(&mut self.disconnected, true)
    }

    /// The follower answered a round of heartbeats.
    pub(super) fn answer_round(&mut self, round: u64) {
        self.round = self.round.max(round);
    }

    /// The follower's log agrees up to `matched`. Returns whether this increases the known index.
    pub fn accept(&mut self, matched: Index, now: Tick) -> bool {
        self.hear(now);
        self.waiting_since = now;
        while self.inflight.front().is_some_and(|&(last, _)| last <= matched) {
            let (_, bytes) = self.inflight.pop_front().unwrap_or_default();
            self.inflight_bytes -= bytes;
        }
        let news = matched > self.matched;
        self.matched = self.matched.max(matched);
        self.next = self.next.max(matched + 1);
        // The logs agree directly before `next`: appends need not wait any more.
        if self.mode != Mode::Replicate && self.next == self.matched + 1 {
            self.enter(Mode::Replicate);
        } else if let Mode::Probe { sent } = &mut self.mode {
            *sent = false;
        }
        assert!(self.matched < self.next, "the next entry is one that does not agree yet");
        news
    }

    /// Whether appends under way have had no answer since before `tick`. The appends may be lost,
    /// even when the follower answers heartbeats.
    pub fn is_stalled(&self, tick: Tick) -> bool {
        !self.inflight.is_empty() && self.waiting_since < tick
    }

    /// Finds again the place where the logs agree, because messages may be lost. The search begins
    /// after `from`, or after `matched` if that is greater. `from` is the base of the leader's log,
    /// before which only a snapshot helps, or the index of a snapshot that the follower installed.
    pub fn probe(&mut self, from: Index) {
        self.next = self.matched.max(from) + 1;
        self.enter(Mode::Probe { sent: false });
    }

    /// Like [`Self::probe`], but the first append waits for the next heartbeat.
    pub(super) fn probe_later(&mut self, from: Index) {
        self.probe(from);
        self.mode = Mode::Probe { sent: true };
    }

    /// The follower lost the entries that it had acknowledged.
    fn forget(&mut self) {
        self.matched = Index(0);
    }

    /// The follower refused an append. The follower's log may agree before `next`.
    pub fn back_up(&mut self, next: Index) {
        self.next = next.max(self.matched + 1);
        self.enter(Mode::Probe { sent: false });
    }

    /// Releases the spare capacity for appends under way.
    pub(super) fn shrink_to_fit(&mut self) {
        self.inflight.shrink_to_fit();
    }

    /// Changes how the leader sends.
    pub fn enter(&mut self, mode: Mode) {
        self.mode = mode;
        self.inflight.clear();
        self.inflight_bytes = 0;
        if mode == Mode::Replicate {
            self.next = self.matched + 1;
        }
    }
}

/// The progress of each peer that a leader sends to. The peers are few, so a lookup compares each
/// of them.
#[derive(Clone, Debug, Default)]
pub(super) struct ProgressMap {
    peers: Vec<Progress>,
    /// The last committed index that each peer acknowledged to this replica in earlier terms. A
    /// committed entry stays in the log of the peer, whichever replica leads.
    acknowledged: ThinVec<(ReplicaId, Index)>,
}

impl Deref for ProgressMap {
    type Target = [Progress];

    fn deref(&self) -> &[Progress] {
        &self.peers
    }
}

impl DerefMut for ProgressMap {
    fn deref_mut(&mut self) -> &mut [Progress] {
        &mut self.peers
    }
}

impl ProgressMap {
    pub(super) fn get(&self, peer: ReplicaId) -> Option<&Progress> {
        self.peers.iter().find(|progress| progress.peer == peer)
    }

    pub(super) fn get_mut(&mut self, peer: ReplicaId) -> Option<&mut Progress> {
        self.peers.iter_mut().find(|progress| progress.peer == peer)
    }

    /// The last index that the follower acknowledged to this replica, in this term or before.
    pub(super) fn acknowledged(&self, progress: &Progress) -> Index {
        let before = self.acknowledged.iter().find(|(other, _)| *other == progress.peer);
        before.map_or(Index(0), |(_, upto)| *upto).max(progress.matched)
    }

    /// This replica stops leading. `committed` is its commit index.
    pub(super) fn clear(&mut self, committed: Index) {
        let acknowledged =
            |progress: &Progress| (progress.peer, self.acknowledged(progress).min(committed));
        if !self.peers.is_empty() {
            self.acknowledged = self.peers.iter().map(acknowledged).collect();
            self.peers = Vec::new();
        }
    }

    /// A peer lost the entries that it had acknowledged.
    pub(super) fn forget(&mut self, peer: ReplicaId) {
        self.acknowledged.retain(|(other, _)| *other != peer);
        if let Some(progress) = self.get_mut(peer) {
            progress.forget();
        }
    }

    /// Makes the map contain one progress for each of these peers, in ascending order, and no
    /// other.
    pub(super) fn follow(&mut self, peers: &[ReplicaId], new: impl Fn(ReplicaId) -> Progress) {
        let mut kept = std::mem::take(&mut self.peers);
        self.acknowledged.retain(|(peer, _)| peers.contains(peer));
        self.peers.reserve_exact(peers.len());
        for &peer in peers {
            let known = kept.extract_if(.., |progress| progress.peer == peer).next();
            self.peers.push(known.unwrap_or_else(|| new(peer)));
        }
    }
}
