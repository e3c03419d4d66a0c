//! The settings of one client connection.

use super::refusal::Refusal;
use super::shared::Shared;
use crate::policy::Consistency;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// The settings of one client connection.
pub struct Client {
    /// The connection's number on this node.
    pub id: u64,
    /// The name that CLIENT SETNAME or HELLO SETNAME gave.
    pub name: Bytes,
    /// Whether replies are written in RESP3.
    pub resp3: bool,
    /// The consistency of reads that do not name one.
    pub consistency: Consistency,
    /// The earlier refusal that still has an effect.
    pub refusal: Refusal,
    /// The node's own address on this connection.
    pub local: SocketAddr,
    /// The state that all connections of the node share.
    pub shared: Arc<Shared>,
    /// The state of the generator of [`Client::draw`].
    pub drawn: u64,
}

impl Client {
    /// Resets the connection's settings, as RESET requires.
    pub fn reset(&mut self) {
        self.name = Bytes::new();
        self.resp3 = false;
        self.consistency = Consistency::Strong;
        self.refusal = Refusal::None;
    }

    /// The next pseudo-random number: the seed of a RANDOMKEY.
    pub fn draw(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.drawn ^ self.drawn >> 29
    }
}
