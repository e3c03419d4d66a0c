//! What can go wrong on one disk.

use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The medium failed.
const EIO: i32 = 5;

/// Why an engine call failed. Fields name the thing; the text says the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused; nothing was lost by the call itself.
    #[error("{action} {file}: {source}")]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file, relative to the disk's directory.
        file: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// A log write or sync failed earlier. The log takes no more until the store is reopened.
    #[error(
        "the log stopped after a failed write or sync ({cause}): restart the node to verify \
         the disk; if it fails again, replace the disk"
    )]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// Bytes on disk are not what was written there.
    #[error("{file} at byte {offset}: {what} is damaged, expected {expected}, found {found}")]
    Corrupt {
        /// The file, relative to the disk's directory.
        file: String,
        /// Byte offset in the file.
        offset: u64,
        /// The structure that should be there.
        what: &'static str,
        /// What a sound structure would have had.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Keys cannot be read, because a table or a value of theirs is damaged. Others can.
    #[error(
        "shard {shard} cannot read keys from {from:?} to {to:?}: {cause}; take them from another \
         replica or a backup"
    )]
    Damaged {
        /// The shard.
        shard: u64,
        /// The first key that may be concerned.
        from: Bytes,
        /// The last key that may be concerned.
        to: Bytes,
        /// What is damaged.
        cause: Arc<Error>,
    },
    /// Log entries that were durable cannot be read any more.
    #[error(
        "shard {shard} has lost what it had acknowledged: {missing}; {cause}; take the shard from \
         another replica or a backup"
    )]
    Missing {
        /// The shard.
        shard: u64,
        /// What is missing.
        missing: crate::missing::Missing,
        /// What is damaged.
        cause: Arc<Error>,
    },
    /// A reader asks for a time whose versions compaction has merged.
    #[error(
        "shard {shard} keeps versions from timestamp {oldest} on, {asked} was asked: read a newer \
         one, or keep more history"
    )]
    HistoryGone {
        /// The shard.
        shard: u64,
        /// The timestamp that was asked.
        asked: u64,
        /// The oldest that can be read exactly.
        oldest: u64,
    },
    /// The data was written by a later version of Bedstone.
    #[error(
        "{file} has format version {found}, this build reads up to {supported}: start a newer \
         bedstone, or give it another data directory"
    )]
    NewerFormat {
        /// The file.
        file: String,
        /// Version in the file.
        found: u32,
        /// Newest version known here.
        supported: u32,
    },
    /// The data was written by an earlier build whose format was never released.
    #[error(
        "{file} has format version {found}, this build reads {supported}: no release wrote it; \
         copy the data out with the build that did, and give this one a new data directory"
    )]
    OlderFormat {
        /// The file.
        file: String,
        /// Version in the file.
        found: u32,
        /// The version known here.
        supported: u32,
    },
    /// The directory belongs to somebody else.
    #[error(
        "the data directory belongs to {found}, not to {expected}: point `data` at this node's \
         own directory"
    )]
    WrongOwner {
        /// Who opens it now.
        expected: String,
        /// Who made it.
        found: String,
    },
    /// Another process has the directory open.
    #[error("the data directory {dir} is in use by another process: stop that one first")]
    Locked {
        /// The directory.
        dir: String,
    },
    /// The disk has no room left for the reserve that the log needs.
    #[error("{dir} has {free} bytes free, {need} are needed: free space or use another disk")]
    NoSpace {
        /// The directory.
        dir: String,
        /// Bytes free now.
        free: u64,
        /// Bytes needed.
        need: u64,
    },
    /// A key, value or record is over its limit.
    #[error("{what} has {found} bytes, the limit is {limit}: split it")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size in bytes.
        found: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// Keys that should ascend do not.
    #[error("key {key:?} does not come after {last:?}: sort the keys, and give each once")]
    Order {
        /// The key before.
        last: Bytes,
        /// The key that does not come after it.
        key: Bytes,
    },
    /// The asked log entries are no longer here; a snapshot covers them.
    #[error("log entries up to {upto} of shard {shard} were released; read the tree instead")]
    Compacted {
        /// The shard.
        shard: u64,
        /// The last released index.
        upto: u64,
    },
}

impl Error {
    /// Wraps an operating system error with what was being done to which file.
    pub fn io(action: &'static str, file: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let file = file.into();
        move |source| Error::Io { action, file, source }
    }

    /// Names damage.
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

    /// The same failure, for another who waited for the same commit.
    pub(crate) fn echo(&self) -> Error {
        match self {
            Error::NoSpace { dir, free, need } => {
                Error::NoSpace { dir: dir.clone(), free: *free, need: *need }
            }
            Error::Poisoned { cause } => Error::Poisoned { cause: cause.clone() },
            other => Error::Poisoned { cause: other.to_string() },
        }
    }

    /// Whether the bytes on disk are at fault, rather than the call or the system.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt { .. } | Error::Damaged { .. } | Error::Missing { .. })
    }

    /// Whether the medium failed to take something: nobody knows what it has now.
    pub fn is_failed_write(&self) -> bool {
        let Error::Io { action, source, .. } = self else { return false };
        source.raw_os_error() == Some(EIO)
            && !matches!(*action, "read" | "open" | "list" | "measure")
    }

    /// Whose keys cannot be read.
    pub fn damaged_shard(&self) -> Option<u64> {
        match self {
            Error::Damaged { shard, .. } => Some(*shard),
            _ => None,
        }
    }

    /// Whether bytes on disk are damaged or the medium does not give them.
    pub fn is_damage(&self) -> bool {
        let unreadable = |source: &io::Error| source.raw_os_error() == Some(EIO);
        let unreadable = matches!(self, Error::Io { source, .. } if unreadable(source));
        self.is_corrupt() || unreadable && !self.is_failed_write()
    }
}
