//! A thousand idle shards on one disk use little memory. The test measures its own process, so it
//! has a file of its own.

use bedstone_engine::disk::os::OsDisk;
use bedstone_engine::limits::Limits;
use bedstone_engine::{Engine, Index, LogId, Op, Options, ShardId, Term};
use bytes::Bytes;
use std::sync::Arc;

const SHARDS: u64 = 1000;
const MIB: usize = 1 << 20;

/// The resident memory of this process that no file backs, in bytes.
fn anonymous_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn a_thousand_idle_shards_cost_less_than_100_mib() {
    // The memory that the creation of the shards used counts too, because freed memory is not
    // always returned.
    let before = anonymous_bytes();
    let dir = tempfile::tempdir().unwrap();
    // Each shard has an open manifest and an open table.
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limits.maximum, ..limits };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let options = || Options { limits: Limits::DEFAULT, ..Options::default() };
    let open = || Engine::open(Arc::new(OsDisk::open(dir.path()).unwrap()), options()).unwrap();
    {
        let engine = open();
        for shard in 1..=SHARDS {
            let tree = engine.open_shard(ShardId(shard)).unwrap();
            for index in 1..=20 {
                let key = Bytes::from(format!("key{index:04}"));
                let op = Op::Put(key, Bytes::from(vec![index as u8; 200]));
                tree.apply(LogId { term: Term(1), index: Index(index) }, index, None, [op]);
            }
            tree.flush_all().unwrap();
        }
    }
    let engine = open();
    let idle = anonymous_bytes() - before;
    eprintln!("{SHARDS} idle shards: {} KiB of memory", idle >> 10);
    assert!(idle < 100 * MIB, "{idle} bytes");
    // Maintenance of idle shards uses no further memory.
    (0..10).for_each(|_| engine.plan_collection());
    engine.relieve_memory();
    assert!(anonymous_bytes() - before < 100 * MIB);
    assert_eq!(engine.tree(ShardId(77)).unwrap().get(b"key0007").unwrap().unwrap().len(), 200);
}

/// The memtables of all shards share one budget. The largest memtables are flushed when half of the
/// budget is used.
#[test]
fn memtables_share_one_budget() {
    let dir = tempfile::tempdir().unwrap();
    let memtable_bytes = 128 << 10;
    let limits = Limits { memtable_bytes, memtables_bytes: 4 * MIB, ..Limits::DEFAULT };
    let options = Options { limits, ..Options::default() };
    let engine = Engine::open(Arc::new(OsDisk::open(dir.path()).unwrap()), options).unwrap();
    let mut most = 0;
    for round in 1..=200 {
        for shard in 1..=20 {
            let tree = engine.open_shard(ShardId(shard)).unwrap();
            let key = Bytes::from(format!("key{round:04}"));
            // Some shards receive more data than others.
            let value = Bytes::from(vec![7; 200 * shard as usize]);
            tree.apply(
                LogId { term: Term(1), index: Index(round) },
                round,
                None,
                [Op::Put(key, value)],
            );
        }
        engine.relieve_memory();
        for (_, tree) in engine.trees() {
            while let Some(job) = tree.job() {
                tree.run(job).unwrap();
            }
        }
        most = most.max(engine.memory().used());
    }
    assert!(most <= 2 * MIB, "{most} bytes after relief");
    let flushed = engine.trees().iter().filter(|(_, tree)| tree.flushed().index > Index(0)).count();
    assert!(flushed > 5, "{flushed} shards were flushed");
    let used: usize = engine.trees().iter().map(|(_, tree)| tree.stats().memtable_bytes).sum();
    assert_eq!(engine.memory().used(), used, "the budget counts the bytes of all memtables");
}
