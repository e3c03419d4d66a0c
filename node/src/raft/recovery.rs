//! A replica that cannot prove that it kept its promises: its disk is new, or lost records that
//! were durable (Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage", FAST '18;
//! the recovery of Viewstamped Replication Revisited, §4.3, is its relative).
//!
//! It may have voted and acknowledged without knowing it any more. So it does neither before two
//! things have happened:
//!
//! 1. **Asking.** Every other voter has answered a question that this life of the replica asked.
//!    Whoever it voted for or acknowledged to had the term durable before, so the greatest term
//!    among the answers is at least that of every promise; and whoever leads has forgotten what
//!    this replica acknowledged before it answered. What the disk still has stays until then.
//! 2. **Catching up.** It has a committed entry at or after the last entry of all who answered.
//!    What its forgotten acknowledgements helped to commit was in the log of one of them; so it is
//!    before that entry, by the term (leader completeness) or by the index.
//!
//! Between the two it acknowledges, truthfully, what it takes; it votes for nobody, which is
//! durable as a vote for [`NOBODY`], with which it asks again after a restart. When nobody has an
//! entry, the group begins, and there is nothing to catch up with.

use super::conf::Conf;
use super::core::{Raft, Role};
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
    Asking(Box<Asking>),
    /// It waits for this entry or a later one to be committed here.
    CatchingUp(LogId),
}

/// See [`Recovery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    /// Its disk lost records, rather than being new.
    lost: bool,
    /// Tells answers to this life's question from answers to an earlier one.
    question: u64,
    answers: BTreeMap<PeerId, Answer>,
    /// Who takes part, by the answer with the greatest commit index, and that index.
    conf: Option<(Index, Conf)>,
    next: Tick,
}

/// What a peer said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) term: Term,
    pub(super) new: bool,
    pub(super) last: LogId,
    pub(super) commit: Index,
}

impl Answer {
    fn is_empty(&self) -> bool {
        self.last == LogId::default()
    }
}

impl Asking {
    pub(super) fn begin(question: u64, lost: bool) -> Recovery {
        let (answers, conf, next) = (BTreeMap::new(), None, 0);
        Recovery::Asking(Box::new(Asking { lost, question, answers, conf, next }))
    }
}

impl Raft {
    /// Whether this replica still has to prove itself: it does not vote.
    pub fn is_recovering(&self) -> bool {
        self.recovery != Recovery::Done
    }

    /// Whether this replica asks, and so takes part in nothing.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.recovery, Recovery::Asking(_))
    }

    /// Whether nothing has to be brought here but what is new.
    pub(super) fn keeps_up(&self) -> bool {
        !self.is_recovering() && !self.damaged
    }

    /// What was applied here is damaged: until a snapshot of the leader takes its place, this
    /// replica does not lead. It goes on to vote and to acknowledge: its log is sound.
    pub fn damaged(&mut self) {
        self.damaged = true;
        if self.role != Role::Follower {
            self.become_follower(self.hard.term, None);
        }
        if let Some(leader) = self.leader {
            self.silent(leader);
        }
    }

    /// Whether a snapshot is to take the place of what was applied here.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    pub(super) fn tick_recovery(&mut self) {
        let (now, pause) = (self.now, self.config.heartbeat);
        let Recovery::Asking(asking) = &mut self.recovery else { return };
        if now < asking.next {
            return;
        }
        asking.next = now + pause;
        let asking = asking.clone();
        for peer in self.whom_to_ask(&asking) {
            // Who has nothing may come to have something.
            if asking.answers.get(&peer).is_none_or(Answer::is_empty) {
                self.send_now(peer, Body::Recover { question: asking.question });
            }
        }
        self.count_answers();
    }

    /// The other voters, by the newest configuration that is known.
    fn whom_to_ask(&self, asking: &Asking) -> Vec<PeerId> {
        let conf = asking.conf.as_ref().map_or(&self.conf, |(_, conf)| conf);
        let voters = conf.members().into_iter().filter(|&peer| conf.is_voter(peer));
        voters.filter(|&peer| peer != self.id).collect()
    }

    /// A peer has lost what it promised.
    pub(super) fn on_recover(&mut self, peer: PeerId, question: u64) {
        if matches!(&self.recovery, Recovery::Asking(asking) if asking.lost) {
            return; // What it would answer proves nothing.
        }
        if let Some(progress) = self.progress.of_mut(peer) {
            progress.forget();
            if progress.mode != Mode::Snapshot {
                progress.probe(self.log.base().index);
            }
        }
        let (last, commit, conf) = (self.log.last(), self.hard.commit, self.conf.clone().into());
        let new = last == LogId::default() && self.hard.term == 0;
        self.send_durable(peer, Body::RecoverReply { question, new, last, commit, conf });
    }

    pub(super) fn on_recover_reply(
        &mut self,
        peer: PeerId,
        question: u64,
        answer: Answer,
        conf: Conf,
    ) {
        let Recovery::Asking(asking) = &mut self.recovery else { return };
        if question != asking.question {
            return;
        }
        asking.answers.insert(peer, answer);
        let newer = asking.conf.as_ref().is_none_or(|(at, _)| *at < answer.commit);
        if !answer.is_empty() && newer {
            asking.conf = Some((answer.commit, conf));
        }
        self.count_answers();
    }

    fn count_answers(&mut self) {
        let Recovery::Asking(asking) = &self.recovery else { return };
        let known = self.whom_to_ask(asking);
        if known.is_empty() {
            return; // Nobody can tell.
        }
        let of = |peer| asking.answers.get(peer).copied();
        let Some(answers) = known.iter().map(of).collect::<Option<Vec<Answer>>>() else { return };
        let terms = answers.iter().map(|answer| answer.term);
        let term = terms.max().unwrap_or(0).max(self.hard.term);
        let empty = self.log.last() == LogId::default() && !asking.lost;
        if empty && answers.iter().all(Answer::is_empty) {
            self.recovery = Recovery::Done;
            // What it voted in this term, if it did, it does not know. And from now on its disk is
            // no longer new.
            (self.hard.term, self.hard.vote) = (term.max(1), Some(self.id));
            return self.wait_for_leader();
        }
        // With more new disks than the group survives, what was committed may be on none of the
        // others.
        let olds = answers.iter().filter(|answer| !answer.new).count();
        if olds < known.len() && 2 * olds <= known.len() + 1 {
            return;
        }
        let last = answers.iter().map(|answer| (answer.last.term, answer.last.index)).max();
        let (of, index) = last.unwrap_or_default();
        self.anew = asking.lost;
        self.recovery = Recovery::CatchingUp(LogId { term: of, index });
        (self.hard.term, self.hard.vote) = (term, Some(NOBODY));
        self.wait_for_leader();
        self.end_recovery();
    }

    /// The commit index moved: perhaps all is there.
    pub(super) fn end_recovery(&mut self) {
        let Recovery::CatchingUp(target) = self.recovery else { return };
        let committed = self.committed();
        let caught_up = (committed.term, committed.index) >= (target.term, target.index);
        if caught_up && self.role == Role::Follower && self.leader.is_some() {
            self.recovery = Recovery::Done;
            self.hard.vote = self.leader;
        }
    }

    /// The vote of a term that begins.
    pub(super) fn no_vote(&self) -> Option<PeerId> {
        matches!(self.recovery, Recovery::CatchingUp(_)).then_some(NOBODY)
    }
}
