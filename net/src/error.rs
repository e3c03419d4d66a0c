//! The errors between nodes.

use std::net::SocketAddr;

/// Why the endpoint could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer address is in use, or is no address of this machine.
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
        /// The file or the step.
        what: &'static str,
        /// The cause.
        cause: String,
    },
}

/// A violation of the protocol by a peer. The endpoint closes the connection and counts the
/// violation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame announced more bytes than its lane accepts.
    #[error("a frame of {found} bytes on a lane with a limit of {limit} bytes")]
    TooLarge {
        /// Announced bytes.
        found: usize,
        /// The lane's limit.
        limit: usize,
    },
    /// The checksum of a frame does not match.
    #[error("a frame with a wrong checksum")]
    Checksum,
    /// A stream begins with the number of no known lane.
    #[error("a stream for lane {0}, which does not exist")]
    Lane(u8),
    /// The first frame is no valid hello.
    #[error("a first frame that is no valid hello")]
    Hello,
    /// The certificate names no node of this cluster.
    #[error("a certificate that names {0:?}, which is no peer of this cluster")]
    UnknownNode(Vec<String>),
    /// The hello names another node or cluster than the certificate.
    #[error("a hello from {claimed}, with the certificate of {proven}")]
    Impostor {
        /// The node and the cluster in the hello.
        claimed: String,
        /// The node and the cluster in the certificate.
        proven: String,
    },
    /// The peer does not support the protocol version of this node.
    #[error(
        "protocol versions {min} to {max}; this node has {ours_min} to {ours_max}: upgrade the \
         older node"
    )]
    Version {
        /// The oldest version of the peer.
        min: u16,
        /// The newest version of the peer.
        max: u16,
        /// The oldest version of this node.
        ours_min: u16,
        /// The newest version of this node.
        ours_max: u16,
    },
}
