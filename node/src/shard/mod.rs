//! The state machine of a shard: what commands mean.
//!
//! [`command`] is what the log holds and what nodes forward to each other, [`value`] what a key's
//! stored bytes are, [`apply`] how a command changes them, [`sessions`]
//! how it is done once, [`read`] how a read answers.

pub mod apply;
pub mod command;
pub mod read;
pub mod reply;
pub mod sessions;
pub mod system;
pub mod value;
