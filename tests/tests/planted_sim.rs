//! Bugs planted in whole nodes: the simulation must find each, by a check that is meant for it.

use bedstone_node::sim::build::Build;
use bedstone_node::sim::plan::{Fault, MILLI, Planned, SECOND, Who};
use bedstone_node::sim::{Plan, Sabotage, run};
use std::fmt::Write as _;

/// The number of seeds after which a bug counts as not found.
const SEEDS: u64 = 400;

/// The number of seeds of each world that correct nodes must survive.
const SOUND_SEEDS: u64 = 30;

/// The bugs, each with the checks of which one must find it.
const BUGS: [(Sabotage, &[&str]); 11] = [
    (Sabotage::ReportsDurableTooSoon, &["durable-before-sent"]),
    (Sabotage::LosesVotes, &["durable-before-sent"]),
    (Sabotage::ForgetsSessions, &["exactly-once", "state-machine-safety"]),
    (Sabotage::ForgetsMembers, &["state-machine-safety"]),
    (Sabotage::ForwardsTwice, &["exactly-once"]),
    (Sabotage::ReusesRequestNumbers, &["exactly-once", "linearizability"]),
    (Sabotage::TrustsOldClock, &["linearizability"]),
    (Sabotage::SendsAtOnce, &["snapshot-pace"]),
    (Sabotage::WaitsForDisks, &["hung-leader"]),
    (Sabotage::AppliesNewerEntries, &["newer-entries"]),
    (Sabotage::TrustsDisks, &["leader-completeness", "state-machine-safety", "linearizability"]),
];

/// The plan of a seed, or a plan that is likely to show the bug.
fn world_for(sabotage: Sabotage, seed: u64) -> Plan {
    let plan = Plan::of(seed);
    match sabotage {
        Sabotage::ReusesRequestNumbers => short_lives(seed, plan),
        Sabotage::TrustsOldClock => stopped_leaders(seed, plan),
        Sabotage::TrustsDisks => lying_disks(seed, plan),
        Sabotage::AppliesNewerEntries => mixed_builds(seed, plan),
        _ => plan,
    }
}

/// Nodes send queries, and are killed before the replies arrive.
fn short_lives(seed: u64, plan: Plan) -> Plan {
    let faults = (0..60).map(|number| {
        let at = SECOND + 300 * MILLI * number as u64;
        let who = Who::Node(1 + (seed + number as u64) % 3);
        Planned { number, at, fault: Fault::Kill { who, down: 50 * MILLI } }
    });
    let (nodes, spares, horizon) = (3, 0, 22 * SECOND);
    Plan { nodes, spares, horizon, faults: faults.collect(), ..plan }
}

/// The leader is stopped, and a node is cut off until shortly after the leader continues.
fn stopped_leaders(seed: u64, plan: Plan) -> Plan {
    let faults = (0..12).map(|number| {
        let at = (2 + 3 * (number as u64 / 2)) * SECOND;
        let side = 1 << (1 + (seed + number as u64 / 2) % 3);
        let fault = match number % 2 {
            0 => Fault::Pause { who: Who::Leader, time: 2400 * MILLI },
            _ => Fault::Partition { side, time: 2600 * MILLI },
        };
        Planned { number, at, fault }
    });
    let (nodes, spares, horizon) = (3, 0, 22 * SECOND);
    Plan { nodes, spares, horizon, leases: true, faults: faults.collect(), ..plan }
}

/// A disk lies while another node is cut off. Then its power fails, and the leader is killed.
fn lying_disks(seed: u64, plan: Plan) -> Plan {
    let faults = (0..15).map(|number| {
        let round = number as u64 / 3;
        let (begun, liar) = ((2 + 4 * round) * SECOND, 1 + (seed + round) % 3);
        let other = 1 + (liar + seed / 3 % 2) % 3;
        let (after, fault) = match number % 3 {
            0 => (0, Fault::LyingDisk { who: Who::Node(liar), time: 1500 * MILLI, down: MILLI }),
            1 => (200 * MILLI, Fault::Partition { side: 1 << other, time: 1350 * MILLI }),
            _ => (1520 * MILLI, Fault::Kill { who: Who::Leader, down: 2 * SECOND }),
        };
        Planned { number, at: begun + after, fault }
    });
    let (nodes, spares, horizon, suspect_disks) = (3, 0, 22 * SECOND, true);
    Plan { nodes, spares, horizon, suspect_disks, faults: faults.collect(), ..plan }
}

/// Nodes become a later build one after another and go back, while leaders are killed.
fn mixed_builds(seed: u64, plan: Plan) -> Plan {
    let faults = (0..16).map(|number| {
        let at = (2 + number as u64) * SECOND;
        let who = Who::Node(1 + (seed + number as u64 / 2) % 3);
        let fault = match number % 3 {
            0 => Fault::Kill { who: Who::Leader, down: SECOND },
            _ => Fault::Upgrade { who, to: Build::LaterEntries, down: 200 * MILLI },
        };
        Planned { number, at, fault }
    });
    let (nodes, spares, horizon) = (3, 0, 22 * SECOND);
    Plan { nodes, spares, horizon, faults: faults.collect(), ..plan }
}

/// The first seed that shows the bug, and the failed check. Otherwise the failures of other checks.
fn hunt(sabotage: Sabotage, checks: &[&str]) -> Result<(u64, String), Vec<String>> {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let plan = Plan { sabotage: Some(sabotage), ..world_for(sabotage, seed) };
        match run(&plan) {
            Err(failure) if checks.contains(&failure.check) => {
                return Ok((seed, failure.to_string()));
            }
            Err(failure) => others.push(failure.to_string()),
            Ok(_) => {}
        }
    }
    Err(others)
}

#[test]
fn correct_nodes_pass_the_plans_made_for_the_bugs() {
    for (sabotage, _) in BUGS {
        for seed in 0..SOUND_SEEDS {
            let plan = world_for(sabotage, seed);
            let survived = run(&plan);
            assert!(survived.is_ok(), "{sabotage:?}, seed {seed}: {}", survived.unwrap_err());
        }
    }
}

#[test]
fn every_bug_planted_in_a_node_is_found_by_its_check() {
    // The panics of found bugs are not printed.
    std::panic::set_hook(Box::new(|_| {}));
    let (left, right) = BUGS.split_at(BUGS.len() / 2);
    let hunter = |bugs: &'static [(Sabotage, &[&str])]| {
        bugs.iter().map(|(bug, checks)| (*bug, hunt(*bug, checks))).collect::<Vec<_>>()
    };
    let found = std::thread::scope(|scope| {
        let hunters = [left, right].map(|bugs| scope.spawn(move || hunter(bugs)));
        hunters.map(|hunter| hunter.join().expect("a hunter does not panic")).concat()
    });
    let _ = std::panic::take_hook();
    let mut report = format!("{} bugs planted in whole nodes\n", found.len());
    let mut escaped = 0;
    for (bug, found) in &found {
        let line = |text: &str| text.lines().next().map(|line| line.chars().take(120).collect());
        let line = |text: &str| -> String { line(text).unwrap_or_default() };
        let _ = match found {
            Ok((seed, said)) => writeln!(report, "{bug:?}: seed {seed}: {}", line(said)),
            Err(others) => {
                escaped += 1;
                let said: Vec<String> = others.iter().take(3).map(|text| line(text)).collect();
                writeln!(report, "ESCAPED {bug:?}; other checks: {}, {said:?}", others.len())
            }
        };
    }
    eprint!("{report}");
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/planted-sim.txt"), report).unwrap();
    assert_eq!(escaped, 0, "the number of bugs that were not found, of {}", found.len());
}
