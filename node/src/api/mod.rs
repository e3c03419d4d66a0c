//! The faces of a node to its clients: RESP and HTTP. Async code, on the node's one runtime.
//!
//! [`resp`] is the codec, [`commands`] what each command means, [`session`] one connection,
//! [`port`] the way to the driver and back, [`http`] the operator's side, [`members`] what changes
//! there.

pub mod client;
pub mod commands;
pub mod http;
pub mod members;
pub mod port;
pub mod resp;
pub mod server;
pub mod session;
pub mod shared;
