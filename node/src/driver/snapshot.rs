//! A shard's snapshots: sent to followers that fell behind the released log, and taken in.

use super::group::{Context, Group};
use super::logger::LogJob;
use super::transfer::{Incoming, Outgoing};
use crate::metrics::Metrics;
use crate::raft::PeerId;
use crate::wire::{self, Transfer};
use bedstone_engine::LogId;
use bedstone_engine::wal::Record;
use bedstone_net::{Frame, Lane};
use tracing::{info, warn};

/// Ticks without a word from the other side after which a transfer is given up.
const TRANSFER_TICKS: u64 = 200;

impl Group {
    pub(super) fn send_snapshot(&mut self, peer: PeerId, context: &mut Context<'_>) {
        if self.outgoing.get(&peer).is_some_and(Outgoing::is_under_way) {
            return;
        }
        // One that was cut short goes on, if the log still goes on from it.
        let useful = |o: &Outgoing| self.raft.term_at(o.at.index) == Some(o.at.term);
        let kept = self.outgoing.remove(&peer).filter(useful);
        let mut outgoing = kept.unwrap_or_else(|| {
            self.next_id += 1;
            Outgoing::new(&self.tree, self.next_id, self.ticks)
        });
        let offer = outgoing.offer(self.raft.term(), self.ticks);
        info!(shard = self.shard, peer, index = outgoing.at.index, "offers a snapshot");
        self.outgoing.insert(peer, outgoing);
        self.push_transfer(peer, &offer, context);
    }

    fn push_transfer(&mut self, peer: PeerId, transfer: &Transfer, context: &mut Context<'_>) {
        let (kind, body) = transfer.encode();
        let lane = if kind == wire::kind::SNAPSHOT_ACK { Lane::Control } else { Lane::Bulk };
        if lane == Lane::Bulk {
            *context.snapshot_room -= body.len() as i64;
            context.metrics.snapshot_bytes.inc_by(body.len() as u64);
        }
        let frame = Frame { lane, kind, shard: self.shard, body };
        if context.outbox.push(peer, frame).is_err() {
            self.raft.snapshot_sent(peer, None);
        }
    }

    /// A message of a snapshot transfer.
    pub(super) fn transfer(&mut self, peer: PeerId, transfer: Transfer, metrics: &Metrics) {
        match transfer {
            Transfer::Ack { id, chunks, outcome } => {
                let Some(outgoing) = self.outgoing.get_mut(&peer).filter(|o| o.id == id) else {
                    return;
                };
                let known = outgoing.acked(chunks, self.ticks);
                let installed = (outcome == 1).then_some(outgoing.at.index);
                if outcome != 0 || !known {
                    self.outgoing.remove(&peer);
                    self.raft.snapshot_sent(peer, installed);
                }
            }
            Transfer::Begin { id, term, at, ts } => {
                let of_leader = term == self.raft.term() && self.raft.leader() == Some(peer);
                if !of_leader || !self.lacks(at) {
                    self.acks.push((peer, Transfer::Ack { id, chunks: 0, outcome: 2 }));
                    return;
                }
                let known = self.incoming.take().filter(|i| (i.from, i.id, i.at) == (peer, id, at));
                let mut incoming =
                    known.unwrap_or_else(|| Incoming::begin(&self.tree, peer, id, at, ts));
                (incoming.term, incoming.heard) = (term, self.ticks);
                let chunks = incoming.taken();
                metrics.snapshots_resumed.inc_by(u64::from(chunks > 0));
                info!(shard = self.shard, peer, index = at.index, chunks, "receives a snapshot");
                self.acks.push((peer, Transfer::Ack { id, chunks, outcome: 0 }));
                self.incoming = Some(incoming);
            }
            Transfer::Chunk { id, number, pairs } => {
                let of = |incoming: &&mut Incoming| (incoming.from, incoming.id) == (peer, id);
                let Some(incoming) = self.incoming.as_mut().filter(of) else { return };
                incoming.heard = self.ticks;
                let outcome = match incoming.chunk(number, pairs) {
                    Ok(true) => 0,
                    Ok(false) => 2,
                    Err(error) => {
                        warn!(%error, "a snapshot cannot be taken in");
                        2
                    }
                };
                let chunks = incoming.taken();
                if outcome != 0 {
                    self.incoming = None;
                }
                self.acks.push((peer, Transfer::Ack { id, chunks, outcome }));
            }
            Transfer::End { id, chunks } => self.install(peer, id, chunks),
        }
    }

    /// Whether a snapshot at `at` brings anything here.
    fn lacks(&self, at: LogId) -> bool {
        let applied = self.applied.index;
        at.index > applied || self.raft.is_damaged() && at.index == applied
    }

    fn install(&mut self, peer: PeerId, id: u64, chunks: u64) {
        let of = |incoming: &mut Incoming| (incoming.from, incoming.id) == (peer, id);
        let Some(incoming) = self.incoming.take_if(of) else { return };
        let (term, at, conf) = (incoming.term, incoming.at, incoming.conf.clone());
        // Who was told wrong members takes them from nowhere else.
        let known = || (!self.raft.conf().voters.is_empty()).then(|| self.conf.clone());
        let conf = conf.or_else(known);
        // Entries may have come while it was on its way: then it is of no use any more.
        let installed = match self.lacks(at) && conf.is_some() {
            true => incoming.finish(chunks),
            false => Ok(false),
        };
        let outcome = match installed {
            Ok(true) => {
                info!(shard = self.shard, index = at.index, "installed a snapshot");
                self.applied = at;
                self.commit = self.commit.max(at.index);
                self.conf = conf.unwrap_or_default();
                self.installed =
                    Some(match self.raft.snapshot_installed(peer, term, at, self.conf.clone()) {
                        true => Record::Reset { shard: self.shard, at },
                        false => Record::Release { shard: self.shard, upto: at },
                    });
                1
            }
            Ok(false) => 2,
            Err(error) => {
                warn!(%error, "a snapshot cannot be installed");
                2
            }
        };
        self.acks.push((peer, Transfer::Ack { id, chunks, outcome }));
    }

    /// Gives up transfers of which nothing was heard for long.
    pub(super) fn expire_transfers(&mut self) {
        let long_ago = self.ticks.saturating_sub(TRANSFER_TICKS);
        let of_use = self.incoming.as_ref().is_some_and(|incoming| self.lacks(incoming.at));
        self.incoming.take_if(|incoming| incoming.heard < long_ago || !of_use);
        let silent = |(_, outgoing): &(&PeerId, &Outgoing)| outgoing.heard < long_ago;
        let given_up: Vec<PeerId> = self.outgoing.iter().filter(silent).map(|(&p, _)| p).collect();
        for peer in given_up {
            self.outgoing.remove(&peer);
            self.raft.snapshot_sent(peer, None);
        }
    }

    /// Tells the log of an installed snapshot, before any entry that comes after it is written.
    pub(super) fn log_installed(&mut self, context: &mut Context<'_>) {
        if let Some(record) = self.installed.take() {
            let _ = context.log.send(LogJob { records: vec![record], done: None });
        }
    }

    pub(super) fn continue_transfers(
        &mut self,
        context: &mut Context<'_>,
    ) -> bedstone_engine::Result<()> {
        for (peer, ack) in std::mem::take(&mut self.acks) {
            self.push_transfer(peer, &ack, context);
        }
        let chunk_bytes = self.limits.snapshot_chunk_bytes;
        let peers: Vec<PeerId> = self.outgoing.keys().copied().collect();
        for peer in peers {
            while *context.snapshot_room > 0 {
                let Some(outgoing) = self.outgoing.get_mut(&peer) else { break };
                let Some(transfer) = outgoing.next_message(chunk_bytes)? else { break };
                self.push_transfer(peer, &transfer, context);
            }
        }
        Ok(())
    }
}
