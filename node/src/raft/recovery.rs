//! A replica that cannot prove that it kept its promises: its disk is new, or lost records that were
//! durable (Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage", FAST '18; the
//! recovery of Viewstamped Replication Revisited, §4.3, is its relative).
//!
//! It may have voted and acknowledged without knowing it any more. So it does neither before two
//! things have happened:
//!
//! 1. **Asking.** Every other voter has answered a question that this life of the replica asked.
//!    Whoever it voted for or acknowledged to had the term durable before, so the greatest term
//!    among the answers is at least that of every promise; and whoever leads has forgotten what
//!    this replica acknowledged before it answered. What the disk still has stays until then.
//! 2. **Catching up.** In that term or later, a leader, which was elected without it, has committed
//!    an entry of its own term, and this replica has it and all before it: all that its forgotten
//!    acknowledgements helped to commit is there.
//!
//! Between the two it acknowledges, truthfully, what it takes; it votes for nobody, which is durable
//! as a vote for [`NOBODY`]. When nobody has an entry, the group begins, and there is nothing to
//! catch up with.

use super::conf::Conf;
use super::core::{Raft, Role};
use super::message::{Body, Has};
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
    Asking(Asking),
    /// It waits for an entry of this term or a later one to be committed here.
    CatchingUp(Term),
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
    pub(super) has: Has,
    /// The commit index that its members are of.
    pub(super) conf_at: Index,
}

impl Asking {
    pub(super) fn begin(question: u64, lost: bool) -> Recovery {
        Recovery::Asking(Asking { lost, question, answers: BTreeMap::new(), conf: None, next: 0 })
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
            if asking.answers.get(&peer).is_none_or(|answer| answer.has != Has::Entries) {
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
        if let Some(progress) = self.progress.get_mut(&peer) {
            progress.forget();
            if progress.mode != Mode::Snapshot {
                progress.probe(self.log.base().index);
            }
        }
        let has = match self.log.last() == LogId::default() {
            true if self.hard.term == 0 => Has::Nothing,
            true => Has::NoEntries,
            false => Has::Entries,
        };
        let (committed, conf) = (self.committed(), self.conf.clone());
        self.send_durable(peer, Body::RecoverReply { question, has, committed, conf });
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
        let newer = asking.conf.as_ref().is_none_or(|(at, _)| *at < answer.conf_at);
        if answer.has == Has::Entries && newer {
            asking.conf = Some((answer.conf_at, conf));
        }
        self.count_answers();
    }

    fn count_answers(&mut self) {
        let Recovery::Asking(asking) = &self.recovery else { return };
        let known = self.whom_to_ask(asking);
        let of = |peer| asking.answers.get(peer).copied();
        let Some(answers) = known.iter().map(of).collect::<Option<Vec<Answer>>>() else { return };
        let terms = answers.iter().map(|answer| answer.term);
        let term = terms.max().unwrap_or(0).max(self.hard.term);
        let empty = self.log.last() == LogId::default() && !asking.lost;
        if empty && answers.iter().all(|answer| answer.has != Has::Entries) {
            self.recovery = Recovery::Done;
            // What it voted in this term, if it did, it does not know. And from now on its disk is
            // no longer new.
            (self.hard.term, self.hard.vote) = (term.max(1), Some(self.id));
            return self.wait_for_leader();
        }
        // With more new disks than the group survives, what was committed may be on none of the
        // others.
        let olds = answers.iter().filter(|answer| answer.has != Has::Nothing).count();
        if olds < known.len() && 2 * olds <= known.len() + 1 {
            return;
        }
        self.recovery = Recovery::CatchingUp(term);
        self.hard.term = term;
        self.hard.vote = Some(NOBODY);
        self.anew = true;
        self.wait_for_leader();
    }

    /// The commit index moved: perhaps all is there.
    pub(super) fn end_recovery(&mut self) {
        let Recovery::CatchingUp(term) = self.recovery else { return };
        let caught_up = self.log.term(self.hard.commit).is_some_and(|of| of >= term);
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
