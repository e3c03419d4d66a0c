//! Taking in many keys at once: they go into a table, past the log and the memtable, so each is
//! written once. All of them appear at one moment, durably, or none.

use super::{Db, SHARD, TERM};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::LogId;
use crate::key::{NEVER, Value, Version};
use crate::limits::Codec;
use crate::lsm::check_size;
use crate::table::TableWriter;
use crate::wal::{HardState, Record, Vote};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names the files of ingestions under way.
const PREFIX: &str = "ingest-";
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Keys on their way into a store, in ascending order. Dropped unfinished, they are not taken in.
pub struct Ingest<'a> {
    db: &'a Db,
    path: String,
    writer: Option<TableWriter>,
    last: Option<Bytes>,
}

/// Removes what interrupted ingestions left.
pub(super) fn remove_strays(engine: &Engine) -> Result<()> {
    for name in engine.disk().list("").map_err(Error::io("list", "."))? {
        if name.starts_with(PREFIX) {
            engine.disk().remove(&name).map_err(Error::io("remove", name))?;
        }
    }
    Ok(())
}

impl<'a> Ingest<'a> {
    pub(super) fn begin(db: &'a Db) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = format!("{PREFIX}{number}.sst");
        let engine = &db.store.engine;
        engine.check_space()?;
        let (limits, codec) = (engine.limits(), Codec::default());
        let writer = TableWriter::create(engine.disk(), path.clone(), number, limits, codec)?;
        Ok(Self { db, path, writer: Some(writer), last: None })
    }

    /// Sets a key. Keys ascend, each comes once.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Order`] for a key at or before the last one.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_size(key, value)?;
        self.add(key, Value::Inline(Bytes::copy_from_slice(value)))
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// As of [`Ingest::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        check_size(key, &[])?;
        self.add(key, Value::Tombstone)
    }

    fn add(&mut self, key: &[u8], value: Value) -> Result<()> {
        if let Some(last) = self.last.as_ref().filter(|last| key <= &last[..]) {
            let (last, key) = (last.clone(), Bytes::copy_from_slice(key));
            return Err(Error::Order { last, key });
        }
        let key = Bytes::copy_from_slice(key);
        self.last = Some(key.clone());
        let writer = self.writer.as_mut().expect("it is there until `finish`");
        writer.add(&Version { key, ts: 0, expires: NEVER, value })
    }

    /// Takes the keys in: they are there, durably, when this returns.
    ///
    /// # Errors
    /// When the disk fails; then none of the keys is set, unless reopening shows them all.
    pub fn finish(mut self) -> Result<()> {
        let writer = self.writer.take().expect("it is there until `finish`");
        if self.last.is_none() {
            return Ok(());
        }
        writer.finish()?;
        let store = &*self.db.store;
        // Holds writers off: what they commit next is newer than these keys.
        let mut next = store.next.lock();
        let at = LogId { term: TERM, index: *next };
        let nothing = Record::entries(SHARD, at, [(0, Bytes::new())])?;
        let state = HardState { term: TERM, vote: Vote::None, commit: at.index };
        store.engine.log().commit(&[nothing, Record::HardState { shard: SHARD, state }])?;
        *next += 1;
        let taken = store.tree.ingest(at, at.index, &self.path);
        if store.tree.applied() < at {
            // The log has the entry, so the tree takes it: an entry that changes nothing.
            store.tree.apply(at, at.index, None, []);
        }
        taken
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _ = self.db.store.engine.disk().remove(&self.path);
    }
}
