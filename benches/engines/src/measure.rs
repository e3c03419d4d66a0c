//! The costs of a workload: time per operation, processor, memory, device, directory.

use hdrhistogram::Histogram;
use rustix::fs::{major, minor};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Figures by name, such as `ops_per_s`. A figure that a workload does not have is absent.
pub type Metrics = BTreeMap<String, f64>;

const RSS_EVERY: Duration = Duration::from_millis(50);
const SECTOR_BYTES: u64 = 512;
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// The end of a measurement.
#[derive(Clone, Copy)]
pub enum Limit {
    /// After this many calls, over all threads.
    Calls(u64),
    /// After this many seconds.
    Seconds(f64),
}

/// The input of a call.
pub struct Turn {
    /// The thread, from 0.
    pub thread: usize,
    /// The number of calls that this thread made before.
    pub number: u64,
    /// The random numbers of the thread.
    pub random: Random,
}

/// The result of a call.
pub struct Done {
    /// The kind of the call among the kinds of the workload: 0 or 1.
    pub lane: usize,
    /// Number of operations.
    pub ops: u64,
    /// Bytes of keys and values written.
    pub bytes: u64,
}

/// All calls of one kind.
pub struct Lane {
    ops: u64,
    latency: Histogram<u64>,
}

impl Lane {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("fair bounds");
        Self { ops: 0, latency }
    }

    fn add(&mut self, other: &Lane) {
        self.ops += other.ops;
        self.latency.add(&other.latency).expect("equal bounds");
    }
}

/// All calls of a workload.
pub struct Work {
    lanes: [Lane; 2],
    bytes: u64,
    seconds: f64,
}

impl Work {
    /// One call, timed by the caller.
    pub fn single(seconds: f64) -> Self {
        let mut work = Self { lanes: [Lane::new(), Lane::new()], bytes: 0, seconds };
        work.lanes[0].ops = 1;
        work.lanes[0].latency.saturating_record((seconds * 1e9) as u64);
        work
    }

    /// Throughput and latency of one kind of call.
    pub fn metrics(&self, lane: usize) -> Metrics {
        let Lane { ops, latency } = &self.lanes[lane];
        let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        named([
            ("ops", *ops as f64),
            ("seconds", self.seconds),
            ("ops_per_s", *ops as f64 / self.seconds),
            ("p50_us", us(0.5)),
            ("p99_us", us(0.99)),
            ("p999_us", us(0.999)),
        ])
    }

    /// Whether any call wrote.
    pub fn writes(&self) -> bool {
        self.bytes > 0
    }

    fn ops(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.ops).sum()
    }
}

fn named<const N: usize>(figures: [(&str, f64); N]) -> Metrics {
    figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect()
}

/// Calls `op` from each of the threads until the limit.
pub fn drive(
    threads: usize,
    limit: Limit,
    seed: u64,
    op: impl Fn(&mut Turn) -> Done + Sync,
) -> Work {
    let done = Mutex::new(Vec::new());
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (op, done, barrier) = (&op, &done, &barrier);
            scope.spawn(move || {
                let random = Random::new(seed ^ (thread as u64 + 1).wrapping_mul(0x5851_F42D));
                let mut turn = Turn { thread, number: 0, random };
                barrier.wait();
                let share = drive_one(threads as u64, limit, &mut turn, op);
                done.lock().expect("no panic").push(share);
            });
        }
    });
    let done = done.into_inner().expect("no panic");
    let begun = done.iter().map(|share| share.begun).min().expect("a thread");
    let ended = done.iter().map(|share| share.ended).max().expect("a thread");
    let mut lanes = [Lane::new(), Lane::new()];
    for share in &done {
        lanes.iter_mut().zip(&share.lanes).for_each(|(all, own)| all.add(own));
    }
    let bytes = done.iter().map(|share| share.bytes).sum();
    Work { lanes, bytes, seconds: (ended - begun).as_secs_f64() }
}

/// The calls of one thread.
struct Share {
    lanes: [Lane; 2],
    bytes: u64,
    begun: Instant,
    ended: Instant,
}

fn drive_one(
    threads: u64,
    limit: Limit,
    turn: &mut Turn,
    op: &impl Fn(&mut Turn) -> Done,
) -> Share {
    let (calls, seconds) = match limit {
        Limit::Calls(all) => (all.div_ceil(threads), f64::INFINITY),
        Limit::Seconds(seconds) => (u64::MAX, seconds),
    };
    let mut lanes = [Lane::new(), Lane::new()];
    let mut bytes = 0;
    let begun = Instant::now();
    let mut before = begun;
    while turn.number < calls {
        let done = op(turn);
        let now = Instant::now();
        let lane = &mut lanes[done.lane];
        lane.latency.saturating_record((now - before).as_nanos() as u64);
        lane.ops += done.ops;
        bytes += done.bytes;
        turn.number += 1;
        before = now;
        if (now - begun).as_secs_f64() >= seconds {
            break;
        }
    }
    Share { lanes, bytes, begun, ended: before }
}

/// Counts the costs of the process and the device from `start` to `finish`. Other processes that
/// write to the device are counted too, so there should be none.
pub struct Meter {
    dir: PathBuf,
    cpu: f64,
    device: Option<u64>,
    rss: (Sender<()>, JoinHandle<u64>),
}

impl Meter {
    /// Begins the count.
    pub fn start(dir: &Path) -> Self {
        let device = device_bytes(dir);
        let (stop, stopped) = channel();
        let sampler = std::thread::spawn(move || {
            let mut peak = anonymous_bytes();
            while stopped.recv_timeout(RSS_EVERY) == Err(RecvTimeoutError::Timeout) {
                peak = peak.max(anonymous_bytes());
            }
            peak.max(anonymous_bytes())
        });
        Self { dir: dir.to_owned(), cpu: cpu_seconds(), device, rss: (stop, sampler) }
    }

    /// The costs of the work, and of everything that followed the work until now.
    pub fn finish(self, work: &Work) -> Metrics {
        let cpu = cpu_seconds() - self.cpu;
        let (stop, sampler) = self.rss;
        drop(stop);
        let rss = sampler.join().expect("the sampler ends");
        let mut costs = named([
            ("cpu_s", cpu),
            ("cpu_us_per_op", cpu * 1e6 / work.ops().max(1) as f64),
            ("rss_bytes", rss as f64),
            ("user_bytes", work.bytes as f64),
        ]);
        if let (Some(before), Some(after)) = (self.device, device_bytes(&self.dir)) {
            let written = (after - before) as f64;
            costs.insert("device_bytes".to_owned(), written);
            if work.bytes > 0 {
                costs.insert("device_ratio".to_owned(), written / work.bytes as f64);
            }
        }
        costs.insert("space_bytes".to_owned(), directory_bytes(&self.dir) as f64);
        costs
    }
}

/// User and system time of the whole process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory that belongs to no file.
fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Bytes written to the device of a directory, after a sync of the file system.
fn device_bytes(dir: &Path) -> Option<u64> {
    let file = File::open(dir).ok()?;
    rustix::fs::syncfs(&file).ok()?;
    let device = file.metadata().ok()?.dev();
    let path = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
    let stat = fs::read_to_string(path).ok()?;
    Some(stat.split_whitespace().nth(6)?.parse::<u64>().ok()? * SECTOR_BYTES)
}

/// Allocated blocks of all files below a directory.
fn directory_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => directory_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
