//! Reads: by a round of heartbeats, or by the leader's lease, and then from the tree once it has
//! what they must see.

use super::group::{Context, Group, Proposal};
use super::pending::{Pending, age_seconds};
use crate::raft::Index;
use crate::shard::apply::ts_of;
use crate::shard::command::{Command, Operation, encode_batch};
use crate::shard::read::{self, Answer};
use std::collections::VecDeque;

/// Reads that wait for an index to be applied.
pub(super) struct Waiting {
    pub(super) index: Index,
    /// Nobody was asked: the lease must still hold when they were done.
    pub(super) leased: bool,
    pub(super) reads: Vec<Pending>,
}

impl Group {
    /// One round for all the reads that wait and may be answered here.
    pub(super) fn begin_reads(&mut self, elapsed: u64) {
        self.raft.set_time(elapsed);
        if self.raft.is_damaged() {
            // The leader answers them.
            return self.reads.iter_mut().for_each(|pending| pending.of_leader = true);
        }
        let leads = self.raft.is_leader();
        if !self.reads.iter().any(|pending| leads || !pending.of_leader) {
            return;
        }
        if let Ok(token) = self.raft.read() {
            let (taken, left): (VecDeque<Pending>, _) =
                self.reads.drain(..).partition(|pending| leads || !pending.of_leader);
            self.reads = left;
            self.rounds.insert(token, taken.into());
        }
    }

    /// Answers the reads whose index is applied.
    pub(super) fn answer_reads(
        &mut self,
        context: &mut Context<'_>,
    ) -> bedstone_engine::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.raft.is_damaged() {
            let waiting = std::mem::take(&mut self.waiting).into_iter();
            waiting.flat_map(|w| w.reads).for_each(|pending| self.requeue(pending));
            return Ok(());
        }
        let clock = context.unix_millis;
        let (mut late, mut damage) = (Vec::new(), None);
        let applied = self.applied.index;
        let (mut answered, mut by_lease) = (Vec::new(), Vec::new());
        for waiting in self.waiting.extract_if(.., |waiting| waiting.index <= applied) {
            for pending in waiting.reads {
                match read::answer(&self.tree, &pending.command, clock) {
                    Ok(Answer::Reply(reply)) if waiting.leased => by_lease.push((pending, reply)),
                    Ok(Answer::Reply(reply)) => answered.push((pending, reply)),
                    Ok(Answer::Late) => late.push(pending),
                    Err(error) => {
                        damage = Some(error);
                        self.reads.push_front(pending);
                    }
                }
            }
        }
        // The process may have been stopped since it looked at the clock.
        if by_lease.is_empty() || self.raft.lease_holds((context.clock)()) {
            answered.append(&mut by_lease);
        }
        by_lease.into_iter().rev().for_each(|(pending, _)| self.requeue(pending));
        for (pending, reply) in answered {
            let age = age_seconds(pending.deadline, context.now);
            context.metrics.read_seconds.observe(age);
            context.metrics.answered.inc();
            context.answers.reply(pending.asker, pending.resp3, &reply);
        }
        if late.is_empty() {
            return damage.map_or(Ok(()), Err);
        }
        if !self.raft.is_leader() {
            // The leader's clock decides.
            for pending in late {
                self.requeue(Pending { of_leader: true, ..pending });
            }
            return damage.map_or(Ok(()), Err);
        }
        // A key's time is over: say so in the log, then read again.
        self.ts = ts_of(clock).max(self.ts + 1);
        let data = encode_batch(self.ts, [&Command::new(Operation::Tick, [])]);
        match self.raft.propose(data) {
            Ok(at) => {
                self.proposals.push_back(Proposal { at, commands: Vec::new() });
                self.waiting.push(Waiting { index: at.index, leased: false, reads: late });
            }
            Err(_) => late.into_iter().for_each(|pending| self.requeue(pending)),
        }
        damage.map_or(Ok(()), Err)
    }
}
