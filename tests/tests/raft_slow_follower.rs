//! A follower is slow or stopped, while its connection stays. It costs the leader a bounded amount
//! of memory and a bounded number of messages, and the other replicas nothing (TiKV #3529, #14798,
//! #12255). A follower whose tree does not advance still acknowledges, with a bounded amount of
//! memory.

use bedstone_node::raft::{Body, Boot, Conf, Config, Message, Raft, ReplicaId};
use bedstone_tests::raft_log::Nothing;
use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::sync::{Mutex, PoisonError};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Only one test runs at a time, so that allocations of one test do not count for the other.
static ONE: Mutex<()> = Mutex::new(());

const PROPOSALS: usize = 100_000;
const VALUE_BYTES: usize = 1 << 10;

/// Replicas 1 and 2 of three. Messages to replica 3 are counted.
struct Group {
    replicas: [Raft; 2],
    /// The bytes of entries, and the number of messages.
    to_third: (usize, usize),
    /// Whether replica 2 applies committed entries.
    second_applies: bool,
}

impl Group {
    /// Delivers messages and completes writes until nothing is left to do.
    fn settle(&mut self) {
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for from in [1, 2] {
                busy |= self.step(ReplicaId(from));
            }
        }
    }

    fn step(&mut self, from: ReplicaId) -> bool {
        let raft = &mut self.replicas[from.0 as usize - 1];
        let effects = raft.effects(&Nothing);
        let mut busy = effects.write.is_some();
        effects.write.into_iter().for_each(|write| raft.persisted(write.seq));
        if from == ReplicaId(1) || self.second_applies {
            raft.applied(effects.commit);
        }
        for Message { peer, term, body } in effects.send {
            if peer == ReplicaId(3) {
                let Body::Append { entries, .. } = &body else { continue };
                self.to_third.0 += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
                self.to_third.1 += 1;
                continue;
            }
            busy = true;
            self.replicas[peer.0 as usize - 1].step(Message { peer: from, term, body });
        }
        busy
    }
}

/// A group that replica 1 leads.
fn led_by_first(config: &Config) -> Group {
    let boot = |id| Boot::new(id, Conf::of([1, 2, 3].map(ReplicaId)), id.0);
    let replicas = [1, 2].map(|id| Raft::new(config.clone(), boot(ReplicaId(id))));
    let mut group = Group { replicas, to_third: (0, 0), second_applies: true };
    while !group.replicas[0].is_leader() {
        group.replicas[0].tick();
        group.settle();
    }
    group
}

#[test]
fn a_stalled_tree_uses_bounded_memory() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = Config::DEFAULT;
    let mut group = led_by_first(&config);
    group.second_applies = false;
    for number in 0..PROPOSALS {
        let value = Bytes::from(vec![7; VALUE_BYTES]);
        let id = group.replicas[0].propose(value).expect("room for it");
        group.settle();
        assert_eq!(group.replicas[0].commit(), id.index, "the second still acknowledges");
        if number % 100 > 0 {
            continue;
        }
        for (replica, most) in group.replicas.iter().zip([1, 2]) {
            let (bytes, most) = (replica.evictable_bytes(), most * config.recent_bytes_max);
            assert!(bytes <= most, "{bytes} bytes are held after {number} proposals");
        }
    }
}

#[test]
fn an_unresponsive_follower_uses_bounded_memory_and_messages_of_its_leader() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = Config::DEFAULT;
    let mut group = led_by_first(&config);
    let region = Region::new(ALLOCATOR);
    let (mut most, mut ticks) = (0, 0);
    for number in 0..PROPOSALS {
        let id = group.replicas[0].propose(Bytes::from(vec![7; VALUE_BYTES])).expect("room for it");
        group.settle();
        assert_eq!(group.replicas[0].commit(), id.index, "the other follower is enough");
        if number % 100 == 99 {
            group.replicas[0].tick();
            group.settle();
            ticks += 1;
        }
        let stats = region.change();
        most = most.max(stats.bytes_allocated.saturating_sub(stats.bytes_deallocated));
    }
    // The two replicas here share the entries that both keep.
    let may = 2 * config.recent_bytes_max + config.inflight_bytes_max;
    let (proposed, (bytes, appends)) = (PROPOSALS * VALUE_BYTES, group.to_third);
    eprintln!(
        "{most} bytes held of {proposed} proposed; {bytes} in {appends} appends to the third"
    );
    assert!(most <= may, "{most} bytes are held, the limit is {may}");
    // Once the window is full, replica 3 is probed at the pace of heartbeats.
    assert!(bytes <= config.inflight_bytes_max + ticks * config.append_bytes_max);
    assert!(appends <= config.inflight_appends_max + ticks, "{appends} appends to the third");
}
