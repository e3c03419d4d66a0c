//! The interfaces of a node to its clients and operators: RESP and HTTP. The code is async and runs
//! on the node's one runtime.
//!
//! [`resp`] is the codec, [`commands`] the meaning of each command, [`session`] one connection,
//! [`server`] the listener, [`http`] the operators' interface, [`members`] its requests that change
//! the members of a shard.

pub mod client;
pub mod commands;
pub mod http;
pub mod http_guard;
pub mod http_state;
pub mod members;
pub mod refusal;
pub mod resp;
pub mod server;
pub mod session;
pub mod shared;
