//! The engine as an embedded store: one shard, each write one log entry, durable when it returns.
//!
//! Writers on several threads share syncs: whoever finds the log idle commits for all who wait.
//! Flush and compaction run on the thread whose write made them due.

use crate::disk::Disk;
use crate::disk::os::OsDisk;
use crate::engine::{Engine, Options};
use crate::error::{Error, Result};
use crate::lsm::{Scan, Snapshot, Tree, check_size};
use crate::wal::{HardState, Record};
use crate::{LogId, Op, ShardId};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

const SHARD: ShardId = 0;
const TERM: u64 = 1;
const REPLAY_BYTES: usize = 1 << 20;

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    ops: Vec<Op>,
}

impl Batch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.ops.push(Op::Put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }

    /// Deletes a key.
    pub fn delete(&mut self, key: &[u8]) {
        self.ops.push(Op::Delete(Bytes::copy_from_slice(key)));
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Each change: kind u8 (0 delete, 1 put), key length u32, key, and for a put value length u32,
    /// value.
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        for op in &self.ops {
            match op {
                Op::Delete(key) => {
                    out.put_u8(0);
                    out.put_u32_le(key.len() as u32);
                    out.put_slice(key);
                }
                Op::Put(key, value) => {
                    out.put_u8(1);
                    out.put_u32_le(key.len() as u32);
                    out.put_slice(key);
                    out.put_u32_le(value.len() as u32);
                    out.put_slice(value);
                }
            }
        }
        out.freeze()
    }

    fn decode(mut from: Bytes) -> Option<Vec<Op>> {
        let mut ops = Vec::new();
        let take = |from: &mut Bytes| {
            let len = from.try_get_u32_le().ok()? as usize;
            (len <= from.len()).then(|| from.split_to(len))
        };
        while !from.is_empty() {
            let kind = from.get_u8();
            let key = take(&mut from)?;
            ops.push(match kind {
                0 => Op::Delete(key),
                1 => Op::Put(key, take(&mut from)?),
                _ => return None,
            });
        }
        Some(ops)
    }
}

/// An embedded store.
pub struct Db {
    engine: Engine,
    tree: Arc<Tree>,
    queue: Mutex<Vec<Waiting>>,
    commit: Mutex<Committer>,
}

struct Waiting {
    ticket: u64,
    batch: Batch,
    outcome: Arc<Mutex<Option<Result<()>>>>,
}

struct Committer {
    next: u64,
}

impl Db {
    /// Opens or makes a store in a directory.
    ///
    /// # Errors
    /// See [`Engine::open`]; [`Error::Locked`] when another process has it.
    pub fn open(dir: &Path, options: Options) -> Result<Db> {
        Self::open_on(Arc::new(OsDisk::open(dir)?), options)
    }

    /// Opens or makes a store on any disk.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Db> {
        let engine = Engine::open(disk, options)?;
        let tree = engine.open_shard(SHARD)?;
        let (_, last) = engine.log().bounds(SHARD);
        while tree.applied().index < last.index {
            let first = tree.applied().index + 1;
            for entry in engine.log().entries(SHARD, first, last.index + 1, REPLAY_BYTES)? {
                let Some(ops) = Batch::decode(entry.data) else {
                    let what = "a log entry";
                    return Err(Error::corrupt("log", 0, what, "a batch", entry.id.index));
                };
                tree.apply(entry.id, entry.id.index, ops);
            }
        }
        let next = tree.applied().index + 1;
        let db =
            Db { engine, tree, queue: Mutex::default(), commit: Mutex::new(Committer { next }) };
        db.maintain()?;
        Ok(db)
    }

    /// Makes the changes, atomically and durably.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Poisoned`] after a failed sync, when the changes may or may
    /// not be there after reopening.
    pub fn write(&self, batch: Batch) -> Result<()> {
        for op in &batch.ops {
            match op {
                Op::Put(key, value) => check_size(key, value)?,
                Op::Delete(key) => check_size(key, &[])?,
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let outcome = Arc::new(Mutex::new(None));
        self.queue.lock().push(Waiting { ticket: 0, batch, outcome: outcome.clone() });
        {
            let mut committer = self.commit.lock();
            if outcome.lock().is_none() {
                self.commit_waiting(&mut committer);
            }
        }
        let settled = outcome.lock().take();
        settled.unwrap_or_else(|| unreachable!("a commit settles all that waited before it"))?;
        self.maintain()
    }

    /// Commits all that wait, with one sync.
    fn commit_waiting(&self, committer: &mut Committer) {
        let mut waiting = std::mem::take(&mut *self.queue.lock());
        let mut records = Vec::with_capacity(waiting.len() + 1);
        for write in &mut waiting {
            let data = write.batch.encode();
            let first = LogId { term: TERM, index: committer.next };
            match Record::entries(SHARD, first, [(0, data)]) {
                Ok(record) => {
                    write.ticket = committer.next;
                    committer.next += 1;
                    records.push(record);
                }
                Err(error) => *write.outcome.lock() = Some(Err(error)),
            }
        }
        let state = HardState { term: TERM, vote: None, commit: committer.next - 1 };
        records.push(Record::HardState { shard: SHARD, state });
        let result = self.engine.log().commit(&records);
        for write in waiting.into_iter().filter(|write| write.ticket > 0) {
            let settled = match &result {
                Ok(_) => {
                    let at = LogId { term: TERM, index: write.ticket };
                    self.tree.apply(at, at.index, write.batch.ops);
                    Ok(())
                }
                Err(error) => Err(Error::Poisoned { cause: error.to_string() }),
            };
            *write.outcome.lock() = Some(settled);
        }
    }

    /// Runs what flush and compaction are due, and gives up the log that they made needless.
    /// Writes call it; a caller with a thread to spare may too.
    pub fn maintain(&self) -> Result<()> {
        let before = self.tree.flushed();
        while let Some(job) = self.tree.job() {
            self.tree.run(job)?;
        }
        if self.tree.flushed() != before {
            let upto = self.tree.flushed();
            self.engine.log().commit(&[Record::Release { shard: SHARD, upto }])?;
        }
        Ok(())
    }

    /// Moves everything into tables.
    pub fn flush(&self) -> Result<()> {
        self.tree.freeze();
        self.maintain()
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.tree.get(key)
    }

    /// Keys and values of a range, ascending. Writes meanwhile may or may not be seen; take a
    /// [`Db::snapshot`] for one moment's view.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>) -> Scan {
        self.tree.scan(range)
    }

    /// A view of this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.tree.snapshot()
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}
