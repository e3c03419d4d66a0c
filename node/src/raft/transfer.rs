//! Leader transfer to a chosen follower (thesis §3.10). The leader refuses new proposals during the
//! transfer, so that the follower catches up, and then requests the follower to campaign at once.
//! If the transfer does not succeed within an election timeout, this leader continues.
//!
//! A leader that lost its vote by a configuration change transfers leadership too, to the follower
//! with the most entries, and repeats the attempt. Until another replica leads, this leader leads
//! without counting itself (thesis §4.2.2).

use super::ReplicaId;
use super::core::{Raft, Refused};
use super::leadership::Role;
use super::message::Body;
use super::volatile::{Applying, Transfer};

impl Raft {
    /// Transfers leadership to a follower. A call with another follower replaces the transfer under
    /// way.
    ///
    /// # Errors
    /// [`Refused`]: nothing changes.
    pub fn transfer(&mut self, to: ReplicaId) -> Result<(), Refused> {
        if self.role() != Role::Leader {
            return Err(Refused::NotLeader(self.leader()));
        }
        if !self.conf.is_electable(to) {
            return Err(Refused::CannotLead(to));
        }
        if to == self.id || self.transfer.as_ref().is_some_and(|transfer| transfer.to == to) {
            return Ok(());
        }
        self.mark_active();
        self.begin_transfer(to);
        Ok(())
    }

    fn begin_transfer(&mut self, to: ReplicaId) {
        let until = self.timers.now() + self.config.election.start;
        self.transfer = Some(Box::new(Transfer { to, until, requested: false }));
        self.send_timeout_now_if_ready();
    }

    /// Requests the follower to campaign once it has the whole log.
    pub(super) fn send_timeout_now_if_ready(&mut self) {
        let Some(transfer) = &mut self.transfer else { return };
        let has_all = |matched| matched == self.log.last().index;
        let to = transfer.to;
        if !transfer.requested && self.progress.get(to).is_some_and(|p| has_all(p.matched())) {
            transfer.requested = true;
            // Votes for the follower are granted at once, so the lease proves nothing any more.
            self.lease.revoke();
            self.send_now(to, Body::TimeoutNow);
        }
    }

    pub(super) fn tick_transfer(&mut self) {
        // A follower that was requested to campaign may still win. This leader continues until the
        // follower wins.
        self.transfer.take_if(|transfer| transfer.until <= self.timers.now());
        self.transfer_if_not_electable();
    }

    /// Starts a transfer if this leader has no vote, or cannot apply entries.
    pub(super) fn transfer_if_not_electable(&mut self) {
        let stays = self.conf.is_electable(self.id) && self.applying == Applying::Running;
        if stays || self.transfer.is_some() {
            return;
        }
        let able = self.progress.iter().filter(|progress| self.conf.is_electable(progress.peer()));
        if let Some(successor) = able.max_by_key(|progress| progress.matched()) {
            self.begin_transfer(successor.peer());
        }
    }

    pub(super) fn on_timeout_now(&mut self, peer: ReplicaId) {
        if self.role() == Role::Follower
            && self.leader() == Some(peer)
            && self.may_campaign()
            && self.applying == Applying::Running
        {
            self.reads.fail_all();
            self.start_election(true);
        }
    }
}
