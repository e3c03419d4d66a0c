//! `bedstone log dump`: prints the records of the log as text or as JSON.

use super::output::print_line;
use anyhow::{Context, Result, bail};
use bedstone_engine::wal::Record;
use bedstone_engine::wal::format::FoundRecord;
use bedstone_engine::wal::format::{HeaderPage, SegmentHeader};
use bedstone_engine::wal::scan::{SlotImage, Verdict, scan};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub(super) struct DumpArgs {
    /// A log segment file (`*.seg`), or the data directory of a node.
    path: PathBuf,
    /// Print the records as one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DumpArgs) -> Result<ExitCode> {
    let mut segments = Vec::new();
    for file in files(&args.path)? {
        segments.push(read(&file)?);
    }
    segments.sort_by_key(|segment| segment["sequence"].as_u64());
    if args.json {
        print_line(json!({ "segments": segments }));
    } else {
        segments.iter().for_each(print);
    }
    let damaged = segments.iter().any(|segment| segment["end_is"] == "damage");
    Ok(ExitCode::from(u8::from(damaged)))
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let dir = if path.join("log").is_dir() { path.join("log") } else { path.to_owned() };
    let entries = std::fs::read_dir(&dir)
        .with_context(|| format!("{} is not a log segment or data directory", path.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "seg") {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("{} contains no log segments", path.display());
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Value> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.display().to_string();
    let header = match SegmentHeader::decode(&bytes) {
        HeaderPage::Sound(header) => header,
        HeaderPage::Version(version) => {
            bail!("{name} has format version {version}: use the bedstone version that wrote it");
        }
        HeaderPage::Unreadable => return Ok(json!({ "file": name, "end_is": "unused" })),
    };
    let image = SlotImage { number: 0, bytes: bytes.into() };
    let scan = scan(&image, &header, None);
    let blocks = scan.blocks().map(|block| {
        let records: Vec<Value> = block.records.iter().map(found).collect();
        json!({ "lsn": block.lsn.0, "durable": block.durable.0, "records": records })
    });
    let end_is = match scan.verdict {
        _ if !scan.is_sound() => "damage",
        Verdict::Sealed | Verdict::CleanEnd => "clean",
        Verdict::TornTail => "torn",
        Verdict::DamagedDurable => "damage",
    };
    Ok(json!({
        "file": name, "sequence": header.sequence, "previous_end": header.previous_end.0,
        "blocks": blocks.collect::<Vec<_>>(), "end": scan.end.0, "end_is": end_is,
    }))
}

fn found(found: &FoundRecord) -> Value {
    match &found.record {
        Some(record) => describe(record),
        None => json!({ "kind": "damaged", "shard": found.header.shard.0 }),
    }
}

fn describe(record: &Record) -> Value {
    match record {
        Record::Entries { shard, first, term, entries } => json!({
            "kind": "entries", "shard": shard.0, "first": first.0, "term": term.0,
            "count": entries.len(),
            "bytes": entries.iter().map(|entry| entry.data.len()).sum::<usize>(),
        }),
        Record::HardState { shard, state } => json!({
            "kind": "hard_state", "shard": shard.0, "term": state.term.0,
            "vote": state.vote.peer().map(|peer| peer.0), "commit": state.commit.0,
        }),
        Record::Release { shard, upto } => json!({
            "kind": "release", "shard": shard.0, "index": upto.index.0, "term": upto.term.0,
        }),
        Record::Reset { shard, at } => json!({
            "kind": "reset", "shard": shard.0, "index": at.index.0, "term": at.term.0,
        }),
        Record::Forget { shard } => json!({ "kind": "forget", "shard": shard.0 }),
        Record::Bounds { shard, base, last } => json!({
            "kind": "bounds", "shard": shard.0, "base": base.index.0, "last": last.index.0,
        }),
        Record::Members { shard, index, members } => json!({
            "kind": "members", "shard": shard.0, "index": index.0, "bytes": members.len(),
        }),
        Record::PossibleLoss { shard, segment, commit, entries, state } => json!({
            "kind": "possible_loss", "shard": shard.0, "segment": segment, "commit": commit.0,
            "entries": entries, "state": state,
        }),
    }
}

fn print(segment: &Value) {
    print_line(format!(
        "{}: sequence {}, ends {}",
        segment["file"], segment["sequence"], segment["end_is"]
    ));
    for block in segment["blocks"].as_array().into_iter().flatten() {
        print_line(format!("  block at {}, durable {}", block["lsn"], block["durable"]));
        for record in block["records"].as_array().into_iter().flatten() {
            let fields = record.as_object().into_iter().flatten().filter(|(key, _)| *key != "kind");
            let fields: Vec<String> = fields.map(|(key, value)| format!("{key} {value}")).collect();
            print_line(format!(
                "    {} {}",
                record["kind"].as_str().unwrap_or(""),
                fields.join(", ")
            ));
        }
    }
}
