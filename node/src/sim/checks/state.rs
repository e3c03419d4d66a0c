//! State-machine safety: two trees that have applied the same entries hold the same.

use super::super::Failure;
use super::super::host::Node;
use crate::raft::{Index, PeerId};
use crate::shard::apply::millis_of;
use crate::shard::value::Stored;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct States {
    digests: BTreeMap<Index, (PeerId, u32)>,
}

impl States {
    pub(super) fn look(&mut self, id: PeerId, node: &Node) -> Result<(), Failure> {
        let tree = node.group().tree();
        let applied = tree.applied().index;
        let now = millis_of(tree.ts());
        let mut hash = crc32fast::Hasher::new();
        hash.update(&tree.ts().to_le_bytes());
        for item in tree.scan(..) {
            let Ok((key, stored)) = item else {
                return Ok(()); // The disk cannot be read at present.
            };
            // What has expired is dropped here sooner, there later.
            if Stored::decode(stored.clone()).is_some_and(|stored| !stored.expired(now)) {
                hash.update(&(key.len() as u32).to_le_bytes());
                hash.update(&key);
                hash.update(&stored);
            }
        }
        let digest = hash.finalize();
        let (first, known) = *self.digests.entry(applied).or_insert((id, digest));
        if known != digest {
            let text = format!("{first} and {id} applied {applied} entries and hold others");
            return Err(Failure::new("state-machine-safety", text));
        }
        Ok(())
    }
}
