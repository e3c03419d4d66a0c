//! Bugs planted in the Raft core, each in a copy of the core. The simulation must find every bug,
//! by a check that is meant for it. See `planted/raft.rs` for the bugs. `BEDSTONE_PLANTED=words`
//! plants only those with these words in their names.

// Generated copies of sources that are linted at their original place.
#![allow(warnings, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]

use std::any::Any;
use std::fmt::Write as _;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of seeds after which a bug counts as not found.
const SEEDS: u64 = 20_000;

include!(concat!(env!("OUT_DIR"), "/planted_raft.rs"));

fn message(panic: &dyn Any) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default()
}

fn first_line(said: &str) -> &str {
    said.lines().next().unwrap_or_default()
}

/// The first seed that finds a bug by a check that is meant for it, and the message of the check.
/// Otherwise the messages of other checks.
fn hunt(run: fn(u64), caught_by: &[&str]) -> Result<(u64, String), Vec<String>> {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let Err(panic) = catch_unwind(|| run(seed)) else { continue };
        let said = message(&*panic).to_owned();
        if caught_by.iter().any(|words| said.contains(words)) {
            return Ok((seed, said));
        }
        others.push(format!("seed {seed}: {said}"));
    }
    Err(others)
}

#[test]
fn every_bug_planted_in_the_core_is_found_by_its_check() {
    // The panics of found bugs are not printed.
    std::panic::set_hook(Box::new(|_| {}));
    let words = std::env::var("BEDSTONE_PLANTED").unwrap_or_default();
    let bugs: Vec<_> = BUGS.iter().filter(|(bug, ..)| bug.contains(&words)).collect();
    let next = AtomicUsize::new(0);
    let hunter = || {
        let mut found = Vec::new();
        while let Some(&&(bug, caught_by, run)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((bug, hunt(run, caught_by)));
        }
        found
    };
    let found = std::thread::scope(|scope| {
        let hunters = [scope.spawn(hunter), scope.spawn(hunter)];
        hunters.map(|hunter| hunter.join().expect("a hunter does not panic")).concat()
    });
    let _ = std::panic::take_hook();
    let mut report = format!("{} bugs planted in the Raft core\n", found.len());
    let mut escaped = 0;
    for (bug, found) in &found {
        let _ = match found {
            Ok((seed, said)) => writeln!(report, "{bug}: seed {seed}: {}", first_line(said)),
            Err(others) => {
                escaped += 1;
                let (count, other) = (others.len(), others.first());
                writeln!(report, "ESCAPED {bug}; other checks: {count}, {other:?}")
            }
        };
    }
    eprint!("{report}");
    // The output of a test that passes is hidden, so the report is also written to a file.
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/planted-raft.txt"), report).unwrap();
    assert_eq!(escaped, 0, "the number of bugs that were not found, of {}", found.len());
    assert!(BUGS.len() >= 20);
}
