//! Ingestion of many keys at once. The keys go into a table, past the log and the memtable, so each
//! key is written once. All keys become visible and durable at once, or none does.

use super::store::{KIND, SHARD, Store, TERM};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{Index, LogId};
use crate::key::{NEVER, Value, Version};
use crate::limits::Codec;
use crate::lsm::check_size;
use crate::table::TableWriter;
use crate::wal::{HardState, Record, Vote};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};

/// The prefix of the file names of ingestions in progress.
const PREFIX: &str = "ingest-";
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// An ingestion of keys in ascending order. An ingestion that is dropped before [`Ingest::finish`]
/// changes nothing.
pub struct Ingest<'a> {
    store: &'a Store,
    path: String,
    writer: Option<TableWriter>,
    last: Option<Bytes>,
}

/// Removes the files of interrupted ingestions.
pub(super) fn remove_strays(engine: &Engine) -> Result<()> {
    for name in engine.disk().list("").map_err(Error::io("list", "."))? {
        if name.starts_with(PREFIX) {
            engine.disk().remove(&name).map_err(Error::io("remove", name))?;
        }
    }
    Ok(())
}

impl<'a> Ingest<'a> {
    pub(super) fn begin(store: &'a Store) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = format!("{PREFIX}{number}.sst");
        let engine = &store.engine;
        engine.check_space()?;
        let (limits, codec) = (engine.limits(), Codec::default());
        let writer = TableWriter::create(engine.disk(), path.clone(), number, limits, codec)?;
        Ok(Self { store, path, writer: Some(writer), last: None })
    }

    /// Sets a key. Keys must ascend, and each key must occur once.
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
    /// See [`Ingest::put`].
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
        let writer = self.writer.as_mut().expect("the writer exists until `finish`");
        writer.add(&Version { key, ts: 0, expires: NEVER, value })
    }

    /// Ingests the keys. The keys are visible and durable when this call returns.
    ///
    /// # Errors
    /// When the disk fails. Then none of the keys is set, but all of them may be set after the
    /// store is reopened.
    pub fn finish(mut self) -> Result<()> {
        let writer = self.writer.take().expect("the writer exists until `finish`");
        if self.last.is_none() {
            return Ok(());
        }
        writer.finish()?;
        let store = self.store;
        // The lock blocks writers, so that every later commit is newer than these keys.
        let mut next = store.next.lock();
        let at = LogId { term: TERM, index: Index(*next) };
        let nothing = Record::entries(SHARD, at, [(KIND, Bytes::new())])?;
        let state = HardState { term: TERM, vote: Vote::None, commit: at.index };
        store.engine.log().commit(&[nothing, Record::HardState { shard: SHARD, state }])?;
        *next += 1;
        let taken = store.tree.ingest(at, at.index.0, &self.path);
        if store.tree.applied() < at {
            // The log contains the entry although the ingestion failed. The tree applies the entry
            // without changes, so that later entries can follow it.
            store.tree.apply(at, at.index.0, None, []);
        }
        taken
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        // If the removal fails, the next start removes the file.
        let _ = self.store.engine.disk().remove(&self.path);
    }
}
