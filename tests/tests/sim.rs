//! Whole nodes in a simulated world; see `bedstone_node::sim`. `BEDSTONE_SIM_FROM` and
//! `BEDSTONE_SIM_SEEDS` replace the usual seeds.

use bedstone_node::sim::plan::{Fault, MILLI, Planned, SECOND};
use bedstone_node::sim::scenario::Kinds;
use bedstone_node::sim::{Plan, Ran, run};

/// Seeds that failed once, each with its finding. Every test run includes them.
const FAILED_ONCE: &str = include_str!("../sim/failed-once.txt");

/// One seed in this many runs twice, and must have the same trace.
const TWICE: u64 = 100;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn go(plan: &Plan) -> Ran {
    run(plan).unwrap_or_else(|failure| panic!("{failure}\nreplay: {}", plan.command()))
}

#[test]
fn simulated_nodes_satisfy_all_checks_under_faults() {
    let (from, seeds) = (number("BEDSTONE_SIM_FROM", 0), number("BEDSTONE_SIM_SEEDS", 200));
    let mut all = Ran::default();
    for at in from..from + seeds {
        let plan = Plan::of(at);
        let ran = go(&plan);
        if at % TWICE == 0 {
            assert_eq!(ran.trace, go(&plan).trace, "seed {at} is not the same each time");
        }
        all.add(&ran);
    }
    let report = format!("whole nodes: seeds {from} to {}: {all}\n", from + seeds);
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/sim.txt");
    std::fs::write(path, &report).expect("the report can be written");
    eprint!("{report}");
}

#[test]
fn seeds_that_failed_once_pass() {
    let lines = FAILED_ONCE.lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let numbers: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
        let [seed, kinds] = numbers[..] else { panic!("no seed and number of kinds: {line}") };
        go(&Plan::of_kinds(seed, Kinds::First(kinds)));
    }
}

/// A node falls behind the log that the others keep. It is cut off again during the snapshot, for
/// so long that the connection ends.
fn cut_snapshots(seed: u64) -> Plan {
    let side = 1 << (1 + seed % 3);
    let (first, again) = (5 * SECOND, 4500 * MILLI);
    let mut at = 2 * SECOND;
    let faults = (0..4).map(|number| {
        let time = if number == 0 { first } else { again };
        let planned = Planned { number, at, fault: Fault::Partition { side, time } };
        at += time + 200 * MILLI + (seed / 3 % 10) * 50 * MILLI;
        planned
    });
    let faults = faults.collect();
    let (nodes, spares, clients, keys, think) = (3, 0, 6, 40, 2 * MILLI);
    Plan { nodes, spares, clients, keys, think, horizon: 24 * SECOND, faults, ..Plan::of(seed) }
}

#[test]
fn an_interrupted_snapshot_resumes() {
    let mut all = Ran::default();
    (0..12).for_each(|seed| all.add(&go(&cut_snapshots(seed))));
    assert!(all.resumed > 0, "no snapshot was resumed: {all}");
    eprintln!("snapshots that were cut short: {all}");
}
