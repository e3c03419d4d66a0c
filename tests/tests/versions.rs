//! A tree beside a model that keeps every version: reads at past timestamps, versions written at a
//! past timestamp, views that no later write changes, and copies of the tree by its history.

use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::key::{AsOf, NEVER};
use bedstone_engine::lsm::{InLog, SnapshotHead};
use bedstone_engine::wal::{EntryKind, Record};
use bedstone_engine::{Engine, Error, LogId, Op, Options, ShardId, Snapshot, Term, Tree};
use bedstone_tests::rng::Rng;
use bedstone_tests::seeds;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SHARD: ShardId = ShardId(1);
const KEYS: u64 = 30;

type Pairs = Vec<(Bytes, Bytes)>;

/// A version as the model keeps it. A tombstone has no value.
struct Kept {
    ts: u64,
    written: u64,
    expires: u64,
    value: Option<Bytes>,
}

#[derive(Default)]
struct Model {
    keys: BTreeMap<Bytes, Vec<Kept>>,
    ranges: Vec<(Bytes, Bytes, u64)>,
}

impl Model {
    fn apply(&mut self, ts: u64, op: &Op) {
        let (key, at, expires, value) = match op.clone() {
            Op::Put(key, value) => (key, ts, NEVER, Some(value)),
            Op::PutUntil(key, value, deadline) => (key, ts, deadline, Some(value)),
            Op::Delete(key) => (key, ts, NEVER, None),
            Op::PutAt { key, value, expires, ts } => (key, ts, expires, Some(value)),
            Op::DeleteAt { key, ts } => (key, ts, NEVER, None),
            Op::DeleteRange(from, to) => return self.ranges.push((from, to, ts)),
        };
        let kept = Kept { ts: at, written: ts, expires, value };
        self.keys.entry(key).or_default().push(kept);
    }

    /// The newest timestamp at which a key was changed.
    fn newest(&self, key: &Bytes) -> u64 {
        let versions = self.keys.get(key).into_iter().flatten().map(|kept| kept.ts);
        versions.chain(self.deletions(key)).max().unwrap_or(0)
    }

    fn deletions(&self, key: &Bytes) -> impl Iterator<Item = u64> {
        let covers = move |(from, to, _): &&(Bytes, Bytes, u64)| from <= key && key < to;
        self.ranges.iter().filter(covers).map(|(_, _, ts)| *ts)
    }

    /// The keys and values that a reader sees.
    fn seen(&self, as_of: AsOf, now: u64) -> Pairs {
        let value = |key: &Bytes, versions: &Vec<Kept>| {
            let seen = |kept: &&Kept| kept.ts <= as_of.ts && kept.written <= as_of.written;
            let newest = versions.iter().filter(seen).max_by_key(|kept| kept.ts)?;
            let deleted = self.deletions(key).filter(|&ts| ts <= as_of.ts).max();
            let hidden = deleted.is_some_and(|deleted| deleted > newest.ts);
            newest.value.clone().filter(|_| !hidden && newest.expires > now)
        };
        let pairs = self.keys.iter();
        pairs.filter_map(|(key, kept)| Some((key.clone(), value(key, kept)?))).collect()
    }
}

fn collect(scan: impl Iterator<Item = Result<(Bytes, Bytes), Error>>) -> Pairs {
    scan.map(|item| item.expect("the disk works")).collect()
}

/// A view, and what it must show for ever.
struct Held {
    view: Snapshot,
    shown: Pairs,
    now: u64,
}

/// A tree, perhaps a copy of it, and the model of both.
struct World {
    rng: Rng,
    engine: Engine,
    tree: Arc<Tree>,
    copy: Option<(Engine, Arc<Tree>)>,
    model: Model,
    entries: Vec<(LogId, u64, Vec<Op>)>,
    held: Vec<Held>,
    now: u64,
    past_versions: u64,
}

fn open() -> (Engine, Arc<Tree>) {
    let engine = Engine::open(Arc::new(MemoryDisk::new()), Options::tiny()).expect("opens");
    let tree = engine.open_shard(SHARD).expect("the shard opens");
    (engine, tree)
}

fn run_jobs(tree: &Tree) {
    while let Some(job) = tree.job() {
        tree.run(job).expect("the disk works");
    }
}

impl World {
    fn new(seed: u64) -> World {
        let (engine, tree) = open();
        let (copy, model, entries, held) = Default::default();
        let rng = Rng::new(seed);
        World { rng, engine, tree, copy, model, entries, held, now: 0, past_versions: 0 }
    }

    fn key(&mut self) -> Bytes {
        format!("key{:02}", self.rng.below(KEYS)).into()
    }

    fn value(&mut self) -> Bytes {
        // Values of 256 bytes and more stay in the log.
        let len = if self.rng.one_in(4) { 300 } else { self.rng.below(20) };
        self.rng.bytes(len as usize).into()
    }

    /// The operations of one entry at timestamp `ts`, each on another key.
    fn draw(&mut self, ts: u64) -> Vec<Op> {
        if self.rng.one_in(20) {
            let (a, b) = (self.key(), self.key());
            return vec![Op::DeleteRange(a.clone().min(b.clone()), a.max(b))];
        }
        let (mut ops, mut used) = (Vec::new(), BTreeSet::new());
        for _ in 0..=self.rng.below(3) {
            let (key, value) = (self.key(), self.value());
            if !used.insert(key.clone()) {
                continue;
            }
            let deadline = self.now + 1 + self.rng.below(8);
            let newest = self.model.newest(&key);
            let past = (newest + 1 < ts).then(|| newest + 1 + self.rng.below(ts - newest - 1));
            let expires = if self.rng.one_in(5) { deadline } else { NEVER };
            ops.push(match (self.rng.below(8), past) {
                (0, _) => Op::Delete(key),
                (1, Some(ts)) => Op::DeleteAt { key, ts },
                (2..5, Some(ts)) => Op::PutAt { key, value, expires, ts },
                _ if expires != NEVER => Op::PutUntil(key, value, expires),
                _ => Op::Put(key, value),
            });
        }
        ops
    }

    fn apply(&mut self) {
        let id = LogId { term: Term(1), index: self.tree.applied().index + 1 };
        let ts = self.tree.ts() + 1 + self.rng.below(20);
        let mut ops = self.draw(ts);
        // The values are parts of the data of the entry, as in a node.
        let data: Bytes = ops.iter().filter_map(value_of).flatten().copied().collect();
        let mut at = 0;
        for value in ops.iter_mut().filter_map(value_mut) {
            let len = value.len();
            *value = data.slice(at..at + len);
            at += len;
        }
        let record = Record::entries(SHARD, id, [(EntryKind::COMMANDS, data.clone())])
            .expect("a small record");
        self.engine.log().commit(&[record]).expect("the disk works");
        let place = self.engine.log().place(SHARD, id);
        let entry = place.map(|place| InLog { data: &data, place });
        self.tree.apply(id, ts, entry, ops.clone());
        let is_past = |op: &&Op| matches!(op, Op::PutAt { .. } | Op::DeleteAt { .. });
        self.past_versions += ops.iter().filter(is_past).count() as u64;
        ops.iter().for_each(|op| self.model.apply(ts, op));
        if let Some((_, copy)) = &self.copy {
            copy.apply(id, ts, None, ops.clone());
        }
        self.entries.push((id, ts, ops));
    }

    fn advance(&mut self) {
        self.now += self.rng.below(4);
        self.tree.advance(self.now);
        if let Some((_, copy)) = &self.copy {
            copy.advance(self.now);
        }
    }

    fn hold(&mut self) {
        let ts = self.tree.ts();
        let shown = self.model.seen(AsOf { ts, written: ts }, self.now);
        self.held.push(Held { view: self.tree.snapshot(), shown, now: self.now });
        if self.held.len() > 4 {
            let at = self.rng.below(4) as usize;
            self.held.remove(at);
        }
    }

    /// A new copy of the tree, from a held view, which later entries may have tried to change.
    fn copy(&mut self) {
        let Some(held) = self.held.first() else { return };
        let (engine, tree) = open();
        let mut install = tree.begin_install();
        for item in held.view.history() {
            install.add(item.expect("the disk works")).expect("the disk works");
        }
        let head = held.view.head();
        install.finish(head).expect("the disk works");
        assert_eq!((tree.applied(), tree.ts()), (head.at, head.ts));
        assert_eq!(tree.history_from(), head.history_from);
        tree.advance(held.now);
        assert_eq!(collect(tree.scan(..)), held.shown, "the copy shows the view");
        let SnapshotHead { ts, history_from, .. } = head;
        let past = history_from + self.rng.below(ts - history_from + 1);
        let view = tree.snapshot_at(past).expect("the copy has the history");
        let expected = self.model.seen(AsOf { ts: past, written: ts }, held.now);
        assert_eq!(collect(view.scan(..)), expected, "the copy at {past} of {ts}");
        tree.advance(self.now);
        for (id, ts, ops) in &self.entries {
            if id.index > head.at.index {
                tree.apply(*id, *ts, None, ops.clone());
            }
        }
        tree.keep_history_from(if self.rng.one_in(2) { u64::MAX } else { ts });
        self.copy = Some((engine, tree));
    }

    fn check(&mut self) {
        let newest = self.model.seen(AsOf::NEWEST, self.now);
        let copy = self.copy.as_ref().map(|(_, tree)| tree.clone());
        for tree in [self.tree.clone()].into_iter().chain(copy) {
            assert_eq!(collect(tree.scan(..)), newest, "ascending");
            let mut back = collect(tree.scan_back(..));
            back.reverse();
            assert_eq!(back, newest, "descending");
            let key = self.key();
            let expected = newest.iter().find(|(other, _)| *other == key).map(|(_, v)| v.clone());
            assert_eq!(tree.get(&key).expect("the disk works"), expected, "{key:?}");
            let (from, ts) = (tree.history_from(), tree.ts());
            let past = from + self.rng.below(ts - from + 1);
            let view = tree.snapshot_at(past).expect("history is kept from there on");
            let expected = self.model.seen(AsOf { ts: past, written: ts }, self.now);
            assert_eq!(collect(view.scan(..)), expected, "at {past} of {ts}");
        }
        for held in &self.held {
            assert_eq!(collect(held.view.scan(..)), held.shown, "a held view");
            for (key, value) in &held.shown {
                let found = held.view.get(key).expect("the disk works");
                assert_eq!(found.as_ref(), Some(value), "{key:?} in a held view");
            }
        }
    }
}

fn value_of(op: &Op) -> Option<&Bytes> {
    match op {
        Op::Put(_, value) | Op::PutUntil(_, value, _) | Op::PutAt { value, .. } => Some(value),
        Op::Delete(_) | Op::DeleteRange(..) | Op::DeleteAt { .. } => None,
    }
}

fn value_mut(op: &mut Op) -> Option<&mut Bytes> {
    match op {
        Op::Put(_, value) | Op::PutUntil(_, value, _) | Op::PutAt { value, .. } => Some(value),
        Op::Delete(_) | Op::DeleteRange(..) | Op::DeleteAt { .. } => None,
    }
}

/// Every read of a tree, of its views and of its copies equals the model's.
#[test]
fn views_and_copies_show_the_versions_of_their_moment() {
    let (mut past_versions, mut copies) = (0, 0);
    for seed in seeds(150) {
        let mut world = World::new(seed ^ 0x9A57);
        for _ in 0..150 {
            match world.rng.below(40) {
                0..4 => world.advance(),
                4 | 5 => world.tree.freeze(),
                6 | 7 => run_jobs(&world.tree),
                8 => world.tree.keep_history_from(world.tree.ts()),
                9 => world.tree.keep_history_from(u64::MAX),
                10..13 => world.hold(),
                13 => {
                    world.copy();
                    copies += 1;
                }
                14 => world.copy.iter().for_each(|(_, tree)| tree.flush_all().expect("works")),
                15 => world.copy.iter().for_each(|(_, tree)| run_jobs(tree)),
                _ => world.apply(),
            }
            if world.rng.one_in(4) {
                world.check();
            }
        }
        world.tree.flush_all().expect("the disk works");
        run_jobs(&world.tree);
        world.check();
        world.tree.verify().expect("the tables are sound");
        past_versions += world.past_versions;
    }
    eprintln!("{past_versions} versions in the past, {copies} copies");
    assert!(past_versions > 50 * 150 && copies > 150);
}
