//! Raft (Ongaro and Ousterhout 2014; Ongaro's thesis), as a state machine without I/O.
//!
//! A [`Raft`] value is one replica of one group. It knows no clock, thread, lock or socket: inputs
//! are method calls, and [`Raft::effects`] says what is to be done. The driver executes effects in
//! the one legal order:
//!
//! 1. `send` may leave at once. The core has already held back what must not precede a write:
//!    votes, acknowledgements and everything else that speaks for state not yet durable.
//! 2. `write` goes to the log; [`Raft::persisted`] reports it, in order.
//! 3. `commit` says how far entries may be applied; `reads` which reads may be served once the
//!    tree has reached their index.
//!
//! Read in this order: [`message`], [`entries`], [`log`], [`conf`], [`progress`], `core`,
//! `election`, `replication`, `read`, `membership`, `transfer`, `recovery`, `quiet`, `lease`.

pub mod conf;
mod core;
mod election;
pub mod entries;
mod lease;
pub mod log;
mod membership;
pub mod message;
pub mod peer_set;
pub mod progress;
mod quiescence;
mod read;
mod read_rounds;
mod recovery;
mod replication;
mod transfer;

pub use self::core::{Boot, Config, Durability, Effects, Raft, Refused, Role, Status, Write};
pub use conf::{Change, Conf};
pub use entries::Entries;
pub use lease::Lease;
pub use log::LogReader;
pub use message::{Body, Message};
pub use peer_set::PeerSet;
pub use read_rounds::Read;
pub use recovery::{NOBODY, RecoveryWait};

/// Names a replica: the node's id.
pub type PeerId = u64;
/// A term.
pub type Term = u64;
/// A position in the group's log.
pub type Index = u64;
/// Counts a replica's writes to its log.
pub type Seq = u64;
/// The core's time: the driver calls [`Raft::tick`] at a steady pace.
pub type Tick = u64;

/// What an entry is to the core. Stored as the entry's kind byte.
pub mod kind {
    /// A new leader's first entry: with it, entries of earlier terms commit.
    pub const NOOP: u8 = 0;
    /// Commands.
    pub const NORMAL: u8 = 1;
    /// A change of the members, see [`super::conf::Change`].
    pub const CHANGE: u8 = 2;
    /// Commands, as a witness keeps them: without their data.
    pub const WITHHELD: u8 = 3;
}
