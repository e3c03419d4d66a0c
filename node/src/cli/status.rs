//! `bedstone status`: shows the status that one node reports.

use super::http;
use super::output::print_line;
use crate::status::Status;
use anyhow::{Context, Result, bail};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(super) struct StatusArgs {
    /// HTTP address of any node of the cluster.
    #[arg(long, default_value = "127.0.0.1:7411", value_name = "ADDR")]
    http: String,
    /// Print the status as one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<()> {
    let (code, body) = http::get(&args.http, "/status", TIMEOUT)?;
    if code != 200 {
        bail!("http://{}/status answers {code}: {}", args.http, body.trim());
    }
    if args.json {
        print_line(body.trim_end());
        return Ok(());
    }
    let status: Status = serde_json::from_str(&body)
        .with_context(|| format!("http://{} is no Bedstone node of this version", args.http))?;
    print_line(format!("cluster {}, seen from node {}", status.cluster, status.node));
    print_line(format!("{:<6}{:<7}{:<22}{:<22}{}", "node", "state", "resp", "http", "peer"));
    for node in &status.nodes {
        let state = if node.alive { "up" } else { "down" };
        print_line(format!(
            "{:<6}{state:<7}{:<22}{:<22}{}",
            node.id, node.resp, node.http, node.peer
        ));
    }
    print_line(format!(
        "{:<7}{:<8}{:<11}{:<6}{:<10}{:<10}{}",
        "shard", "leader", "role here", "term", "commit", "applied", "entries behind"
    ));
    for shard in &status.shards {
        let lag = shard.lag.iter().map(|(node, lag)| format!("node {node}: {lag}"));
        let lag = lag.collect::<Vec<_>>().join(", ");
        print_line(format!(
            "{:<7}{:<8}{:<11}{:<6}{:<10}{:<10}{lag}",
            shard.id, shard.leader, shard.role, shard.term, shard.commit, shard.applied
        ));
    }
    for disk in &status.disks {
        print_line(format!(
            "disk {}: {}, {} MiB free, {} log segments ({} for values alone), writes {}",
            disk.path,
            disk.health,
            disk.free_bytes >> 20,
            disk.log_segments,
            disk.log_segments_for_values,
            disk.write_mode
        ));
    }
    if !status.ready {
        print_line(format!("not ready: {}", status.reason));
    }
    Ok(())
}
