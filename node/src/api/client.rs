//! What a connection has said of itself.

use super::shared::Shared;
use crate::policy::Consistency;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a connection has said of itself.
pub struct Client {
    /// Its number on this node.
    pub id: u64,
    /// Its name, by CLIENT SETNAME.
    pub name: Bytes,
    /// Whether it speaks RESP3.
    pub resp3: bool,
    /// The consistency of reads that do not name one.
    pub consistency: Consistency,
    /// The address that it reached.
    pub local: SocketAddr,
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// Where [`Client::draw`] is.
    pub drawn: u64,
}

impl Client {
    /// Forgets all but who it is.
    pub fn reset(&mut self) {
        self.name = Bytes::new();
        self.resp3 = false;
        self.consistency = Consistency::Strong;
    }

    /// Any number: where RANDOMKEY begins to look.
    pub fn draw(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.drawn ^ self.drawn >> 29
    }
}
