//! The command line of `bedstone`.

mod bench;
mod check;
mod dev;
mod http;
mod log_dump;
mod output;
mod shard;
mod simulate;
mod status;

use crate::config::Settings;
use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// A replicated key-value storage node.
#[derive(Parser)]
#[command(name = "bedstone", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one node.
    #[command(after_help = "Example:\n  bedstone start --disk ./data --resp 127.0.0.1:7410")]
    Start(Box<StartArgs>),
    /// Run a cluster on this machine, for development.
    #[command(after_help = "Example:\n  bedstone dev --nodes 3 --data ./bedstone-dev")]
    Dev(dev::DevArgs),
    /// Show the nodes, shards, leaders, follower lag and disks that one node reports.
    #[command(after_help = "Example:\n  bedstone status --http 127.0.0.1:7411 --json")]
    Status(status::StatusArgs),
    /// Send load to a cluster and measure throughput and latency.
    #[command(
        after_help = "Example:\n  bedstone bench --resp 127.0.0.1:7410,127.0.0.1:7420 --ops put \
                      --clients 64 --duration 10s"
    )]
    Bench(bench::BenchArgs),
    /// Verify the data of a stopped node.
    #[command(after_help = "Example:\n  bedstone check ./bedstone-data")]
    Check(check::CheckArgs),
    /// Inspect the log of a node.
    #[command(after_help = "Example:\n  bedstone log dump ./bedstone-data --json")]
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Show and change the members and the leader of a shard.
    #[command(after_help = "Example:\n  bedstone shard members --learner 4")]
    Shard {
        #[command(subcommand)]
        command: shard::ShardCommand,
    },
    /// Run simulated clusters with faults; each run follows from a seed.
    #[command(
        after_help = "Example:\n  bedstone simulate --seeds 100\n  bedstone simulate --seed 7"
    )]
    Simulate(simulate::SimulateArgs),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  bedstone completions bash > /etc/bash_completion.d/bedstone"
    )]
    Completions {
        /// The shell that reads the script.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum LogCommand {
    /// Print the records of a segment, or of all segments of a data directory.
    #[command(after_help = "Example:\n  bedstone log dump ./bedstone-data --json")]
    Dump(log_dump::DumpArgs),
}

#[derive(clap::Args)]
struct StartArgs {
    /// Configuration file (TOML). A flag overrides a BEDSTONE_ variable, which overrides the file.
    #[arg(long, value_name = "FILE", env = "BEDSTONE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the command line. The exit status is 0 on success, 1 when the command failed and 2 when the
/// command line or the configuration is wrong.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // Data, keys and configurations are readable by the user of the process alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bedstone: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Start(args) => start(*args)?,
        Command::Dev(args) => dev::run(args)?,
        Command::Status(args) => status::run(&args)?,
        Command::Bench(args) => return bench::run(args),
        Command::Check(args) => return check::run(&args),
        Command::Log { command: LogCommand::Dump(args) } => return log_dump::run(&args),
        Command::Shard { command } => shard::run(&command)?,
        Command::Simulate(args) => return simulate::run(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "bedstone", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn start(args: StartArgs) -> Result<()> {
    Settings::refuse_renamed_variables(|name| std::env::var_os(name).is_some())?;
    let file = args.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let config = match args.settings.or(file).check() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("bedstone: {error:#}");
            std::process::exit(2);
        }
    };
    log_to_stderr();
    crate::start::run(config)
}

/// Writes logs to standard error. `BEDSTONE_LOG` sets the filter; the default is `info`.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BEDSTONE_LOG")
        .unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
