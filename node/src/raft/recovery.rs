//! A replica that cannot prove that it kept its promises: its disk is new, or lost records that
//! were durable (Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage", FAST '18;
//! the recovery of Viewstamped Replication Revisited, §4.3, is its relative).
//!
//! It may have voted and acknowledged without knowing it any more. So it does neither before two
//! things have happened:
//!
//! 1. **Querying.** Every other voter has answered a question that this life of the replica asked.
//!    Whoever it voted for or acknowledged to had the term durable before, so the greatest term
//!    among the answers is at least that of every promise; and whoever leads has forgotten what
//!    this replica acknowledged before it answered. What the disk still has stays until then.
//! 2. **Catching up.** It has a committed entry at or after the last entry of all who answered.
//!    What its forgotten acknowledgements helped to commit was in the log of one of them; so it is
//!    before that entry, by the term (leader completeness) or by the index.
//!
//! Between the two it acknowledges, truthfully, what it takes; it votes for nobody, which is
//! durable as a vote for [`NOBODY`], with which it asks again after a restart.
//!
//! Who has nothing may have been configured with other members than the group began with, and the
//! log alone does not say who those were. So what it was told of them helps only to find somebody
//! who has something: it goes on without members, unless those are the ones that the others know
//! from the beginning, and gets them with a snapshot. Whom of them it has not asked, it asks then.
//! When nobody has an entry, and all were told the same members, the group begins.
//!
//! A replica whose disk has all that it says, but perhaps not all that it said it had, does the
//! same, and keeps what is there. It need not wait for others who wait for it: once all have
//! answered, the last of their entries bounds whom it votes for, and whether it campaigns. Who has
//! that entry has all that any of them had, and so what is committed.

use super::conf::Conf;
use super::core::{Durability, Raft, Role};
use super::message::Body;
use super::progress::Mode;
use super::{Index, PeerId, Term, Tick};
use bedstone_engine::LogId;
use std::collections::BTreeMap;

/// Names no replica: who is voted for by one that must not vote.
pub const NOBODY: PeerId = u64::MAX;

/// How far a replica is on its way back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Recovery {
    /// It kept its promises.
    #[default]
    Done,
    /// It asks the other voters.
    Querying(Box<Query>),
    /// It waits for the last entry of those who answered, or a later one, to be committed here.
    CatchingUp(Box<Query>),
    /// The same, and its disk has all that it says: it takes part in the election of who has that
    /// entry, or a later one.
    VoteRestricted(Box<Query>),
}

/// See [`Recovery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// What is the matter with its disk.
    durability: Durability,
    /// Tells answers to this life's question from answers to an earlier one.
    question: u64,
    answers: BTreeMap<PeerId, Answer>,
    /// Who takes part, by the answer with the greatest commit index, and that index.
    conf: Option<(Index, Conf)>,
    next: Tick,
}

/// Why a replica that asks does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryWait {
    /// It knows nobody to ask.
    Members,
    /// A peer has not answered.
    Answer(PeerId),
    /// Nobody has an entry, and a peer was told other members than this replica.
    SameMembers(PeerId),
    /// Nobody has an entry, and a peer was told of no members.
    AnyMembers(PeerId),
    /// More disks are new than the group survives: this peer's is.
    OldDisk(PeerId),
}

/// What one was told of the members, as another sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownMembers {
    None,
    Different,
    Same,
}

/// What the answers say.
struct Tally {
    /// The greatest term.
    term: Term,
    /// Nobody has an entry.
    begins: bool,
}

/// What a peer said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) term: Term,
    pub(super) new: bool,
    pub(super) last: LogId,
    pub(super) commit: Index,
    pub(super) told: KnownMembers,
}

impl Answer {
    fn is_empty(&self) -> bool {
        self.last == LogId::default()
    }
}

impl Query {
    pub(super) fn begin(question: u64, durability: Durability) -> Recovery {
        let (answers, conf, next) = (BTreeMap::new(), None, 0);
        Recovery::Querying(Box::new(Query { durability, question, answers, conf, next }))
    }
}

impl Raft {
    /// Whether this replica may still lack what it promised.
    pub fn is_recovering(&self) -> bool {
        self.recovery != Recovery::Done
    }

    /// Whether this replica asks, and so takes part in nothing.
    pub(super) fn is_querying(&self) -> bool {
        matches!(self.recovery, Recovery::Querying(_))
    }

    /// What a replica that asks waits for.
    pub fn recovery_wait(&self) -> Option<RecoveryWait> {
        match &self.recovery {
            Recovery::Querying(query) => self.tally(query).err(),
            _ => None,
        }
    }

    /// What was applied here is damaged, until a snapshot of the leader takes its place. The log is
    /// sound: this replica goes on to vote and to acknowledge, and as a leader, which it may be or
    /// become where others lack entries, it only brings them what it has and hands over.
    pub fn damaged(&mut self) {
        self.damaged = true;
        match self.leader {
            Some(leader) if leader != self.id => self.peer_silent(leader),
            _ => self.unquiesce(),
        }
    }

    /// Whether a snapshot is to take the place of what was applied here.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    pub(super) fn tick_recovery(&mut self) {
        let (now, pause) = (self.now, self.config.heartbeat);
        let Recovery::Querying(query) = &mut self.recovery else { return };
        if now < query.next {
            return;
        }
        query.next = now + pause;
        let query = query.clone();
        for peer in self.queried_peers(&query) {
            // Who has nothing may come to have something.
            if query.answers.get(&peer).is_none_or(Answer::is_empty) {
                self.send_now(peer, Body::Recover { question: query.question });
            }
        }
        self.evaluate_answers();
    }

    /// No leader is heard: those who answered may have lost since what was not durable there, and
    /// then nobody has it.
    pub(super) fn repeat_query(&mut self) {
        let Recovery::VoteRestricted(query) = &self.recovery else { return };
        let (query, question) = (query.clone(), query.question);
        for peer in self.queried_peers(&query) {
            self.send_now(peer, Body::Recover { question });
        }
    }

    /// The other voters, by the newest configuration that is known.
    fn queried_peers(&self, query: &Query) -> Vec<PeerId> {
        let conf = query.conf.as_ref().map_or(&self.conf, |(_, conf)| conf);
        let voters = conf.members().into_iter().filter(|&peer| conf.is_voter(peer));
        voters.filter(|&peer| peer != self.id).collect()
    }

    /// The last entry of those who are to be asked and answered.
    fn vote_bound(&self, query: &Query) -> LogId {
        let answers = self.queried_peers(query);
        let lasts = answers.iter().filter_map(|peer| query.answers.get(peer)).map(|a| a.last);
        lasts.max().unwrap_or_default()
    }

    /// A peer has lost what it promised.
    pub(super) fn on_recover(&mut self, peer: PeerId, question: u64) {
        let lost = |query: &Query| query.durability == Durability::Lost;
        if matches!(&self.recovery, Recovery::Querying(query) if lost(query)) {
            return; // What it would answer proves nothing.
        }
        if let Some(progress) = self.progress.get_mut(peer) {
            progress.forget();
            if progress.mode != Mode::Snapshot {
                progress.probe(self.log.base().index);
            }
        }
        let (last, commit, conf) = (self.log.last(), self.hard.commit, self.conf.clone().into());
        let new = last == LogId::default() && self.hard.term == 0;
        self.send_after_durable(peer, Body::RecoverReply { question, new, last, commit, conf });
    }

    pub(super) fn on_recover_reply(
        &mut self,
        peer: PeerId,
        question: u64,
        answer: Answer,
        conf: Conf,
    ) {
        let (Recovery::Querying(query) | Recovery::VoteRestricted(query)) = &mut self.recovery
        else {
            return;
        };
        if question != query.question {
            return;
        }
        query.answers.insert(peer, answer);
        // Who was a member long ago may know no better than this replica does.
        let newer = answer.commit >= self.hard.commit
            && query.conf.as_ref().is_none_or(|(at, _)| *at < answer.commit);
        if !answer.is_empty() && newer {
            query.conf = Some((answer.commit, conf));
        }
        self.evaluate_answers();
    }

    /// What the answers say, once they are enough.
    fn tally(&self, query: &Query) -> Result<Tally, RecoveryWait> {
        let known = self.queried_peers(query);
        let doubted = query.durability == Durability::Suspect;
        if known.is_empty() && !doubted {
            // Nobody can tell. Who only doubts its disk has to believe it then.
            return Err(RecoveryWait::Members);
        }
        let mut answers = Vec::with_capacity(known.len());
        for peer in known {
            let answer = query.answers.get(&peer).ok_or(RecoveryWait::Answer(peer))?;
            answers.push((peer, *answer));
        }
        let first = |is: fn(&Answer) -> bool| answers.iter().find(|(_, answer)| is(answer));
        let terms = answers.iter().map(|(_, answer)| answer.term);
        let term = terms.max().unwrap_or(0).max(self.hard.term);
        let empty = self.log.last() == LogId::default() && query.durability != Durability::Lost;
        let begins = empty && answers.iter().all(|(_, answer)| answer.is_empty());
        if begins {
            // Two groups would begin. Only who has a disk from before knows the members better.
            return match first(|answer| answer.told != KnownMembers::Same).filter(|_| !doubted) {
                None => Ok(Tally { term, begins }),
                Some((peer, Answer { told: KnownMembers::None, .. })) => {
                    Err(RecoveryWait::AnyMembers(*peer))
                }
                Some((peer, _)) => Err(RecoveryWait::SameMembers(*peer)),
            };
        }
        // With more new disks than the group survives, what was committed may be on none of the
        // others. Whoever only doubts its disk counts as well, and is enough of two.
        let olds = answers.iter().filter(|(_, answer)| !answer.new).count() + usize::from(doubted);
        let voters = answers.len() + 1;
        match first(|answer| answer.new) {
            Some((peer, _)) if 2 * olds < voters || 2 * olds == voters && !doubted => {
                Err(RecoveryWait::OldDisk(*peer))
            }
            _ => Ok(Tally { term, begins }),
        }
    }

    fn evaluate_answers(&mut self) {
        let Recovery::Querying(query) = &self.recovery else { return };
        let Ok(Tally { term, begins }) = self.tally(query) else { return };
        let mut query = query.clone();
        let began_so = query.conf.as_ref().is_some_and(|of| *of == (0, self.conf.clone()));
        // The members may be forgotten below, but not whose answers say what to catch up with.
        query.conf.get_or_insert_with(|| (self.hard.commit, self.conf.clone()));
        match query.durability {
            _ if begins => {
                self.recovery = Recovery::Done;
                // What it voted in this term, if it did, it does not know. And from now on its disk
                // is no longer new.
                (self.hard.term, self.hard.vote) = (term.max(1), Some(self.id));
                return self.wait_for_leader();
            }
            Durability::Suspect => {
                self.recovery = Recovery::VoteRestricted(query);
                if self.hard.term < term || self.hard.vote.is_none() {
                    // Whom it voted for in this term, if it did, it does not know: for nobody else.
                    (self.hard.term, self.hard.vote) = (term, Some(self.id));
                }
            }
            durability => {
                self.recovery = Recovery::CatchingUp(query);
                if self.log.last() == LogId::default() && !began_so {
                    self.conf = Conf::default();
                }
                self.reset_log = durability == Durability::Lost;
                (self.hard.term, self.hard.vote) = (term, Some(NOBODY));
            }
        }
        self.wait_for_leader();
        self.try_end_recovery();
    }

    /// The commit index moved: perhaps all is there.
    pub(super) fn try_end_recovery(&mut self) {
        if !self.is_recovering() {
            return;
        }
        let committed = self.committed();
        let follows = self.role == Role::Follower && self.leader.is_some();
        match &self.recovery {
            Recovery::CatchingUp(..) if self.conf.voters.is_empty() => {}
            // The members are known only now, or changed: some were not asked.
            Recovery::CatchingUp(query) if self.lacks_answers(query) => {
                self.recovery = Query::begin(query.question + 1, Durability::Empty);
            }
            Recovery::CatchingUp(query) if follows && committed >= self.vote_bound(query) => {
                self.recovery = Recovery::Done;
                self.hard.vote = self.leader;
            }
            Recovery::VoteRestricted(query) if committed >= self.vote_bound(query) => {
                self.recovery = Recovery::Done;
            }
            _ => {}
        }
    }

    /// Whether another voter has not answered, as far as the members are known.
    fn lacks_answers(&self, query: &Query) -> bool {
        self.voters().iter().any(|peer| !query.answers.contains_key(peer))
    }

    /// Whether a log that ends so has what this replica may have forgotten.
    pub(super) fn satisfies_vote_bound(&self, last: LogId) -> bool {
        !matches!(&self.recovery, Recovery::VoteRestricted(query) if last < self.vote_bound(query))
    }

    /// Whether this replica has a vote to give.
    pub(super) fn may_vote(&self) -> bool {
        matches!(self.recovery, Recovery::Done | Recovery::VoteRestricted(_))
    }

    /// The vote of a term that begins.
    pub(super) fn initial_vote(&self) -> Option<PeerId> {
        matches!(self.recovery, Recovery::CatchingUp(..)).then_some(NOBODY)
    }
}
