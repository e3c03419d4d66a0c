//! Quiescent groups. A leader without requests, whose followers have all its entries, notifies the
//! followers once that the group is quiescent. From then on no replica of the group sends messages
//! or counts time until an event arrives. (CockroachDB calls this quiescence, TiKV hibernation.)
//!
//! A quiescent follower hears nothing from its leader, so it depends on the leader's node: the
//! driver calls [`Raft::peer_silent`] when a node is silent, for all groups at once. The time of a
//! quiescent replica stands still. All times that a replica measures are therefore times in which
//! the replica was active.
//!
//! Whichever message is lost, some replica stays active and makes the leader active:
//!
//! - A follower that did not receive the quiesce message times out, and its requests make the
//!   leader active.
//! - A follower that still has work notifies the leader at once.
//! - A leader that becomes active sends a heartbeat to every member.
//! - A follower may become active through another peer than its leader, or because the leader's
//!   node is silent. The follower then requests the leader to become active too, and assumes for
//!   one more election timeout that the leader is alive.

use super::ReplicaId;
use super::conf::VoteResult;
use super::core::Raft;
use super::leadership::Role;
use super::message::{Body, Message};
use super::progress::{Mode, Progress};
use super::volatile::Applying;
use bedstone_engine::LogId;

impl Raft {
    /// Whether this replica is quiescent: the replica needs no ticks, and has no work until an
    /// event arrives.
    pub fn is_quiescent(&self) -> bool {
        self.quiescence.quiescent
    }

    /// The node of a peer is silent.
    pub fn peer_silent(&mut self, peer: ReplicaId) {
        if self.leader() == Some(peer) && self.quiescence.quiescent {
            self.unquiesce();
            // The leader may be alive and only quiescent.
            self.send_now(peer, Body::Unquiesce);
        }
    }

    /// A request arrives at this replica.
    pub(super) fn mark_active(&mut self) {
        self.quiescence.idle_since = self.timers.now();
        self.unquiesce();
    }

    /// Ends quiescence. The replica's time continues where it stood still.
    pub(super) fn unquiesce(&mut self) {
        if !std::mem::take(&mut self.quiescence.quiescent) {
            return;
        }
        self.quiescence.idle_since = self.timers.now();
        if self.role() == Role::Leader {
            let now = self.timers.now();
            self.progress.iter_mut().for_each(|progress| progress.hear_again(now));
            self.timers.count_members_after(self.config.election.start);
            self.timers.heartbeat_after(self.config.heartbeat);
            self.broadcast_heartbeat();
        } else {
            self.timers.hear_leader();
            self.wait_for_leader();
        }
    }

    /// A message arrives. A quiescent replica becomes active, except a leader that receives a late
    /// reply to a heartbeat or an append.
    pub(super) fn unquiesce_for(&mut self, peer: ReplicaId, body: &Body) {
        if !self.quiescence.quiescent {
            return;
        }
        let late = matches!(body, Body::HeartbeatReply { .. } | Body::AppendReply { .. });
        if self.role() == Role::Leader {
            if !late {
                self.unquiesce();
            }
            return;
        }
        self.unquiesce();
        if let Some(leader) = self.leader().filter(|&leader| leader != peer) {
            self.send_now(leader, Body::Unquiesce);
        }
    }

    /// Called when a heartbeat is due. Makes the group quiescent instead of sending the heartbeat,
    /// if that is possible. Returns whether the group became quiescent.
    pub(super) fn try_quiesce(&mut self) -> bool {
        let Some(after) = self.config.quiesce_after else { return false };
        if self.timers.now() < self.quiescence.idle_since + after || !self.may_quiesce() {
            return false;
        }
        let at = self.log.last();
        let term = self.hard.term;
        let present = self.progress.iter().filter(|progress| !progress.disconnected());
        let quiesce =
            |peer: &Progress| Message { peer: peer.peer(), term, body: Body::Quiesce { at } };
        self.outbox.send_all(present.map(quiesce));
        self.quiescence.quiescent = true;
        self.shrink_to_fit();
        true
    }

    fn may_quiesce(&self) -> bool {
        let last = self.log.last().index;
        let caught_up = |peer| match self.progress.get(peer) {
            Some(progress) => {
                let has_all = progress.mode() == Mode::Replicate && progress.matched() == last;
                Some(has_all && progress.heard() + self.config.election.start > self.timers.now())
            }
            None => Some(peer == self.id),
        };
        self.is_fully_applied(last)
            && self.reads.committed_own_term()
            && self.reads.is_idle()
            && self.transfer.is_none()
            && self.snapshots.is_empty()
            && self.conf.changes().is_empty()
            && !self.conf.is_joint()
            && self.conf.is_electable(self.id)
            && self.applying == Applying::Running
            && self.progress.iter().all(|p| p.disconnected() || caught_up(p.peer()) == Some(true))
            && self.conf.vote_result(caught_up) == VoteResult::Won
    }

    /// The leader reports that its log ends at `at` and that all its entries are committed.
    pub(super) fn on_quiesce(&mut self, peer: ReplicaId, at: LogId) {
        if !self.accept_leader(peer) {
            return;
        }
        self.leadership.hear_commit(at.index);
        if self.log.last() == at {
            self.commit_to(at.index);
        }
        let wanted = self.config.quiesce_after.is_some();
        let keeps_up = !self.is_recovering() && self.applying == Applying::Running;
        self.quiescence.quiescent =
            wanted && keeps_up && self.is_fully_applied(at.index) && self.reads.is_idle();
        // A follower that cannot become quiescent makes the leader active again.
        if self.quiescence.quiescent {
            self.shrink_to_fit()
        } else {
            self.send_now(peer, Body::Unquiesce)
        }
    }
}
