//! Raft (Ongaro and Ousterhout 2014; Ongaro's thesis), as a state machine without I/O.
//!
//! A [`Raft`] value is one replica of one group. The value uses no clock, thread, lock or socket:
//! inputs are method calls, and [`Raft::effects`] returns the effects that the inputs require. The
//! driver, which is the caller of the core, executes the effects in the only correct order:
//!
//! 1. `send`: these messages may leave at once. The core has already held back each message that
//!    must not precede a write: votes, acknowledgements and every other message that states
//!    something that is not durable yet.
//! 2. `write` goes to the log. The driver reports each durable write with [`Raft::persisted`], in
//!    the order of the writes.
//! 3. `commit` is the index up to which entries may be applied. `reads` lists the outcomes of
//!    reads: a read may be served once the tree has applied the entries up to the index of the
//!    read.
//!
//! Read the modules in this order: [`message`], [`entries`], [`log`], [`home`], [`conf`],
//! [`progress`]; then the parts of the state, each with the rules of its changes: `durable`,
//! `leadership`, `effective_conf`, `timers`, `outbox`, `read_rounds`; then the protocol: `core`,
//! `election`, `replication`, `read`, `membership`, `transfer`, `recovery`, `quiescence`, `lease`.

mod boot;
pub mod conf;
mod core;
mod durable;
mod effective_conf;
mod election;
pub mod entries;
pub mod home;
mod leadership;
mod lease;
pub mod log;
mod membership;
pub mod message;
mod outbox;
pub mod peer_set;
pub mod progress;
mod query;
mod quiescence;
mod read;
mod read_rounds;
mod recovery;
mod replication;
mod timers;
mod transfer;
mod volatile;

pub use self::core::{Config, Effects, Raft, Refused, Status, Write};
pub use bedstone_engine::wal::{EntryKind, Vote};
pub use bedstone_engine::{Index, ReplicaId, Term};
pub use boot::{Boot, Durability};
pub use conf::{Change, Conf};
pub use entries::Entries;
pub use home::{Home, Homes, Member};
pub use leadership::Role;
pub use lease::Lease;
pub use log::LogReader;
pub use message::{Body, Message, Undecodable};
pub use peer_set::PeerSet;
pub use query::RecoveryWait;
pub use read_rounds::Read;
pub use volatile::Applying;

/// The number of one write of a replica to its log.
pub type Seq = u64;
/// The core's time. The driver calls [`Raft::tick`] at a steady pace.
pub type Tick = u64;

/// The newest version of log entries that this build applies.
///
/// The data of an entry begins with its version u16, little-endian, except in an
/// [`EntryKind::NOOP`] and an [`EntryKind::WITHHELD`], which have no data. A later build raises the
/// version of an entry whose kind or content an earlier build does not know.
pub const ENTRY_VERSION: u16 = 1;

/// The version of an entry if it is newer than `newest`. An entry of an unknown kind is newer,
/// whatever it contains.
pub fn newer_version(kind: EntryKind, data: &[u8], newest: u16) -> Option<u16> {
    let version = data.first_chunk().copied().map(u16::from_le_bytes);
    match kind {
        EntryKind::NOOP | EntryKind::WITHHELD => None,
        EntryKind::COMMANDS | EntryKind::CHANGE => version.filter(|&version| version > newest),
        _ => version.filter(|&version| version > newest).or(newest.checked_add(1)),
    }
}
