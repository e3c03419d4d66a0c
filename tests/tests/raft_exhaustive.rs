//! Every behaviour of three replicas of the Raft core within small bounds.
//! `bedstone_tests::raft_exhaustive` describes the events and the checked properties.

use bedstone_tests::raft_exhaustive::{Bounds, explore};

/// Bounds that allow no event. Each test adds its events.
const NOTHING: Bounds = Bounds {
    logs: [&[], &[], &[]],
    term: 0,
    campaigns: 0,
    proposals: 0,
    crashes: 0,
    doubles: 0,
    slow_disks: true,
};

/// Explores, and checks that enough states were visited.
fn all_is_well(within: Bounds, states: usize) {
    let seen = explore(within);
    eprintln!("{within:?}: {seen:?}");
    let leaders = usize::from(within.campaigns);
    assert!(seen.states >= states && seen.leaders == leaders, "too little explored: {seen:?}");
}

#[test]
fn one_leader_and_two_commands() {
    all_is_well(Bounds { campaigns: 1, proposals: 2, ..NOTHING }, 90_000);
}

#[test]
fn two_candidates_and_a_command() {
    all_is_well(Bounds { campaigns: 2, proposals: 1, ..NOTHING }, 300_000);
}

#[test]
fn two_candidates_and_a_crash() {
    all_is_well(Bounds { campaigns: 2, crashes: 1, ..NOTHING }, 200_000);
}

#[test]
fn two_candidates_and_a_message_that_arrives_twice() {
    all_is_well(Bounds { campaigns: 2, doubles: 1, ..NOTHING }, 200_000);
}

/// Figure 8 of the paper, from (b) on: replicas 1 and 2 led terms 1 and 2, and each has an entry
/// that no other replica has. An entry of an earlier term that is committed by counting would be
/// lost.
#[test]
fn two_candidates_and_entries_of_earlier_terms() {
    let logs = [&[1][..], &[2], &[]];
    all_is_well(Bounds { logs, term: 2, campaigns: 2, ..NOTHING }, 200_000);
}

/// Larger bounds, for a run of a minute, on disks that are not slow.
#[test]
#[ignore = "takes a minute"]
fn two_candidates_and_two_commands() {
    let within = Bounds { campaigns: 2, proposals: 2, slow_disks: false, ..NOTHING };
    all_is_well(within, 900_000);
}

/// Larger bounds with a crash, for a run of a minute, on disks that are not slow.
#[test]
#[ignore = "takes a minute"]
fn two_candidates_a_command_and_a_crash() {
    let within = Bounds { campaigns: 2, proposals: 1, crashes: 1, slow_disks: false, ..NOTHING };
    all_is_well(within, 400_000);
}
