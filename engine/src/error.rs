//! The errors of the engine.

use crate::ids::{Index, ShardId};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error number of a failed medium.
const EIO: i32 = 5;

/// Why an engine call failed. The fields name the affected object; the text gives the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system returned an error. The call itself lost no data.
    #[error("{action} {file}: {source}")]
    Io {
        /// The attempted action, as a verb.
        action: &'static str,
        /// The file, relative to the disk's directory.
        file: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// A log write or sync failed earlier. The log accepts no writes until the store is reopened.
    #[error(
        "the log stopped after a failed write or sync ({cause}): restart the node to verify \
         the disk; if it fails again, replace the disk"
    )]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// Bytes on disk differ from the bytes that were written.
    #[error("{file} at byte {offset}: {what} is damaged, expected {expected}, found {found}")]
    Corrupt {
        /// The file, relative to the disk's directory.
        file: String,
        /// Byte offset in the file.
        offset: u64,
        /// The structure that should be at this offset.
        what: &'static str,
        /// The content of a sound structure.
        expected: String,
        /// The content that was found.
        found: String,
    },
    /// Keys cannot be read, because their table or a value is damaged. Other keys can be read.
    #[error(
        "shard {shard} cannot read keys from {from:?} to {to:?}: {cause}; restore these keys \
         from another replica or a backup"
    )]
    Damaged {
        /// The shard.
        shard: ShardId,
        /// The first key that may be affected.
        from: Bytes,
        /// The last key that may be affected.
        to: Bytes,
        /// The damage.
        cause: Arc<Error>,
    },
    /// Durable log entries or a durable hard state can no longer be read.
    #[error(
        "shard {shard} has lost acknowledged data: {missing}; {cause}; restore the shard from \
         another replica or a backup"
    )]
    Missing {
        /// The shard.
        shard: ShardId,
        /// The missing data.
        missing: crate::missing::Missing,
        /// The damage.
        cause: Arc<Error>,
    },
    /// A read requested a timestamp whose versions compaction has merged.
    #[error(
        "shard {shard} keeps versions from timestamp {oldest} on, timestamp {requested} was \
         requested: read at a newer timestamp, or keep more history"
    )]
    HistoryGone {
        /// The shard.
        shard: ShardId,
        /// The requested timestamp.
        requested: u64,
        /// The oldest timestamp that can be read exactly.
        oldest: u64,
    },
    /// The data was written by a later version of Bedstone.
    #[error(
        "{file} has format version {found}, this build reads up to {supported}: start a newer \
         bedstone, or use another data directory"
    )]
    NewerFormat {
        /// The file.
        file: String,
        /// The version in the file.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// The data was written by an earlier build whose format was never released.
    #[error(
        "{file} has format version {found}, this build reads {supported}: no release wrote this \
         format; copy the data out with the build that wrote it, and use a new data directory for \
         this build"
    )]
    OlderFormat {
        /// The file.
        file: String,
        /// The version in the file.
        found: u32,
        /// The version that this build reads.
        supported: u32,
    },
    /// The directory belongs to another owner.
    #[error(
        "the data directory belongs to {found}, not to {expected}: set `disk` to this node's \
         own directory"
    )]
    WrongOwner {
        /// The owner that opens the directory.
        expected: String,
        /// The owner that created the directory.
        found: String,
    },
    /// Another process has the directory open.
    #[error("the data directory {dir} is in use by another process: stop that process first")]
    Locked {
        /// The directory.
        dir: String,
    },
    /// The free space of the disk is below the reserve, or too small for the log segments.
    #[error("{dir} has {free} bytes free, {need} are needed: free space or use another disk")]
    NoSpace {
        /// The directory.
        dir: String,
        /// Free bytes now.
        free: u64,
        /// Bytes needed.
        need: u64,
    },
    /// A key, value or record is over its limit.
    #[error("{what} has {found} bytes, the limit is {limit}: split it")]
    TooLarge {
        /// The object that is too large.
        what: &'static str,
        /// The size of the object in bytes.
        found: usize,
        /// The largest accepted size in bytes.
        limit: usize,
    },
    /// The keys of an ingestion do not ascend.
    #[error("key {key:?} does not come after {last:?}: sort the keys, and add each key once")]
    Order {
        /// The previous key.
        last: Bytes,
        /// The key that does not come after `last`.
        key: Bytes,
    },
    /// The requested log entries were released. The tree contains their changes.
    #[error("log entries up to {upto} of shard {shard} were released; read the tree instead")]
    Compacted {
        /// The shard.
        shard: ShardId,
        /// The last released index.
        upto: Index,
    },
}

impl Error {
    /// Wraps an operating system error with the action and the file.
    pub fn io(action: &'static str, file: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let file = file.into();
        move |source| Error::Io { action, file, source }
    }

    /// Creates an [`Error::Corrupt`].
    pub fn corrupt(
        file: impl Into<String>,
        offset: u64,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Error {
        Error::Corrupt {
            file: file.into(),
            offset,
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// A copy of this failure for another thread that waited for the failed commit.
    pub(crate) fn copy(&self) -> Error {
        match self {
            Error::NoSpace { dir, free, need } => {
                Error::NoSpace { dir: dir.clone(), free: *free, need: *need }
            }
            Error::Poisoned { cause } => Error::Poisoned { cause: cause.clone() },
            other => Error::Poisoned { cause: other.to_string() },
        }
    }

    /// Whether the cause is damaged bytes on disk, and not the call or the operating system.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt { .. } | Error::Damaged { .. } | Error::Missing { .. })
    }

    /// Whether a write to the medium failed, so that the content of the medium is unknown.
    pub fn is_failed_write(&self) -> bool {
        let Error::Io { action, source, .. } = self else { return false };
        source.raw_os_error() == Some(EIO)
            && !matches!(*action, "read" | "open" | "list" | "measure")
    }

    /// The shard whose keys cannot be read, for [`Error::Damaged`].
    pub fn damaged_shard(&self) -> Option<ShardId> {
        match self {
            Error::Damaged { shard, .. } => Some(*shard),
            _ => None,
        }
    }

    /// Whether bytes on disk are damaged or the medium cannot read them.
    pub fn is_damage(&self) -> bool {
        let unreadable = |source: &io::Error| source.raw_os_error() == Some(EIO);
        let unreadable = matches!(self, Error::Io { source, .. } if unreadable(source));
        self.is_corrupt() || unreadable && !self.is_failed_write()
    }
}
