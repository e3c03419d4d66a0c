//! The Bedstone storage node: Raft over the engine and the net, and the faces to clients and
//! operators.
//!
//! The way of a write, and so a way through the code:
//!
//! ```text
//! client → api/session → api/commands → driver/group → raft
//!   → Write → driver/logger → engine WAL     (comes back as Input::Persisted)
//!   → send  → net                            (peers answer as Input::Net)
//!   → commit → shard/apply → engine LSM → driver/pending → api/port → client
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod bootstrap;
pub mod cli;
pub mod clock;
pub mod config;
pub mod doubt;
pub mod driver;
pub mod limits;
pub mod line_file;
pub mod metrics;
pub mod raft;
pub mod shard;
pub mod sim;
pub mod start;
pub mod status;
pub mod wire;

/// The version of Redis whose commands are offered: what clients are told when they ask.
pub const REDIS_VERSION: &str = "7.2.0";
