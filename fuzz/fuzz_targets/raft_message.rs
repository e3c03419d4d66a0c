//! Arbitrary messages to a replica: a decoded message encodes to the same bytes, and no sequence of
//! messages makes the replica panic, except one that would make it break a vote or an
//! acknowledgement that is already durable.
//!
//! Input: messages, each after a length u8 and a peer u8.
#![no_main]

use bedstone_engine::wal::Entry;
use bedstone_engine::{Index, ReplicaId};
use bedstone_node::raft::{Boot, Conf, Config, LogReader, Message, Raft};
use bedstone_node::wire::{Forwarded, Replied, Transfer};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

struct Nothing;

impl LogReader for Nothing {
    fn entries(&self, _: Index, _: Index, _: usize) -> Vec<Entry> {
        Vec::new()
    }
}

fuzz_target!(|input: &[u8]| {
    let boot = Boot::new(ReplicaId(1), Conf::of([1, 2, 3].map(ReplicaId)), 1);
    let mut raft = Raft::new(Config::default(), boot);
    let mut rest = input;
    while let [len, peer, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        let bytes = Bytes::copy_from_slice(bytes);
        let _ = Forwarded::decode_all(bytes.clone());
        let _ = Replied::decode_all(bytes.clone());
        let _ = Transfer::decode(peer % 8, bytes.clone());
        let Ok(message) = Message::decode(ReplicaId(u64::from(peer % 4)), bytes.clone()) else {
            raft.tick();
            continue;
        };
        assert_eq!(message.encode(), bytes);
        raft.step(message);
        let effects = raft.effects(&Nothing);
        if let Some(write) = effects.write {
            raft.persisted(write.seq);
        }
    }
});
