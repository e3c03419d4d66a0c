//! Transcripts of the Raft core in every situation of the protocol; see `scripts/raft/README.md`.
//! `BEDSTONE_WRITE_GOLDEN=1` writes the new output; read it before you commit it.
//! `BEDSTONE_RAFT_TRACE=DIR` writes a trace of each script to that directory, as JSON.

use bedstone_tests::raft_script::{trace, transcript};
use std::fs;

#[test]
fn transcripts_match_the_output_of_the_core() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/raft");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let mut wrong = Vec::new();
    for path in &paths {
        let script = fs::read_to_string(path).unwrap();
        let found = transcript(&script);
        if std::env::var_os("BEDSTONE_WRITE_GOLDEN").is_some() {
            fs::write(path, &found).unwrap();
        } else if let Some((line, (said, found))) =
            script.lines().zip(found.lines()).enumerate().find(|(_, (said, found))| said != found)
        {
            let name = path.display();
            wrong.push(format!("{name}:{}\n  script: {said}\n  found:  {found}", line + 1));
        } else if script.lines().count() != found.lines().count() {
            wrong.push(format!("{}: script and output have different lengths", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(paths.len() >= 20, "{} scripts", paths.len());
}

/// The events in the trace of etcd-io/raft.
const EVENTS: [&str; 17] = [
    "InitState",
    "BecomeCandidate",
    "BecomeFollower",
    "BecomeLeader",
    "Commit",
    "Replicate",
    "ChangeConf",
    "ApplyConfChange",
    "Ready",
    "SendAppendEntriesRequest",
    "ReceiveAppendEntriesRequest",
    "SendAppendEntriesResponse",
    "ReceiveAppendEntriesResponse",
    "SendRequestVoteRequest",
    "ReceiveRequestVoteRequest",
    "SendRequestVoteResponse",
    "ReceiveRequestVoteResponse",
];

#[test]
fn every_transcript_has_a_trace_for_a_model_checker() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/raft");
    let mut seen = std::collections::BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let lines = trace(&fs::read_to_string(&path).unwrap());
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
            let event = &line["event"];
            let name = EVENTS.iter().find(|name| event["name"] == **name);
            seen.insert(*name.unwrap_or_else(|| panic!("{} is not an event", event["name"])));
            assert!(event["nid"].is_string() && event["role"].is_string());
            assert!(event["state"]["term"].is_u64() && event["state"]["commit"].is_u64());
            assert!(event["log"].is_u64() && event["conf"][0].is_array());
        }
        if let Some(to) = std::env::var_os("BEDSTONE_RAFT_TRACE") {
            let name = path.with_extension("ndjson");
            let name = name.file_name().expect("a script has a name");
            fs::write(std::path::Path::new(&to).join(name), lines).unwrap();
        }
    }
    assert_eq!(seen.len(), EVENTS.len(), "a kind of event did not occur: {seen:?}");
}
