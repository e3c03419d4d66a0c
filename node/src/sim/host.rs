//! A simulated server: a whole node but for its sockets and threads. The engine, the driver, the
//! shard code and the wire format are the product's; the disk is in memory, and time is given.

use super::plan::{MILLI, Plan, SECOND};
use super::rng::Rng;
use super::sabotage::Sabotage;
use crate::api::port::Replies;
use crate::clock::Time;
use crate::doubt::Doubt;
use crate::driver::background::{After, Background};
use crate::driver::group::Group;
use crate::driver::logger::{self, LogJob};
use crate::driver::{Driver, DriverInbox, Input, State, background};
use crate::limits::{Limits, TICK};
use crate::metrics::Metrics;
use crate::raft::{Conf, Config, Lease, NOBODY, PeerId};
use crate::start::SHARD;
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::scrub::Scrub;
use bedstone_engine::wal::Record;
use bedstone_engine::{Engine, Options, ShardId};
use bedstone_net::outbox::Pushed;
use bedstone_net::{Event, Inbox, Outbox};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the calendars show when a simulation begins, in milliseconds since 1970.
const BEGINNING: u64 = 1_700_000_000_000;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// Bits or sectors that are damaged at once.
const FLIPS_MAX: u64 = 8;

/// What is read again in one go, where the disk was damaged.
const SCRUB_BYTES: u64 = 16 << 10;

/// Where reads go by lease, no two clocks differ in rate by more than the fifth that this allows.
const LEASE: Lease = Lease::new(Config::DEFAULT.election.start, TICK.as_nanos() as u64, 200_000);

/// A node's own idea of time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// When the pace changed last: in the world's time, and in its own.
    since: u64,
    own: u64,
    percent: u64,
    /// How far the calendar is off, in milliseconds.
    off: i64,
}

/// A server and the node on it.
pub(super) struct Host {
    pub(super) id: PeerId,
    pub(super) disk: MemoryDisk,
    pub(super) node: Option<Node>,
    /// Counts starts: what was meant for an earlier life is dropped.
    pub(super) life: u64,
    /// The log's files as they were when it started.
    log_at_start: BTreeMap<String, Vec<u8>>,
    /// Its disk was damaged, and nobody may have noticed yet.
    pub(super) latent: bool,
    /// Its disk was lost, and this is another.
    replaced: bool,
    /// How often the power went.
    boots: u64,
    /// How often it started with a log that it knew to be damaged.
    pub(super) known_lost: u64,
    clock: Clock,
    base: Instant,
    /// What its clock shows in the turn under way.
    shows: Arc<AtomicU64>,
    pub(super) paused_until: u64,
    /// It was stopped right after it looked at its clock, then.
    pub(super) stopped_at: Option<u64>,
    /// Its build is of the next version, whose protocol is another.
    pub(super) upgraded: bool,
    /// A sync takes so many times as long until then.
    pub(super) slow: (u64, u64),
    pub(super) hung_until: u64,
    pub(super) starved: (u64, u64),
    pub(super) full_until: u64,
    /// It is a member from the beginning.
    begins_whole: bool,
    /// Its disk fails: that it stops is right.
    pub(super) excused: bool,
    /// What its lives counted, all together.
    pub(super) metrics: Arc<Metrics>,
}

/// A node that runs.
pub(super) struct Node {
    pub(super) driver: Driver,
    pub(super) engine: Arc<Engine>,
    pub(super) pushed: Pushed,
    pub(super) replies: Arc<Replies>,
    inbox: DriverInbox,
    inputs: Sender<Input>,
    jobs: Receiver<LogJob>,
    called: Receiver<()>,
    metrics: Arc<Metrics>,
    background: Background,
    scrub: Scrub,
    /// Ticks since the last turn.
    pub(super) ticks: u32,
    /// Whether a turn, a write and background work are scheduled.
    pub(super) turning: bool,
    pub(super) writing: bool,
    pub(super) writing_since: Option<u64>,
    pub(super) working: bool,
    sabotage: Option<Sabotage>,
    late: Vec<Record>,
}

impl Host {
    pub(super) fn new(id: PeerId, base: Instant) -> Host {
        Host {
            id,
            disk: MemoryDisk::new(),
            node: None,
            life: 0,
            log_at_start: BTreeMap::new(),
            latent: false,
            replaced: false,
            boots: 0,
            known_lost: 0,
            clock: Clock { since: 0, own: 0, percent: 100, off: 0 },
            base,
            shows: Arc::default(),
            stopped_at: None,
            paused_until: 0,
            upgraded: false,
            slow: (1, 0),
            hung_until: 0,
            starved: (1, 0),
            full_until: 0,
            excused: false,
            begins_whole: false,
            metrics: Arc::default(),
        }
    }

    /// Starts the node from what the disk has.
    pub(super) fn start(&mut self, plan: &Plan, seed: u64, now: u64) -> Result<(), String> {
        let mut options = Options::tiny();
        options.owner = format!("node {}", self.id);
        options.new_store_id = u128::from(self.id);
        self.log_at_start = self.files(&["log/"]);
        let engine = Engine::open(Arc::new(self.disk.clone()), options);
        let engine = Arc::new(engine.map_err(|error| error.to_string())?);
        self.known_lost += u64::from(engine.log().check_whole(SHARD).is_err());
        let conf = match (self.id <= plan.nodes, self.replaced) {
            (false, _) => Conf::default(),
            (true, false) => Conf::of(1..=plan.nodes),
            // By now the configuration names all that there are.
            (true, true) => Conf::of(plan.all()),
        };
        let mut limits = Limits { follower_reads: plan.follower_reads, ..Limits::TINY };
        limits.raft.lease = plan.leases.then_some(LEASE);
        if plan.sabotage == Some(Sabotage::WaitsForDisks) {
            limits.raft.disk_hangs = u64::MAX >> 1;
        }
        let seed = match plan.sabotage {
            Some(Sabotage::LivesAlike) => self.id,
            _ => seed,
        };
        let doubt = || Doubt::new(Arc::new(self.disk.clone()), &self.boots.to_string());
        let doubt = plan.suspect_disks.then(doubt);
        let doubted = doubt.as_ref().is_some_and(Doubt::is_open)
            && plan.sabotage != Some(Sabotage::TrustsDisks);
        let group = Group::open(&engine, SHARD, self.id, conf, &limits, seed, doubted)
            .map_err(|error| error.to_string())?;
        let (inputs, input) = unbounded();
        let inbox = DriverInbox::new(inputs.clone());
        let (log, jobs) = unbounded();
        let (calls, called) = bounded(1);
        let (outbox, pushed) = Outbox::pair(plan.all().filter(|&peer| peer != self.id));
        let (replies, metrics) = (Arc::<Replies>::default(), self.metrics.clone());
        let (base, shows) = (self.base, self.shows.clone());
        let driver = Driver {
            node: self.id,
            engine: engine.clone(),
            groups: [(SHARD, group)].into(),
            inputs: input,
            frames: inbox.counter(),
            outbox,
            log,
            background: calls,
            replies: replies.clone(),
            metrics: metrics.clone(),
            status: Arc::default(),
            cluster: "simulation".to_owned(),
            nodes: Vec::new(),
            path: "memory".to_owned(),
            started: self.time(now).now,
            clock: Box::new(move || base + Duration::from_micros(shows.load(Ordering::Relaxed))),
            snapshot_bytes_per_second: match plan.sabotage {
                Some(Sabotage::SendsAtOnce) => 1 << 40,
                _ => limits.snapshot_bytes_per_second,
            },
            doubt,
            state: State::new([SHARD].into_iter()),
        };
        self.life += 1;
        self.begins_whole = self.id <= plan.nodes && plan.nodes > 1;
        self.node = Some(Node {
            driver,
            engine,
            pushed,
            replies,
            inbox,
            inputs,
            jobs,
            called,
            metrics,
            background: Background::default(),
            scrub: Scrub::default(),
            ticks: 0,
            turning: false,
            writing: false,
            writing_since: None,
            working: false,
            sabotage: plan.sabotage,
            late: Vec::new(),
        });
        Ok(())
    }

    /// The node is no more. Its disk stays as it was written.
    pub(super) fn kill(&mut self) {
        self.life += 1;
        // What is dropped does nothing to the disk any more.
        self.disk.crash_after(0);
        self.node = None;
        self.disk.clear_faults();
        self.full_until = 0;
        self.paused_until = 0;
        self.stopped_at = None;
    }

    /// The node is no more, and of what was not synced its disk has what the draw says.
    pub(super) fn lose_power(&mut self, seed: u64) {
        self.kill();
        self.latent |= self.disk.lies();
        self.disk = self.disk.power_loss(seed);
        self.boots += 1;
    }

    /// The node is no more, and its disk neither: an empty one takes its place.
    pub(super) fn lose_disk(&mut self) {
        self.kill();
        self.disk = MemoryDisk::new();
        self.latent = false;
        self.replaced = true;
    }

    /// Some bits of the log or of tables flip, in parts of the files that are in use.
    pub(super) fn flip_bits(&mut self, draw: u64) {
        let mut rng = Rng::new(draw);
        for _ in 0..=rng.below(FLIPS_MAX) {
            let Some((path, sector, bytes)) = self.sector(&mut rng) else { break };
            let used = (bytes.len() - sector).min(SECTOR) as u64;
            self.disk.flip(&path, sector as u64 + rng.below(used), 1 << rng.below(8));
        }
        self.latent = true;
    }

    /// Sectors of the log or of tables have what they had when the node started, or what belongs
    /// into other ones.
    pub(super) fn misplace_sectors(&mut self, draw: u64) {
        let mut rng = Rng::new(draw);
        // None is in use any more when all of them have what they had at the start.
        (0..=rng.below(FLIPS_MAX)).try_for_each(|_| self.misplace_sector(&mut rng));
        self.latent = true;
    }

    fn misplace_sector(&mut self, rng: &mut Rng) -> Option<()> {
        let stale = rng.one_in(2);
        let (path, at, mut bytes) = self.sector(rng)?;
        let (from, other) = match self.log_at_start.remove(&path).filter(|_| stale) {
            Some(old) => (at, old),
            None => {
                let (_, from, other) = self.sector(rng)?;
                (from, other)
            }
        };
        let content = other.get(from..).unwrap_or_default();
        let content = &content[..content.len().min(SECTOR)];
        let place = bytes.len().min(at + content.len());
        bytes[at..place].copy_from_slice(&content[..place - at]);
        self.disk.place(&path, &bytes);
        Some(())
    }

    /// A sector in use of a file of the log or of a table: the file, where it begins, and the whole
    /// file. `None` when nothing is in use.
    fn sector(&self, rng: &mut Rng) -> Option<(String, usize, Vec<u8>)> {
        let part = if rng.one_in(3) { &[".sst", ".val"][..] } else { &["log/"] };
        let used = |(path, bytes): (String, Vec<u8>)| {
            let used = bytes.iter().rposition(|&byte| byte != 0)? + 1;
            Some((path, used, bytes))
        };
        let in_use = |part| self.files(part).into_iter().filter_map(used).collect::<Vec<_>>();
        let mut files = in_use(part);
        if files.is_empty() {
            files = in_use(&["log/"]);
        }
        if files.is_empty() {
            return None;
        }
        let (path, used, bytes) = files.swap_remove(rng.below(files.len() as u64) as usize);
        let sector = rng.below(used.div_ceil(SECTOR) as u64) as usize;
        Some((path, sector * SECTOR, bytes))
    }

    /// Files whose names have one of these in them.
    fn files(&self, parts: &[&str]) -> BTreeMap<String, Vec<u8>> {
        let named = |path: &String| parts.iter().any(|part| path.contains(part));
        let files = self.disk.files().into_iter().filter(named);
        files.filter_map(|path| Some((path.clone(), self.disk.bytes(&path).ok()?))).collect()
    }

    /// Whether the node may lack what it promised, or does not run.
    pub(super) fn is_impaired(&self) -> bool {
        self.latent
            || self.disk.lies()
            || self.node.as_ref().is_none_or(|node| {
                let hard = node.engine.log().hard_state(SHARD);
                let new = hard.term == 0 && self.begins_whole;
                let raft = node.group().raft();
                raft.is_recovering() || raft.is_damaged() || new || hard.vote == Some(NOBODY)
            })
    }

    /// Its time at the beginning of a turn, and while it goes on.
    pub(super) fn begin_turn(&mut self, now: u64, sabotage: Option<Sabotage>) -> Time {
        let looked = self.stopped_at.take().unwrap_or(now);
        let again = if sabotage == Some(Sabotage::TrustsOldClock) { looked } else { now };
        self.shows.store(self.clock.own(again), Ordering::Relaxed);
        self.time(looked)
    }

    /// Its time.
    pub(super) fn time(&self, now: u64) -> Time {
        let own = self.clock.own(now);
        let unix_millis = (BEGINNING + own / MILLI).saturating_add_signed(self.clock.off);
        Time { now: self.base + Duration::from_micros(own), unix_millis }
    }

    pub(super) fn set_pace(&mut self, percent: u64, now: u64) {
        self.clock = Clock { since: now, own: self.clock.own(now), percent, ..self.clock };
    }

    pub(super) fn jump(&mut self, millis: i64) {
        self.clock.off += millis;
    }

    /// The world's time for a time of its own.
    pub(super) fn stretch(&self, own: u64) -> u64 {
        own * 100 / self.clock.percent
    }

    /// How long a turn takes.
    pub(super) fn turn_time(&self, now: u64) -> u64 {
        let (factor, until) = self.starved;
        if now < until { 50 * factor } else { 50 }
    }

    /// How long a sync takes that takes `usual` otherwise.
    pub(super) fn sync_time(&self, usual: u64, now: u64) -> u64 {
        let (factor, until) = self.slow;
        let time = if now < until { (usual * factor).min(2 * SECOND) } else { usual };
        time.max(self.hung_until.saturating_sub(now))
    }

    /// The power went in the middle of something.
    pub(super) fn is_down(&self) -> bool {
        self.disk.is_down()
    }
}

impl Clock {
    fn own(&self, now: u64) -> u64 {
        self.own + (now - self.since) * self.percent / 100
    }
}

impl Node {
    /// Something for the driver's next turn.
    pub(super) fn input(&self, input: Input) {
        match input {
            Input::Net(event) => self.net(event),
            other => drop(self.inputs.send(other)),
        }
    }

    pub(super) fn net(&self, event: Event) {
        self.inbox.deliver(event);
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// A tick has passed; whether the loop wakes for it.
    pub(super) fn tick(&mut self) -> bool {
        self.ticks += 1;
        self.ticks >= self.driver.ticks_to_sleep()
    }

    pub(super) fn is_called(&self) -> bool {
        !self.called.is_empty()
    }

    /// Writes what the log is to have; whom to tell, or why it cannot.
    pub(super) fn commit(&mut self) -> Result<Vec<(ShardId, u64)>, String> {
        let (records, done) = logger::gather(self.jobs.try_iter());
        let records = Sabotage::records(self.sabotage, records, &mut self.late);
        self.engine.log().commit(&records).map_err(|error| error.to_string())?;
        Ok(done)
    }

    /// The background thread's work. Returns how often all was read again and checked.
    pub(super) fn work(&mut self, scrubs: bool) -> u64 {
        while self.called.try_recv().is_ok() {}
        let limits = &Limits::TINY;
        let done = self.background.work(&self.engine, limits, &self.inputs, &self.metrics);
        let after = done.and_then(|()| self.engine.log().write_sync_marker());
        if let Err(error) = after {
            tracing::warn!(%error, "background work failed");
            if let After::Stop(why) = background::after(&error) {
                self.input(Input::Failed(why));
            }
        }
        if scrubs {
            let (engine, inputs) = (&self.engine, &self.inputs);
            background::scrub_on(&mut self.scrub, engine, inputs, &self.metrics, SCRUB_BYTES);
        }
        self.scrub.rounds()
    }

    pub(super) fn group(&self) -> &Group {
        &self.driver.groups[&SHARD]
    }
}
