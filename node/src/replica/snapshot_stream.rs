//! Snapshots between replicas: the sender walks a view of its tree, a few chunks at a time; the
//! receiver writes tables beside its own and changes over when all is there.
//!
//! A transfer begins with an offer, which the receiver answers with how many chunks of it it has
//! already: none of a new one. When the connection breaks, the sender keeps its view and the chunks
//! that were under way, the receiver its tables, and the next offer goes on where they stopped.

use crate::limits::SNAPSHOT_WINDOW;
use crate::raft::{Conf, PeerId};
use crate::shard::system;
use crate::wire::Transfer;
use bedstone_engine::lsm::{Install, Scan};
use bedstone_engine::{LogId, Result, Snapshot, Tree};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// A snapshot on its way to a follower.
pub struct Outgoing {
    /// Names it.
    pub id: u64,
    /// What it covers.
    pub at: LogId,
    scan: Scan,
    /// Keeps what the scan reads.
    view: Snapshot,
    /// Whether the receiver has said how much it has.
    taken: bool,
    /// Chunks that it has not acknowledged, the last ones made, and how many of them were sent
    /// over this connection.
    under_way: VecDeque<Transfer>,
    sent: usize,
    /// Chunks acknowledged.
    acked: u64,
    /// All chunks were made.
    whole: bool,
    ended: bool,
    /// When the follower last took something, in ticks.
    pub heard: u64,
}

impl Outgoing {
    /// Of what the tree holds now.
    pub fn new(tree: &Arc<Tree>, id: u64, now: u64) -> Outgoing {
        let view = tree.snapshot();
        Outgoing {
            id,
            at: view.applied(),
            scan: view.scan(..),
            view,
            taken: false,
            under_way: VecDeque::new(),
            sent: 0,
            acked: 0,
            whole: false,
            ended: false,
            heard: now,
        }
    }

    /// The connection is new: what is offered now, by the leader of `term`.
    pub fn offer(&mut self, term: u64, now: u64) -> Transfer {
        (self.taken, self.sent, self.ended, self.heard) = (false, 0, false, now);
        Transfer::Begin { id: self.id, term, at: self.at, ts: self.view.ts() }
    }

    /// The connection is gone: nothing is sent before the next offer.
    pub fn cut(&mut self) {
        self.taken = false;
    }

    /// The follower takes it.
    pub fn is_under_way(&self) -> bool {
        self.taken
    }

    /// The follower has so many chunks; false when that cannot be.
    pub fn acked(&mut self, chunks: u64, now: u64) -> bool {
        let made = self.acked + self.under_way.len() as u64;
        if chunks < self.acked || chunks > made {
            return false;
        }
        let gone = (chunks - self.acked) as usize;
        self.under_way.drain(..gone);
        (self.sent, self.acked) = (self.sent.saturating_sub(gone), chunks);
        (self.taken, self.heard) = (true, now);
        true
    }

    /// The next message, while the window allows one.
    pub fn next_message(&mut self, chunk_bytes: usize) -> Result<Option<Transfer>> {
        if !self.taken || self.ended {
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
        let (mut pairs, mut bytes) = (Vec::<(Bytes, Bytes)>::new(), 0);
        while bytes < chunk_bytes && !self.whole {
            let Some(item) = self.scan.next() else {
                self.whole = true;
                break;
            };
            let (key, value) = item?;
            bytes += key.len() + value.len() + 8;
            pairs.push((key, value));
        }
        if pairs.is_empty() {
            self.ended = true;
            return Ok(Some(Transfer::End { id: self.id, chunks: number }));
        }
        let chunk = Transfer::Chunk { id: self.id, number, pairs };
        self.under_way.push_back(chunk.clone());
        self.sent += 1;
        Ok(Some(chunk))
    }
}

/// A snapshot that comes in.
pub struct Incoming {
    /// Who sends it.
    pub from: PeerId,
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
    /// When the sender was last heard, in ticks.
    pub heard: u64,
}

impl Incoming {
    /// Begins to receive.
    pub fn begin(tree: &Arc<Tree>, from: PeerId, id: u64, at: LogId, ts: u64) -> Incoming {
        let install = tree.begin_install();
        Incoming { from, id, term: 0, at, conf: None, ts, install, taken: 0, heard: 0 }
    }

    /// How many chunks were taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes a chunk; false when one before it is missing. One that it has is taken for known.
    pub fn chunk(&mut self, number: u64, pairs: Vec<(Bytes, Bytes)>) -> Result<bool> {
        if number != self.taken {
            return Ok(number < self.taken);
        }
        for (key, value) in pairs {
            if let Some(conf) = system::members_in(&key, &value) {
                self.conf = Some(conf);
            }
            self.install.put(key, self.ts, value)?;
        }
        self.taken += 1;
        Ok(true)
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

#[cfg(test)]
mod tests {
    use super::*;
    use bedstone_engine::disk::memory::MemoryDisk;
    use bedstone_engine::{Engine, Op, Options};
    use proptest::prelude::*;

    const SHARD: u64 = 1;
    const CHUNK_BYTES: usize = 64;

    fn open(disk: &MemoryDisk) -> (Engine, Arc<Tree>) {
        let engine = Engine::open(Arc::new(disk.clone()), Options::tiny()).expect("opens");
        let tree = engine.open_shard(SHARD).expect("opens");
        (engine, tree)
    }

    fn put(tree: &Tree, key: String) {
        let index = tree.applied().index + 1;
        tree.apply(LogId { term: 1, index }, index, None, [Op::Put(key.into(), "value".into())]);
    }

    fn pairs(tree: &Tree) -> Vec<(Bytes, Bytes)> {
        tree.scan(..).collect::<Result<_>>().expect("reads")
    }

    /// What happens next.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The sender says as much as it may.
        Send,
        /// A message arrives and is answered.
        Arrive,
        /// A message arrives, and the connection breaks before its answer is there.
        ArriveUnanswered,
        /// What is on the way is lost, and the connection is made again.
        Break,
        /// The receiver starts again.
        Restart,
        /// The sender's tree goes on.
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

    /// A sender, a receiver, and what is on its way between them.
    struct Pair {
        from: Arc<Tree>,
        outgoing: Outgoing,
        incoming: Option<Incoming>,
        to: Arc<Tree>,
        disk: MemoryDisk,
        way: VecDeque<Transfer>,
        /// Chunks taken by the receiver since its start.
        taken: u64,
        /// What the snapshot holds.
        expected: Vec<(Bytes, Bytes)>,
    }

    impl Pair {
        /// The connection breaks and is made again.
        fn offer(&mut self) {
            self.way.clear();
            self.outgoing.cut();
            assert!(self.outgoing.next_message(CHUNK_BYTES).expect("reads").is_none());
            self.way.push_back(self.outgoing.offer(3, 0));
        }

        fn send(&mut self) {
            while let Some(message) = self.outgoing.next_message(CHUNK_BYTES).expect("reads") {
                self.way.push_back(message);
            }
        }

        fn restart(&mut self) {
            (self.incoming, self.taken) = (None, 0);
            let files = self.disk.files();
            assert!(!files.iter().any(|path| path.ends_with(".sst")), "what it wrote is gone");
            self.offer();
        }

        /// True when the snapshot is installed.
        fn arrive(&mut self) -> bool {
            match self.way.pop_front() {
                None | Some(Transfer::Ack { .. }) => return false,
                Some(Transfer::Begin { id, at, ts, .. }) => {
                    let known = self.incoming.take().filter(|incoming| incoming.id == id);
                    let new = || Incoming::begin(&self.to, 2, id, at, ts);
                    let incoming = self.incoming.insert(known.unwrap_or_else(new));
                    self.taken = incoming.taken();
                }
                Some(Transfer::Chunk { number, pairs, .. }) => {
                    let incoming = self.incoming.as_mut().expect("it was offered");
                    assert_eq!(number, self.taken, "nothing twice, nothing missed");
                    assert!(incoming.chunk(number, pairs).expect("writes"));
                    self.taken += 1;
                }
                Some(Transfer::End { chunks, .. }) => {
                    let incoming = self.incoming.take().expect("it was offered");
                    assert!(incoming.finish(chunks).expect("installs"), "all is there");
                    return true;
                }
            }
            false
        }

        /// The answer to what arrived last.
        fn answer(&mut self) {
            if !self.outgoing.acked(self.taken, 0) {
                // The receiver lost what it had: another snapshot is begun.
                assert_eq!(self.taken, 0);
                self.outgoing = Outgoing::new(&self.from, self.outgoing.id + 1, 0);
                self.expected = pairs(&self.from);
                self.offer();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// However often the connection breaks, each chunk is taken once, and in the end the
        /// receiver holds what the sender held when it began.
        #[test]
        fn a_snapshot_goes_on_where_it_stopped(
            keys in 0..120u64,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let disk = MemoryDisk::new();
            let ((_one, from), (_other, to)) = (open(&MemoryDisk::new()), open(&disk));
            (0..keys).for_each(|key| put(&from, format!("key {key}")));
            let (outgoing, expected) = (Outgoing::new(&from, 1, 0), pairs(&from));
            let (incoming, way, taken) = (None, VecDeque::new(), 0);
            let mut pair = Pair { from, outgoing, incoming, to, disk, way, taken, expected };
            pair.offer();
            let mut installed = false;
            let ends = [Step::Send, Step::Arrive].into_iter().cycle().take(1000);
            for step in steps.into_iter().chain(ends) {
                match step {
                    Step::Send => pair.send(),
                    Step::Arrive => {
                        let something = !pair.way.is_empty();
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
            prop_assert_eq!(pair.to.applied(), pair.outgoing.at);
        }
    }
}
