//! The entries that a replica proposed as leader, with the requests that wait for them.

use crate::machine::apply::ts_of;
use crate::raft::Index;
use crate::request::PendingRequest;
use bedstone_engine::LogId;
use std::collections::VecDeque;
use std::time::Instant;

/// An entry in the log that waits to be applied. A request is `None` once it was answered, because
/// its deadline passed.
pub(super) struct Proposal {
    /// The place of the entry.
    pub(super) at: LogId,
    /// The requests of the entry.
    pub(super) requests: Vec<Option<PendingRequest>>,
}

/// The entries that this replica proposed as leader.
///
/// Invariants, asserted where an entry is added: the places of proposals ascend, and the timestamps
/// of entries proposed here ascend.
pub(super) struct Proposals {
    in_flight: VecDeque<Proposal>,
    /// The timestamp of the last entry proposed here.
    last_ts: u64,
}

impl Proposals {
    /// No proposals. Timestamps continue after `last_ts`, the timestamp of the state.
    pub(super) fn new(last_ts: u64) -> Proposals {
        Proposals { in_flight: VecDeque::new(), last_ts }
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// A timestamp for the next entry: the clock's time, or the next after the last one.
    pub(super) fn next_ts(&mut self, unix_millis: u64) -> u64 {
        let ts = ts_of(unix_millis).max(self.last_ts + 1);
        assert!(ts > self.last_ts, "the timestamps of entries ascend");
        self.last_ts = ts;
        ts
    }

    pub(super) fn push(&mut self, at: LogId, requests: Vec<PendingRequest>) {
        let last = self.in_flight.back().map_or(Index(0), |proposal| proposal.at.index);
        assert!(at.index > last, "proposals are in the order of the log");
        let requests = requests.into_iter().map(Some).collect();
        self.in_flight.push_back(Proposal { at, requests });
    }

    /// Takes the requests whose deadline has passed.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<PendingRequest> {
        let requests = self.in_flight.iter_mut().flat_map(|proposal| &mut proposal.requests);
        requests.filter_map(|slot| slot.take_if(|request| request.is_late(now))).collect()
    }

    /// Takes the oldest proposal if its index is at or before `applied`.
    pub(super) fn pop_due(&mut self, applied: Index) -> Option<Proposal> {
        self.in_flight.pop_front_if(|proposal| proposal.at.index <= applied)
    }

    /// Takes all requests: this replica does not lead any more.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = PendingRequest> {
        self.in_flight.drain(..).flat_map(|proposal| proposal.requests).flatten()
    }
}
