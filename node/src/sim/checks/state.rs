//! State-machine safety: two trees that have applied the same entries hold the same data.

use super::super::host::Node;
use super::super::outcome::Failure;
use crate::machine::apply::millis_of;
use crate::machine::value::Stored;
use crate::raft::Index;
use crate::sim::replicas::HostId;
use bedstone_engine::key::is_system;
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct States {
    digests: BTreeMap<Index, (HostId, u32)>,
    /// The content of some of the latest trees, to report a difference.
    contents: BTreeMap<Index, Vec<(Bytes, Bytes)>>,
}

/// Greatest number of remembered contents.
const REMEMBERED: usize = 100;

impl States {
    pub(super) fn look(&mut self, id: HostId, node: &Node) -> Result<(), Failure> {
        let tree = node.replica().tree();
        let applied = tree.applied().index;
        let now = millis_of(tree.ts());
        let mut hash = crc32fast::Hasher::new();
        hash.update(&tree.ts().to_le_bytes());
        let mut content = Vec::new();
        for item in tree.scan(..) {
            let Ok((key, stored)) = item else {
                return Ok(()); // The disk cannot be read at present.
            };
            // Nodes drop expired values at different times, so the digest leaves out expired
            // values.
            let value = Stored::decode(stored.clone()).filter(|_| !is_system(&key));
            if value.is_none_or(|value| !value.expired(now)) {
                hash.update(&(key.len() as u32).to_le_bytes());
                hash.update(&key);
                hash.update(&stored);
                content.push((key, stored));
            }
        }
        let digest = hash.finalize();
        let (first, known) = *self.digests.entry(applied).or_insert((id, digest));
        if known != digest {
            let before = self.contents.get(&applied).map_or(&[][..], Vec::as_slice);
            let only = |of: &[(Bytes, Bytes)], not: &[(Bytes, Bytes)]| {
                let pairs = of.iter().filter(|pair| !not.contains(pair));
                pairs.take(3).map(|pair| format!("{pair:?}")).collect::<Vec<_>>().join(", ")
            };
            let text = format!(
                "{first} and {id} applied {applied} entries and differ: only {first} has {}; \
                 only {id} has {}; at {now}",
                only(before, &content),
                only(&content, before)
            );
            return Err(Failure::new("state-machine-safety", text));
        }
        self.contents.insert(applied, content);
        while self.contents.len() > REMEMBERED {
            self.contents.pop_first();
        }
        Ok(())
    }
}
