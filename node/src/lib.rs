//! The Bedstone storage node: Raft over the engine and the net, and the interfaces to clients and
//! operators.
//!
//! A write takes this path through the modules:
//!
//! ```text
//! client → api/session → api/commands → worker → router → replica → raft
//!   → write  → disk_unit/logger → engine WAL  (comes back as DiskEvent::Persisted)
//!   → send   → cluster/peers → net            (peers answer as Input::Net)
//!   → commit → replica/apply → machine (StateMachine) → engine LSM
//!            → request/replies → request/mailbox → api/session → client
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod bootstrap;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod disk_unit;
pub mod limits;
pub mod line_file;
pub mod machine;
pub mod metrics;
pub mod policy;
pub mod raft;
pub mod replica;
pub mod request;
pub mod router;
pub mod sim;
pub mod start;
pub mod status;
pub mod wire;
pub mod worker;

/// The version of Redis whose commands the node offers. The node reports this version to clients.
pub const REDIS_VERSION: &str = "7.2.0";
