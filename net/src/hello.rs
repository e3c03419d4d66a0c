//! The first frame of each side: the identity of the sender and its protocol versions. All numbers
//! are little-endian.
//!
//! Body: magic `BNET`, oldest and newest protocol version u16 each, node u64, boot u64 (grows with
//! each start of the node), cluster name length u16 and bytes.

use crate::error::Violation;
use crate::frame::{Frame, Lane};
use crate::ids::NodeId;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The frame kind of a hello.
pub const KIND: u8 = 0;
/// The protocol version of this build.
pub const VERSION: u16 = 5;
const MAGIC: [u8; 4] = *b"BNET";

/// The identity that a side claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version that it supports.
    pub min_version: u16,
    /// The newest version that it supports.
    pub max_version: u16,
    /// Its node id.
    pub node: NodeId,
    /// The boot number, which grows with each start of the node.
    pub boot: u64,
    /// Its cluster.
    pub cluster: String,
}

impl Hello {
    /// The hello of this build.
    pub fn new(node: NodeId, boot: u64, cluster: &str) -> Self {
        let cluster = cluster.to_owned();
        Self { min_version: VERSION, max_version: VERSION, node, boot, cluster }
    }

    /// Encodes the hello as a frame.
    pub fn frame(&self) -> Frame {
        let mut body = BytesMut::new();
        body.put_slice(&MAGIC);
        body.put_u16_le(self.min_version);
        body.put_u16_le(self.max_version);
        body.put_u64_le(self.node);
        body.put_u64_le(self.boot);
        body.put_u16_le(self.cluster.len() as u16);
        body.put_slice(self.cluster.as_bytes());
        Frame { lane: Lane::Control, kind: KIND, shard: 0, body: body.freeze() }
    }

    /// Decodes the first frame of a connection.
    pub fn decode(frame: &Frame) -> Result<Hello, Violation> {
        let read = || {
            let mut body: Bytes = frame.body.clone();
            let magic = (body.len() >= 4).then(|| body.split_to(4))?;
            let hello = Hello {
                min_version: body.try_get_u16_le().ok()?,
                max_version: body.try_get_u16_le().ok()?,
                node: body.try_get_u64_le().ok()?,
                boot: body.try_get_u64_le().ok()?,
                cluster: {
                    let len = usize::from(body.try_get_u16_le().ok()?);
                    String::from_utf8((len <= body.len()).then(|| body.split_to(len))?.to_vec())
                        .ok()?
                },
            };
            (frame.kind == KIND && magic == MAGIC[..]).then_some(hello)
        };
        read().ok_or(Violation::Hello)
    }

    /// Checks the hello against the identity that the peer's certificate proves, and the versions.
    pub fn verify(&self, node: NodeId, cluster: &str) -> Result<(), Violation> {
        if self.node != node || self.cluster != cluster {
            let claimed = format!("node {} of {}", self.node, self.cluster);
            let proven = format!("node {node} of {cluster}");
            return Err(Violation::Impostor { claimed, proven });
        }
        if !(self.min_version..=self.max_version).contains(&VERSION) {
            let (min, max) = (self.min_version, self.max_version);
            return Err(Violation::Version { min, max, ours: VERSION });
        }
        Ok(())
    }
}
