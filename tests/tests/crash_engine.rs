//! Faults 5, 6 and 7 on the simulated disk. The power fails at a random operation; pages come back
//! kept, lost or torn, and directory entries are kept or lost. The recovered state must be a prefix
//! of the written state, and it must contain every acknowledged write.

use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::lsm::InLog;
use bedstone_engine::wal::{EntryKind, HardState, Log, Record, Vote};
use bedstone_engine::{
    Batch, Db, Disk, Engine, Index, LogId, Op, Options, ReplicaId, ShardId, Term, WriteMode,
    limits::Limits,
};
use bedstone_tests::rng::Rng;
use bedstone_tests::seeds;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[test]
fn an_engine_recovers_a_prefix_with_everything_acknowledged() {
    let (mut crash_points, mut moved) = (0, 0);
    for seed in seeds(1500) {
        moved += engine_life(seed);
        crash_points += LIVES;
    }
    eprintln!("{crash_points} crash points, {moved} found values in value files");
    assert!(moved > crash_points / 20, "values move to value files: {moved}");
}

const LIVES: u64 = 4;

/// Opens and crashes one store several times. Returns after how many crashes there were values in
/// value files.
fn engine_life(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let mut disk = MemoryDisk::new();
    let mut model = Model::new();
    let mut moved = 0;
    for life in 0..LIVES {
        disk.crash_after(rng.below(if life == 0 { 800 } else { 500 }));
        // The states that recovery may find: the acknowledged state, and the state after the write
        // in flight.
        let mut possible = vec![model.clone()];
        if let Ok(db) = Db::open_on(Arc::new(disk.clone()), Options::tiny()) {
            assert_eq!(dump(&db), model, "seed {seed}: opened without a crash");
            for _ in 0..200 {
                let (batch, next) = change(&mut rng, &model);
                let outcome = if rng.one_in(40) { db.flush() } else { Ok(()) };
                match outcome.and_then(|()| db.write(batch)) {
                    Ok(()) => model = next.clone(),
                    Err(_) => {
                        possible = vec![model.clone(), next];
                        break;
                    }
                }
                possible = vec![model.clone()];
                if rng.one_in(20) {
                    check_reads(&db, &model, &mut rng);
                }
            }
        }
        disk = disk.power_loss(rng.draw());
        let db = Db::open_on(Arc::new(disk.clone()), Options::tiny())
            .unwrap_or_else(|e| panic!("seed {seed}, life {life}: {e}"));
        let found = dump(&db);
        assert!(possible.contains(&found), "seed {seed}, life {life}: not a state that was");
        model = found;
        check_reads(&db, &model, &mut rng);
        let stats = db.engine().trees()[0].1.stats();
        moved += u64::from(stats.file_value_bytes > 0);
        db.engine().trees()[0].1.verify().unwrap();
    }
    moved
}

fn change(rng: &mut Rng, model: &Model) -> (Batch, Model) {
    let (mut batch, mut next) = (Batch::new(), model.clone());
    for _ in 0..=rng.below(4) {
        let key = format!("key{:03}", rng.below(120)).into_bytes();
        if rng.one_in(4) {
            batch.delete(&key);
            next.remove(&key);
        } else {
            // Large values stay in the log.
            let len = match rng.below(10) {
                0 => 3000,
                1..4 => 256 + rng.below(400) as usize,
                _ => rng.below(60) as usize,
            };
            let value = rng.bytes(len);
            batch.put(&key, &value);
            next.insert(key, value);
        }
    }
    (batch, next)
}

fn dump(db: &Db) -> Model {
    db.scan(..).map(|item| item.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect()
}

fn check_reads(db: &Db, model: &Model, rng: &mut Rng) {
    let snapshot = db.snapshot();
    for _ in 0..10 {
        let key = format!("key{:03}", rng.below(130)).into_bytes();
        let expected = model.get(&key).map(|value| &value[..]);
        assert_eq!(db.get(&key).unwrap().as_deref(), expected);
        assert_eq!(snapshot.get(&key).unwrap().as_deref(), expected);
    }
    let from = format!("key{:03}", rng.below(120)).into_bytes();
    let found: Vec<_> = snapshot.scan(from.clone()..).take(5).map(Result::unwrap).collect();
    let expected: Vec<_> = model.range(from..).take(5).collect();
    assert_eq!(found.len(), expected.len());
    for ((key, value), (model_key, model_value)) in found.iter().zip(expected) {
        assert_eq!((&key[..], &value[..]), (&model_key[..], &model_value[..]));
    }
}

/// The expected log of one shard.
#[derive(Clone, Debug, Default, PartialEq)]
struct ModelLog {
    base: LogId,
    entries: BTreeMap<Index, (Term, Vec<u8>)>,
    hard: HardState,
}

#[test]
fn a_log_of_many_shards_recovers_a_prefix_with_everything_acknowledged() {
    for seed in seeds(1500) {
        log_life(seed);
    }
}

fn log_life(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xF00D);
    let mut disk = MemoryDisk::new();
    let mut model: [ModelLog; 3] = Default::default();
    for life in 0..4 {
        disk.crash_after(rng.below(200));
        let mut possible = vec![model.clone()];
        if let Ok(log) = open_log(&disk) {
            for _ in 0..150 {
                let mut next = model.clone();
                let records = log_change(&mut rng, &mut next);
                match log.commit(&records) {
                    Ok(_) => model = next,
                    Err(_) => {
                        possible = vec![model.clone(), next];
                        break;
                    }
                }
                possible = vec![model.clone()];
            }
            assert!(log.entry_segments() < 30, "seed {seed}: slots are recycled");
        }
        disk = disk.power_loss(rng.draw());
        let log = open_log(&disk).unwrap_or_else(|e| panic!("seed {seed}, life {life}: {e}"));
        let found = [0, 1, 2].map(ShardId).map(|shard| read_log(&log, shard));
        assert!(possible.contains(&found), "seed {seed}, life {life}:\n{found:?}\n{possible:?}");
        model = found;
    }
}

fn open_log(disk: &MemoryDisk) -> bedstone_engine::Result<Log> {
    Log::open(Arc::new(disk.clone()), WriteMode::Pwrite, 7, Limits::TINY).map(|(log, _)| log)
}

fn log_change(rng: &mut Rng, model: &mut [ModelLog; 3]) -> Vec<Record> {
    let mut records = Vec::new();
    for _ in 0..=rng.below(3) {
        let at = rng.below(3) as usize;
        let (shard, log) = (ShardId(at as u64), &mut model[at]);
        let last = log.entries.keys().next_back().copied().unwrap_or(log.base.index);
        match rng.below(10) {
            0..6 => {
                // Sometimes the entries of a new leader replace a suffix.
                let first = if rng.one_in(4) { last.max(log.base.index + 1) } else { last + 1 };
                log.entries.split_off(&first);
                log.hard.term = (log.hard.term + rng.below(2)).max(Term(1));
                let term = log.hard.term;
                let datas: Vec<Vec<u8>> = (0..=rng.below(3))
                    .map(|_| {
                        let len = rng.below(5000) as usize;
                        rng.bytes(len)
                    })
                    .collect();
                for (i, data) in datas.iter().enumerate() {
                    log.entries.insert(first + i as u64, (term, data.clone()));
                }
                let entries = datas.into_iter().map(|data| (EntryKind::COMMANDS, data.into()));
                let first = LogId { term, index: first };
                records.push(Record::entries(shard, first, entries).unwrap());
            }
            6..8 => {
                log.hard.term += 1;
                log.hard.vote = Vote::For(ReplicaId(rng.below(3) + 1));
                log.hard.commit = last;
                records.push(Record::HardState { shard, state: log.hard });
            }
            8 if last > log.base.index => {
                let index = last - rng.below(last - log.base.index);
                let upto = LogId { term: log.entries[&index].0, index };
                log.entries = log.entries.split_off(&(index + 1));
                log.base = upto;
                records.push(Record::Release { shard, upto });
            }
            _ => {
                let index = last + rng.below(5) + 1;
                log.entries.clear();
                log.base = LogId { term: log.hard.term, index };
                records.push(Record::Reset { shard, at: log.base });
            }
        }
        // The hard state is written together with its entries, as Raft writes it.
        records.push(Record::HardState { shard, state: model[at].hard });
    }
    records
}

fn read_log(log: &Log, shard: ShardId) -> ModelLog {
    let (first, last) = log.bounds(shard);
    let entries = log.entries(shard, first, last.index + 1, usize::MAX).unwrap();
    for entry in &entries {
        assert_eq!(log.term(shard, entry.id.index), Some(entry.id.term));
    }
    let entries = entries.into_iter().map(|e| (e.id.index, (e.id.term, e.data.to_vec())));
    ModelLog { base: log.base(shard), entries: entries.collect(), hard: log.hard_state(shard) }
}

/// After a crash, the entries after the last flush are applied again and may read a value from
/// before these entries. A collection must not count such a value as overwritten.
#[test]
fn values_hidden_by_a_memtable_survive_collection_until_its_flush() {
    let disk = MemoryDisk::new();
    let open = || Engine::open(Arc::new(disk.clone()), Options::tiny()).expect("opens");
    let (engine, mut index) = (open(), 0);
    let tree = engine.open_shard(ShardId(1)).expect("a tree");
    let mut put = |key: &str, byte: u8| {
        index += 1;
        let (at, value) =
            (LogId { term: Term(1), index: Index(index) }, Bytes::from(vec![byte; 600]));
        let entry = Record::entries(ShardId(1), at, [(EntryKind::COMMANDS, value.clone())])
            .expect("a record");
        engine.log().commit(&[entry]).expect("commits");
        let place = engine.log().place(ShardId(1), at).expect("has a place");
        let in_log = InLog { data: &value, place };
        let op = Op::Put(Bytes::copy_from_slice(key.as_bytes()), value.clone());
        tree.apply(at, index, Some(in_log), [op]);
    };
    let flush = || {
        tree.freeze();
        while let Some(job) = tree.job() {
            tree.run(job).expect("runs");
        }
    };
    put("kept", 7);
    // The other values of the segment are overwritten, until the segment is a collection target.
    for round in 0..40 {
        (0..20).for_each(|key| put(&format!("other{key}"), round));
        flush();
    }
    let upto = tree.flushed();
    engine.log().commit(&[Record::Release { shard: ShardId(1), upto }]).expect("releases");
    engine.plan_collection();
    assert!(tree.is_collecting(), "a segment is a collection target");
    put("kept", 8);
    while let Some(job) = tree.job() {
        tree.run(job).expect("runs");
    }
    drop((tree, engine));
    let tree = open().open_shard(ShardId(1)).expect("a tree");
    assert_eq!(tree.flushed().index + 1, Index(index), "the last entry is to be applied again");
    let found = tree.get(b"kept").expect("readable").map(|value| value[0]);
    assert_eq!(found, Some(7), "as of the last flush");
}

#[test]
fn a_failed_sync_poisons_the_log_for_good() {
    let disk = MemoryDisk::new();
    let db = Db::open_on(Arc::new(disk.clone()), Options::tiny()).unwrap();
    let mut batch = Batch::new();
    batch.put(b"k", b"v");
    db.write(batch.clone()).unwrap();
    disk.fail_syncs_after(0);
    assert!(db.write(batch.clone()).is_err());
    disk.fail_syncs_after(u64::MAX / 2);
    let error = db.write(batch).unwrap_err();
    assert!(error.to_string().contains("the log stopped"), "{error}");
    assert_eq!(db.get(b"k").unwrap().as_deref(), Some(&b"v"[..]), "reads go on");
}

#[test]
fn a_full_disk_refuses_without_poisoning() {
    let disk = MemoryDisk::new();
    disk.limit_space(0);
    let error = Db::open_on(Arc::new(disk.clone()), Options::tiny()).err().unwrap();
    assert!(error.to_string().contains("bytes free"), "{error}");
}

#[test]
fn a_nearly_full_disk_accepts_deletes_and_recovers_by_itself() {
    let disk = MemoryDisk::new();
    let db = Db::open_on(Arc::new(disk.clone()), Options::tiny()).unwrap();
    let put = |key: &[u8]| {
        let mut batch = Batch::new();
        batch.put(key, &[7; 100]);
        db.write(batch)
    };
    put(b"a").unwrap();
    put(b"b").unwrap();
    disk.limit_space(100 << 10);
    // The free space is measured from time to time: the next write or the one after it is refused.
    let error = put(b"c").and_then(|()| put(b"c")).unwrap_err();
    assert!(matches!(error, bedstone_engine::Error::NoSpace { .. }), "{error}");
    let mut delete = Batch::new();
    delete.delete(b"a");
    db.write(delete.clone()).unwrap();
    db.flush().unwrap();
    assert_eq!(db.get(b"a").unwrap(), None);
    assert_eq!(db.get(b"b").unwrap().as_deref(), Some(&[7; 100][..]));
    disk.limit_space(u64::MAX);
    db.write(delete).unwrap();
    put(b"c").unwrap();
}

/// Compactions leave the log the space that deletes need, and run later when there is space again.
#[test]
fn compactions_wait_while_the_disk_is_nearly_full() {
    let (disk, options) = (MemoryDisk::new(), Options::tiny());
    let slots = 2 * options.limits.segment_bytes;
    let db = Db::open_on(Arc::new(disk.clone()), options).unwrap();
    let mut rng = Rng::new(5);
    let mut model = Model::new();
    let mut waited = 0;
    for round in 0..300u64 {
        // The disk fills up, and has more space from time to time.
        disk.limit_space(if round % 10 == 9 { u64::MAX } else { slots + rng.below(2 * slots) });
        for _ in 0..5 {
            let (batch, next) = change(&mut rng, &model);
            match db.write(batch) {
                Ok(()) => model = next,
                Err(error) => assert!(matches!(error, bedstone_engine::Error::NoSpace { .. })),
            }
        }
        let before = disk.free_bytes().unwrap();
        db.settle().unwrap();
        let after = disk.free_bytes().unwrap();
        assert!(after >= before.min(slots), "round {round}: merges left {after} of {before}");
        waited += u64::from(after < 2 * slots && after == before);
    }
    assert!(waited > 10, "{waited}");
    disk.limit_space(u64::MAX);
    db.settle().unwrap();
    assert_eq!(dump(&db), model);
}
