//! A follower that is slow, or stopped, while its link stays: it costs the leader a bounded amount
//! of memory and of messages, and nobody else anything (TiKV #3529, #14798, #12255). And one whose
//! tree stands still: it goes on to acknowledge, in a bounded amount of memory.

use bedstone_node::raft::{Body, Boot, Conf, Config, Message, PeerId, Raft};
use bedstone_tests::raft_log::Nothing;
use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::sync::{Mutex, PoisonError};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What one allocates is not to be counted as the other's.
static ONE: Mutex<()> = Mutex::new(());

const PROPOSALS: usize = 100_000;
const VALUE_BYTES: usize = 1 << 10;

/// Replicas 1 and 2 of three. What goes to the third is counted.
struct Group {
    replicas: [Raft; 2],
    /// Bytes of entries, and messages.
    to_third: (usize, usize),
    /// Whether the second applies what is committed.
    second_applies: bool,
}

impl Group {
    /// Carries messages and completes writes until nothing is left to do.
    fn settle(&mut self) {
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for from in [1, 2] {
                busy |= self.step(from);
            }
        }
    }

    fn step(&mut self, from: PeerId) -> bool {
        let raft = &mut self.replicas[from as usize - 1];
        let effects = raft.effects(&Nothing);
        let mut busy = effects.write.is_some();
        effects.write.into_iter().for_each(|write| raft.persisted(write.seq));
        if from == 1 || self.second_applies {
            raft.applied(effects.commit);
        }
        for Message { peer, term, body } in effects.send {
            if peer == 3 {
                let Body::Append { entries, .. } = &body else { continue };
                self.to_third.0 += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
                self.to_third.1 += 1;
                continue;
            }
            busy = true;
            self.replicas[peer as usize - 1].step(Message { peer: from, term, body });
        }
        busy
    }
}

/// Replica 1 leads.
fn led_by_first(config: &Config) -> Group {
    let boot = |id| Boot::new(id, Conf::of([1, 2, 3]), id);
    let replicas = [1, 2].map(|id| Raft::new(config.clone(), boot(id)));
    let mut group = Group { replicas, to_third: (0, 0), second_applies: true };
    while !group.replicas[0].is_leader() {
        group.replicas[0].tick();
        group.settle();
    }
    group
}

#[test]
fn a_tree_that_stands_still_costs_its_replica_no_more_than_it_may() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = Config::DEFAULT;
    let mut group = led_by_first(&config);
    group.second_applies = false;
    for number in 0..PROPOSALS {
        let value = Bytes::from(vec![7; VALUE_BYTES]);
        let id = group.replicas[0].propose(value).expect("room for it");
        group.settle();
        assert_eq!(group.replicas[0].commit(), id.index, "the second goes on to acknowledge");
        if number % 100 > 0 {
            continue;
        }
        for (replica, most) in group.replicas.iter().zip([1, 2]) {
            let (bytes, most) = (replica.spare_bytes(), most * config.recent_bytes_max);
            assert!(bytes <= most, "{bytes} bytes are held after {number} proposals");
        }
    }
}

#[test]
fn a_follower_that_does_not_answer_costs_its_leader_no_more_than_it_may() {
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
    // The two replicas here share what both keep of an entry.
    let may = 2 * config.recent_bytes_max + config.inflight_bytes_max;
    let (proposed, (bytes, appends)) = (PROPOSALS * VALUE_BYTES, group.to_third);
    eprintln!(
        "{most} bytes held of {proposed} proposed; {bytes} in {appends} appends to the third"
    );
    assert!(most <= may, "{most} bytes are held, {may} may be");
    // It is asked at the pace of heartbeats, once its window is full.
    assert!(bytes <= config.inflight_bytes_max + ticks * config.append_bytes_max);
    assert!(appends <= config.inflight_appends_max + ticks, "{appends} appends to the third");
}
