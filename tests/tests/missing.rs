//! Damage to the log. Bits are flipped, blocks are overwritten and segments are removed. Each entry
//! of each shard is then the acknowledged entry or known to be missing. This stays so when the log
//! continues and when it is opened again.

use bedstone_engine::disk::WriteMode;
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::limits::Limits;
use bedstone_engine::scrub::Scrub;
use bedstone_engine::wal::{EntryKind, HardState, Log, Missing, Record, Vote};
use bedstone_engine::{Db, Disk, Engine, Error, Index, LogId, Options, ReplicaId, ShardId, Term};
use bedstone_tests::rng::Rng;
use bedstone_tests::seeds;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SHARDS: u64 = 3;

/// The expected log of one shard, and its released base.
#[derive(Clone, Debug, Default)]
struct Model {
    base: LogId,
    entries: BTreeMap<Index, (Term, Vec<u8>)>,
    hard: HardState,
}

impl Model {
    fn last(&self) -> Index {
        self.entries.keys().next_back().copied().unwrap_or(self.base.index)
    }

    /// A random step of a replica: an append, a new leader's replacement of uncommitted entries, a
    /// commit, a release, or a reset.
    fn step(&mut self, shard: ShardId, rng: &mut Rng) -> Vec<Record> {
        let mut records = Vec::new();
        match rng.below(20) {
            0..12 => {
                let mut first = self.last() + 1;
                if rng.one_in(5) {
                    self.hard.term += 1;
                    self.hard.vote = Vote::For(ReplicaId(1 + rng.below(3)));
                    let free = self.hard.commit.max(self.base.index) + 1;
                    first = free + rng.below(first - free + 1);
                    records.push(Record::HardState { shard, state: self.hard });
                }
                self.entries.split_off(&first);
                let term = self.hard.term;
                let datas: Vec<Vec<u8>> = (0..=rng.below(3))
                    .map(|_| {
                        let len = rng.below(3000) as usize;
                        rng.bytes(len)
                    })
                    .collect();
                for (index, data) in first.until(Index::END).zip(&datas) {
                    self.entries.insert(index, (term, data.clone()));
                }
                let entries = datas.into_iter().map(|data| (EntryKind::COMMANDS, data.into()));
                records
                    .push(Record::entries(shard, LogId { term, index: first }, entries).unwrap());
            }
            12..16 => {
                let commit = self.hard.commit.max(self.base.index);
                self.hard.commit = commit + rng.below(self.last() - commit + 1);
                records.push(Record::HardState { shard, state: self.hard });
            }
            16..19 => {
                let room = self.hard.commit.distance_from(self.base.index);
                let index = self.base.index + rng.below(room + 1);
                if index > self.base.index {
                    self.base = LogId { term: self.entries[&index].0, index };
                    records.push(Record::Release { shard, upto: self.base });
                }
            }
            _ if rng.one_in(3) => {
                self.base = LogId { term: self.hard.term, index: self.last() + 1 + rng.below(4) };
                self.entries.clear();
                records.push(Record::Reset { shard, at: self.base });
                if rng.one_in(2) {
                    self.hard.commit = self.base.index;
                    records.push(Record::HardState { shard, state: self.hard });
                }
            }
            _ => {}
        }
        records
    }
}

fn shards() -> impl Iterator<Item = ShardId> {
    (0..SHARDS).map(ShardId)
}

fn open(disk: &MemoryDisk) -> Log {
    let (log, _) = Log::open(Arc::new(disk.clone()), WriteMode::Pwrite, 7, Limits::TINY).unwrap();
    log.register_shards(shards());
    log
}

/// A log with a random history, and its expected content. The log ends with a sync marker.
fn history(rng: &mut Rng, steps: usize) -> (MemoryDisk, [Model; SHARDS as usize]) {
    let disk = MemoryDisk::new();
    let mut models: [Model; SHARDS as usize] = Default::default();
    models.iter_mut().for_each(|model| model.hard.term = Term(1));
    let mut log = open(&disk);
    let states = |models: &[Model]| -> Vec<Record> {
        let state =
            |(shard, model): (ShardId, &Model)| Record::HardState { shard, state: model.hard };
        shards().zip(models).map(state).collect()
    };
    log.commit(&states(&models)).unwrap();
    for _ in 0..steps {
        if rng.one_in(40) {
            drop(log);
            log = open(&disk);
        }
        let mut records = Vec::new();
        for _ in 0..=rng.below(2) {
            let shard = rng.below(SHARDS);
            records.extend(models[shard as usize].step(ShardId(shard), rng));
        }
        log.commit(&records).unwrap();
    }
    // Often every shard has a last hard state. The last block does not contain it.
    if !rng.one_in(3) {
        log.commit(&states(&models)).unwrap();
    }
    log.write_sync_marker().unwrap();
    drop(log);
    (disk.power_loss(rng.draw()), models)
}

/// The position of the log's last block: its slot and its offset.
fn end_of_log(disk: &MemoryDisk) -> (String, u64) {
    let slots = disk.files().into_iter().filter(|path| path.starts_with("log/"));
    let last = |path: String| {
        let bytes = disk.bytes(&path).unwrap();
        let base = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) * bytes.len() as u64;
        let blocks = bytes.chunks(4096).enumerate().skip(1);
        let lsn = |(i, block): (usize, &[u8])| {
            let lsn = u64::from_le_bytes(block[8..16].try_into().unwrap());
            (lsn == base + i as u64 * 4096).then_some((lsn, i as u64 * 4096))
        };
        blocks.filter_map(lsn).max().map(|(lsn, offset)| (lsn, path, offset))
    };
    slots.filter_map(last).max().map(|(_, path, offset)| (path, offset)).unwrap()
}

/// Checks every read of every shard. Returns how many entries are missing.
fn check(log: &Log, models: &[Model], place: &str) -> u64 {
    let mut lost = 0;
    for (shard, model) in shards().zip(models) {
        let Missing { entries: missing, state } = log.missing(shard);
        let is_missing = |index: Index| missing.iter().any(|range| range.contains(&index));
        let (first, last) = log.bounds(shard);
        assert!(first <= model.base.index + 1, "{place}, shard {shard}: released too much");
        for index in first.until(model.last() + 1) {
            let found = log.entries(shard, index, index + 1, usize::MAX);
            if is_missing(index) {
                lost += u64::from(index > model.base.index);
                let unread = match found {
                    Err(Error::Missing { shard: named, .. }) => named == shard,
                    Ok(found) => found.is_empty(),
                    Err(_) => false,
                };
                assert!(unread, "{place}, shard {shard}: entry {index} is missing, but was read");
                continue;
            }
            let found = found.unwrap_or_else(|e| panic!("{place}, shard {shard}: {e}"));
            // A released entry may still be there if the release was lost.
            let Some((term, data)) = model.entries.get(&index) else { continue };
            assert!(
                found.first().is_some_and(|e| e.id.term == *term && e.data == data[..]),
                "{place}, shard {shard}: entry {index} is not the acknowledged one"
            );
            assert_eq!(log.term(shard, index), Some(*term), "{place}, shard {shard}");
        }
        let open = is_missing(Index::END - 1);
        assert!(open || last.index == model.last(), "{place}, shard {shard}: ends at {last:?}");
        assert!(state || log.hard_state(shard) == model.hard, "{place}, shard {shard}: hard state");
    }
    lost
}

#[test]
fn damaged_entries_are_intact_or_known_to_be_missing() {
    let (mut lost, mut whole, mut cases) = (0, 0, 0);
    for seed in seeds(300) {
        let mut rng = Rng::new(seed);
        let steps = 20 + rng.below(120) as usize;
        let (disk, models) = history(&mut rng, steps);
        let (last_slot, last_block) = end_of_log(&disk);
        assert_eq!(check(&open(&disk.power_loss(0)), &models, "undamaged"), 0);
        for _ in 0..8 {
            let damaged = disk.power_loss(0);
            let mut place = format!("seed {seed}");
            for _ in 0..=rng.below(2) {
                let slots: Vec<String> =
                    damaged.files().into_iter().filter(|path| path.starts_with("log/")).collect();
                let slot = &slots[rng.below(slots.len() as u64) as usize];
                let len = damaged.bytes(slot).unwrap().len() as u64;
                let end = if *slot == last_slot { last_block } else { len };
                let kind = rng.below(8);
                match kind {
                    // A bit flips anywhere, more often in the first bytes of a block than
                    // elsewhere.
                    0..4 => {
                        let block = rng.below(end / 4096) * 4096;
                        let within = if rng.one_in(2) { rng.below(120) } else { rng.below(4096) };
                        damaged.flip(slot, block + within, 1 << rng.below(8));
                        place += &format!(", {slot} at {block}+{within}");
                    }
                    // Successive blocks read as zeros.
                    4..7 => {
                        let from = rng.below(end / 4096);
                        let count = (1 + rng.below(6)).min(end / 4096 - from);
                        let mut bytes = damaged.bytes(slot).unwrap();
                        bytes[(from * 4096) as usize..((from + count) * 4096) as usize].fill(0);
                        damaged.place(slot, &bytes);
                        place += &format!(", {slot}: {count} blocks from {from}");
                    }
                    _ if *slot != last_slot => {
                        Disk::remove(&damaged, slot).unwrap();
                        damaged.sync_dir("log").unwrap();
                        place += &format!(", {slot} removed");
                    }
                    _ => {}
                }
            }
            cases += 1;
            lost += life_after(&damaged, &models, &place, &mut rng);
            whole += u64::from(shards().all(|shard| open(&damaged).missing(shard).is_empty()));
        }
    }
    eprintln!("{cases} damaged logs, {whole} of them whole, {lost} entries known to be missing");
    assert!(lost > cases && whole > 0);
}

/// The damaged log continues, is opened again, and is repaired by resets.
fn life_after(disk: &MemoryDisk, models: &[Model], place: &str, rng: &mut Rng) -> u64 {
    let mut models = models.to_vec();
    let log = open(disk);
    let lost = check(&log, &models, place);
    let missing: Vec<Missing> = (0..SHARDS).map(|shard| log.missing(ShardId(shard))).collect();
    for _ in 0..rng.below(60) {
        let shard = rng.below(SHARDS);
        let model = &mut models[shard as usize];
        if missing[shard as usize].is_empty() {
            log.commit(&model.step(ShardId(shard), rng)).unwrap();
        } else if !log.missing(ShardId(shard)).entries.iter().all(|range| range.end < Index::END) {
            let next = LogId { term: model.hard.term, index: model.last() + 1 };
            let entry =
                Record::entries(ShardId(shard), next, [(EntryKind::COMMANDS, vec![1].into())])
                    .unwrap();
            let refused = log.commit(&[entry]);
            assert!(matches!(refused, Err(Error::Missing { .. })), "{place}: {refused:?}");
        }
    }
    log.commit(&[]).unwrap();
    drop(log);
    let disk = disk.power_loss(rng.draw());
    let log = open(&disk);
    check(&log, &models, &format!("{place}, opened again"));
    for (shard, missing) in (0..).zip(&missing) {
        assert_eq!(log.missing(ShardId(shard)), *missing, "{place}, opened again: shard {shard}");
    }
    for (shard, missing) in (0..).zip(&missing) {
        let id = LogId { term: Term(1 << 20), index: models[shard as usize].last() + 1 };
        let entry =
            Record::entries(ShardId(shard), id, [(EntryKind::COMMANDS, vec![1].into())]).unwrap();
        let open = missing.entries.last().is_some_and(|range| range.end == Index::END);
        assert!(!open || log.commit(&[entry]).is_err(), "{place}, opened again: shard {shard}");
    }
    // A snapshot replaces the entries that a shard lost.
    for (shard, model) in (0..).zip(&mut models) {
        if !missing[shard as usize].is_empty() {
            model.base = LogId { term: model.hard.term, index: model.last() + 1 };
            model.entries.clear();
            let state = Record::HardState { shard: ShardId(shard), state: model.hard };
            log.commit(&[Record::Reset { shard: ShardId(shard), at: model.base }, state]).unwrap();
        }
    }
    log.commit(&[]).unwrap();
    drop(log);
    let log = open(&disk.power_loss(rng.draw()));
    assert_eq!(check(&log, &models, &format!("{place}, healed")), 0);
    assert!(shards().all(|shard| log.missing(shard).is_empty()), "{place}, healed");
    lost
}

/// Writes entries of two shards in turns, and at the end the hard states of both.
fn two_shards(engine: &Engine, rounds: u64) {
    for index in 1..=rounds {
        for shard in [1, 2] {
            let id = LogId { term: Term(1), index: Index(index) };
            let entry = Record::entries(
                ShardId(shard),
                id,
                [(EntryKind::COMMANDS, vec![shard as u8; 100].into())],
            )
            .unwrap();
            engine.log().commit(&[entry]).unwrap();
        }
    }
    let state = HardState { term: Term(1), vote: Vote::None, commit: Index(rounds) };
    let states = [1, 2].map(ShardId).map(|shard| Record::HardState { shard, state });
    engine.log().commit(&states).unwrap();
    engine.log().commit(&[]).unwrap();
}

/// Opens an engine with the trees of some shards.
fn engine(disk: &MemoryDisk, shards: std::ops::RangeInclusive<u64>) -> Engine {
    let engine = Engine::open(Arc::new(disk.clone()), Options::tiny()).unwrap();
    for shard in shards.map(ShardId) {
        engine.open_shard(shard).unwrap();
    }
    engine
}

fn missing(entries: std::ops::Range<u64>, state: bool) -> Missing {
    let entries = Index(entries.start)..Index(entries.end);
    Missing { entries: std::iter::once(entries).collect(), state }
}

/// The damage that one round of the scrub finds.
fn scrub(store: &Engine) -> Vec<String> {
    let mut scrub = Scrub::default();
    let mut found = Vec::new();
    while scrub.rounds() == 0 {
        found.extend(scrub.step(store, 300).unwrap().damage);
    }
    found.extend(scrub.step(store, 1 << 20).unwrap().damage);
    // The last step may have begun the next round.
    assert!(found.len() <= 2, "damage is reported once a round: {found:?}");
    found.iter().map(Error::to_string).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Damage inside an entry affects this entry only. Its shard reports the entry, and the other shard
/// serves.
#[test]
fn a_damaged_entry_is_named_and_the_other_shard_serves() {
    let disk = MemoryDisk::new();
    let store = engine(&disk, 1..=2);
    two_shards(&store, 5);
    drop(store);
    // Blocks have 4096 bytes: first a header page, then the entries in turns. The flip hits the
    // data of entry 3 of shard 2.
    let store = engine(&disk, 1..=2);
    assert_eq!(scrub(&store), Vec::<String>::new());
    disk.flip("log/slot-00000.seg", 4096 * 6 + 64 + 40 + 12 + 50, 1);
    // The scrub finds the damage in an open log.
    let found = scrub(&store);
    assert!(found.len() == 1 && found[0].contains("shard 2"), "{found:?}");
    assert!(found[0].contains("slot-00000.seg at byte 24680"), "{found:?}");
    let before = |store: &Engine| {
        store.log().entries(ShardId(2), Index(1), Index(6), usize::MAX).unwrap().len()
    };
    assert_eq!(before(&store), 2, "the entries before it are undamaged");
    drop(store);
    let store = engine(&disk, 1..=2);
    assert_eq!(before(&store), 2);
    assert!(scrub(&store)[0].contains("entries 3 to 3"));
    assert!(store.log().missing(ShardId(1)).is_empty());
    store.log().check_whole(ShardId(1)).unwrap();
    assert_eq!(store.log().missing(ShardId(2)), missing(3..4, false));
    let error = store.log().check_entries(ShardId(2)).unwrap_err().to_string();
    assert!(error.contains("shard 2") && error.contains("entries 3 to 3"), "{error}");
    assert!(error.contains("slot-00000.seg at byte 24640"), "{error}");
    assert_eq!(store.log().entries(ShardId(2), Index(1), Index(3), usize::MAX).unwrap().len(), 2);
    assert_eq!(store.log().entries(ShardId(2), Index(4), Index(6), usize::MAX).unwrap().len(), 2);
    let id = LogId { term: Term(1), index: Index(6) };
    let entry = Record::entries(ShardId(1), id, [(EntryKind::COMMANDS, vec![9].into())]).unwrap();
    store.log().commit(&[entry]).unwrap();
    assert_eq!(store.log().entries(ShardId(1), Index(1), Index(7), usize::MAX).unwrap().len(), 6);
    // The tree does not need entries that it has flushed.
    let tree = store.tree(ShardId(2)).unwrap();
    for index in 1..=3 {
        tree.apply(LogId { term: Term(1), index: Index(index) }, index, None, []);
    }
    tree.freeze();
    while let Some(job) = tree.job() {
        tree.run(job).unwrap();
    }
    drop((tree, store));
    assert!(engine(&disk, 1..=2).log().missing(ShardId(2)).is_empty());
}

/// A damaged block in the newest segment may have contained records of any shard, even of a shard
/// without any other record.
#[test]
fn a_damaged_block_makes_shards_without_later_records_uncertain() {
    let disk = MemoryDisk::new();
    let store = engine(&disk, 1..=3);
    two_shards(&store, 5);
    drop(store);
    disk.flip("log/slot-00000.seg", 4096 * 6 + 8, 1);
    for opened in ["first", "again"] {
        let store = engine(&disk, 1..=3);
        assert!(store.log().missing(ShardId(1)).is_empty(), "{opened}");
        assert_eq!(store.log().missing(ShardId(2)), missing(3..4, false), "{opened}");
        assert_eq!(store.log().missing(ShardId(3)), missing(1..u64::MAX, true), "{opened}");
        store.log().commit(&[]).unwrap();
    }
}

/// Entries after a loss are refused. With the reset before them in the same commit they are
/// accepted.
#[test]
fn a_log_is_reset_in_one_commit_with_its_first_entries() {
    let disk = MemoryDisk::new();
    let store = engine(&disk, 1..=3);
    two_shards(&store, 5);
    drop(store);
    disk.flip("log/slot-00000.seg", 4096 * 6 + 8, 1);
    let store = engine(&disk, 1..=3);
    let (shard, at) = (3, LogId::default());
    let id = LogId { term: Term(2), index: Index(1) };
    let entries =
        || Record::entries(ShardId(shard), id, [(EntryKind::COMMANDS, vec![9].into())]).unwrap();
    let state = HardState { term: Term(2), vote: Vote::For(ReplicaId(1)), commit: Index(0) };
    let error = store.log().commit(&[entries()]).unwrap_err();
    assert!(matches!(error, Error::Missing { shard: ShardId(3), .. }), "{error}");
    let anew = [
        Record::Reset { shard: ShardId(shard), at },
        entries(),
        Record::HardState { shard: ShardId(shard), state },
    ];
    store.log().commit(&anew).unwrap();
    drop(store);
    let store = engine(&disk, 1..=3);
    store.log().check_whole(ShardId(shard)).unwrap();
    assert_eq!(store.log().hard_state(ShardId(shard)), state);
    assert_eq!(
        store.log().entries(ShardId(shard), Index(1), Index(2), usize::MAX).unwrap()[0].id,
        id
    );
}

/// A reset replaces entries. It does not restore a lost vote.
#[test]
fn a_reset_does_not_restore_a_lost_vote() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    let state = |term| HardState { term, vote: Vote::For(ReplicaId(2)), commit: Index(0) };
    log.commit(&[Record::HardState { shard: ShardId(1), state: state(Term(1)) }]).unwrap();
    log.commit(&[Record::HardState { shard: ShardId(1), state: state(Term(2)) }]).unwrap();
    log.commit(&[Record::Reset {
        shard: ShardId(1),
        at: LogId { term: Term(2), index: Index(9) },
    }])
    .unwrap();
    log.write_sync_marker().unwrap();
    drop(log);
    disk.flip("log/slot-00000.seg", 4096 * 2 + 8, 1);
    for opened in ["first", "again"] {
        let log = open(&disk);
        assert_eq!(
            log.missing(ShardId(1)),
            Missing { entries: Vec::new(), state: true },
            "{opened}"
        );
        assert!(
            log.check_entries(ShardId(1)).is_ok() && log.check_whole(ShardId(1)).is_err(),
            "{opened}"
        );
        log.commit(&[]).unwrap();
    }
    let log = open(&disk);
    log.commit(&[Record::HardState { shard: ShardId(1), state: state(Term(3)) }]).unwrap();
    assert!(log.check_whole(ShardId(1)).is_ok());
}

#[test]
fn an_embedded_store_with_lost_entries_is_refused_and_not_truncated() {
    let disk = MemoryDisk::new();
    let db = Db::open_on(Arc::new(disk.clone()), Options::tiny()).unwrap();
    for key in 0..5u8 {
        let mut batch = bedstone_engine::Batch::new();
        batch.put(&[key], &[key; 100]);
        db.write(batch).unwrap();
    }
    drop(db);
    let sound = disk.bytes("log/slot-00000.seg").unwrap();
    disk.flip("log/slot-00000.seg", 4096 * 3 + 64 + 40 + 12 + 50, 1);
    for _ in 0..2 {
        let error = Db::open_on(Arc::new(disk.clone()), Options::tiny()).err().unwrap();
        assert!(matches!(error, Error::Missing { shard: ShardId(0), .. }), "{error}");
        assert!(error.to_string().contains("slot-00000.seg at byte 12352"), "{error}");
    }
    disk.place("log/slot-00000.seg", &sound);
    let db = Db::open_on(Arc::new(disk), Options::tiny()).unwrap();
    assert_eq!(db.scan(..).count(), 5);
}

/// Each file format distinguishes a flipped version from another version.
#[test]
fn a_flipped_version_is_reported_as_damage_not_as_another_format() {
    let disk = MemoryDisk::new();
    let db = Db::open_on(Arc::new(disk.clone()), Options::tiny()).unwrap();
    let file = |part: &str| disk.files().into_iter().find(|path| path.contains(part));
    let (mut rng, mut round) = (Rng::new(5), 0u64);
    while [".sst", ".val"].iter().any(|part| file(part).is_none()) {
        round += 1;
        assert!(round < 3000, "no value has moved to a value file");
        let mut batch = bedstone_engine::Batch::new();
        let len = if rng.one_in(2) { 2000 } else { 20 };
        batch.put(&(rng.below(100) as u32).to_le_bytes(), &rng.bytes(len));
        db.write(batch).unwrap();
        if round.is_multiple_of(50) {
            db.flush().unwrap();
        }
    }
    drop(db);
    // A table and a value file end with version and magic; a manifest begins with magic and
    // version.
    for part in [".sst", ".val", "MANIFEST"] {
        let path = file(part).unwrap();
        let sound = disk.bytes(&path).unwrap();
        let at = if part == "MANIFEST" { 5 } else { sound.len() as u64 - 7 };
        disk.flip(&path, at, 64);
        let read = || {
            Db::open_on(Arc::new(disk.clone()), Options::tiny())?
                .scan(..)
                .try_for_each(|item| item.map(drop))
        };
        let error = read().expect_err(part);
        assert!(error.is_damage(), "{part}: {error}");
        disk.place(&path, &sound);
        read().unwrap();
    }
}
