//! Proposals: the writes of several requests in one log entry, and the replies once it is applied.

use super::{Replica, Turn};
use crate::limits::PROPOSALS_IN_FLIGHT;
use crate::machine::command::{Command, Write, encode_batch};
use crate::machine::reply::Reply;
use crate::request::PendingRequest;
use crate::request::replies::{Replies, age_seconds};
use bedstone_engine::{Error, LogId};

impl Replica {
    pub(super) fn may_propose(&self) -> bool {
        self.proposals.len() < PROPOSALS_IN_FLIGHT && !self.tree.is_behind()
    }

    /// Proposes the waiting writes, as few entries as they fit.
    pub(super) fn propose(&mut self, turn: &mut Turn<'_>) {
        if let Err(full) = self.disk.engine().check_space() {
            self.refuse_growing_writes(&full, turn.replies);
        }
        while self.queue.has_writes() && self.may_propose() {
            let requests = self.queue.take_entry(self.limits.entry_bytes);
            let ts = self.proposals.next_ts(turn.unix_millis);
            let version = self.limits.entry_versions.written;
            let data = encode_batch(version, ts, requests.iter().map(write_of));
            let Ok(at) = self.raft.propose(data) else {
                requests.into_iter().rev().for_each(|request| self.queue.push_front(request));
                return;
            };
            self.metrics.entry_commands.observe(requests.len() as f64);
            self.proposals.push(at, requests);
        }
    }

    /// Proposes an entry that moves the state's time to the leader's clock. `None` when the core
    /// refuses the entry.
    pub(super) fn propose_tick(&mut self, unix_millis: u64) -> Option<LogId> {
        let ts = self.proposals.next_ts(unix_millis);
        let version = self.limits.entry_versions.written;
        let data = encode_batch(version, ts, [&Write::Tick {}]);
        let at = self.raft.propose(data).ok()?;
        self.proposals.push(at, Vec::new());
        Some(at)
    }

    /// Refuses the writes that need room on a disk that is nearly full.
    fn refuse_growing_writes(&mut self, full: &Error, replies: &mut Replies) {
        for request in self.queue.take_growing_writes() {
            self.metrics.proposals_failed.inc();
            let text = format!("NOSPACE {full}; deletes are taken, and so are writes afterwards");
            replies.reply(request.requester, request.resp3, &Reply::Error(text));
        }
    }

    /// Replies to the requests of an applied entry.
    pub(super) fn finish_proposals(
        &mut self,
        applied: LogId,
        results: &[Reply],
        turn: &mut Turn<'_>,
    ) {
        while let Some(proposal) = self.proposals.pop_due(applied.index) {
            if proposal.at != applied {
                // An entry of another leader took the place of the proposal.
                for request in proposal.requests.into_iter().flatten() {
                    turn.replies.unknown(request, "another leader took over", &self.metrics);
                }
                continue;
            }
            for (request, result) in proposal.requests.into_iter().zip(results) {
                let Some(request) = request else { continue };
                self.metrics.write_seconds.observe(age_seconds(request.deadline, turn.now));
                self.metrics.answered.inc();
                turn.replies.reply(request.requester, request.resp3, result);
            }
        }
    }
}

/// The write of a request from the queue of writes.
fn write_of(request: &PendingRequest) -> &Write {
    match &request.command {
        Command::Write(write) => write,
        Command::Read(_) => unreachable!("the queue of writes has no reads"),
    }
}
