//! Whole nodes in a simulated world; see `bedstone_node::sim`. `BEDSTONE_SIM_FROM` and
//! `BEDSTONE_SIM_SEEDS` choose others than the usual seeds.

use bedstone_node::sim::{Plan, Ran, run};

/// Seeds that failed once, with what they found. They are run for ever.
const FAILED_ONCE: &str = include_str!("../sim/failed-once.txt");

/// One in so many seeds is run twice, and must do the same.
const TWICE: u64 = 100;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn go(plan: &Plan) -> Ran {
    run(plan).unwrap_or_else(|failure| panic!("{failure}\nreplay: {}", plan.command()))
}

#[test]
fn whole_nodes_keep_their_promises_in_a_bad_world() {
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
fn what_failed_once_does_not_again() {
    let lines = FAILED_ONCE.lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let numbers: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
        let [seed, kinds] = numbers[..] else { panic!("no seed and number of kinds: {line}") };
        go(&Plan::of_kinds(seed, kinds));
    }
}
