//! Strong reads: a read index from a quorum round or from the leader's lease, then the reply from
//! the state once the index is applied (Raft thesis, section 6.4).

use super::{Replica, Turn};
use crate::machine::{ReadOutcome, ReadTime};
use crate::policy::ServedBy;
use crate::raft::{Index, Read};
use crate::request::PendingRequest;
use crate::request::replies::age_seconds;
use std::collections::BTreeMap;
use std::time::Instant;

/// Reads that wait for an index to be applied.
struct AwaitingApply {
    index: Index,
    /// The index comes from the leader's lease: the lease must still hold after the reads.
    by_lease: bool,
    reads: Vec<PendingRequest>,
}

/// The strong reads of a replica, from the request for a read index to the reply.
#[derive(Default)]
pub(super) struct ReadTracker {
    /// Reads that wait for a read index, by the token of the core.
    awaiting_index: BTreeMap<u64, Vec<PendingRequest>>,
    awaiting_apply: Vec<AwaitingApply>,
}

impl ReadTracker {
    pub(super) fn is_empty(&self) -> bool {
        self.awaiting_index.is_empty() && self.awaiting_apply.is_empty()
    }

    fn await_apply(&mut self, index: Index, by_lease: bool, reads: Vec<PendingRequest>) {
        self.awaiting_apply.push(AwaitingApply { index, by_lease, reads });
    }

    /// The core's answer for a token. Returns the reads that have to be asked for again.
    pub(super) fn on_read_index(&mut self, token: u64, read: Read) -> Vec<PendingRequest> {
        let Some(reads) = self.awaiting_index.remove(&token) else { return Vec::new() };
        match read {
            Read::At(index) => self.await_apply(index, false, reads),
            Read::ByLease(index) => self.await_apply(index, true, reads),
            // The replica stopped leading. A read has no effect, so it may be repeated.
            Read::Failed => return reads,
        }
        Vec::new()
    }

    /// Takes the reads whose deadline has passed.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<PendingRequest> {
        let awaiting_apply = self.awaiting_apply.iter_mut().map(|waiting| &mut waiting.reads);
        let all = self.awaiting_index.values_mut().chain(awaiting_apply);
        all.flat_map(|reads| reads.extract_if(.., |read| read.is_late(now))).collect()
    }

    /// Takes the reads whose index is applied.
    fn take_ready(&mut self, applied: Index) -> Vec<AwaitingApply> {
        self.awaiting_apply.extract_if(.., |waiting| waiting.index <= applied).collect()
    }

    /// Takes all reads that wait for an index to be applied.
    fn take_awaiting_apply(&mut self) -> impl Iterator<Item = PendingRequest> {
        std::mem::take(&mut self.awaiting_apply).into_iter().flat_map(|waiting| waiting.reads)
    }
}

impl Replica {
    /// Requests one read index for all the reads that wait and that this replica may answer.
    pub(super) fn begin_reads(&mut self, elapsed: u64) {
        self.raft.set_time(elapsed);
        if !self.raft.is_applying() {
            return self.queue.send_reads_to_leader();
        }
        let is_leader = self.raft.is_leader();
        if !self.queue.has_local_reads(is_leader) {
            return;
        }
        if let Ok(token) = self.raft.read() {
            self.reads.awaiting_index.insert(token, self.queue.take_local_reads(is_leader));
        }
    }

    /// Replies to the reads whose index is applied.
    ///
    /// # Errors
    /// The state cannot be read. The reads that met the error wait again.
    pub(super) fn answer_reads(&mut self, turn: &mut Turn<'_>) -> bedstone_engine::Result<()> {
        if self.reads.awaiting_apply.is_empty() {
            return Ok(());
        }
        if !self.raft.is_applying() {
            self.reads.take_awaiting_apply().for_each(|read| self.queue.push_front(read));
            return Ok(());
        }
        let time = ReadTime::Leader(turn.unix_millis);
        let (mut answered, mut by_lease) = (Vec::new(), Vec::new());
        let (mut expiry_due, mut damage) = (Vec::new(), Ok(()));
        for ready in self.reads.take_ready(self.applied.index) {
            for read in ready.reads {
                match self.machine.read(&read.command, time) {
                    Ok(ReadOutcome::Reply(reply)) if ready.by_lease => by_lease.push((read, reply)),
                    Ok(ReadOutcome::Reply(reply)) => answered.push((read, reply)),
                    Ok(ReadOutcome::ExpiryDue) => expiry_due.push(read),
                    Err(error) => {
                        damage = Err(error);
                        self.queue.push_front(read);
                    }
                }
            }
        }
        // The process may have been paused since it looked at the clock, so the lease is checked
        // again after the reads.
        if by_lease.is_empty() || self.raft.lease_holds((turn.clock)()) {
            answered.append(&mut by_lease);
        }
        by_lease.into_iter().rev().for_each(|(read, _)| self.queue.push_front(read));
        for (read, reply) in answered {
            self.metrics.read_seconds.observe(age_seconds(read.deadline, turn.now));
            self.metrics.answered.inc();
            turn.replies.reply(read.requester, read.resp3, &reply);
        }
        if !expiry_due.is_empty() {
            self.log_expiry(expiry_due, turn.unix_millis);
        }
        damage
    }

    /// The deadline of a key has passed by this node's clock, and not by the state's time.
    fn log_expiry(&mut self, reads: Vec<PendingRequest>, unix_millis: u64) {
        if !self.raft.is_leader() {
            // Only the leader's clock decides on expiry.
            for read in reads {
                self.queue.push_front(PendingRequest { served_by: ServedBy::Leader, ..read });
            }
            return;
        }
        match self.propose_tick(unix_millis) {
            Some(at) => self.reads.await_apply(at.index, false, reads),
            None => reads.into_iter().for_each(|read| self.queue.push_front(read)),
        }
    }
}
