//! Groups at rest: a leader that nobody asks for anything, and whose followers have all that it
//! has, tells them so once; then none of them sends or counts anything until something happens.
//! (CockroachDB calls it quiescence, TiKV hibernation.)
//!
//! What a quiet follower does not hear from its leader, it must hear of its leader's node: the
//! driver calls [`Raft::silent`] when a node is not heard, for all groups at once. A quiet replica
//! keeps its time standing still, so the times that it measures are those in which it is awake.
//!
//! Whatever is lost on the way, somebody stays awake: a follower that was not told to rest times
//! out, and its question wakes the leader; one that still has something to do says so at once; a
//! leader that wakes tells everyone. A follower that is woken by another than its leader, or by its
//! silence, asks the leader to wake too, and trusts that it is there for one more election timeout.

use super::conf::Outcome;
use super::core::{Raft, Role};
use super::message::{Body, Message};
use super::progress::{Mode, Progress};
use super::{PeerId, Tick};
use bedstone_engine::LogId;

/// Whether a replica rests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiet {
    /// It does.
    pub(super) rests: bool,
    /// Since when nobody asked this leader for anything.
    pub(super) idle_since: Tick,
}

impl Raft {
    /// Whether this replica rests: it need not be ticked, and has nothing to do before something
    /// comes.
    pub fn is_quiet(&self) -> bool {
        self.quiet.rests
    }

    /// The node of a peer is not heard any more.
    pub fn silent(&mut self, peer: PeerId) {
        if self.leader == Some(peer) && self.quiet.rests {
            self.wake();
            // Perhaps it is there after all.
            self.send_now(peer, Body::Wake);
        }
    }

    /// Something is asked of this replica.
    pub(super) fn stir(&mut self) {
        self.quiet.idle_since = self.now;
        self.wake();
    }

    /// Rest ends; time goes on where it stood still.
    pub(super) fn wake(&mut self) {
        if !std::mem::take(&mut self.quiet.rests) {
            return;
        }
        self.quiet.idle_since = self.now;
        if self.role == Role::Leader {
            let now = self.now;
            self.progress.iter_mut().for_each(|progress| progress.heard = now);
            self.deadline = now + self.config.election.start;
            self.next_heartbeat = now + self.config.heartbeat;
            self.broadcast_heartbeat();
        } else {
            self.heard_leader = self.now;
            self.wait_for_leader();
        }
    }

    /// A message comes to a replica at rest. What a leader is still told of the time before does
    /// not wake it.
    pub(super) fn wake_for(&mut self, peer: PeerId, body: &Body) {
        if !self.quiet.rests {
            return;
        }
        let late = matches!(body, Body::HeartbeatReply { .. } | Body::AppendReply { .. });
        if self.role == Role::Leader {
            if !late {
                self.wake();
            }
            return;
        }
        self.wake();
        if let Some(leader) = self.leader.filter(|&leader| leader != peer) {
            self.send_now(leader, Body::Wake);
        }
    }

    /// When a heartbeat is due: whether the followers are told to rest instead.
    pub(super) fn rest(&mut self) -> bool {
        let Some(after) = self.config.quiet_after else { return false };
        if self.now < self.quiet.idle_since + after || !self.has_nothing_to_do() {
            return false;
        }
        let at = self.log.last();
        let term = self.hard.term;
        let present = self.progress.iter().filter(|progress| !progress.away);
        let rest = |peer: &Progress| Message { peer: peer.peer, term, body: Body::Rest { at } };
        self.send.extend(present.map(rest));
        self.quiet.rests = true;
        self.give_memory_back();
        true
    }

    fn has_nothing_to_do(&self) -> bool {
        let last = self.log.last().index;
        let at_rest = |peer| match self.progress.of(peer) {
            Some(progress) => {
                let has_all = progress.mode == Mode::Replicate && progress.matched == last;
                Some(has_all && progress.heard + self.config.election.start > self.now)
            }
            None => Some(peer == self.id),
        };
        self.is_settled(last)
            && self.reads.settled_term
            && self.reads.is_idle()
            && self.transfer.is_none()
            && self.snapshots.is_empty()
            && self.changes.is_empty()
            && !self.conf.is_joint()
            && self.conf.may_lead(self.id)
            && !self.damaged
            && self.progress.iter().all(|p| p.away || at_rest(p.peer) == Some(true))
            && self.conf.outcome(at_rest) == Outcome::Won
    }

    /// The leader tells that everything up to `at` is committed, and nothing else there.
    pub(super) fn on_rest(&mut self, peer: PeerId, at: LogId) {
        if !self.follow(peer) {
            return;
        }
        if self.log.last() == at {
            self.commit_to(at.index);
        }
        let wanted = self.config.quiet_after.is_some();
        let keeps_up = !self.is_recovering() && !self.damaged;
        self.quiet.rests = wanted && keeps_up && self.is_settled(at.index) && self.reads.is_idle();
        match self.quiet.rests {
            true => self.give_memory_back(),
            false => self.send_now(peer, Body::Wake),
        }
    }
}
