//! `bedstone simulate`: runs clusters of complete nodes in a simulated world.

use super::output::print_line;
use crate::clock;
use crate::sim::scenario::{KINDS, Kinds, Scenario};
use crate::sim::{Plan, Ran, run as run_plan, shrink::shrink};
use anyhow::{Result, bail};
use std::process::ExitCode;
use std::time::Duration;

/// The seeds to run, and the changes to the plan of each seed.
#[derive(clap::Args)]
pub(super) struct SimulateArgs {
    /// The first seed. Without --seeds and --minutes, the only seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of seeds to run [default: 1, or as many as fit into --minutes].
    #[arg(long)]
    seeds: Option<u64>,
    /// Start no further seed after this many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Draw from the first N kinds of faults only. A seed of a version with N kinds then gives the
    /// plan of that version.
    #[arg(long, value_name = "N", default_value_t = KINDS)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=KINDS))]
    kinds: u64,
    /// Draw from the faults of this scenario only.
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "kinds")]
    scenario: Option<Scenario>,
    /// Run only these faults of the seed, by number, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "N,…", num_args = 0..)]
    faults: Option<Vec<usize>>,
    /// Number of initial voters [default: drawn from the seed].
    #[arg(long)]
    nodes: Option<u64>,
    /// Number of nodes that are no members at first [default: drawn from the seed].
    #[arg(long)]
    spares: Option<u64>,
    /// Number of clients [default: drawn from the seed].
    #[arg(long)]
    clients: Option<u64>,
    /// Number of keys of each kind [default: drawn from the seed].
    #[arg(long)]
    keys: Option<u64>,
    /// Microseconds of simulated time until all faults end [default: drawn from the seed].
    #[arg(long)]
    horizon: Option<u64>,
    /// After a failure, do not search for a smaller plan that fails in the same way.
    #[arg(long)]
    no_shrink: bool,
    /// Print the plan of each seed before the run.
    #[arg(long)]
    plan: bool,
}

impl SimulateArgs {
    fn plan(&self, seed: u64) -> Result<Plan> {
        let mut plan =
            Plan::of_kinds(seed, self.scenario.map_or(Kinds::First(self.kinds), Kinds::Of));
        if let Some(faults) = &self.faults {
            if let Some(none) = faults.iter().find(|&&number| number >= plan.faults.len()) {
                bail!("seed {seed} has no fault {none}: it has {}", plan.faults.len());
            }
            plan.faults.retain(|planned| faults.contains(&planned.number));
        }
        plan.nodes = self.nodes.unwrap_or(plan.nodes);
        plan.spares = self.spares.unwrap_or(plan.spares);
        plan.clients = self.clients.unwrap_or(plan.clients);
        plan.keys = self.keys.unwrap_or(plan.keys);
        plan.horizon = self.horizon.unwrap_or(plan.horizon);
        if [plan.nodes, plan.clients, plan.keys].contains(&0) {
            bail!("--nodes, --clients and --keys must be 1 or more");
        }
        Ok(plan)
    }
}

/// Runs the seeds. The exit status is 1 when a guarantee did not hold.
pub(super) fn run(args: &SimulateArgs) -> Result<ExitCode> {
    let until = args.minutes.map(|minutes| clock::now() + Duration::from_secs(60 * minutes));
    let seeds = args.seeds.unwrap_or(if until.is_some() { u64::MAX - args.seed } else { 1 });
    let (mut all, mut count) = (Ran::default(), 0);
    for seed in args.seed..args.seed + seeds {
        if until.is_some_and(|until| clock::now() >= until) {
            break;
        }
        let plan = args.plan(seed)?;
        if args.plan {
            print_line(format!("{plan:#?}"));
        }
        let failure = match run_plan(&plan) {
            Ok(ran) => {
                all.add(&ran);
                count += 1;
                continue;
            }
            Err(failure) => failure,
        };
        print_line(format!("seed {seed} fails: {failure}"));
        print_line(format!("replay: {}", plan.command()));
        if !args.no_shrink {
            let (small, failure) = shrink(&plan, &failure);
            print_line(format!("smaller: {}", small.command()));
            for planned in &small.faults {
                print_line(format!("  {:.3} s: {:?}", planned.at as f64 / 1e6, planned.fault));
            }
            print_line(failure);
        }
        return Ok(ExitCode::from(1));
    }
    print_line(format!("{count} seeds: {all}"));
    Ok(ExitCode::SUCCESS)
}
