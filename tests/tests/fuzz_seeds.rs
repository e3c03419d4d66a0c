//! The seeds of the fuzz targets: valid inputs, so that fuzzing begins behind the checksums. The
//! seeds are committed; `BEDSTONE_WRITE_SEEDS=1` writes them again after a change of a format.

use bedstone_engine::disk::Disk;
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::key::{NEVER, Value, Version};
use bedstone_engine::limits::{Codec, Limits};
use bedstone_engine::lsm::bounds::Bounds;
use bedstone_engine::lsm::manifest::{Edit, TreeState};
use bedstone_engine::lsm::ranges::RangeTombstone;
use bedstone_engine::table::{TableMeta, TableWriter};
use bedstone_engine::{Index, LogId, Term};
use bedstone_net::NodeId;
use bedstone_net::hello::Hello;
use bytes::Bytes;
use std::path::{Path, PathBuf};

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let disk = MemoryDisk::new();
    let mut writer = TableWriter::create(&disk, "t".into(), 1, &Limits::TINY, Codec::Lz4).unwrap();
    for i in 0..40u64 {
        let value = match i % 5 {
            0 => Value::Tombstone,
            _ => Value::Inline(Bytes::from(format!("value {i}"))),
        };
        let key = Bytes::from(format!("key{i:03}"));
        let expires = if i % 7 == 0 { 100 } else { NEVER };
        writer.add(&Version { key, ts: i + 1, expires, value }).unwrap();
    }
    writer.finish().unwrap();
    let mut file = vec![0; disk.open("t").unwrap().len().unwrap() as usize];
    disk.open("t").unwrap().read_at(0, &mut file).unwrap();
    let key = Bytes::from_static(b"a");
    let (smallest, largest) = (key.clone(), key.clone());
    let meta =
        TableMeta { number: 2, seed: 3, ts: Some(7), bytes: 9, smallest, largest, ts_max: 4 };
    let range = RangeTombstone { from: key.clone(), to: Bytes::from_static(b"z"), ts: 8 };
    let edit = Edit {
        state: TreeState {
            flushed: LogId { term: Term(1), index: Index(2) },
            ts_max: 3,
            now: 5,
            history_from: 2,
            next_number: 4,
            bounds: Bounds { from: Bytes::new(), to: Some(key) },
        },
        removed: vec![1],
        added: vec![(1, meta)],
        deleted: vec![(1, vec![range])],
    };
    let hello = Hello::new(NodeId(1), 2, "seed").frame();
    let resp =
        b"\x03*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\nPING \"a b\"\r\n*1\r\n$4\r\nQUIT\r\n";
    let ops = (0..240u32).flat_map(|i| [(i * 7 % 16) as u8, (i * 5) as u8, (i * 37) as u8]);
    vec![
        ("engine_ops", ops.collect()),
        ("log_recovery", [[0, 2, 1, 2, 3, 4, 5, 6, 7, 8], [8, 2, 0, 0, 0, 0, 0, 0, 0, 0]].concat()),
        ("table", [&[0], &file[..]].concat()),
        ("manifest", edit.encode()),
        ("net_frame", [&[7], &hello.header()[..], &hello.body[..]].concat()),
        ("raft_message", raft_messages()),
        ("resp_request", resp.to_vec()),
    ]
}

/// All Raft messages, from the pinned formats.
fn raft_messages() -> Vec<u8> {
    let golden = include_str!("../golden/formats.txt");
    let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
    let mut seed = Vec::new();
    let mut lines = golden.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(size) = line.strip_prefix("raft ").and_then(|rest| rest.split(": ").nth(1)) else {
            continue;
        };
        let len: u8 = size.trim_end_matches(" bytes").parse().unwrap();
        let mut message = Vec::new();
        while let Some(hex) = lines.next_if(|line| !line.contains(':')) {
            message.extend(hex.as_bytes().chunks(2).map(byte));
        }
        message.resize(usize::from(len), 0);
        seed.extend([len, 2]);
        seed.extend(message);
    }
    seed
}

#[test]
fn committed_fuzz_seeds_match_the_present_formats() {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (target, bytes) in seeds() {
        let path = root.join(target).join("sound");
        if std::env::var_os("BEDSTONE_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let committed = std::fs::read(&path).unwrap_or_default();
        assert!(
            committed == bytes,
            "{} is outdated: run with BEDSTONE_WRITE_SEEDS=1",
            path.display()
        );
    }
}
