//! Many seeds of Raft replicas, with faults and then without. `bedstone_tests::raft_world`
//! describes the events and the checks after every event.

use bedstone_engine::Index;
use bedstone_tests::raft_world::{Done, run};

#[test]
fn replicas_agree_under_network_faults() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let from = number("BEDSTONE_SIM_FROM").unwrap_or(0);
    let mut sum = Done::default();
    let seeds = number("BEDSTONE_SIM_SEEDS").unwrap_or(4000);
    for seed in from..from + seeds {
        let Ok(done) = std::panic::catch_unwind(|| run(seed)) else {
            panic!("BEDSTONE_SIM_FROM={seed} BEDSTONE_SIM_SEEDS=1 fails: see the message above");
        };
        sum.committed += done.committed.0;
        sum.reads += done.reads;
        sum.leased += done.leased;
        sum.confs += done.confs;
        sum.joint += done.joint;
        sum.snapshots += done.snapshots;
        sum.transfers += done.transfers;
        sum.losses += done.losses;
        sum.noticed += done.noticed;
    }
    let report = format!("{seeds} seeds of the Raft simulation: {sum:?}\n");
    eprint!("{report}");
    // The output of a test that passes is hidden, so the report is also written to a file.
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/raft-sim.txt"), report).unwrap();
    assert!(
        sum.committed > Index(10) && sum.reads > 10,
        "entries were committed and reads were served"
    );
}
