//! Measures the storage engine beside its peers, in one interleaved run.
//!
//! ```sh
//! apt-get install -y librocksdb-dev libclang-dev clang
//! cargo run --release -- compare --stores bedstone,rocksdb,fjall-kv --value 1024
//! ```
//!
//! Each store gets the same memory and no compression. The stores take turns, stage by stage and
//! round by round. Each stage is a separate process, so that its processor time and memory are
//! those of the store alone. `--workloads` accepts names or families of them:
//!
//! | workload | operations |
//! |---|---|
//! | `load_seq`, `load_rand` | writes of every key once, in order or not, unsynced batches of 100 |
//! | `overwrite` | as many writes to random keys |
//! | `read_hit`, `read_miss` | random reads of present or absent keys, with a warm cache |
//! | `scan100` | reads of a hundred values from a random key on |
//! | `mixed` | two threads that each alternate reads and batched writes |
//! | `sync1`, `sync16`, `sync64` | 1, 16 or 64 threads, each with one synced write at a time |
//! | `log1`, … and `log1v`, … | the log alone, entries of 256 and of `--value` bytes |
//! | `reopen` | the opening after a kill |
//!
//! For `load`, `overwrite` and `mixed`, the bytes of the device and the processor time include the
//! flush and compaction that the writes cause, also after the last write. Throughput does not
//! include them; `settle s` gives their duration. For `sync` and `log` all figures end with the
//! last write. Their logs were filled once before, so that every store that can recycle logs does
//! so. Memory counts the pages that belong to no file, so the pages of LMDB are not counted.

mod bedstone;
mod engines;
mod fjall;
mod lmdb;
mod measure;
mod plot;
mod raft_log;
mod redb;
mod report;
mod rocks;
mod store;
mod workload;

use clap::{Parser, Subcommand};
use report::Report;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use workload::{GROUPS, Outcome, Shape};

const KILLED: i32 = 9;

#[derive(Parser)]
#[command(about = "Measures the storage engine beside its peers")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every stage on every store, each stage in a separate process
    Compare {
        /// Stores to compare
        #[arg(long, value_delimiter = ',', default_value = "bedstone,rocksdb,fjall-kv",
              value_parser = clap::builder::PossibleValuesParser::new(engines::NAMES))]
        stores: Vec<String>,
        /// Workloads or families of them
        #[arg(long, value_delimiter = ',', default_value = "all")]
        workloads: Vec<String>,
        /// Number of rounds; the figures are medians over the rounds
        #[arg(long, default_value_t = 3)]
        rounds: u64,
        /// Directory of the stores, on the device to be measured
        #[arg(long, default_value = "engines-data")]
        dir: PathBuf,
        /// File for the figures
        #[arg(long, default_value = "engines.json")]
        json: PathBuf,
        #[command(flatten)]
        shape: Shape,
    },
    /// Run one stage on one store and print its figures, one line of JSON per workload
    Run {
        /// The store
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(engines::NAMES))]
        store: String,
        /// Workloads of one stage
        #[arg(long, value_delimiter = ',', required = true)]
        workloads: Vec<String>,
        /// The store's directory
        #[arg(long)]
        dir: PathBuf,
        #[command(flatten)]
        shape: Shape,
    },
    /// Draw the figures of `compare`
    Plot {
        /// File with the figures
        #[arg(long, default_value = "engines.json")]
        json: PathBuf,
        /// File for the drawing
        #[arg(long, default_value = "engines.svg")]
        out: PathBuf,
        /// The figure to draw
        #[arg(long, default_value = "ops_per_s")]
        metric: String,
        /// The store that is not a peer
        #[arg(long, default_value = "bedstone")]
        ours: String,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Compare { stores, workloads, rounds, dir, json, shape } => {
            compare(&stores, &workloads, rounds, &dir, &json, shape)
        }
        Task::Run { store, workloads, dir, shape } => {
            for outcome in workload::run(&store, &workloads, &dir, &shape) {
                println!("{}", serde_json::to_string(&outcome).expect("plain figures"));
            }
            Ok(())
        }
        Task::Plot { json, out, metric, ours } => draw(&json, &out, &metric, &ours),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("engines: {error}");
            ExitCode::FAILURE
        }
    }
}

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn compare(
    stores: &[String],
    asked: &[String],
    rounds: u64,
    dir: &Path,
    json: &Path,
    shape: Shape,
) -> Fallible<()> {
    let known: Vec<&str> = GROUPS.iter().flat_map(|group| group.concat()).collect();
    if let Some(name) = asked.iter().find(|a| !known.iter().any(|name| workload::selects(a, name)))
    {
        return Err(format!("no workload is named {name:?}; there are {}", known.join(", ")).into());
    }
    let mut report = Report::new(shape.clone());
    for round in 0..rounds {
        let shape = Shape { seed: shape.seed + round, ..shape.clone() };
        for group in GROUPS {
            for store in stores {
                let place = dir.join(store);
                remove(&place)?;
                for stage in workload::stages(group, store, asked) {
                    eprintln!("round {}: {store}: {}", round + 1, stage.join(", "));
                    let Some(outcomes) = run_apart(store, &stage, &place, &shape)? else { break };
                    let wanted =
                        |o: &Outcome| asked.iter().any(|a| workload::selects(a, &o.workload));
                    outcomes.into_iter().filter(wanted).for_each(|o| report.add(store, o));
                }
                remove(&place)?;
            }
        }
    }
    report.finish();
    std::fs::write(json, serde_json::to_string_pretty(&report)?)?;
    print!("{}", report.table());
    Ok(())
}

/// Runs one stage in a separate process; `None` when the stage failed.
fn run_apart(
    store: &str,
    workloads: &[&str],
    dir: &Path,
    shape: &Shape,
) -> Fallible<Option<Vec<Outcome>>> {
    let output = Command::new(std::env::current_exe()?)
        .args(["run", "--store", store, "--workloads", &workloads.join(","), "--dir"])
        .arg(dir)
        .args(shape.arguments())
        .stderr(Stdio::inherit())
        .output()?;
    let killed_itself = workloads == ["reopen_fill"] && output.status.signal() == Some(KILLED);
    if !output.status.success() && !killed_itself {
        eprintln!("{store}: {} failed, {}", workloads.join(", "), output.status);
        return Ok(None);
    }
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    Ok(Some(lines.map(serde_json::from_str).collect::<Result<_, _>>()?))
}

fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn draw(json: &Path, out: &Path, metric: &str, ours: &str) -> Fallible<()> {
    let report: Report = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    std::fs::write(out, plot::svg(&report, metric, ours))?;
    Ok(())
}
