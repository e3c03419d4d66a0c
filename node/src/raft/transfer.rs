//! Handing leadership to a chosen follower (thesis §3.10). New proposals are refused meanwhile, so
//! the follower catches up; then it is told to campaign at once. If that comes to nothing within an
//! election timeout, this leader goes on.
//!
//! A leader that a change took the vote from hands over too, to whoever has most of its log, and
//! goes on trying: it leads without counting itself (thesis §4.2.2) until another does.

use super::core::{Raft, Refused, Role};
use super::message::Body;
use super::{PeerId, Tick};

/// A hand-over under way.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) to: PeerId,
    /// When it is given up.
    until: Tick,
    /// The follower was told to campaign.
    told: bool,
}

impl Raft {
    /// Hands leadership to a follower. A call with another follower takes the place of the one
    /// before.
    ///
    /// # Errors
    /// [`Refused`]: nothing changes.
    pub fn transfer(&mut self, to: PeerId) -> Result<(), Refused> {
        if self.role != Role::Leader {
            return Err(Refused::NotLeader(self.leader));
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

    fn begin_transfer(&mut self, to: PeerId) {
        let until = self.now + self.config.election.start;
        self.transfer = Some(Transfer { to, until, told: false });
        self.send_timeout_now_if_ready();
    }

    /// Tells the follower to campaign once it has the whole log.
    pub(super) fn send_timeout_now_if_ready(&mut self) {
        let Some(transfer) = &mut self.transfer else { return };
        let has_all = |matched| matched == self.log.last().index;
        let to = transfer.to;
        if !transfer.told && self.progress.get(to).is_some_and(|p| has_all(p.matched)) {
            transfer.told = true;
            self.lease.revoke();
            self.send_now(to, Body::TimeoutNow);
        }
    }

    pub(super) fn tick_transfer(&mut self) {
        // Whoever was told may still win; until it does, this leader has its say.
        self.transfer.take_if(|transfer| transfer.until <= self.now);
        self.transfer_if_not_electable();
    }

    /// A leader without a vote, or one whose tree is damaged, hands over.
    pub(super) fn transfer_if_not_electable(&mut self) {
        let stays = self.conf.is_electable(self.id) && !self.damaged;
        if stays || self.transfer.is_some() {
            return;
        }
        let able = self.progress.iter().filter(|progress| self.conf.is_electable(progress.peer));
        if let Some(successor) = able.max_by_key(|progress| progress.matched) {
            self.begin_transfer(successor.peer);
        }
    }

    pub(super) fn on_timeout_now(&mut self, peer: PeerId) {
        if self.role == Role::Follower
            && self.leader == Some(peer)
            && self.may_campaign()
            && !self.damaged
        {
            self.leader = None;
            self.reads.fail_all();
            self.start_election(true);
        }
    }
}
