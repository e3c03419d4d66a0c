//! Whole nodes in a simulated world; see `bedstone_node::sim`.

use bedstone_node::sim::{Plan, Ran, run};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn whole_nodes_keep_their_promises_in_a_bad_world() {
    let (from, seeds) = (number("BEDSTONE_SIM_FROM", 0), number("BEDSTONE_SIM_SEEDS", 200));
    let mut all = Ran::default();
    let mut failed = 0;
    for seed in from..from + seeds {
        match run(&Plan::of(seed)) {
            Ok(ran) => all.add(&ran),
            Err(failure) => {
                failed += 1;
                let text: String = failure.to_string().chars().take(1500).collect();
                eprintln!("seed {seed}: {text}");
            }
        }
    }
    eprintln!("{seeds} seeds: {all}");
    assert_eq!(failed, 0);
}
