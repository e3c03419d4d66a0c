//! Each election timeout is a new draw from the whole range and from nothing else, so that replicas
//! rarely campaign in the same tick (Raft, §5.2).

use bedstone_engine::ReplicaId;
use bedstone_node::raft::{Body, Boot, Conf, Config, Message, Raft, Role};
use bedstone_tests::raft_log::Nothing;
use bedstone_tests::rng::Rng;
use std::collections::BTreeSet;

const REPLICAS: u64 = 5;
const ROUNDS: u64 = 1000;

fn replica(id: u64, seed: u64) -> Raft {
    // Real nodes draw their seeds from the system, so the seeds here are drawn too.
    let seed = Rng::new(seed).draw();
    Raft::new(
        Config::DEFAULT,
        Boot::new(ReplicaId(id), Conf::of((1..=REPLICAS).map(ReplicaId)), seed),
    )
}

/// Ticks a replica until it requests pre-votes. Returns the number of ticks.
fn ticks_to_campaign(raft: &mut Raft) -> u64 {
    let mut ticks = 0;
    loop {
        raft.tick();
        ticks += 1;
        let effects = raft.effects(&Nothing);
        effects.write.into_iter().for_each(|write| raft.persisted(write.seq));
        if effects.send.iter().any(|message| matches!(message.body, Body::PreVote { .. })) {
            return ticks;
        }
    }
}

/// Grants the replica's pre-votes. The replica then requests votes, which never arrive.
fn make_candidate(raft: &mut Raft) {
    for peer in 2..=REPLICAS {
        let (granted, committed) = (true, Default::default());
        let body = Body::PreVoteReply { granted, committed };
        raft.step(Message { peer: ReplicaId(peer), term: raft.term() + 1, body });
        if raft.status().role == Role::Candidate {
            break;
        }
    }
    let effects = raft.effects(&Nothing);
    effects.write.into_iter().for_each(|write| raft.persisted(write.seq));
    assert_eq!(raft.status().role, Role::Candidate);
}

/// Asserts that every value of the range was drawn, and no other.
fn assert_covers_the_range(drawn: &BTreeSet<u64>) {
    let range = Config::DEFAULT.election;
    assert_eq!(*drawn, range.collect(), "the timeouts that were drawn");
}

#[test]
fn a_follower_draws_its_timeout_from_the_whole_range() {
    let drawn = (0..ROUNDS).map(|seed| ticks_to_campaign(&mut replica(1, seed))).collect();
    assert_covers_the_range(&drawn);
    // Without a restart, each timeout is a new draw too.
    let mut raft = replica(1, 7);
    assert_covers_the_range(&(0..ROUNDS).map(|_| ticks_to_campaign(&mut raft)).collect());
}

#[test]
fn a_candidate_draws_its_timeout_from_the_whole_range() {
    let mut raft = replica(1, 7);
    ticks_to_campaign(&mut raft);
    let drawn = (0..ROUNDS).map(|_| {
        make_candidate(&mut raft);
        ticks_to_campaign(&mut raft)
    });
    assert_covers_the_range(&drawn.collect());
}

/// The number of rounds in which several replicas time out first, in one tick.
fn conflicts(mut ticks: impl FnMut(u64, u64) -> u64) -> u64 {
    let is_shared = |round: &u64| {
        let ticks: Vec<u64> = (1..=REPLICAS).map(|id| ticks(id, *round)).collect();
        let first = ticks.iter().min();
        ticks.iter().filter(|&ticks| Some(ticks) == first).count() > 1
    };
    let mut is_shared = is_shared;
    (0..ROUNDS).filter(|round| is_shared(round)).count() as u64
}

#[test]
fn few_followers_time_out_together() {
    let shared = conflicts(|id, round| ticks_to_campaign(&mut replica(id, REPLICAS * round + id)));
    eprintln!("{shared} of {ROUNDS} rounds have two followers first");
    assert!(shared < ROUNDS * 3 / 10);
}

#[test]
fn few_candidates_time_out_together() {
    let shared = conflicts(|id, round| {
        let mut raft = replica(1, REPLICAS * round + id);
        ticks_to_campaign(&mut raft);
        make_candidate(&mut raft);
        ticks_to_campaign(&mut raft)
    });
    eprintln!("{shared} of {ROUNDS} rounds have two candidates first");
    assert!(shared < ROUNDS * 3 / 10);
}
