//! The workloads: the operations on a store or a log, stage by stage.

use crate::measure::{Done, Limit, Meter, Metrics, Random, Turn, Work, drive};
use crate::engines::{self, takes_part};
use crate::store::{AppendLog, Setup, Store};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const KEY_BYTES: usize = 16;
const BATCH_KEYS: u64 = 100;
/// Greatest size of a batch: batches of large values have fewer keys, so that every engine accepts
/// a whole batch.
const BATCH_BYTES_MAX: u64 = 2 << 20;
const SCAN_KEYS: usize = 100;
const VALUE_POOL_BYTES: usize = 1 << 20;
const LOG_ENTRY_BYTES: usize = 256;
/// Entries that each shard keeps in its log.
const LOG_KEEP: u64 = 256;
/// Memtables written before synced workloads: every log has then been filled once and is recycled.
const WARM_MEMTABLES: u64 = 4;
const WARM_VALUE_BYTES: usize = 4096;
const MIXED_THREADS: usize = 2;
/// The key that is synced before a store is killed and read once the store is open again.
const LAST_KEY: &[u8; KEY_BYTES] = b"the last key set";

/// Groups of workloads. The workloads of a group share one directory, and each stage is one
/// process. `load_rand` and `reopen_fill` also run when only later workloads of their groups are
/// requested, because these need the data.
pub const GROUPS: [&[&[&str]]; 5] = [
    &[&["load_seq"]],
    &[&["load_rand", "overwrite"], &["read_hit", "read_miss", "scan100"], &["mixed"]],
    &[&["sync1", "sync16", "sync64"]],
    &[&["log1", "log16", "log64", "log1v", "log16v", "log64v"]],
    &[&["reopen_fill"], &["reopen"]],
];

/// The stages of a group that were requested and that a store takes part in, each with its
/// workloads.
pub fn stages<'a>(group: &[&[&'a str]], store: &str, asked: &[String]) -> Vec<Vec<&'a str>> {
    let is_asked = |name: &str| asked.iter().any(|asked| selects(asked, name));
    let first = group[0][0];
    let needed = first == "load_rand" || first == "reopen_fill";
    let wanted = |name: &&&str| takes_part(store, name) && is_asked(name);
    let mut stages: Vec<Vec<&str>> =
        group.iter().map(|stage| stage.iter().filter(wanted).copied().collect()).collect();
    let any = stages.iter().any(|stage| !stage.is_empty());
    if any && needed && stages[0].first() != Some(&first) {
        stages[0].insert(0, first);
    }
    stages.retain(|stage| !stage.is_empty());
    stages
}

/// Whether a requested name selects a workload: the name itself, or a family such as `sync` or
/// `all`.
pub fn selects(asked: &str, name: &str) -> bool {
    let is_family = asked.chars().all(char::is_alphabetic);
    asked == "all" || asked == name || (is_family && name.starts_with(asked))
}

/// The amount of work, equal for all stores of a comparison.
#[derive(Clone, Debug, clap::Args, Serialize, Deserialize)]
pub struct Shape {
    /// Keys in a loaded store
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_parser = parse_size)]
    pub value: u64,
    /// Seconds of the reads, the synced writes and the log appends, each
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Threads of read_hit, read_miss and scan100
    #[arg(long, default_value_t = 1)]
    pub read_threads: usize,
    /// Bytes of the block cache
    #[arg(long, default_value = "64M", value_parser = parse_size)]
    pub cache: u64,
    /// Bytes of a memtable
    #[arg(long, default_value = "64M", value_parser = parse_size)]
    pub memtable: u64,
    /// Loads, overwrites and mixed writes sync each batch
    #[arg(long)]
    pub sync_batches: bool,
    /// Reads find cold caches: no read of every key warms them
    #[arg(long)]
    pub cold: bool,
    /// Values of this size or more stay in the log of Bedstone
    #[arg(long, default_value = "1K", value_parser = parse_size)]
    pub separate: u64,
    /// Bytes written before the kill that reopen recovers from
    #[arg(long, default_value = "1G", value_parser = parse_size)]
    pub reopen_bytes: u64,
    /// Seed of all random numbers; a comparison adds the round to it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Shape {
    /// The command-line arguments that give this shape.
    pub fn arguments(&self) -> Vec<String> {
        let named = [
            ("keys", self.keys.to_string()),
            ("value", self.value.to_string()),
            ("seconds", self.seconds.to_string()),
            ("read-threads", self.read_threads.to_string()),
            ("cache", self.cache.to_string()),
            ("memtable", self.memtable.to_string()),
            ("separate", self.separate.to_string()),
            ("reopen-bytes", self.reopen_bytes.to_string()),
            ("seed", self.seed.to_string()),
        ];
        let named = named.into_iter().map(|(name, value)| format!("--{name}={value}"));
        let flags = [("--sync-batches", self.sync_batches), ("--cold", self.cold)];
        let set = flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned());
        named.chain(set).collect()
    }

    fn setup(&self, for_sync: bool) -> Setup {
        Setup { cache: self.cache, memtable: self.memtable, separate: self.separate, for_sync }
    }

    fn value_bytes(&self) -> usize {
        self.value as usize
    }

    fn batch_keys(&self) -> u64 {
        (BATCH_BYTES_MAX / (KEY_BYTES as u64 + self.value)).clamp(1, BATCH_KEYS)
    }

    fn live_bytes(&self) -> f64 {
        self.keys as f64 * (KEY_BYTES as f64 + self.value as f64)
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.chars().last() {
        Some('K') => (&text[..text.len() - 1], 10),
        Some('M') => (&text[..text.len() - 1], 20),
        Some('G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "give bytes, or a number with K, M or G")?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// The figures of one workload.
#[derive(Serialize, Deserialize)]
pub struct Outcome {
    /// The name; `mixed` has two outcomes, one for its reads and one for its writes.
    pub workload: String,
    /// The figures.
    pub metrics: Metrics,
}

/// Runs one stage on a store.
pub fn run(store: &str, workloads: &[String], dir: &Path, shape: &Shape) -> Vec<Outcome> {
    std::fs::create_dir_all(dir).expect("the directory can be made");
    let first = workloads[0].as_str();
    match first {
        "reopen_fill" => fill_and_die(store, dir, shape),
        "reopen" => return vec![reopen(store, dir, shape)],
        _ => {}
    }
    if first.starts_with("log") {
        let log = engines::open_log(store, dir, shape.setup(true));
        let runs = workloads.iter().enumerate();
        return runs.map(|(i, name)| append(name, i as u64, &*log, dir, shape)).collect();
    }
    let for_sync = first.starts_with("sync");
    let stage = Stage {
        store: engines::open(store, dir, shape.setup(for_sync)),
        dir,
        shape,
        values: Values::new(shape),
    };
    match first {
        "load_seq" | "load_rand" => {}
        _ if for_sync => stage.warm_log(),
        _ if shape.cold => {}
        _ => stage.warm_cache(),
    }
    workloads.iter().flat_map(|name| stage.run(name)).collect()
}

/// An open store and the values that are written to it.
struct Stage<'a> {
    store: Box<dyn Store>,
    dir: &'a Path,
    shape: &'a Shape,
    values: Values,
}

impl Stage<'_> {
    fn run(&self, name: &str) -> Vec<Outcome> {
        let Shape { keys, seconds, read_threads, seed, .. } = *self.shape;
        let timed = Limit::Seconds(seconds);
        let reading = |op: &(dyn Fn(&mut Turn) + Sync)| {
            self.measure(name, || {
                drive(read_threads, timed, seed, |turn| {
                    op(turn);
                    Done { lane: 0, ops: 1, bytes: 0 }
                })
            })
        };
        match name {
            "load_seq" => self.measure(name, || self.write_all(|place, _| place)),
            "load_rand" => {
                let order = Permutation::new(keys, seed);
                self.measure(name, || self.write_all(|place, _| order.of(place)))
            }
            "overwrite" => self.measure(name, || self.write_all(|_, random| random.below(keys))),
            "read_hit" => reading(&|turn| {
                let number = turn.random.below(keys);
                assert!(self.store.get(&key(number)).is_some(), "key {number} is lost");
            }),
            "read_miss" => reading(&|turn| {
                let number = turn.random.below(keys);
                assert!(self.store.get(&absent_key(number)).is_none(), "an absent key is found");
            }),
            "scan100" => reading(&|turn| {
                let number = turn.random.below(keys - SCAN_KEYS as u64 + 1);
                let least = SCAN_KEYS * self.shape.value_bytes();
                let found = self.store.scan(&key(number), SCAN_KEYS);
                assert!(found >= least, "the scan from {number} is short");
            }),
            "mixed" => self.mixed(),
            sync => {
                let threads = sync.strip_prefix("sync").and_then(|n| n.parse().ok());
                let threads = threads.unwrap_or_else(|| panic!("no workload is named {sync:?}"));
                self.measure(name, || {
                    drive(threads, timed, seed, |turn| {
                        let numbers = [turn.random.below(keys)];
                        self.write(&mut turn.random, &numbers, true)
                    })
                })
            }
        }
    }

    /// Measures the costs of some work. The flush and the compaction that unsynced writes cause
    /// count as costs of these writes; the throughput is that of the calls alone.
    fn measure(&self, name: &str, work: impl FnOnce() -> Work) -> Vec<Outcome> {
        let meter = Meter::start(self.dir);
        let work = work();
        if name.starts_with("sync") {
            let costs = self.costs(meter, &work);
            self.settle();
            return vec![outcome(name, work.metrics(0), costs)];
        }
        let settle_seconds = if work.writes() { Some(self.settle()) } else { None };
        let mut costs = self.costs(meter, &work);
        costs.extend(settle_seconds.map(|seconds| ("settle_s".to_owned(), seconds)));
        vec![outcome(name, work.metrics(0), costs)]
    }

    fn settle(&self) -> f64 {
        let begun = Instant::now();
        self.store.flush();
        self.store.settle();
        begun.elapsed().as_secs_f64()
    }

    fn costs(&self, meter: Meter, work: &Work) -> Metrics {
        let mut costs = meter.finish(work);
        let space = costs.get("space_bytes").copied().unwrap_or(0.0);
        costs.insert("space_ratio".to_owned(), space / self.shape.live_bytes());
        costs
    }

    /// Makes as many writes as there are keys; `number` gives the key for each place.
    fn write_all(&self, number: impl Fn(u64, &mut Random) -> u64 + Sync) -> Work {
        let Shape { keys, seed, .. } = *self.shape;
        let batch = self.shape.batch_keys();
        drive(1, Limit::Calls(keys.div_ceil(batch)), seed, |turn| {
            let places = turn.number * batch..keys.min((turn.number + 1) * batch);
            let numbers: Vec<u64> = places.map(|place| number(place, &mut turn.random)).collect();
            self.write(&mut turn.random, &numbers, self.shape.sync_batches)
        })
    }

    fn write(&self, random: &mut Random, numbers: &[u64], sync: bool) -> Done {
        let keys: Vec<_> = numbers.iter().map(|&number| key(number)).collect();
        let pair = |key| (key, self.values.cut(random, self.shape.value_bytes()));
        let batch: Vec<(&[u8], &[u8])> = keys.iter().map(|key| key.as_slice()).map(pair).collect();
        self.store.write(&batch, sync);
        let ops = numbers.len() as u64;
        Done { lane: 0, ops, bytes: ops * (KEY_BYTES as u64 + self.shape.value) }
    }

    /// Runs threads that each make one batched write after as many reads as the batch has keys.
    fn mixed(&self) -> Vec<Outcome> {
        let Shape { keys, seconds, seed, .. } = *self.shape;
        let batch = self.shape.batch_keys();
        let meter = Meter::start(self.dir);
        let work = drive(MIXED_THREADS, Limit::Seconds(seconds), seed, |turn| {
            if turn.number % (batch + 1) < batch {
                let number = turn.random.below(keys);
                assert!(self.store.get(&key(number)).is_some(), "key {number} is lost");
                return Done { lane: 0, ops: 1, bytes: 0 };
            }
            let numbers: Vec<u64> = (0..batch).map(|_| turn.random.below(keys)).collect();
            Done { lane: 1, ..self.write(&mut turn.random, &numbers, self.shape.sync_batches) }
        });
        let settle_seconds = self.settle();
        let mut costs = self.costs(meter, &work);
        costs.insert("settle_s".to_owned(), settle_seconds);
        vec![
            outcome("mixed_read", work.metrics(0), costs.clone()),
            outcome("mixed_write", work.metrics(1), costs),
        ]
    }

    /// Reads every key once.
    fn warm_cache(&self) {
        let order = Permutation::new(self.shape.keys, self.shape.seed ^ 1);
        for place in 0..self.shape.keys {
            assert!(self.store.get(&key(order.of(place))).is_some(), "a key is lost");
        }
    }

    /// Writes until every log has been recycled.
    fn warm_log(&self) {
        let mut random = Random::new(self.shape.seed);
        let batches =
            WARM_MEMTABLES * self.shape.memtable / (BATCH_KEYS * WARM_VALUE_BYTES as u64) + 1;
        for _ in 0..batches {
            let below = self.shape.keys;
            let keys: Vec<_> = (0..BATCH_KEYS).map(|_| key(random.below(below))).collect();
            let pair = |key| (key, self.values.cut(&mut random, WARM_VALUE_BYTES));
            let pairs = keys.iter().map(|key| key.as_slice()).map(pair);
            let batch: Vec<(&[u8], &[u8])> = pairs.collect();
            self.store.write(&batch, false);
        }
        self.settle();
    }
}

fn outcome(name: &str, mut metrics: Metrics, costs: Metrics) -> Outcome {
    metrics.extend(costs);
    Outcome { workload: name.to_owned(), metrics }
}

/// Appends from N threads, each to its own shard, for `logN`. The entries of `logNv` are as long as
/// values.
fn append(name: &str, run: u64, log: &dyn AppendLog, dir: &Path, shape: &Shape) -> Outcome {
    let rest = name.trim_start_matches("log");
    let (threads, bytes) = match rest.strip_suffix('v') {
        Some(threads) => (threads, shape.value_bytes()),
        None => (rest, LOG_ENTRY_BYTES),
    };
    let threads: usize = threads.parse().unwrap_or_else(|_| panic!("no workload is {name:?}"));
    let values = Values::new(shape);
    let shard = |thread: usize| run * 1000 + thread as u64 + 1;
    let last: Vec<_> = (0..threads).map(|_| AtomicU64::new(0)).collect();
    let meter = Meter::start(dir);
    let work = drive(threads, Limit::Seconds(shape.seconds), shape.seed, |turn| {
        let index = turn.number + 1;
        let release = index.is_multiple_of(LOG_KEEP).then(|| index.saturating_sub(LOG_KEEP));
        let release = release.filter(|&index| index > 0);
        log.append(shard(turn.thread), index, values.cut(&mut turn.random, bytes), release);
        last[turn.thread].store(index, Ordering::Relaxed);
        Done { lane: 0, ops: 1, bytes: bytes as u64 }
    });
    let costs = meter.finish(&work);
    for (thread, last) in last.iter().enumerate() {
        let index = last.load(Ordering::Relaxed);
        log.append(shard(thread), index + 1, b"", Some(index));
    }
    outcome(name, work.metrics(0), costs)
}

/// Writes without a flush, syncs the last write, and kills the process.
fn fill_and_die(store: &str, dir: &Path, shape: &Shape) -> ! {
    let store = engines::open(store, dir, shape.setup(false));
    let stage = Stage { store, dir, shape, values: Values::new(shape) };
    let mut random = Random::new(shape.seed);
    let mut written = 0;
    while written < shape.reopen_bytes {
        let draw = |_| random.below(shape.keys);
        let numbers: Vec<u64> = (0..shape.batch_keys()).map(draw).collect();
        written += stage.write(&mut random, &numbers, false).bytes;
    }
    stage.store.write(&[(LAST_KEY, LAST_KEY)], true);
    let this = rustix::process::getpid();
    rustix::process::kill_process(this, rustix::process::Signal::KILL).expect("a kill");
    unreachable!("the process was killed")
}

/// Measures the time of the opening, up to the first read.
fn reopen(store: &str, dir: &Path, shape: &Shape) -> Outcome {
    let meter = Meter::start(dir);
    let begun = Instant::now();
    let store = engines::open(store, dir, shape.setup(false));
    let found = store.get(LAST_KEY);
    let work = Work::single(begun.elapsed().as_secs_f64());
    assert!(found.is_some(), "the synced write is lost");
    outcome("reopen", work.metrics(0), meter.finish(&work))
}

/// Keys are even numbers in decimal: between any two of them there is an absent key.
fn key(number: u64) -> [u8; KEY_BYTES] {
    decimal(number * 2)
}

fn absent_key(number: u64) -> [u8; KEY_BYTES] {
    decimal(number * 2 + 1)
}

fn decimal(mut number: u64) -> [u8; KEY_BYTES] {
    let mut digits = [b'0'; KEY_BYTES];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// Random bytes, from which values are cut.
struct Values {
    pool: Vec<u8>,
}

impl Values {
    fn new(shape: &Shape) -> Self {
        let mut random = Random::new(shape.seed);
        let bytes = VALUE_POOL_BYTES + shape.value_bytes().max(WARM_VALUE_BYTES);
        let pool = (0..bytes.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { pool }
    }

    fn cut(&self, random: &mut Random, bytes: usize) -> &[u8] {
        let start = random.below(VALUE_POOL_BYTES as u64) as usize;
        &self.pool[start..start + bytes]
    }
}

/// A random order of the numbers below `count`: a Feistel network that is applied until the result
/// is in range.
struct Permutation {
    count: u64,
    half_bits: u32,
    keys: [u64; 4],
}

impl Permutation {
    fn new(count: u64, seed: u64) -> Self {
        let bits = u64::BITS - (count - 1).leading_zeros();
        let mut random = Random::new(seed);
        let keys = std::array::from_fn(|_| random.next());
        Self { count, half_bits: bits.div_ceil(2).max(1), keys }
    }

    fn of(&self, mut place: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        loop {
            let (mut left, mut right) = (place >> self.half_bits, place & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (Random::new(key ^ right).next() & mask));
            }
            place = left << self.half_bits | right;
            if place < self.count {
                return place;
            }
        }
    }
}
