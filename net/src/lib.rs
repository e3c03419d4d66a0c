//! Frames between the nodes of a cluster, over QUIC with mutual TLS.
//!
//! This crate knows peers and bytes, not what the bytes mean. [`Endpoint::start`] connects to every
//! peer and keeps connecting; what comes in is handed to an [`Inbox`] in batches, what goes out is
//! pushed into an [`Outbox`] by a thread that never blocks. Delivery is at most once and in order
//! per lane: a frame may be lost with its connection, and the layer above sends again.
//!
//! Async code lives in [`endpoint`] alone.

#![forbid(unsafe_code)]

pub mod endpoint;
pub mod error;
pub mod frame;
pub mod hello;
pub mod limits;
pub mod outbox;
pub mod tls;
mod window;

pub use endpoint::{Config, Endpoint, Event, Inbox, Peer};
pub use error::{Error, Violation};
pub use frame::{Frame, Lane};
pub use outbox::Outbox;
pub use tls::{Authority, Identity};

/// Names a node in its cluster, for ever; never 0, never reused.
pub type NodeId = u64;
