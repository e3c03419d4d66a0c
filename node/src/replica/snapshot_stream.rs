//! Snapshot transfers between replicas. The sender scans a view of its tree and sends a few chunks
//! at a time. The receiver writes new tables beside its own, and replaces its own when all chunks
//! have arrived.
//!
//! A transfer begins with an offer. The receiver replies with the number of chunks that it has
//! already received: 0 for a new snapshot. When the connection breaks, the sender keeps its view
//! and the chunks that were not acknowledged, and the receiver keeps its tables. The next offer
//! continues the transfer at the first missing chunk.

use crate::limits::SNAPSHOT_WINDOW;
use crate::machine::system;
use crate::raft::{Conf, ReplicaId};
use crate::wire::Transfer;
use bedstone_engine::key::{Value, Version};
use bedstone_engine::lsm::{History, HistoryItem, Install, SnapshotHead};
use bedstone_engine::{Result, Term, Tree};
use std::collections::VecDeque;
use std::sync::Arc;

/// A snapshot that this replica sends to a follower.
pub struct Outgoing {
    /// The id of the transfer.
    pub id: u64,
    /// The newest version among the entries that the snapshot covers.
    version: u16,
    /// The moment of the snapshot.
    pub head: SnapshotHead,
    history: History,
    /// Whether the receiver has replied to the offer on this connection.
    accepted: bool,
    /// The last chunks made, which the receiver has not acknowledged, and how many of these chunks
    /// were sent on this connection.
    under_way: VecDeque<Transfer>,
    sent: usize,
    /// The number of chunks that the receiver has acknowledged.
    acked: u64,
    /// Whether the scan is complete: all chunks were made.
    scanned: bool,
    ended: bool,
    /// The tick of the last offer or acknowledgement.
    pub last_message_tick: u64,
}

impl Outgoing {
    /// A transfer of the tree's present state.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn new(tree: &Arc<Tree>, id: u64, now: u64) -> Result<Outgoing> {
        let view = tree.snapshot();
        Ok(Outgoing {
            id,
            version: system::version(tree)?,
            head: view.head(),
            history: view.history(),
            accepted: false,
            under_way: VecDeque::new(),
            sent: 0,
            acked: 0,
            scanned: false,
            ended: false,
            last_message_tick: now,
        })
    }

    /// The offer on a new connection, by the leader of `term`.
    pub fn offer(&mut self, term: Term, now: u64) -> Transfer {
        self.accepted = false;
        self.sent = 0;
        self.ended = false;
        self.last_message_tick = now;
        Transfer::Begin { id: self.id, term, version: self.version, head: self.head }
    }

    /// Records that the connection broke: the sender sends no chunk before the next offer.
    pub fn disconnect(&mut self) {
        self.accepted = false;
    }

    /// Whether the follower has accepted the offer on this connection.
    pub fn is_under_way(&self) -> bool {
        self.accepted
    }

    /// Records that the follower has `chunks` chunks. False if this number is impossible: below an
    /// earlier acknowledgement, or above the number of chunks made.
    pub fn acked(&mut self, chunks: u64, now: u64) -> bool {
        let made = self.acked + self.under_way.len() as u64;
        if chunks < self.acked || chunks > made {
            return false;
        }
        let gone = (chunks - self.acked) as usize;
        self.under_way.drain(..gone);
        self.sent = self.sent.saturating_sub(gone);
        self.acked = chunks;
        self.accepted = true;
        self.last_message_tick = now;
        true
    }

    /// The next message to send; `None` while the window is full, before the offer is accepted, or
    /// after the end.
    pub fn next_message(&mut self, chunk_bytes: usize) -> Result<Option<Transfer>> {
        if !self.accepted || self.ended {
            return Ok(None);
        }
        if let Some(again) = self.under_way.get(self.sent) {
            self.sent += 1;
            return Ok(Some(again.clone()));
        }
        if self.under_way.len() >= SNAPSHOT_WINDOW {
            return Ok(None);
        }
        let number = self.acked + self.under_way.len() as u64;
        let (mut items, mut bytes) = (Vec::new(), 0);
        while bytes < chunk_bytes && !self.scanned {
            let Some(item) = self.history.next() else {
                self.scanned = true;
                break;
            };
            let item = item?;
            bytes += bytes_of(&item);
            items.push(item);
        }
        if items.is_empty() {
            self.ended = true;
            return Ok(Some(Transfer::End { id: self.id, chunks: number }));
        }
        let chunk = Transfer::Chunk { id: self.id, number, items };
        self.under_way.push_back(chunk.clone());
        self.sent += 1;
        Ok(Some(chunk))
    }
}

/// Bytes of an item in a chunk, roughly.
fn bytes_of(item: &HistoryItem) -> usize {
    let content = match item {
        HistoryItem::Range(range) => range.from.len() + range.to.len(),
        HistoryItem::Version(version) => match &version.value {
            Value::Inline(value) => version.key.len() + value.len(),
            Value::Tombstone | Value::At(_) => version.key.len(),
        },
    };
    content + 17
}

/// A snapshot that this replica receives.
pub struct Incoming {
    /// The sender.
    pub from: ReplicaId,
    /// The id of the transfer.
    pub id: u64,
    /// The leader's term.
    pub term: Term,
    /// The moment of the snapshot.
    pub head: SnapshotHead,
    /// The members as of the snapshot; `None` until the item with the members has arrived.
    pub conf: Option<Conf>,
    install: Install,
    received: u64,
    /// The tick of the last message from the sender.
    pub last_message_tick: u64,
}

impl Incoming {
    /// Begins to receive a snapshot.
    pub fn begin(tree: &Arc<Tree>, from: ReplicaId, id: u64, head: SnapshotHead) -> Incoming {
        let install = tree.begin_install();
        Incoming {
            from,
            id,
            term: Term(0),
            head,
            conf: None,
            install,
            received: 0,
            last_message_tick: 0,
        }
    }

    /// The number of chunks received.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Writes a chunk to the new tables. A chunk that was received before is ignored. False if an
    /// earlier chunk is missing.
    pub fn chunk(&mut self, number: u64, items: Vec<HistoryItem>) -> Result<bool> {
        if number != self.received {
            return Ok(number < self.received);
        }
        for item in items {
            // The newest version of a key comes first.
            if let HistoryItem::Version(Version { key, value: Value::Inline(value), .. }) = &item
                && self.conf.is_none()
            {
                self.conf = system::members_in(key, value);
            }
            self.install.add(item)?;
        }
        self.received += 1;
        Ok(true)
    }

    /// Replaces the tree by the snapshot, durably. False if chunks are missing.
    pub fn finish(self, chunks: u64) -> Result<bool> {
        if chunks != self.received {
            return Ok(false);
        }
        self.install.finish(self.head)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bedstone_engine::disk::memory::MemoryDisk;
    use bedstone_engine::{Engine, LogId, Op, Options, ShardId};
    use bytes::Bytes;
    use proptest::prelude::*;

    const SHARD: ShardId = ShardId(1);
    const CHUNK_BYTES: usize = 64;

    fn open(disk: &MemoryDisk) -> (Engine, Arc<Tree>) {
        let engine = Engine::open(Arc::new(disk.clone()), Options::tiny()).expect("opens");
        let tree = engine.open_shard(SHARD).expect("the shard opens");
        (engine, tree)
    }

    fn put(tree: &Tree, key: String) {
        let index = tree.applied().index + 1;
        tree.apply(
            LogId { term: Term(1), index },
            index.0,
            None,
            [Op::Put(key.into(), "value".into())],
        );
    }

    fn pairs(tree: &Tree) -> Vec<(Bytes, Bytes)> {
        tree.scan(..).collect::<Result<_>>().expect("the tree can be read")
    }

    /// One step of a test.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The sender sends as many messages as it may.
        Send,
        /// A message arrives, and the receiver replies.
        Arrive,
        /// A message arrives, and the connection breaks before the reply arrives.
        ArriveUnanswered,
        /// The connection breaks, the messages in flight are lost, and a new connection is made.
        Break,
        /// The receiver restarts.
        Restart,
        /// The sender applies another write.
        Write,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => Just(Step::Send),
            10 => Just(Step::Arrive),
            2 => Just(Step::ArriveUnanswered),
            2 => Just(Step::Break),
            1 => Just(Step::Restart),
            1 => Just(Step::Write),
        ]
    }

    /// A sender, a receiver, and the messages in flight between them.
    struct Pair {
        from: Arc<Tree>,
        outgoing: Outgoing,
        incoming: Option<Incoming>,
        to: Arc<Tree>,
        disk: MemoryDisk,
        in_flight: VecDeque<Transfer>,
        /// The number of chunks of the present snapshot that the receiver has.
        received: u64,
        /// The pairs of the snapshot.
        expected: Vec<(Bytes, Bytes)>,
    }

    impl Pair {
        /// The connection breaks, and the sender makes an offer on a new connection.
        fn offer(&mut self) {
            self.in_flight.clear();
            self.outgoing.disconnect();
            assert!(self.outgoing.next_message(CHUNK_BYTES).expect("reads").is_none());
            self.in_flight.push_back(self.outgoing.offer(Term(3), 0));
        }

        fn send(&mut self) {
            while let Some(message) = self.outgoing.next_message(CHUNK_BYTES).expect("reads") {
                self.in_flight.push_back(message);
            }
        }

        fn restart(&mut self) {
            self.incoming = None;
            self.received = 0;
            let files = self.disk.files();
            assert!(
                !files.iter().any(|path| path.ends_with(".sst")),
                "the received tables are gone"
            );
            self.offer();
        }

        /// The first message in flight arrives. True when the snapshot is installed.
        fn arrive(&mut self) -> bool {
            match self.in_flight.pop_front() {
                None | Some(Transfer::Ack { .. }) => return false,
                Some(Transfer::Begin { id, head, .. }) => {
                    let known = self.incoming.take().filter(|incoming| incoming.id == id);
                    let new = || Incoming::begin(&self.to, ReplicaId(2), id, head);
                    let incoming = self.incoming.insert(known.unwrap_or_else(new));
                    self.received = incoming.received();
                }
                Some(Transfer::Chunk { number, items, .. }) => {
                    let incoming = self.incoming.as_mut().expect("an offer came first");
                    assert_eq!(number, self.received, "each chunk arrives once, in order");
                    assert!(incoming.chunk(number, items).expect("the disk works"));
                    self.received += 1;
                }
                Some(Transfer::End { chunks, .. }) => {
                    let incoming = self.incoming.take().expect("an offer came first");
                    assert!(
                        incoming.finish(chunks).expect("the disk works"),
                        "no chunk is missing"
                    );
                    return true;
                }
            }
            false
        }

        /// The sender receives the reply to the last message.
        fn answer(&mut self) {
            if !self.outgoing.acked(self.received, 0) {
                // The receiver lost its chunks, so the sender begins another snapshot.
                assert_eq!(self.received, 0);
                self.outgoing = Outgoing::new(&self.from, self.outgoing.id + 1, 0).expect("reads");
                self.expected = pairs(&self.from);
                self.offer();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// However often the connection breaks, each chunk is received once, and at the end the
        /// receiver holds the pairs that the sender held when the transfer began.
        #[test]
        fn an_interrupted_transfer_continues(
            keys in 0..120u64,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let disk = MemoryDisk::new();
            let ((_one, from), (_other, to)) = (open(&MemoryDisk::new()), open(&disk));
            (0..keys).for_each(|key| put(&from, format!("key {key}")));
            let (outgoing, expected) = (Outgoing::new(&from, 1, 0).expect("reads"), pairs(&from));
            let (incoming, in_flight, received) = (None, VecDeque::new(), 0);
            let mut pair =
                Pair { from, outgoing, incoming, to, disk, in_flight, received, expected };
            pair.offer();
            let mut installed = false;
            let ends = [Step::Send, Step::Arrive].into_iter().cycle().take(1000);
            for step in steps.into_iter().chain(ends) {
                match step {
                    Step::Send => pair.send(),
                    Step::Arrive => {
                        let something = !pair.in_flight.is_empty();
                        installed = pair.arrive();
                        if something && !installed {
                            pair.answer();
                        }
                    }
                    Step::ArriveUnanswered => {
                        installed = pair.arrive();
                        pair.offer();
                    }
                    Step::Break => pair.offer(),
                    Step::Restart => pair.restart(),
                    Step::Write => put(&pair.from, format!("later {}", pair.from.applied().index)),
                }
                if installed {
                    break;
                }
            }
            prop_assert_eq!(pairs(&pair.to), pair.expected);
            prop_assert_eq!(pair.to.applied(), pair.outgoing.head.at);
        }
    }
}
