//! A shard's snapshots: sent to followers that fell behind the released log, and taken in.

use super::group::{Context, Group};
use super::logger::LogJob;
use super::transfer::{Incoming, Outgoing};
use crate::raft::PeerId;
use crate::wire::{self, Transfer};
use bedstone_engine::wal::Record;
use bedstone_net::{Frame, Lane};
use tracing::{info, warn};

impl Group {
    pub(super) fn send_snapshot(&mut self, peer: PeerId, context: &mut Context<'_>) {
        self.next_id += 1;
        let id = self.next_id;
        let (outgoing, begin) = Outgoing::begin(&self.tree, id, self.raft.term(), self.ticks);
        info!(shard = self.shard, peer, "sends a snapshot");
        self.outgoing.insert(peer, outgoing);
        self.push_transfer(peer, &begin, context);
    }

    fn push_transfer(&mut self, peer: PeerId, transfer: &Transfer, context: &mut Context<'_>) {
        let (kind, body) = transfer.encode();
        let lane = if kind == wire::kind::SNAPSHOT_ACK { Lane::Control } else { Lane::Bulk };
        let frame = Frame { lane, kind, shard: self.shard, body };
        if context.outbox.push(peer, frame).is_err() {
            self.outgoing.remove(&peer);
            self.raft.snapshot_sent(peer, None);
        }
    }

    /// A message of a snapshot transfer.
    pub(super) fn transfer(&mut self, peer: PeerId, transfer: Transfer) {
        match transfer {
            Transfer::Ack { id, chunks, outcome } => {
                let Some(outgoing) = self.outgoing.get_mut(&peer).filter(|o| o.id == id) else {
                    return;
                };
                outgoing.acked(chunks, self.ticks);
                let installed = (outcome == 1).then_some(outgoing.at.index);
                if outcome != 0 {
                    self.outgoing.remove(&peer);
                    self.raft.snapshot_sent(peer, installed);
                }
            }
            Transfer::Begin { id, term, at, ts } => {
                let of_leader = term == self.raft.term() && self.raft.leader() == Some(peer);
                if of_leader && at.index > self.applied.index {
                    info!(shard = self.shard, peer, index = at.index, "receives a snapshot");
                    self.incoming = Some((peer, Incoming::begin(&self.tree, id, term, at, ts)));
                } else {
                    self.acks.push((peer, Transfer::Ack { id, chunks: 0, outcome: 2 }));
                }
            }
            Transfer::Chunk { id, number, pairs } => {
                let Some((_, incoming)) =
                    self.incoming.as_mut().filter(|(from, i)| *from == peer && i.id == id)
                else {
                    return;
                };
                let (chunks, outcome) = match incoming.chunk(number, pairs) {
                    Ok(Some(chunks)) => (chunks, 0),
                    Ok(None) => (0, 2),
                    Err(error) => {
                        warn!(%error, "a snapshot cannot be taken in");
                        (0, 2)
                    }
                };
                if outcome != 0 {
                    self.incoming = None;
                }
                self.acks.push((peer, Transfer::Ack { id, chunks, outcome }));
            }
            Transfer::End { id, chunks } => self.install(peer, id, chunks),
        }
    }

    fn install(&mut self, peer: PeerId, id: u64, chunks: u64) {
        let Some((_, incoming)) =
            self.incoming.take_if(|(from, incoming)| *from == peer && incoming.id == id)
        else {
            return;
        };
        let (term, at, conf) = (incoming.term, incoming.at, incoming.conf.clone());
        // Entries may have come while it was on its way: then it is of no use any more.
        let installed = match at.index > self.applied.index {
            true => incoming.finish(chunks),
            false => Ok(false),
        };
        let outcome = match installed {
            Ok(true) => {
                info!(shard = self.shard, index = at.index, "installed a snapshot");
                self.applied = at;
                self.commit = self.commit.max(at.index);
                self.conf = conf.unwrap_or_else(|| self.conf.clone());
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
            while let Some(outgoing) = self.outgoing.get_mut(&peer) {
                let Some(transfer) = outgoing.next_message(chunk_bytes)? else { break };
                self.push_transfer(peer, &transfer, context);
            }
        }
        Ok(())
    }
}
