//! The state machine of a shard: the meaning of commands.
//!
//! [`StateMachine`] stands between a replica and its commands. [`store`] is the Redis-like store
//! behind it: [`command`] is the form of commands in the log and between nodes, [`argument`] and
//! [`options`] the types of their arguments, [`value`] the
//! stored bytes of a key, [`apply`] the effect of a write, [`sessions`] the rule that a request
//! takes effect once, [`read`] the reply to a read.

pub mod apply;
pub mod argument;
pub mod command;
pub mod decimal;
pub mod glob;
pub mod options;
pub mod read;
pub mod reply;
pub mod sessions;
pub mod store;
pub mod system;
pub mod value;

use crate::raft::Conf;
use bedstone_engine::wal::{Entry, Place};
use bedstone_engine::{LogId, Result};
use command::Read;
use reply::Reply;

/// The state of one shard, as a deterministic function of its log.
pub trait StateMachine: Send + Sync {
    /// Applies an entry of commands, and gives a reply for each command. `place` is the entry's
    /// place in the log: large values stay there.
    ///
    /// # Errors
    /// The entry cannot be decoded, or the tree cannot be read. Nothing was applied then.
    fn apply(&self, entry: &Entry, place: Option<Place>) -> Result<Vec<Reply>>;

    /// Applies an entry that has no commands: the state records the members as of the entry.
    fn apply_members(&self, at: LogId, conf: &Conf);

    /// Replies to a read from the applied state.
    ///
    /// # Errors
    /// The tree cannot be read, or [`StateMachine::end`] was called.
    fn read(&self, read: &Read, time: ReadTime) -> Result<ReadOutcome>;

    /// The disk of the state failed: every later read is an error.
    fn end(&self);

    /// Sizes of the state.
    fn stats(&self) -> MachineStats;
}

/// The time at which a read looks at deadlines of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadTime {
    /// The timestamp of the last applied entry: a weak read.
    Applied,
    /// The leader's clock, in milliseconds since 1970.
    Leader(u64),
}

/// The result of a read.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadOutcome {
    /// The reply.
    Reply(Reply),
    /// The deadline of a key lies between the state's time and the leader's clock: the leader must
    /// move the state's time with a log entry before the read is repeated.
    ExpiryDue,
}

/// Sizes of a state.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineStats {
    /// Bytes in memtables.
    pub memtable_bytes: usize,
    /// Versions of keys, an estimate of the number of keys.
    pub versions: u64,
}
