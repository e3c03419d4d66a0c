//! `bedstone check`: reads and verifies all data on the disk of a stopped node.

use super::output::print_line;
use crate::bootstrap;
use anyhow::{Result, bail};
use bedstone_engine::check::{Finding, check_disk};
use bedstone_engine::disk::os::OsDisk;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(super) struct CheckArgs {
    /// The data directory of a node. The node must be stopped.
    dir: PathBuf,
    /// Print the report as one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode> {
    if !args.dir.is_dir() {
        bail!("{} is not a directory: give the data directory of a node", args.dir.display());
    }
    let disk = OsDisk::open(&args.dir)?;
    let report = check_disk(&disk)?;
    let mut damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    damage.extend(bootstrap::read(&disk).err().map(|error| error.to_string()));
    let damaged = !damage.is_empty();
    if args.json {
        print_line(json!({
            "owner": report.owner, "segments": report.segments, "log_blocks": report.blocks,
            "tables": report.tables, "value_files": report.value_files,
            "versions": report.versions, "torn_tail": report.torn,
            "damage": damage,
        }));
    } else {
        let Finding { owner, segments, blocks, tables, versions, value_files, .. } = &report;
        print_line(format!("data of {owner}"));
        print_line(format!(
            "log: {segments} segments, {blocks} blocks; {tables} tables, \
             {value_files} value files, \
             {versions} versions"
        ));
        if report.torn {
            print_line(
                "the last write is incomplete and was never acknowledged; the next start drops it",
            );
        }
        damage.iter().for_each(print_line);
        print_line(if damaged { "damaged" } else { "sound" });
    }
    Ok(ExitCode::from(u8::from(damaged)))
}
