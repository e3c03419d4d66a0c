//! Snapshots between replicas: the sender walks a view of its tree, a few chunks at a time; the
//! receiver writes tables beside its own and changes over when all is there.

use crate::limits::SNAPSHOT_WINDOW;
use crate::raft::Conf;
use crate::shard::system;
use crate::wire::Transfer;
use bedstone_engine::lsm::{Install, Scan};
use bedstone_engine::{LogId, Result, Snapshot, Tree};
use bytes::Bytes;
use std::sync::Arc;

/// A snapshot on its way to a follower.
pub struct Outgoing {
    /// Names it.
    pub id: u64,
    /// What it covers.
    pub at: LogId,
    scan: Scan,
    /// Keeps what the scan reads.
    _view: Snapshot,
    sent: u64,
    acked: u64,
    ended: bool,
    /// When the follower last took a chunk, in ticks.
    pub heard: u64,
}

impl Outgoing {
    /// Begins; the first message.
    pub fn begin(tree: &Arc<Tree>, id: u64, term: u64, now: u64) -> (Outgoing, Transfer) {
        let view = tree.snapshot();
        let at = view.applied();
        let begin = Transfer::Begin { id, term, at, ts: view.ts() };
        let scan = view.scan(..);
        (Outgoing { id, at, scan, _view: view, sent: 0, acked: 0, ended: false, heard: now }, begin)
    }

    /// The follower has taken so many chunks.
    pub fn acked(&mut self, chunks: u64, now: u64) {
        self.acked = self.acked.max(chunks.min(self.sent));
        self.heard = now;
    }

    /// The next message, while the window allows one.
    pub fn next_message(&mut self, chunk_bytes: usize) -> Result<Option<Transfer>> {
        if self.ended || self.sent >= self.acked + SNAPSHOT_WINDOW {
            return Ok(None);
        }
        let (mut pairs, mut bytes) = (Vec::<(Bytes, Bytes)>::new(), 0);
        while bytes < chunk_bytes {
            let Some(item) = self.scan.next() else { break };
            let (key, value) = item?;
            bytes += key.len() + value.len() + 8;
            pairs.push((key, value));
        }
        if pairs.is_empty() {
            self.ended = true;
            return Ok(Some(Transfer::End { id: self.id, chunks: self.sent }));
        }
        let number = self.sent;
        self.sent += 1;
        Ok(Some(Transfer::Chunk { id: self.id, number, pairs }))
    }
}

/// A snapshot that comes in.
pub struct Incoming {
    /// Names it.
    pub id: u64,
    /// The leader's term.
    pub term: u64,
    /// What it covers.
    pub at: LogId,
    /// The members there, once they have come.
    pub conf: Option<Conf>,
    ts: u64,
    install: Install,
    taken: u64,
}

impl Incoming {
    /// Begins to receive.
    pub fn begin(tree: &Arc<Tree>, id: u64, term: u64, at: LogId, ts: u64) -> Incoming {
        Incoming { id, term, at, conf: None, ts, install: tree.begin_install(), taken: 0 }
    }

    /// Takes a chunk; how many were taken, or `None` when one is missing.
    pub fn chunk(&mut self, number: u64, pairs: Vec<(Bytes, Bytes)>) -> Result<Option<u64>> {
        if number != self.taken {
            return Ok(None);
        }
        for (key, value) in pairs {
            if let Some(conf) = system::members_in(&key, &value) {
                self.conf = Some(conf);
            }
            self.install.put(key, self.ts, value)?;
        }
        self.taken += 1;
        Ok(Some(self.taken))
    }

    /// Changes over to the snapshot, durably; false when chunks are missing.
    pub fn finish(self, chunks: u64) -> Result<bool> {
        if chunks != self.taken {
            return Ok(false);
        }
        self.install.finish(self.at, self.ts)?;
        Ok(true)
    }
}
