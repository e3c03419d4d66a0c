//! The meaning of each RESP command: an immediate reply, a command for a shard, or a change of the
//! connection's settings.
//!
//! [`dispatch`] decodes a request. [`table`] lists the specification ([`spec`]) of every command; a
//! new command is one line and one function in its family: [`connection`], [`server`], [`string`],
//! [`keys`], [`scan`], [`kv`], [`cluster`].

pub mod cluster;
pub mod connection;
pub mod decode;
pub mod dispatch;
pub mod keys;
pub mod kv;
pub mod scan;
pub mod server;
pub mod spec;
pub mod string;
pub mod table;
