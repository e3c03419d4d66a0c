//! Configuration changes. See [`super::conf`] for the rules that make the changes safe.

use super::conf::{Change, Conf};
use super::core::{Raft, Refused};
use super::leadership::Role;
use super::peer_set::PeerSet;
use super::progress::Progress;
use super::{EntryKind, Index};
use bedstone_engine::LogId;

impl Raft {
    /// Proposes a configuration change. The change is effective once it is committed. A change that
    /// goes through a joint configuration ends when a second entry is committed too. The leader
    /// adds the second entry without a request, unless the change is explicit.
    ///
    /// # Errors
    /// [`Refused`]: nothing was proposed.
    pub fn change(&mut self, change: &Change) -> Result<LogId, Refused> {
        if self.role() != Role::Leader {
            return Err(Refused::NotLeader(self.leader()));
        }
        if let Some(transfer) = &self.transfer {
            return Err(Refused::Transferring(transfer.to));
        }
        if !self.reads.committed_own_term() {
            // A change of an earlier term may be committed although this leader does not know it
            // (Ongaro, raft-dev 2015, "bug in single-server membership changes").
            return Err(Refused::NoCommitInTerm);
        }
        if !self.conf.changes().is_empty() {
            return Err(Refused::ChangePending);
        }
        let next = self.conf.apply(change).map_err(Refused::InvalidChange)?;
        // A witness with entries that every possible leader of the next configuration lacks would
        // refuse its vote to each of them. See `witness_limit`.
        let sent = |peer| self.progress.get(peer).map_or(Index(0), |progress| progress.next() - 1);
        if self
            .conf
            .witnesses
            .iter()
            .any(|&peer| sent(peer) > self.best_matched(&next.voters, &next))
        {
            return Err(Refused::CatchingUp);
        }
        self.mark_active();
        Ok(self.append(EntryKind::CHANGE, change.encode()))
    }

    /// Makes every configuration change effective that is known to be committed.
    pub(super) fn advance_conf(&mut self) {
        let committed = self.hard.commit;
        // The driver halts this replica when it comes to a newer change. Until then this replica
        // does not campaign, because it does not know the members.
        let changed = self.conf.advance(committed);
        // A candidate that is no longer electable ends its campaign.
        let campaigns = matches!(self.role(), Role::PreCandidate | Role::Candidate);
        if campaigns && !self.conf.is_electable(self.id) {
            self.become_follower(self.hard.term, None);
        }
        if self.role() != Role::Leader {
            return;
        }
        if changed {
            self.track_members();
            self.settle_reads();
        }
        if self.conf.is_joint()
            && self.conf.auto_leave
            && self.conf.changes().is_empty()
            && self.reads.committed_own_term()
        {
            self.append(EntryKind::CHANGE, Change::Leave.encode());
        }
        self.transfer_if_not_electable();
    }

    /// The greatest index that is durable at some voter of a set. Witnesses do not count, because
    /// they lack the commands.
    fn best_matched(&self, voters: &PeerSet, conf: &Conf) -> Index {
        let able = voters.iter().filter(|peer| !conf.witnesses.contains(peer));
        able.map(|&peer| self.matched(peer)).max().unwrap_or_default()
    }

    /// The last index that witnesses may receive. Entries up to this index are durable at a voter
    /// that can lead, in the present configuration, and before and after the change under way. A
    /// witness with later entries would refuse every candidate once the replica with the same
    /// entries is gone.
    pub(super) fn witness_limit(&self) -> Index {
        let conf = self.conf.get();
        if conf.witnesses.is_empty() {
            return Index(0);
        }
        let mut end = self.best_matched(&conf.voters, conf);
        if conf.is_joint() {
            end = end.min(self.best_matched(&conf.outgoing, conf));
        }
        for (_, change) in self.conf.changes() {
            let mut next = conf.clone();
            next.apply_entry_data(change);
            end = end.min(self.best_matched(&next.voters, &next));
        }
        end
    }

    /// Keeps one [`Progress`] on a leader for each other member.
    pub(super) fn track_members(&mut self) {
        let (next, now) = (self.log.last().index + 1, self.timers.now());
        let mut members = self.conf.members();
        members.remove(self.id);
        self.progress.follow(&members, |peer| Progress::new(peer, next, now));
    }
}
