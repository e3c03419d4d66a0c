//! The snapshots that a replica sends and receives.

use super::snapshot_stream::{Incoming, Outgoing};
use crate::raft::{Index, Raft, ReplicaId};
use crate::wire::Transfer;
use bedstone_engine::wal::Record;
use std::collections::BTreeMap;

/// The snapshots that this replica sends and receives.
#[derive(Default)]
pub(super) struct Snapshots {
    /// The snapshots under way to followers.
    pub(super) outgoing: BTreeMap<ReplicaId, Outgoing>,
    /// The snapshot under way to this replica.
    pub(super) incoming: Option<Incoming>,
    /// Acknowledgements to send.
    acks: Vec<(ReplicaId, Transfer)>,
    /// The record of an installed snapshot. The log has to hold it before any entry that follows.
    installed: Option<Record>,
    /// The number of the last snapshot sent.
    last_id: u64,
}

impl Snapshots {
    pub(super) fn new(first_id: u64) -> Snapshots {
        Snapshots { last_id: first_id, ..Snapshots::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        let sending = !self.outgoing.is_empty() || !self.acks.is_empty();
        !sending && self.incoming.is_none() && self.installed.is_none()
    }

    /// The least entry after which followers with a snapshot in flight need the log.
    pub(super) fn needed_from(&self) -> Option<Index> {
        self.outgoing.values().map(|outgoing| outgoing.head.at.index).min()
    }

    /// Gives up every snapshot that this replica sends.
    pub(super) fn abort_outgoing(&mut self, raft: &mut Raft) {
        for peer in std::mem::take(&mut self.outgoing).into_keys() {
            raft.snapshot_sent(peer, None);
        }
    }

    /// The connection to a follower is lost. Its snapshot continues after the next offer.
    pub(super) fn disconnect(&mut self, peer: ReplicaId) {
        if let Some(outgoing) = self.outgoing.get_mut(&peer) {
            outgoing.disconnect();
        }
    }

    /// The number for the next snapshot.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Queues an acknowledgement.
    pub(super) fn acknowledge(&mut self, peer: ReplicaId, ack: Transfer) {
        self.acks.push((peer, ack));
    }

    /// Takes the acknowledgements to send.
    pub(super) fn take_acks(&mut self) -> Vec<(ReplicaId, Transfer)> {
        std::mem::take(&mut self.acks)
    }

    /// Keeps the record of an installed snapshot until the log takes it.
    pub(super) fn keep_installed(&mut self, record: Record) {
        assert!(self.installed.is_none(), "the log takes one installed snapshot after the other");
        self.installed = Some(record);
    }

    /// Takes the record of an installed snapshot.
    pub(super) fn take_installed(&mut self) -> Option<Record> {
        self.installed.take()
    }
}
