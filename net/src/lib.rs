//! Frames between the nodes of a cluster, over QUIC with mutual TLS.
//!
//! This crate transports bytes between peers and does not interpret them. [`Endpoint::start`] keeps
//! a connection to every peer. Received frames go to an [`Inbox`] in batches. A thread that never
//! blocks pushes outgoing frames into an [`Outbox`]. Delivery is at most once, and in order per
//! lane and shard: a frame may be lost with its connection, and the layer above sends it again.
//!
//! Async tasks run in [`endpoint`] alone.

#![forbid(unsafe_code)]

pub mod endpoint;
pub mod error;
pub mod frame;
pub mod hello;
pub mod ids;
pub mod limits;
pub mod outbox;
pub mod tls;
mod window;

pub use endpoint::{Config, Endpoint, Event, Inbox, Peer};
pub use error::{Error, Violation};
pub use frame::{Frame, Lane};
pub use ids::NodeId;
pub use outbox::Outbox;
pub use tls::{Authority, Identity};
