//! Groups at rest: a leader that nobody asks for anything, and whose followers have all that it
//! has, tells them so once; then none of them sends or counts anything until something happens.
//! (CockroachDB calls it quiescence, TiKV hibernation.)
//!
//! What a quiet follower does not hear from its leader, it must hear of its leader's node: the
//! driver calls [`Raft::peer_silent`] when a node is not heard, for all groups at once. A quiet replica
//! keeps its time standing still, so the times that it measures are those in which it is awake.
//!
//! Whatever is lost on the way, somebody stays awake: a follower that was not told to rest times
//! out, and its question wakes the leader; one that still has something to do says so at once; a
//! leader that wakes tells everyone. A follower that is woken by another than its leader, or by its
//! silence, asks the leader to wake too, and trusts that it is there for one more election timeout.

use super::conf::VoteResult;
use super::core::{Raft, Role};
use super::message::{Body, Message};
use super::progress::{Mode, Progress};
use super::{PeerId, Tick};
use bedstone_engine::LogId;

/// Whether a replica rests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiescence {
    /// It does.
    pub(super) quiescent: bool,
    /// Since when nobody asked this leader for anything.
    pub(super) idle_since: Tick,
}

impl Raft {
    /// Whether this replica rests: it need not be ticked, and has nothing to do before something
    /// comes.
    pub fn is_quiescent(&self) -> bool {
        self.quiescence.quiescent
    }

    /// The node of a peer is not heard any more.
    pub fn peer_silent(&mut self, peer: PeerId) {
        if self.leader == Some(peer) && self.quiescence.quiescent {
            self.unquiesce();
            // Perhaps it is there after all.
            self.send_now(peer, Body::Unquiesce);
        }
    }

    /// Something is asked of this replica.
    pub(super) fn mark_active(&mut self) {
        self.quiescence.idle_since = self.now;
        self.unquiesce();
    }

    /// Rest ends; time goes on where it stood still.
    pub(super) fn unquiesce(&mut self) {
        if !std::mem::take(&mut self.quiescence.quiescent) {
            return;
        }
        self.quiescence.idle_since = self.now;
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
    pub(super) fn unquiesce_for(&mut self, peer: PeerId, body: &Body) {
        if !self.quiescence.quiescent {
            return;
        }
        let late = matches!(body, Body::HeartbeatReply { .. } | Body::AppendReply { .. });
        if self.role == Role::Leader {
            if !late {
                self.unquiesce();
            }
            return;
        }
        self.unquiesce();
        if let Some(leader) = self.leader.filter(|&leader| leader != peer) {
            self.send_now(leader, Body::Unquiesce);
        }
    }

    /// When a heartbeat is due: whether the followers are told to rest instead.
    pub(super) fn try_quiesce(&mut self) -> bool {
        let Some(after) = self.config.quiesce_after else { return false };
        if self.now < self.quiescence.idle_since + after || !self.may_quiesce() {
            return false;
        }
        let at = self.log.last();
        let term = self.hard.term;
        let present = self.progress.iter().filter(|progress| !progress.disconnected);
        let rest = |peer: &Progress| Message { peer: peer.peer, term, body: Body::Quiesce { at } };
        self.send.extend(present.map(rest));
        self.quiescence.quiescent = true;
        self.shrink_to_fit();
        true
    }

    fn may_quiesce(&self) -> bool {
        let last = self.log.last().index;
        let caught_up = |peer| match self.progress.get(peer) {
            Some(progress) => {
                let has_all = progress.mode == Mode::Replicate && progress.matched == last;
                Some(has_all && progress.heard + self.config.election.start > self.now)
            }
            None => Some(peer == self.id),
        };
        self.is_fully_applied(last)
            && self.reads.committed_own_term
            && self.reads.is_idle()
            && self.transfer.is_none()
            && self.snapshots.is_empty()
            && self.changes.is_empty()
            && !self.conf.is_joint()
            && self.conf.is_electable(self.id)
            && !self.damaged
            && self.progress.iter().all(|p| p.disconnected || caught_up(p.peer) == Some(true))
            && self.conf.vote_result(caught_up) == VoteResult::Won
    }

    /// The leader tells that everything up to `at` is committed, and nothing else there.
    pub(super) fn on_quiesce(&mut self, peer: PeerId, at: LogId) {
        if !self.accept_leader(peer) {
            return;
        }
        if self.log.last() == at {
            self.commit_to(at.index);
        }
        let wanted = self.config.quiesce_after.is_some();
        let keeps_up = !self.is_recovering() && !self.damaged;
        self.quiescence.quiescent =
            wanted && keeps_up && self.is_fully_applied(at.index) && self.reads.is_idle();
        match self.quiescence.quiescent {
            true => self.shrink_to_fit(),
            false => self.send_now(peer, Body::Unquiesce),
        }
    }
}
