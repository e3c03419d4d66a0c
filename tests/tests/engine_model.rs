//! The embedded store beside a sorted map as its model: with crashes during every kind of
//! operation, on a disk that fails, with different options, and with each byte damaged.

use bedstone_engine::check::check_disk;
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::scrub::Scrub;
use bedstone_engine::{Db, Error, Options, ShardId};
use bedstone_tests::rng::Rng;
use bedstone_tests::seeds;
use bedstone_tests::store_model::{Model, Pair, any_options, draw, same, shown};
use std::sync::Arc;

/// The number of operations between two openings of a store.
const OPERATIONS: u64 = 150;

/// The power fails at every 11th operation of the disk, during writes, flushes, compactions,
/// collections and ingestions. The recovered state is the state before the current operation, or
/// the state after it.
#[test]
fn a_power_failure_loses_no_acknowledged_write() {
    let mut crash_points = 0;
    for seed in seeds(900) {
        crash_points += crashing_life(seed);
    }
    eprintln!("{crash_points} crash points");
    assert!(crash_points > 110 * (seeds(900).end - seeds(900).start), "{crash_points}");
}

fn crashing_life(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let disk = MemoryDisk::new();
    disk.sample_every(11);
    let mut crash_points = 0;
    let (mut model, mut now) = (Model::new(), 0);
    for _ in 0..2 {
        let mut pair = Pair::open(&disk, Options::tiny(), model, now).unwrap();
        for number in 0..OPERATIONS {
            let op = draw(&mut rng, pair.now);
            let before = pair.model.clone();
            pair.step(&op).unwrap();
            for sample in disk.take_samples() {
                crash_points += 1;
                let found = Pair::open(&sample, Options::tiny(), Model::new(), pair.now);
                let found = found.unwrap_or_else(|e| panic!("seed {seed}, {number}, {op:?}: {e}"));
                let dump = found.dump().unwrap();
                let possible = [shown(&before, pair.now), shown(&pair.model, pair.now)];
                let what = format!("seed {seed}, operation {number}, crash {crash_points}");
                if !possible.contains(&dump) {
                    same(&dump, &possible[1], &what);
                }
                if crash_points % 16 == 0 {
                    found.db.engine().trees()[0].1.verify().unwrap();
                }
            }
            if rng.one_in(10) {
                pair.check(&mut rng).unwrap();
            }
        }
        model = pair.model.clone();
        now = pair.now;
    }
    crash_points
}

/// The disk fails: reads return EIO, syncs return EIO from one moment on, or the space runs out and
/// comes back. Every result is right or an error, and all acknowledged writes are there after
/// reopening.
#[test]
fn a_failing_disk_causes_errors_but_no_wrong_result() {
    let (mut failed, mut full) = (0, 0);
    for seed in seeds(400) {
        let mut rng = Rng::new(seed ^ 0xFA11);
        let disk = MemoryDisk::new();
        let mut pair = Pair::open(&disk, Options::tiny(), Model::new(), 0).unwrap();
        match seed % 3 {
            0 => disk.fail_reads(20 + rng.below(200), seed),
            1 => disk.fail_syncs_after(rng.below(600)),
            _ => disk.limit_space(rng.below(900 << 10)),
        }
        // After an error the write may have taken effect or not.
        let mut possible = vec![(pair.model.clone(), pair.now)];
        for _ in 0..OPERATIONS {
            let op = draw(&mut rng, pair.now);
            let next = pair.expect(&op);
            match pair.step(&op) {
                Ok(()) => possible = vec![next],
                Err(Error::NoSpace { .. }) => {
                    full += 1;
                    disk.limit_space(rng.below(900 << 10));
                    break;
                }
                Err(_) => {
                    failed += 1;
                    possible = vec![(pair.model.clone(), pair.now), next];
                    break;
                }
            }
            if rng.one_in(8) && pair.check(&mut rng).is_err() {
                failed += 1;
            }
        }
        // The disk works again. After a failed sync the store must be opened again.
        drop(pair);
        let disk = disk.power_loss(rng.draw());
        let now = possible[possible.len() - 1].1;
        let pair = Pair::open(&disk, Options::tiny(), Model::new(), now).unwrap();
        let dump = pair.dump().unwrap();
        let found = possible.iter().any(|(model, _)| shown(model, now) == dump);
        assert!(found, "seed {seed}: not a state that was");
    }
    eprintln!("{failed} failures met, {full} times full");
    assert!(failed > 100 && full > 20, "{failed} {full}");
}

/// Equal histories have equal results with all options.
#[test]
fn options_do_not_change_results() {
    for seed in seeds(120) {
        let mut rng = Rng::new(seed ^ 0x0B71);
        let disks = [MemoryDisk::new(), MemoryDisk::new(), MemoryDisk::new()];
        let options = [Options::tiny(), any_options(&mut rng), any_options(&mut rng)];
        let open = |at: usize, model: Model, now| {
            Pair::open(&disks[at], options[at].clone(), model, now).unwrap()
        };
        let mut pairs: Vec<Pair> = (0..3).map(|at| open(at, Model::new(), 0)).collect();
        for number in 0..2 * OPERATIONS {
            let op = draw(&mut rng, pairs[0].now);
            let check = rng.draw();
            for pair in &mut pairs {
                pair.step(&op).unwrap_or_else(|e| panic!("seed {seed}, {number}: {e}"));
                if check.is_multiple_of(8) {
                    pair.check(&mut Rng::new(check)).unwrap();
                }
            }
            if rng.one_in(60) {
                let at = rng.below(3) as usize;
                let (model, now) = (pairs[at].model.clone(), pairs[at].now);
                pairs.remove(at);
                pairs.insert(at, open(at, model, now));
            }
        }
        for pair in &pairs {
            same(&pair.dump().unwrap(), &shown(&pair.model, pair.now), "in the end");
            pair.db.engine().trees()[0].1.verify().unwrap();
        }
    }
}

/// A checkpoint is a store of its own with the content of its moment. Later changes of the original
/// store do not affect it.
#[test]
fn a_checkpoint_opens_as_a_store_of_its_own() {
    for seed in seeds(60) {
        let mut rng = Rng::new(seed ^ 0xC4EC);
        let disk = MemoryDisk::new();
        let mut pair = Pair::open(&disk, Options::tiny(), Model::new(), 0).unwrap();
        for _ in 0..OPERATIONS {
            pair.step(&draw(&mut rng, pair.now)).unwrap();
        }
        pair.db.checkpoint("then").unwrap();
        let then = pair.model.clone();
        for _ in 0..OPERATIONS {
            pair.step(&draw(&mut rng, pair.now)).unwrap();
        }
        let disk = disk.power_loss(rng.draw());
        let copy = disk.below("checkpoints/then");
        let mut copy = Pair::open(&copy, Options::tiny(), then, pair.now).unwrap();
        same(&copy.dump().unwrap(), &shown(&copy.model, pair.now), "the copy");
        for _ in 0..OPERATIONS {
            copy.step(&draw(&mut rng, copy.now)).unwrap();
        }
        copy.check(&mut rng).unwrap();
        let dump = Pair::open(&disk, Options::tiny(), Model::new(), pair.now).unwrap().dump();
        same(&dump.unwrap(), &shown(&pair.model, pair.now), "the original");
    }
}

/// A checkpoint that cannot contain all data is an error, not a smaller store.
#[test]
fn a_checkpoint_with_a_value_file_missing_is_refused() {
    let disk = MemoryDisk::new();
    let mut rng = Rng::new(3);
    let mut pair = Pair::open(&disk, Options::tiny(), Model::new(), 0).unwrap();
    for _ in 0..400 {
        pair.step(&draw(&mut rng, 0)).unwrap();
    }
    let error = pair.db.checkpoint("../elsewhere").unwrap_err().to_string();
    assert!(error.contains("name a checkpoint"), "{error}");
    let files = disk.files();
    let values = files.iter().filter(|path| path.starts_with("shards/") && path.ends_with(".val"));
    let values: Vec<_> = values.collect();
    assert!(!values.is_empty(), "{files:?}");
    values.iter().for_each(|path| bedstone_engine::Disk::remove(&disk, path).unwrap());
    let error = pair.db.checkpoint("then").unwrap_err();
    assert!(matches!(error, Error::Io { .. } | Error::Damaged { .. }), "{error}");
}

/// Every byte of a small store is flipped, one at a time. Either the check reports the flip, or the
/// byte carries no data and every result is right. A read never returns a wrong value.
#[test]
fn a_flip_of_any_byte_is_detected() {
    let mut options = Options::tiny();
    options.limits.segment_bytes = 24 << 10;
    options.limits.memtable_bytes = 1 << 10;
    options.limits.garbage_bytes = 20 << 10;
    options.limits.garbage_percent = 60;
    let disk = MemoryDisk::new();
    let mut rng = Rng::new(7);
    let mut pair = Pair::open(&disk, options.clone(), Model::new(), 0).unwrap();
    for _ in 0..60 {
        pair.step(&draw(&mut rng, 0)).unwrap();
    }
    let stats = pair.db.engine().trees()[0].1.stats();
    assert!(stats.file_value_bytes > 0 && stats.log_value_bytes > 0, "{stats:?}");
    let right = shown(&pair.model, 0);
    drop(pair);
    let disk = disk.power_loss(0);
    let clean = check_disk(&disk).unwrap();
    assert!(clean.damage.is_empty(), "{:?}", clean.damage);
    let (mut flips, mut detected) = (0u64, 0u64);
    for path in disk.files() {
        for offset in 0..disk.bytes(&path).unwrap().len() as u64 {
            let damaged = disk.power_loss(0);
            damaged.flip(&path, offset, 1 << (offset % 8));
            flips += 1;
            let seen = match check_disk(&damaged) {
                Ok(finding) => !finding.damage.is_empty() || finding.torn,
                Err(_) => true,
            };
            detected += u64::from(seen);
            if seen && offset % 32 != 0 {
                continue;
            }
            let place = format!("{path} at {offset}");
            let Ok(db) = Db::open_on(Arc::new(damaged), options.clone()) else {
                assert!(seen, "{place}: the check finds no damage, but the store does not open");
                continue;
            };
            let items: Vec<_> = db.scan(..).collect();
            let wrong = items.iter().flatten().any(|(key, value)| {
                let known = right.binary_search_by(|(other, _)| other[..].cmp(key));
                !known.is_ok_and(|at| right[at].1 == value[..])
            });
            // A flip in the last commit makes this commit look torn by a power failure.
            let last = path.starts_with("log/") && seen;
            assert!(!wrong || last, "{place}: a wrong answer");
            let whole = items.len() == right.len() && items.iter().all(Result::is_ok);
            assert!(seen || whole, "{place}: not detected");
        }
    }
    eprintln!("{detected} of {flips} flips detected, the others are of bytes that carry nothing");
}

/// Damage affects the keys of its table and no others. The error names the shard and the keys, and
/// the scrub finds the damage in bounded steps.
#[test]
fn damage_affects_only_its_keys_and_the_scrub_finds_it() {
    let disk = MemoryDisk::new();
    let mut rng = Rng::new(3);
    let mut pair = Pair::open(&disk, Options::tiny(), Model::new(), 0).unwrap();
    for _ in 0..400 {
        pair.step(&draw(&mut rng, 0)).unwrap();
    }
    pair.db.flush().unwrap();
    pair.db.settle().unwrap();
    let (right, disk) = (shown(&pair.model, 0), disk.power_loss(1));
    drop(pair);
    let tables: Vec<String> =
        disk.files().into_iter().filter(|p| p.starts_with("shards/")).collect();
    let tables: Vec<String> = tables.into_iter().filter(|p| p.ends_with(".sst")).collect();
    assert!(tables.len() > 2, "{tables:?}");
    let mut detected = 0;
    for (number, path) in tables.iter().enumerate() {
        let damaged = disk.power_loss(2);
        let len = damaged.bytes(path).unwrap().len() as u64;
        // The damage is in a data block, in the footer, or the file is missing.
        match number % 3 {
            0 => damaged.flip(path, 10, 4),
            1 => damaged.flip(path, len - 10, 4),
            _ => bedstone_engine::Disk::remove(&damaged, path).unwrap(),
        }
        let db = Db::open_on(Arc::new(damaged), Options::tiny()).unwrap();
        let mut lost = 0;
        for (key, value) in &right {
            match db.get(key) {
                Ok(found) => assert_eq!(found.as_ref().map(|v| &v[..]), Some(&value[..])),
                Err(Error::Damaged { shard, from, to, .. }) => {
                    assert!(
                        shard == ShardId(0) && from[..] <= key[..] && key[..] <= to[..],
                        "{from:?}"
                    );
                    lost += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let mut scrub = Scrub::default();
        let (mut found, mut steps) = (0, 0);
        while scrub.rounds() == 0 || steps < 2 {
            let done = scrub.step(db.engine(), 2000).unwrap();
            assert!(done.bytes < 2000 + 4000, "a bounded step: {}", done.bytes);
            found += done.damage.len();
            steps += 1;
        }
        found += scrub.step(db.engine(), 1 << 20).unwrap().damage.len();
        assert!(found > 0 || lost == 0, "{path}: {lost} keys lost, nothing found");
        // A compaction at the start may have dropped the table unread, because all its keys were
        // deleted.
        detected += usize::from(found > 0);
    }
    assert!(detected + 1 >= tables.len(), "{detected} of {}", tables.len());
}
