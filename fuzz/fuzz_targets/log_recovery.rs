//! A log with one damaged segment: recovery never panics, and every entry that it does not report
//! as missing can be read.
//!
//! Input: pairs of a place (u16, in units of 8 bytes) and 8 bytes to put at that place in a sound
//! segment.
#![no_main]

use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::limits::Limits;
use bedstone_engine::wal::{EntryKind, HardState, Log, Record, Vote};
use bedstone_engine::{Index, LogId, ReplicaId, ShardId, Term, WriteMode};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, OnceLock};

static SOUND: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();

fn sound() -> Vec<(String, Vec<u8>)> {
    let disk = MemoryDisk::new();
    let (log, _) =
        Log::open(Arc::new(disk.clone()), WriteMode::Pwrite, 7, Limits::TINY).expect("a new log");
    for index in 1..=12 {
        let shard = ShardId(index % 2);
        let first = LogId { term: Term(1 + index / 5), index: Index(index) };
        let data = vec![index as u8; 100 * index as usize];
        let state =
            HardState { term: first.term, vote: Vote::For(ReplicaId(1)), commit: first.index - 1 };
        let entries =
            Record::entries(shard, first, [(EntryKind::COMMANDS, data.into())]).expect("small");
        log.commit(&[entries, Record::HardState { shard, state }]).expect("memory works");
    }
    disk.files().into_iter().map(|path| (path.clone(), disk.bytes(&path).unwrap())).collect()
}

fuzz_target!(|input: &[u8]| {
    let disk = MemoryDisk::new();
    for (path, bytes) in SOUND.get_or_init(sound) {
        let mut bytes = bytes.clone();
        for patch in input.chunks_exact(10) {
            let at = usize::from(u16::from_le_bytes([patch[0], patch[1]])) * 8;
            if at + 8 <= bytes.len() {
                bytes[at..at + 8].copy_from_slice(&patch[2..]);
            }
        }
        disk.place(path, &bytes);
    }
    let opened = Log::open(Arc::new(disk.clone()), WriteMode::Pwrite, 7, Limits::TINY);
    if let Ok((log, _)) = opened {
        for shard in log.shards() {
            let (first, last) = log.bounds(shard);
            let missing = log.missing(shard).entries;
            // A damaged number can make a range of missing entries very long.
            for index in first.until(last.index + 1).take(1000) {
                let known = !missing.iter().any(|range| range.contains(&index));
                let found = log.entries(shard, index, index + 1, usize::MAX);
                assert_eq!(found.is_ok_and(|entries| entries.len() == 1), known);
            }
        }
    }
});
