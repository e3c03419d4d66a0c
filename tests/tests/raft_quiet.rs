//! A thousand groups on three nodes become quiescent, and elect when the node that leads them is
//! gone (pitfall: a quiescent group never becomes active, or all groups become active at once).

use bedstone_node::raft::{Boot, Conf, Config, Message, Raft, ReplicaId};
use bedstone_tests::raft_log::Nothing;
use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::fmt::Write as _;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const GROUPS: u64 = 1000;
/// Two election timeouts, each of at most 20 ticks.
const ELECTED_WITHIN: u64 = 2 * 20;
/// The limit on the messages of a group for an election: wake-up, pre-votes, votes, and the first
/// append.
const MESSAGES_EACH: usize = 30;

/// The limit on the core's memory for a quiescent replica.
const BYTES_EACH: u64 = 1 << 10;

/// One group. Replica 1 leads it until the node of replica 1 is gone.
struct Group {
    replicas: [Raft; 3],
    gone: Option<ReplicaId>,
    sent: usize,
}

impl Group {
    fn new(number: u64, config: &Arc<Config>) -> Group {
        let conf = Conf::of([1, 2, 3].map(ReplicaId));
        let boot = |id| Boot::new(ReplicaId(id), conf.clone(), 31 * number + id);
        let replicas = [1, 2, 3].map(|id| Raft::new(config.clone(), boot(id)));
        let mut group = Group { replicas, gone: None, sent: 0 };
        while !group.replicas[0].is_leader() {
            group.replicas[0].tick();
            group.settle();
        }
        group
    }

    fn tick(&mut self) {
        for at in 0..3 {
            if self.gone != Some(ReplicaId(at + 1)) {
                self.replicas[at as usize].tick();
                self.settle();
            }
        }
    }

    /// Delivers messages and completes writes until nothing is left to do.
    fn settle(&mut self) {
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for at in (0..3_u64).filter(|at| self.gone != Some(ReplicaId(at + 1))) {
                let raft = &mut self.replicas[at as usize];
                let effects = raft.effects(&Nothing);
                if let Some(write) = effects.write {
                    raft.persisted(write.seq);
                    busy = true;
                }
                raft.applied(effects.commit);
                for Message { peer, term, body } in effects.send {
                    self.sent += 1;
                    busy = true;
                    if self.gone != Some(peer) {
                        let message = Message { peer: ReplicaId(at + 1), term, body };
                        self.replicas[peer.0 as usize - 1].step(message);
                    }
                }
            }
        }
    }

    fn rests(&self) -> bool {
        self.replicas.iter().all(Raft::is_quiescent)
    }
}

#[test]
fn quiescent_groups_elect_a_leader_after_their_leaders_node_is_gone() {
    let config = Arc::new(Config::default());
    let region = Region::new(ALLOCATOR);
    let mut groups: Vec<Group> = (0..GROUPS).map(|group| Group::new(group, &config)).collect();
    for group in &mut groups {
        group.replicas[0].propose(Bytes::from_static(b"something")).expect("it leads");
        (0..100).for_each(|_| group.tick());
        assert!(group.rests(), "an idle group is quiescent");
    }
    let stats = region.change();
    let held = stats.bytes_allocated - stats.bytes_deallocated;
    let each = held as u64 / (3 * GROUPS);
    assert!(each <= BYTES_EACH, "a quiescent replica takes {each} bytes");

    let sent: usize = groups.iter().map(|group| group.sent).sum();
    groups.iter_mut().for_each(|group| (0..1000).for_each(|_| group.tick()));
    let later: usize = groups.iter().map(|group| group.sent).sum();
    assert_eq!(sent, later, "a quiescent group sends nothing");

    for group in &mut groups {
        group.gone = Some(ReplicaId(1));
        group.replicas[1..].iter_mut().for_each(|raft| raft.peer_silent(ReplicaId(1)));
        group.settle();
    }
    let (mut ticks, mut most) = (0, 0);
    let is_led = |group: &Group| group.replicas[1..].iter().any(Raft::is_leader);
    while !groups.iter().all(is_led) {
        let before: usize = groups.iter().map(|group| group.sent).sum();
        groups.iter_mut().for_each(Group::tick);
        let after: usize = groups.iter().map(|group| group.sent).sum();
        ticks += 1;
        most = most.max(after - before);
        assert!(ticks <= ELECTED_WITHIN, "a group has no leader {ticks} ticks after");
    }
    let all: usize = groups.iter().map(|group| group.sent).sum();
    assert!(all - later < MESSAGES_EACH * groups.len(), "{} messages is a storm", all - later);
    let mut report = String::new();
    let _ = writeln!(
        report,
        "{GROUPS} quiescent groups: {each} bytes a replica in the core; led again after {ticks} \
         ticks with {} messages, at most {most} in a tick",
        all - later
    );
    eprint!("{report}");
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/raft-quiet.txt"), report).unwrap();
}
