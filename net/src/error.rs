//! What can go wrong between nodes.

use std::net::SocketAddr;

/// Why the endpoint could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer address is taken or not ours.
    #[error("cannot listen for peers on {addr} (UDP): {source}; choose another `peer` address")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("{what} cannot be used: {cause}")]
    Tls {
        /// Which file or step.
        what: &'static str,
        /// Why.
        cause: String,
    },
}

/// What a peer did that it must not. Its connection is closed and the event counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame announced more than its lane takes.
    #[error("a frame of {found} bytes on a lane that takes {limit}")]
    TooLarge {
        /// Announced bytes.
        found: usize,
        /// The lane's limit.
        limit: usize,
    },
    /// The frame's checksum does not fit.
    #[error("a frame with a wrong checksum")]
    Checksum,
    /// A stream begins with no known lane.
    #[error("a stream for lane {0}, which is none")]
    Lane(u8),
    /// The first frame is no hello.
    #[error("a first frame that is no hello")]
    Hello,
    /// The certificate names no node of this cluster.
    #[error("a certificate that names {0:?}, which is no peer of this cluster")]
    Stranger(Vec<String>),
    /// The hello names another node or cluster than the certificate.
    #[error("a hello from {claimed}, with the certificate of {proven}")]
    Impostor {
        /// Who the hello says it is.
        claimed: String,
        /// Whom the certificate names.
        proven: String,
    },
    /// No protocol version in common.
    #[error("protocol versions {min} to {max}; this node speaks {ours}: upgrade the older one")]
    Version {
        /// The peer's oldest.
        min: u16,
        /// The peer's newest.
        max: u16,
        /// Ours.
        ours: u16,
    },
}
