//! Shards as files: split, checkpointed, installed and dropped, while the power fails at any
//! operation of the disk. Each operation takes effect as a whole or not at all, and can be
//! repeated.

use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::key::{is_system, space};
use bedstone_engine::wal::{EntryKind, HardState, Record, Vote};
use bedstone_engine::{Engine, Error, Index, LogId, Op, Options, ShardId, Term, Tree};
use bedstone_tests::rng::Rng;
use bedstone_tests::seeds;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A stored key of a space, always of six bytes.
fn stored(space: u8, number: u64) -> Vec<u8> {
    [&[space], format!("ke{number:03}").as_bytes()].concat()
}

fn open(disk: &MemoryDisk) -> Result<Engine, Error> {
    Engine::open(Arc::new(disk.clone()), Options::tiny())
}

fn dump(tree: &Tree) -> Result<Model, Error> {
    tree.scan(..).map(|item| item.map(|(k, v)| (k.to_vec(), v.to_vec()))).collect()
}

/// Writes entries to a shard's log and applies them, as a node does.
fn write(engine: &Engine, shard: ShardId, rng: &mut Rng, model: &mut Model) -> Result<(), Error> {
    let tree = engine.open_shard(shard)?;
    let bounds = tree.bounds();
    for _ in 0..rng.below(40) {
        let id = LogId { term: Term(1), index: tree.applied().index + 1 };
        // A seventh of the keys are records of the shard itself, which no bounds limit.
        let first = if rng.one_in(7) { space::SYSTEM } else { space::USER };
        let key = stored(first, rng.below(200));
        if !bounds.contains(&key) {
            continue;
        }
        let len = rng.below(700) as usize;
        let value = rng.bytes(len);
        let data = Bytes::from([&key[..], &value[..]].concat());
        let entry = Record::entries(shard, id, [(EntryKind::COMMANDS, data.clone())])?;
        let state = HardState { term: Term(1), vote: Vote::None, commit: id.index };
        engine.log().commit(&[entry, Record::HardState { shard, state }])?;
        let place = engine.log().place(shard, id);
        let in_log = place.map(|place| bedstone_engine::lsm::InLog { data: &data, place });
        let op = Op::Put(data.slice(..key.len()), data.slice(key.len()..));
        tree.apply(id, tree.ts() + 1, in_log, [op]);
        model.insert(key, value);
        while let Some(job) = tree.job() {
            tree.run(job)?;
        }
        let upto = tree.flushed();
        if upto.index > engine.log().base(shard).index {
            engine.log().commit(&[Record::Release { shard, upto }])?;
        }
    }
    engine.plan_collection();
    Ok(())
}

/// Applies the entries of a shard's log that its tree lacks, as a node does at a start.
fn catch_up(engine: &Engine, shard: ShardId) -> Result<(), Error> {
    let tree = engine.open_shard(shard)?;
    let (_, last) = engine.log().bounds(shard);
    let first = tree.applied().index + 1;
    for entry in engine.log().entries(shard, first, last.index + 1, usize::MAX)? {
        let op = Op::Put(entry.data.slice(..6), entry.data.slice(6..));
        tree.apply(entry.id, tree.ts() + 1, None, [op]);
    }
    Ok(())
}

#[test]
fn a_split_is_atomic_across_power_failures() {
    for seed in seeds(250) {
        let mut rng = Rng::new(seed ^ 0x5711);
        let disk = MemoryDisk::new();
        let engine = open(&disk).unwrap();
        let mut model = Model::new();
        (0..3).for_each(|_| write(&engine, ShardId(1), &mut rng, &mut model).unwrap());
        let at = stored(space::USER, rng.below(200));
        let start = LogId { term: Term(5), index: Index(5) };
        disk.crash_after(rng.below(60));
        let split = engine.split_shard(ShardId(1), &at, ShardId(2), start);
        let done = split.is_ok();
        drop((split, engine));
        let disk = disk.power_loss(rng.draw());
        let engine = open(&disk).unwrap();
        catch_up(&engine, ShardId(1)).unwrap();
        let mut upper = model.split_off(&at);
        let system = || model.clone().into_iter().filter(|(key, _)| is_system(key));
        let low = engine.tree(ShardId(1)).unwrap();
        if !done && low.bounds().to.is_none() {
            let whole: Model = model.clone().into_iter().chain(upper.clone()).collect();
            assert!(dump(&low).unwrap() == whole, "seed {seed}: not split yet");
        }
        // Both parts have the records of the shard itself.
        upper.extend(system());
        let high = engine.split_shard(ShardId(1), &at, ShardId(2), start).unwrap();
        assert!(dump(&low).unwrap() == model, "seed {seed}: the lower part");
        assert!(dump(&high).unwrap() == upper, "seed {seed}: the upper part");
        // Changes of one part do not affect the other part, also when the other part is dropped.
        for _ in 0..3 {
            write(&engine, ShardId(1), &mut rng, &mut model).unwrap();
            write(&engine, ShardId(2), &mut rng, &mut upper).unwrap();
        }
        assert!(dump(&low).unwrap() == model, "seed {seed}: the lower part later");
        assert!(dump(&high).unwrap() == upper, "seed {seed}: the upper part later");
        if rng.one_in(2) {
            drop((low, high));
            engine.drop_shard(ShardId(1)).unwrap();
            let high = engine.tree(ShardId(2)).unwrap();
            assert!(dump(&high).unwrap() == upper, "seed {seed}: the lower part went");
            high.verify().unwrap();
        }
        drop(engine);
        let engine = open(&disk.power_loss(rng.draw())).unwrap();
        catch_up(&engine, ShardId(2)).unwrap();
        let high = engine.tree(ShardId(2)).unwrap();
        assert!(dump(&high).unwrap() == upper, "seed {seed}: after a new start");
        for job in std::iter::from_fn(|| high.job()) {
            high.run(job).unwrap();
        }
        assert!(high.job().is_none() && dump(&high).unwrap() == upper, "seed {seed}: settled");
        let foreign = high.bounds().from;
        assert!(high.verify().is_ok() && foreign == at, "seed {seed}");
    }
}

#[test]
fn a_dropped_shard_is_absent_or_complete_after_a_power_failure() {
    let mut gone = 0;
    for seed in seeds(250) {
        let mut rng = Rng::new(seed ^ 0xD209);
        let disk = MemoryDisk::new();
        let engine = open(&disk).unwrap();
        let mut models = [Model::new(), Model::new()];
        for _ in 0..3 {
            write(&engine, ShardId(1), &mut rng, &mut models[0]).unwrap();
            write(&engine, ShardId(2), &mut rng, &mut models[1]).unwrap();
        }
        disk.crash_after(rng.below(25));
        let dropped = engine.drop_shard(ShardId(1)).is_ok();
        drop(engine);
        let disk = disk.power_loss(rng.draw());
        let engine = open(&disk).unwrap();
        match engine.tree(ShardId(1)) {
            Some(tree) => {
                assert!(!dropped, "seed {seed}: it came back");
                catch_up(&engine, ShardId(1)).unwrap();
                assert!(dump(&tree).unwrap() == models[0], "seed {seed}: half of it");
            }
            None => {
                gone += 1;
                assert!(
                    !engine.log().shards().contains(&ShardId(1)),
                    "seed {seed}: its log is there"
                );
                let files = disk.files();
                assert!(!files.iter().any(|path| path.starts_with("shards/1/")), "{files:?}");
            }
        }
        catch_up(&engine, ShardId(2)).unwrap();
        assert!(
            dump(&engine.tree(ShardId(2)).unwrap()).unwrap() == models[1],
            "seed {seed}: the other"
        );
    }
    assert!(gone > 100, "{gone}");
}

#[test]
fn an_installed_checkpoint_replaces_the_shard_atomically() {
    let mut installed = 0;
    for seed in seeds(250) {
        let mut rng = Rng::new(seed ^ 0x1257);
        let disk = MemoryDisk::new();
        let engine = open(&disk).unwrap();
        let mut models = [Model::new(), Model::new()];
        for _ in 0..3 {
            write(&engine, ShardId(1), &mut rng, &mut models[0]).unwrap();
            write(&engine, ShardId(2), &mut rng, &mut models[1]).unwrap();
        }
        let covered = engine.checkpoint_shard(ShardId(1), "incoming").unwrap();
        assert_eq!(covered, engine.tree(ShardId(1)).unwrap().applied());
        let at = LogId { term: Term(9), index: Index(1000) };
        disk.crash_after(rng.below(40));
        let done = engine.install_shard(ShardId(2), "incoming", at).is_ok();
        drop(engine);
        let disk = disk.power_loss(rng.draw());
        let engine = open(&disk).unwrap();
        let tree = engine.tree(ShardId(2)).unwrap();
        let changed = tree.flushed() == at;
        installed += u64::from(changed);
        assert!(changed || !done, "seed {seed}: it went away");
        if !changed {
            catch_up(&engine, ShardId(2)).unwrap();
        }
        let expected = &models[usize::from(!changed)];
        assert!(dump(&tree).unwrap() == *expected, "seed {seed}: {changed}");
        // The installation can be repeated, also without the original shard.
        engine.drop_shard(ShardId(1)).unwrap();
        let tree = engine.install_shard(ShardId(2), "incoming", at).unwrap();
        assert!(dump(&tree).unwrap() == models[0], "seed {seed}: in the end");
        tree.verify().unwrap();
        let mut model = models[0].clone();
        write(&engine, ShardId(2), &mut rng, &mut model).unwrap();
        assert!(dump(&tree).unwrap() == model, "seed {seed}: it goes on");
    }
    assert!(installed > 50, "{installed}");
}
