//! The state of an embedded store, and the steps of its background work.

use super::background::{Background, Worker};
use super::batch::{self, Batch};
use crate::engine::Engine;
use crate::error::Result;
use crate::ids::{Index, LogId, ShardId, Term};
use crate::lsm::{InLog, Job, Tree};
use crate::scrub::Scrub;
use crate::wal::{EntryKind, GroupCommit, HardState, Record, Vote};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The shard of the store.
pub(super) const SHARD: ShardId = ShardId(0);
/// The term of all entries.
pub(super) const TERM: Term = Term(1);
/// The kind of every entry.
pub(super) const KIND: EntryKind = EntryKind(0);
/// Bytes that an idle thread scrubs after each pause: 4 MiB a second at most.
const SCRUB_BYTES: u64 = 2 << 20;

/// The state that the threads and the handle share.
pub(super) struct Store {
    pub(super) engine: Engine,
    pub(super) tree: Arc<Tree>,
    pub(super) committer: GroupCommit<Bytes>,
    /// The index of the next entry.
    pub(super) next: Mutex<u64>,
    pub(super) background: Background,
    pub(super) scrub: Mutex<Scrub>,
    pub(super) damage_found: AtomicU64,
    pub(super) threads: bool,
}

impl Store {
    /// Checks a batch against the limits and the free space, delays it while the background is
    /// behind, and returns the data of its log entry.
    pub(super) fn admit(&self, batch: Batch) -> Result<Bytes> {
        if batch.grows() {
            self.engine.check_space()?;
        }
        let data = batch.into_data()?;
        Record::check_size(data.len(), self.engine.log().record_bytes_max())?;
        if self.threads {
            self.background.slow_down(&self.tree)?;
        }
        Ok(data)
    }

    /// Writes the entries as one commit, then applies them.
    pub(super) fn commit(&self, entries: Vec<Bytes>) -> Result<()> {
        let mut next = self.next.lock();
        let first = LogId { term: TERM, index: Index(*next) };
        let last = *next + entries.len() as u64 - 1;
        let mut records = Vec::new();
        let mut at = first;
        for entries in Record::split(&entries, self.engine.log().record_bytes_max()) {
            records.push(Record::entries(SHARD, at, entries.iter().map(|e| (KIND, e.clone())))?);
            at.index += entries.len() as u64;
        }
        let state = HardState { term: TERM, vote: Vote::None, commit: Index(last) };
        records.push(Record::HardState { shard: SHARD, state });
        let log = self.engine.log();
        log.commit(&records)?;
        *next = last + 1;
        for (index, data) in first.index.until(Index::END).zip(&entries) {
            let ops = batch::decode(data).expect("an encoded batch decodes");
            let id = LogId { term: TERM, index };
            let place = log.place(SHARD, id).map(|place| InLog { data, place });
            self.tree.apply(id, index.0, place, ops);
        }
        if self.threads && (self.tree.wants_flush() || log.wants_slot()) {
            self.background.wake();
        }
        Ok(())
    }

    /// Releases the log entries that flushes have made unnecessary.
    fn release(&self) -> Result<()> {
        let upto = self.tree.flushed();
        if upto.index > self.engine.log().base(SHARD).index {
            self.engine.log().commit(&[Record::Release { shard: SHARD, upto }])?;
        }
        Ok(())
    }

    /// Runs all due background work on this thread.
    pub(super) fn maintain(&self) -> Result<()> {
        self.engine.measure_space()?;
        while let Some(job) = self.tree.job() {
            self.tree.run(job)?;
            self.release()?;
            self.engine.plan_collection();
            self.engine.log().trim_slots()?;
        }
        Ok(())
    }

    /// Waits until `due` is false. A store without threads does the due work in this call.
    pub(super) fn settle(&self, due: impl Fn(&Tree) -> bool) -> Result<()> {
        if self.threads { self.background.wait_while(|| due(&self.tree)) } else { self.maintain() }
    }

    /// Starts the threads.
    pub(super) fn start_threads(self: &Arc<Store>) -> Vec<Worker> {
        let thread = |name, run: fn(&Store)| {
            let store = self.clone();
            Worker::spawn(name, move || run(&store))
        };
        vec![
            thread("bedstone-commit", |store| store.committer.run(|entries| store.commit(entries))),
            thread("bedstone-flush", |store| {
                store.background.run(|rested| store.flush_step(rested))
            }),
            thread("bedstone-compact", |store| {
                store.background.run(|rested| store.compact_step(rested))
            }),
        ]
    }

    /// Allocates a log slot or flushes a memtable. When neither is due, and the thread `rested`
    /// (the pause before this step passed without a call for work) or a caller waits for the
    /// background, the step writes a sync marker and fills a slot. Returns whether there may be
    /// more to do.
    fn flush_step(&self, rested: bool) -> Result<bool> {
        self.engine.measure_space()?;
        let log = self.engine.log();
        if log.wants_slot() {
            log.allocate_slot()?;
            return Ok(true);
        }
        if !self.tree.wants_flush() {
            if !rested && !self.background.is_awaited() {
                return Ok(false);
            }
            log.write_sync_marker()?;
            return log.fill_slot();
        }
        self.tree.run(Job::Flush)?;
        self.release()?;
        self.background.wake();
        Ok(true)
    }

    /// Runs a compaction; returns false when none is due. When none is due and the thread `rested`,
    /// the step continues the scrub. Other steps do not scrub, because calls for work come more
    /// often than the scrub should run.
    fn compact_step(&self, rested: bool) -> Result<bool> {
        self.engine.plan_collection();
        let Some(choice) = self.tree.compaction() else {
            if !rested {
                return Ok(false);
            }
            let found = self.scrub.lock().step(&self.engine, SCRUB_BYTES)?;
            self.damage_found.fetch_add(found.damage.len() as u64, Ordering::Relaxed);
            return Ok(false);
        };
        self.tree.run(Job::Compact(choice))?;
        self.engine.log().trim_slots()?;
        Ok(true)
    }
}
