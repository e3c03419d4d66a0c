//! Recovery of a replica that cannot prove that its disk still has all its votes and acknowledged
//! entries: the disk is new, or lost records that were durable (Alagappan et al., "Protocol-Aware
//! Recovery for Consensus-Based Storage", FAST '18; the recovery of Viewstamped Replication
//! Revisited, §4.3, is similar).
//!
//! The replica may have voted and acknowledged without knowing it any more. The replica therefore
//! acknowledges nothing before step 1 ends, and votes for no candidate before step 2 ends:
//!
//! 1. **Querying.** Every other voter has answered a query of this life of the replica. Each peer
//!    that received a vote or an acknowledgement of the replica had the term durable before. The
//!    greatest term among the answers is therefore at least the term of every forgotten vote and
//!    acknowledgement. A leader that answered has discarded, before it answered, the
//!    acknowledgements of this replica. Until step 1 ends, the replica keeps the data that is still
//!    on its disk.
//! 2. **Catching up.** The replica has a committed entry at or after the last entry of every peer
//!    that answered. Each entry that a forgotten acknowledgement helped to commit was in the log of
//!    one of these peers. Each of these acknowledged entries is at or before the committed entry,
//!    by the term (leader completeness) or by the index.
//!
//! Between the two steps the replica acknowledges each entry that it accepts, because its disk then
//! has the entry. The replica votes for no candidate: its vote ([`Vote::Withheld`]) is durable,
//! and a replica that restarts with this vote queries again.
//!
//! A replica with an empty log may have been configured with other members than those with which
//! the group began, and an empty log does not prove which members those were. The configured
//! members therefore serve only to find a peer that has entries. The replica then continues without
//! members and receives the configuration with a snapshot, unless its configured members are those
//! that the peers know from the beginning. If the received configuration has voters that have not
//! answered, the replica queries again. When no replica has an entry, and all were configured with
//! the same members, the group begins.
//!
//! A replica can also find out while it runs. A heartbeat names the last entry that its receiver
//! acknowledged to the leader. A receiver without that entry has lost it, for example because its
//! directory was replaced by an older copy. The replica keeps its log, which is valid and ends too
//! early, and queries. After a start a replica votes for no candidate before an election timeout
//! has passed, so that the leader's heartbeat comes first.
//!
//! A replica with a suspect disk, whose records are valid but perhaps not complete, queries too,
//! and keeps its log. Several replicas with suspect disks need not wait for each other. Once all
//! peers have answered, the greatest last entry among the answers is a bound: the replica votes
//! only for a candidate whose log reaches the bound, and campaigns only if its own log does. A log
//! that reaches the bound has every committed entry that one of the peers had.

use super::boot::Durability;
use super::conf::Conf;
use super::core::Raft;
use super::leadership::Role;
use super::message::Body;
use super::progress::Mode;
use super::query::{Answer, KnownMembers, Query, Recovery, RecoveryWait};
use super::volatile::Applying;
use super::{ReplicaId, Term};
use bedstone_engine::wal::Vote;
use bedstone_engine::{Index, LogId};

/// The result of the answers.
struct Tally {
    /// The greatest term among the answers and of this replica.
    term: Term,
    /// No replica has an entry, so the group begins.
    begins: bool,
}

impl Raft {
    /// Whether this replica may still lack votes or entries that it acknowledged.
    pub fn is_recovering(&self) -> bool {
        !matches!(self.recovery, Recovery::Done)
    }

    /// The newest configuration that another replica reported to this one while it recovers. It may
    /// name voters that the configuration of this replica lacks.
    pub fn queried_conf(&self) -> Option<&Conf> {
        match &self.recovery {
            Recovery::Querying(query) => query.conf.as_ref().map(|(_, conf)| conf),
            _ => None,
        }
    }

    /// Whether this replica lacks entries, and waits for the leader to send them.
    pub fn is_catching_up(&self) -> bool {
        matches!(self.recovery, Recovery::CatchingUp(_))
    }

    /// Whether this replica queries the other voters. A querying replica takes part in nothing
    /// else.
    pub(super) fn is_querying(&self) -> bool {
        matches!(self.recovery, Recovery::Querying(_))
    }

    /// The reason why a querying replica waits.
    pub fn recovery_wait(&self) -> Option<RecoveryWait> {
        match &self.recovery {
            Recovery::Querying(query) => self.tally(query).err(),
            _ => None,
        }
    }

    /// Whether this replica lost an entry that the leader counts as acknowledged by it.
    pub(super) fn has_lost(&self, acknowledged: LogId) -> bool {
        let LogId { term, index } = acknowledged;
        // The leader counts no acknowledgement of a recovering replica. An earlier heartbeat may
        // arrive late.
        index > self.log.base().index
            && !self.is_recovering()
            && self.log.term(index).is_none_or(|own| own != term && term != Term(0))
    }

    /// The leader counts an entry that this replica acknowledged and no longer has.
    #[cold]
    pub(super) fn recover_lost(&mut self, leader: ReplicaId, acknowledged: LogId) {
        self.become_follower(self.hard.term, None);
        self.outbox.drop_waiting();
        self.recovery = Query::begin(self.timers.draw() >> 1, Durability::Outdated);
        if let Recovery::Querying(query) = &mut self.recovery {
            query.lost_entry = Some(acknowledged);
            if !self.conf.is_voter(leader) {
                // The members that this replica knows are outdated. The answer of the leader names
                // the present ones.
                query.conf = Some((Index(0), Conf::of([leader])));
            }
        }
        // The replica does not know whether it voted in this term. The durable vote makes it query
        // again after a restart.
        self.hard.recover(self.hard.term, Vote::Withheld);
    }

    /// The tree of this replica is damaged, until a snapshot of the leader replaces it. The log is
    /// sound, so the replica still votes and acknowledges. The replica may be leader, or become
    /// leader where other replicas lack entries. As leader it only replicates its entries and
    /// transfers leadership.
    pub fn damaged(&mut self) {
        self.stop_applying(Applying::Damaged);
    }

    /// The next committed entry needs a later build. The replica still votes and acknowledges, and
    /// keeps the entry. It does not campaign: an unknown entry may have changed the members. As
    /// leader it transfers leadership.
    pub fn halt(&mut self) {
        if self.applying == Applying::Running {
            self.stop_applying(Applying::Halted);
        }
    }

    fn stop_applying(&mut self, applying: Applying) {
        self.applying = applying;
        match self.leader() {
            Some(leader) if leader != self.id => self.peer_silent(leader),
            _ => self.unquiesce(),
        }
    }

    /// Whether a snapshot must replace the tree of this replica.
    pub fn is_damaged(&self) -> bool {
        self.applying == Applying::Damaged
    }

    /// Whether the driver applies committed entries to the state.
    pub fn is_applying(&self) -> bool {
        self.applying == Applying::Running
    }

    pub(super) fn tick_recovery(&mut self) {
        let (now, pause) = (self.timers.now(), self.config.heartbeat);
        let Recovery::Querying(query) = &mut self.recovery else { return };
        if now < query.next {
            return;
        }
        query.next = now + pause;
        let query = query.clone();
        for peer in self.queried_peers(&query) {
            // A peer without entries is queried again, because it may have entries later.
            if query.answers.get(&peer).is_none_or(Answer::is_empty) {
                let (query_id, lost) = (query.query_id, query.has_lost());
                self.send_now(peer, Body::Recover { query_id, lost });
            }
        }
        self.evaluate_answers();
    }

    /// No leader is heard. The peers that answered may since have lost entries that were not
    /// durable there, and then no replica has these entries. A replica with a suspect disk
    /// therefore queries again.
    pub(super) fn repeat_query(&mut self) {
        let Recovery::VoteRestricted(query) = &self.recovery else { return };
        let (query, query_id) = (query.clone(), query.query_id);
        for peer in self.queried_peers(&query) {
            self.send_now(peer, Body::Recover { query_id, lost: false });
        }
    }

    /// The other voters of the newest known configuration.
    fn queried_peers(&self, query: &Query) -> Vec<ReplicaId> {
        let conf = query.conf.as_ref().map_or(self.conf.get(), |(_, conf)| conf);
        let voters = conf.members().into_iter().filter(|&peer| conf.is_voter(peer));
        voters.filter(|&peer| peer != self.id).collect()
    }

    /// The greatest last entry among the answers of the peers to query.
    fn vote_bound(&self, query: &Query) -> LogId {
        let answers = self.queried_peers(query);
        let lasts = answers.iter().filter_map(|peer| query.answers.get(peer)).map(|a| a.last);
        lasts.max().unwrap_or_default()
    }

    /// A peer has lost its votes and acknowledgements, and queries this replica.
    pub(super) fn on_recover(&mut self, peer: ReplicaId, query_id: u64, lost: bool) {
        if let Recovery::Querying(query) = &mut self.recovery {
            query.lost.remove(peer);
            if lost {
                query.lost.insert(peer);
            }
            if query.has_lost() {
                return; // The answer of a replica that lost records proves nothing.
            }
        }
        // A leader must no longer count the acknowledgements that the peer lost.
        self.progress.forget(peer);
        if let Some(progress) = self.progress.get_mut(peer)
            && progress.mode() != Mode::Snapshot
        {
            progress.probe(self.log.base().index);
        }
        let (last, commit, conf) =
            (self.log.last(), self.hard.commit, self.conf.get().clone().into());
        let new = last == LogId::default() && self.hard.term == Term(0);
        self.send_after_durable(peer, Body::RecoverReply { query_id, new, last, commit, conf });
    }

    pub(super) fn on_recover_reply(
        &mut self,
        peer: ReplicaId,
        query_id: u64,
        answer: Answer,
        conf: Conf,
    ) {
        let (Recovery::Querying(query) | Recovery::VoteRestricted(query)) = &mut self.recovery
        else {
            return;
        };
        if query_id != query.query_id {
            return;
        }
        query.answers.insert(peer, answer);
        // A former member may know no newer configuration than this replica does.
        let newer = answer.commit >= self.hard.commit
            && query.conf.as_ref().is_none_or(|(at, _)| *at < answer.commit);
        if !answer.is_empty() && newer {
            query.conf = Some((answer.commit, conf));
        }
        self.evaluate_answers();
    }

    /// The result of the answers, once there are enough of them.
    fn tally(&self, query: &Query) -> Result<Tally, RecoveryWait> {
        let known = self.queried_peers(query);
        let doubted = query.durability == Durability::Suspect;
        if known.is_empty() && !doubted {
            // No peer can answer. A replica with a suspect disk must then rely on its disk.
            return Err(RecoveryWait::Members);
        }
        let mut answers = Vec::with_capacity(known.len());
        for peer in known {
            let wait = if query.has_lost() && query.lost.contains(&peer) {
                RecoveryWait::Disputed
            } else {
                RecoveryWait::Answer
            };
            let answer = query.answers.get(&peer).ok_or(wait(peer))?;
            answers.push((peer, *answer));
        }
        let first = |is: fn(&Answer) -> bool| answers.iter().find(|(_, answer)| is(answer));
        let terms = answers.iter().map(|(_, answer)| answer.term);
        let term = terms.max().unwrap_or_default().max(self.hard.term);
        let empty = self.log.last() == LogId::default() && !query.has_lost();
        let begins = empty && answers.iter().all(|(_, answer)| answer.is_empty());
        if begins {
            // With different members, two groups would begin. A replica with a suspect disk is
            // exempt, because its disk is not new and has the members.
            return match first(|answer| answer.known_members != KnownMembers::Same)
                .filter(|_| !doubted)
            {
                None => Ok(Tally { term, begins }),
                Some((peer, Answer { known_members: KnownMembers::None, .. })) => {
                    Err(RecoveryWait::AnyMembers(*peer))
                }
                Some((peer, _)) => Err(RecoveryWait::SameMembers(*peer)),
            };
        }
        // With more new disks than the group survives, the other disks may lack committed entries.
        // A replica with a suspect disk counts as an old disk too. With that replica, half of the
        // voters are enough, for example one of two.
        let old_disks =
            answers.iter().filter(|(_, answer)| !answer.new).count() + usize::from(doubted);
        let voters = answers.len() + 1;
        match first(|answer| answer.new) {
            Some((peer, _)) if 2 * old_disks < voters || 2 * old_disks == voters && !doubted => {
                Err(RecoveryWait::NewDisk(*peer))
            }
            _ => Ok(Tally { term, begins }),
        }
    }

    fn evaluate_answers(&mut self) {
        let Recovery::Querying(query) = &self.recovery else { return };
        let Ok(Tally { term, begins }) = self.tally(query) else { return };
        let mut query = query.clone();
        let peers_know_these_members =
            query.conf.as_ref().is_some_and(|of| *of == (Index(0), self.conf.get().clone()));
        // The configuration may be cleared below. The query keeps it, because the answers of these
        // voters are the bound for catching up.
        query.conf.get_or_insert_with(|| (self.hard.commit, self.conf.get().clone()));
        match query.durability {
            _ if begins => {
                self.recovery = Recovery::Done;
                // The replica does not know whether it voted in this term, so it votes for itself:
                // it can grant no other vote in this term. The durable term also records that the
                // disk is no longer new.
                self.hard.recover(term.max(Term(1)), Vote::For(self.id));
                return self.wait_for_leader();
            }
            Durability::Suspect => {
                self.recovery = Recovery::VoteRestricted(query);
                if self.hard.term < term || self.hard.vote == Vote::None {
                    // The replica does not know whether it voted in this term, so it votes for
                    // itself: it can grant no other vote in this term.
                    self.hard.recover(term, Vote::For(self.id));
                }
            }
            durability => {
                self.recovery = Recovery::CatchingUp(query);
                // An empty log does not prove the members, unless the peers know the same members
                // from the beginning.
                if self.log.last() == LogId::default() && !peers_know_these_members {
                    self.conf.forget();
                }
                self.reset_log = durability == Durability::Lost;
                self.hard.recover(term, Vote::Withheld);
            }
        }
        self.wait_for_leader();
        self.try_end_recovery();
    }

    /// Ends the recovery once the committed entries suffice. Called when the commit index may have
    /// moved.
    #[inline]
    pub(super) fn try_end_recovery(&mut self) {
        if self.is_recovering() {
            self.end_recovery_if_complete();
        }
    }

    fn end_recovery_if_complete(&mut self) {
        let committed = self.committed();
        let follows = self.role() == Role::Follower && self.leader().is_some();
        match &self.recovery {
            Recovery::CatchingUp(..) if self.conf.voters.is_empty() => {}
            // The members became known only now, or changed: some voters were not queried.
            Recovery::CatchingUp(query) if self.lacks_answers(query) => {
                self.recovery = Query::begin(query.query_id + 1, Durability::Empty);
            }
            Recovery::CatchingUp(query) if follows && committed >= self.vote_bound(query) => {
                self.recovery = Recovery::Done;
                self.hard.end_recovery(self.leader());
            }
            Recovery::VoteRestricted(query) if committed >= self.vote_bound(query) => {
                self.recovery = Recovery::Done;
            }
            _ => {}
        }
    }

    /// Whether some other voter of the known configuration has not answered.
    fn lacks_answers(&self, query: &Query) -> bool {
        self.voters().iter().any(|peer| !query.answers.contains_key(peer))
    }

    /// Whether a log that ends at `last` reaches the bound for votes with a suspect disk, if there
    /// is a bound. A log that reaches the bound has the entries that this replica may have lost.
    pub(super) fn satisfies_vote_bound(&self, last: LogId) -> bool {
        !matches!(&self.recovery, Recovery::VoteRestricted(query) if last < self.vote_bound(query))
    }

    /// Whether this replica may vote for a candidate.
    pub(super) fn may_vote(&self) -> bool {
        matches!(self.recovery, Recovery::Done | Recovery::VoteRestricted(_))
    }

    /// The vote at the beginning of a new term: withheld while the replica catches up, otherwise
    /// none.
    pub(super) fn initial_vote(&self) -> Vote {
        match self.recovery {
            Recovery::CatchingUp(..) => Vote::Withheld,
            _ => Vote::None,
        }
    }
}
