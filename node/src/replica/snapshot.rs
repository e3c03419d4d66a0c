//! The snapshots of a shard: sent to followers that need released entries, and installed.

use super::snapshot_stream::{Incoming, Outgoing};
use super::{Replica, Turn};
use crate::raft::ReplicaId;
use crate::wire::{self, Address, SnapshotOutcome, Transfer};
use bedstone_engine::lsm::SnapshotHead;
use bedstone_engine::wal::Record;
use bedstone_engine::{LogId, Result, Term};
use bedstone_net::{Frame, Lane};
use tracing::{info, warn};

/// A transfer is given up after this many ticks without a message of the other side.
const TRANSFER_TICKS: u64 = 200;

impl Replica {
    /// Offers a snapshot to a follower.
    ///
    /// # Errors
    /// The state cannot be read.
    pub(super) fn send_snapshot(&mut self, peer: ReplicaId, turn: &mut Turn<'_>) -> Result<()> {
        if self.snapshots.outgoing.get(&peer).is_some_and(Outgoing::is_under_way) {
            return Ok(());
        }
        // A snapshot that was interrupted continues, unless the entries after it were released.
        let is_usable = |o: &Outgoing| self.raft.term_at(o.head.at.index) == Some(o.head.at.term);
        let interrupted = self.snapshots.outgoing.remove(&peer).filter(is_usable);
        let mut outgoing = match interrupted {
            Some(outgoing) => outgoing,
            None => Outgoing::new(&self.tree, self.snapshots.next_id(), self.ticks)?,
        };
        let offer = outgoing.offer(self.raft.term(), self.ticks);
        info!(
            shard = self.shard.0,
            peer = peer.0,
            index = outgoing.head.at.index.0,
            "offers a snapshot"
        );
        self.snapshots.outgoing.insert(peer, outgoing);
        self.push_transfer(peer, &offer, turn);
        Ok(())
    }

    fn push_transfer(&mut self, peer: ReplicaId, transfer: &Transfer, turn: &mut Turn<'_>) {
        let (kind, body) = transfer.encode(Address { from: self.id, to: peer });
        let lane = if kind == wire::kind::SNAPSHOT_ACK { Lane::Control } else { Lane::Bulk };
        if lane == Lane::Bulk {
            *turn.snapshot_budget -= body.len() as i64;
            self.metrics.snapshot_bytes.inc_by(body.len() as u64);
        }
        let frame = Frame { lane, kind, shard: self.shard.0, body };
        if !self.node_of(peer).is_some_and(|node| turn.net.push(node, frame)) {
            self.raft.snapshot_sent(peer, None);
        }
    }

    /// A message of a snapshot transfer.
    pub(super) fn on_transfer(&mut self, peer: ReplicaId, transfer: Transfer) {
        match transfer {
            Transfer::Ack { id, chunks, outcome } => {
                self.on_snapshot_ack(peer, id, chunks, outcome)
            }
            Transfer::Begin { id, version, head, .. } if self.is_too_new(version) => {
                warn!(
                    shard = self.shard.0,
                    peer = peer.0,
                    index = head.at.index.0,
                    version,
                    "a snapshot is refused: it has entries of a newer version than this build \
                     applies; upgrade this node"
                );
                self.needs_version = Some(version);
                self.acknowledge(peer, id, 0, SnapshotOutcome::Failed);
            }
            Transfer::Begin { id, term, head, .. } => self.on_snapshot_offer(peer, id, term, head),
            Transfer::Chunk { id, number, items } => {
                let is_from = |incoming: &&mut Incoming| (incoming.from, incoming.id) == (peer, id);
                let Some(incoming) = self.snapshots.incoming.as_mut().filter(is_from) else {
                    return;
                };
                incoming.last_message_tick = self.ticks;
                let outcome = match incoming.chunk(number, items) {
                    Ok(true) => SnapshotOutcome::InProgress,
                    Ok(false) => SnapshotOutcome::Failed,
                    Err(error) => {
                        warn!(%error, "a chunk of a snapshot cannot be stored");
                        SnapshotOutcome::Failed
                    }
                };
                let chunks = incoming.received();
                if outcome == SnapshotOutcome::Failed {
                    self.snapshots.incoming = None;
                }
                self.acknowledge(peer, id, chunks, outcome);
            }
            Transfer::End { id, chunks } => self.install(peer, id, chunks),
        }
    }

    fn acknowledge(&mut self, peer: ReplicaId, id: u64, chunks: u64, outcome: SnapshotOutcome) {
        self.snapshots.acknowledge(peer, Transfer::Ack { id, chunks, outcome });
    }

    /// A follower acknowledges chunks of its snapshot, or ends the transfer.
    fn on_snapshot_ack(&mut self, peer: ReplicaId, id: u64, chunks: u64, outcome: SnapshotOutcome) {
        let Some(outgoing) = self.snapshots.outgoing.get_mut(&peer).filter(|o| o.id == id) else {
            return;
        };
        let is_known = outgoing.acked(chunks, self.ticks);
        let installed = (outcome == SnapshotOutcome::Installed).then_some(outgoing.head.at.index);
        if outcome != SnapshotOutcome::InProgress || !is_known {
            self.snapshots.outgoing.remove(&peer);
            self.raft.snapshot_sent(peer, installed);
        }
    }

    /// The leader offers a snapshot: a new one, or one that was interrupted.
    fn on_snapshot_offer(&mut self, peer: ReplicaId, id: u64, term: Term, head: SnapshotHead) {
        let from_leader = term == self.raft.term() && self.raft.leader() == Some(peer);
        if !from_leader || !self.needs_snapshot(head.at) {
            return self.acknowledge(peer, id, 0, SnapshotOutcome::Failed);
        }
        let is_same = |i: &Incoming| (i.from, i.id, i.head) == (peer, id, head);
        let interrupted = self.snapshots.incoming.take().filter(is_same);
        let mut incoming =
            interrupted.unwrap_or_else(|| Incoming::begin(&self.tree, peer, id, head));
        incoming.term = term;
        incoming.last_message_tick = self.ticks;
        let chunks = incoming.received();
        self.metrics.snapshots_resumed.inc_by(u64::from(chunks > 0));
        info!(
            shard = self.shard.0,
            peer = peer.0,
            index = head.at.index.0,
            chunks,
            "receives a snapshot"
        );
        self.acknowledge(peer, id, chunks, SnapshotOutcome::InProgress);
        self.snapshots.incoming = Some(incoming);
    }

    fn is_too_new(&self, version: u16) -> bool {
        version > self.limits.entry_versions.newest
    }

    /// Whether a snapshot at `at` has entries that the state lacks, or repairs the state.
    fn needs_snapshot(&self, at: LogId) -> bool {
        let applied = self.applied.index;
        at.index > applied || self.raft.is_damaged() && at.index == applied
    }

    fn install(&mut self, peer: ReplicaId, id: u64, chunks: u64) {
        let is_from = |incoming: &mut Incoming| (incoming.from, incoming.id) == (peer, id);
        let Some(incoming) = self.snapshots.incoming.take_if(is_from) else { return };
        let (term, at, conf) = (incoming.term, incoming.head.at, incoming.conf.clone());
        // A replica without known members takes the members from the snapshot alone.
        let known = || (!self.raft.conf().voters.is_empty()).then(|| self.conf.clone());
        let conf = conf.or_else(known);
        // Entries that arrived during the transfer may have made the snapshot useless.
        let installed = match conf.filter(|_| self.needs_snapshot(at)) {
            Some(conf) => incoming.finish(chunks).map(|complete| complete.then_some(conf)),
            None => Ok(None),
        };
        let outcome = match installed {
            Ok(Some(conf)) => {
                info!(shard = self.shard.0, index = at.index.0, "installed a snapshot");
                self.applied = at;
                self.commit = self.commit.max(at.index);
                self.conf = conf;
                let resets = self.raft.snapshot_installed(peer, term, at, self.conf.clone());
                self.snapshots.keep_installed(if resets {
                    Record::Reset { shard: self.shard, at }
                } else {
                    Record::Release { shard: self.shard, upto: at }
                });
                self.log_members();
                SnapshotOutcome::Installed
            }
            Ok(None) => SnapshotOutcome::Failed,
            Err(error) => {
                warn!(%error, "a snapshot cannot be installed");
                SnapshotOutcome::Failed
            }
        };
        self.acknowledge(peer, id, chunks, outcome);
    }

    /// Gives up transfers without a message for long, and a snapshot that is of no use any more.
    pub(super) fn expire_transfers(&mut self) {
        let long_ago = self.ticks.saturating_sub(TRANSFER_TICKS);
        let incoming = self.snapshots.incoming.as_ref();
        let is_useful = incoming.is_some_and(|incoming| self.needs_snapshot(incoming.head.at));
        self.snapshots
            .incoming
            .take_if(|incoming| incoming.last_message_tick < long_ago || !is_useful);
        let late = |_: &ReplicaId, outgoing: &mut Outgoing| outgoing.last_message_tick < long_ago;
        for (peer, _) in self.snapshots.outgoing.extract_if(.., late) {
            self.raft.snapshot_sent(peer, None);
        }
    }

    /// Logs an installed snapshot, before any entry that follows it is written.
    pub(super) fn log_installed(&mut self) {
        if let Some(record) = self.snapshots.take_installed() {
            self.disk.log(vec![record], None);
        }
    }

    /// The log on the disk was found to end before the state: the next turn resets it there.
    pub(super) fn reset_log_at_start(&mut self, at: LogId) {
        self.snapshots.keep_installed(Record::Reset { shard: self.shard, at });
    }

    /// Sends acknowledgements, and chunks as far as the budget goes.
    ///
    /// # Errors
    /// The state cannot be read.
    pub(super) fn continue_transfers(&mut self, turn: &mut Turn<'_>) -> Result<()> {
        for (peer, ack) in self.snapshots.take_acks() {
            self.push_transfer(peer, &ack, turn);
        }
        let peers: Vec<ReplicaId> = self.snapshots.outgoing.keys().copied().collect();
        for peer in peers {
            while *turn.snapshot_budget > 0 {
                let Some(outgoing) = self.snapshots.outgoing.get_mut(&peer) else { break };
                let next = outgoing.next_message(self.limits.snapshot_chunk_bytes)?;
                let Some(transfer) = next else { break };
                self.push_transfer(peer, &transfer, turn);
            }
        }
        Ok(())
    }
}
