//! The first frame of each side: the identity of the sender and its protocol versions. All numbers
//! are little-endian.
//!
//! Body: magic `BNET`, oldest and newest protocol version u16 each, node u64, boot u64 (grows with
//! each start of the node), cluster name length u16 and bytes.

use crate::error::Violation;
use crate::frame::{Frame, Lane};
use crate::ids::NodeId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::ops::RangeInclusive;

/// The frame kind of a hello.
pub const KIND: u8 = 0;
/// The newest protocol version of this build.
pub const VERSION: u16 = 7;
/// The oldest protocol version of this build.
pub const VERSION_OLDEST: u16 = 7;
const _: () = assert!(VERSION_OLDEST <= VERSION);
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
        Self { min_version: VERSION_OLDEST, max_version: VERSION, node, boot, cluster }
    }

    /// Encodes the hello as a frame.
    pub fn frame(&self) -> Frame {
        let mut body = BytesMut::new();
        body.put_slice(&MAGIC);
        body.put_u16_le(self.min_version);
        body.put_u16_le(self.max_version);
        body.put_u64_le(self.node.0);
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
                node: NodeId(body.try_get_u64_le().ok()?),
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

    /// Checks the hello against the identity that the peer's certificate proves, and negotiates the
    /// protocol version of the connection: the newest that both sides support.
    ///
    /// # Errors
    /// [`Violation::Impostor`]; [`Violation::Version`] when no version is supported by both sides.
    pub fn verify(&self, node: NodeId, cluster: &str) -> Result<u16, Violation> {
        if self.node != node || self.cluster != cluster {
            let claimed = format!("node {} of {}", self.node, self.cluster);
            let proven = format!("node {node} of {cluster}");
            return Err(Violation::Impostor { claimed, proven });
        }
        let (min, max) = (self.min_version, self.max_version);
        negotiate(VERSION_OLDEST..=VERSION, min..=max).ok_or(Violation::Version {
            min,
            max,
            ours_min: VERSION_OLDEST,
            ours_max: VERSION,
        })
    }
}

/// The version that two sides with these ranges speak: the lower of their newest versions, if both
/// support it. Both sides come to the same result.
fn negotiate(ours: RangeInclusive<u16>, theirs: RangeInclusive<u16>) -> Option<u16> {
    let version = *ours.end().min(theirs.end());
    (ours.contains(&version) && theirs.contains(&version)).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_sides_negotiate_the_newest_common_version(
            (ours, theirs) in ((0..9u16, 0..9u16), (0..9u16, 0..9u16)),
        ) {
            let (ours, theirs) = (ours.0..=ours.1, theirs.0..=theirs.1);
            let common = (0..9).rev().find(|v| ours.contains(v) && theirs.contains(v));
            prop_assert_eq!(negotiate(ours.clone(), theirs.clone()), common);
            prop_assert_eq!(negotiate(theirs, ours), common);
        }
    }

    #[test]
    fn a_peer_without_a_common_version_is_refused() {
        let newer = |by: u16| {
            let hello = Hello::new(NodeId(1), 1, "dev");
            Hello { min_version: VERSION + by, max_version: VERSION + 1, ..hello }
        };
        assert_eq!(newer(0).verify(NodeId(1), "dev").expect("a version in common"), VERSION);
        let error =
            newer(1).verify(NodeId(1), "dev").expect_err("no version in common").to_string();
        assert!(error.contains("upgrade the older node"), "{error}");
    }
}
