//! The strong reads of a replica that wait for a read index, or for an index to be applied.

use crate::raft::{Index, Read};
use crate::request::PendingRequest;
use std::collections::BTreeMap;
use std::time::Instant;

/// Reads that wait for an index to be applied.
pub(super) struct AwaitingApply {
    index: Index,
    /// The index comes from the leader's lease: the lease must still hold after the reads.
    pub(super) by_lease: bool,
    /// The reads.
    pub(super) reads: Vec<PendingRequest>,
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

    /// Whether any read waits for an index to be applied.
    pub(super) fn is_awaiting_apply(&self) -> bool {
        !self.awaiting_apply.is_empty()
    }

    /// Keeps reads until the core answers a token.
    pub(super) fn await_index(&mut self, token: u64, reads: Vec<PendingRequest>) {
        let before = self.awaiting_index.insert(token, reads);
        assert!(before.is_none(), "the core gives each token once");
    }

    /// Keeps reads until an index is applied.
    pub(super) fn await_apply(&mut self, index: Index, by_lease: bool, reads: Vec<PendingRequest>) {
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
    pub(super) fn take_ready(&mut self, applied: Index) -> Vec<AwaitingApply> {
        self.awaiting_apply.extract_if(.., |waiting| waiting.index <= applied).collect()
    }

    /// Takes all reads that wait for an index to be applied.
    pub(super) fn take_awaiting_apply(&mut self) -> impl Iterator<Item = PendingRequest> {
        std::mem::take(&mut self.awaiting_apply).into_iter().flat_map(|waiting| waiting.reads)
    }
}
