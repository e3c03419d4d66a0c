//! Strong reads: a read index from a quorum round or from the leader's lease, then the reply from
//! the state once the index is applied (Raft thesis, section 6.4).

use super::{Replica, Turn};
use crate::machine::command::Command;
use crate::machine::{ReadOutcome, ReadTime};
use crate::policy::ServedBy;
use crate::request::PendingRequest;
use crate::request::replies::age_seconds;

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
            self.reads.await_index(token, self.queue.take_local_reads(is_leader));
        }
    }

    /// Replies to the reads whose index is applied.
    ///
    /// # Errors
    /// The state cannot be read. The reads that met the error wait again.
    pub(super) fn answer_reads(&mut self, turn: &mut Turn<'_>) -> bedstone_engine::Result<()> {
        if !self.reads.is_awaiting_apply() {
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
                let Command::Read(command) = &read.command else {
                    unreachable!("the queue of reads has no writes");
                };
                match self.machine.read(command, time) {
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
