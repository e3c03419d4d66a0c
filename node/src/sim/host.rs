//! A simulated server: a whole node without its sockets and threads. The engine, the worker loop,
//! the shard code and the wire format are the product's; the disk is in memory, and the simulation
//! supplies the time.

use super::build::Build;
use super::plan::{MILLI, Plan, SECOND};
use super::replicas::member_on;
use super::rng::Rng;
use super::sabotage::Sabotage;
use crate::clock::Time;
use crate::cluster::publish::Publisher;
use crate::disk_unit::background::{self, Background, OnError};
use crate::disk_unit::trust::DiskTrust;
use crate::disk_unit::{DiskEvent, DiskNumber, DiskQueues, DiskUnit, logger};
use crate::limits::{Limits, TICK};
use crate::machine::StateMachine;
use crate::metrics::Metrics;
use crate::raft::{Conf, Config, Lease, Vote};
use crate::replica::Replica;
use crate::replica::open::Opening;
use crate::request::mailbox::ReplyQueue;
use crate::router::{FIRST_SHARD, Router};
use crate::sim::replicas::HostId;
use crate::worker::inbox::WorkerInbox;
use crate::worker::{Disk, Input, State, Worker};
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::scrub::Scrub;
use bedstone_engine::wal::Record;
use bedstone_engine::{Engine, Options, ShardId, Term};
use bedstone_net::outbox::Pushed;
use bedstone_net::{Event, Inbox, NodeId, Outbox};
use crossbeam_channel::{Sender, unbounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The wall clock at the start of a simulation, in milliseconds since 1970.
const BEGINNING: u64 = 1_700_000_000_000;

/// Bytes that a disk writes as a whole.
const SECTOR: usize = 512;

/// Greatest number of bits or sectors that one fault damages.
const FLIPS_MAX: u64 = 8;

/// Bytes that one step of the scrub reads again, where the disk was damaged.
const SCRUB_BYTES: u64 = 16 << 10;

/// The lease of plans with lease reads. In such a plan no two clocks differ in rate by more than
/// the fifth that this lease allows.
const LEASE: Lease = Lease::new(Config::DEFAULT.election.start, TICK.as_nanos() as u64, 200_000);

/// The clocks of a node.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// When the rate last changed: in simulated time, and in the clock's own time.
    since: u64,
    own: u64,
    percent: u64,
    /// Offset of the wall clock, in milliseconds.
    off: i64,
}

/// A server and the node on it.
pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) disk: MemoryDisk,
    pub(super) node: Option<Node>,
    /// Changes with each start and end of the node: an event for an earlier incarnation is dropped.
    pub(super) life: u64,
    /// The log's files as they were when the node last started.
    log_at_start: BTreeMap<String, Vec<u8>>,
    /// The disk was damaged, and the node may not have found the damage yet.
    pub(super) latent: bool,
    /// The disk was lost, and an empty disk took its place.
    replaced: bool,
    /// Number of power losses.
    boots: u64,
    /// Number of starts with a log that the node knew to be damaged.
    pub(super) damaged_starts: u64,
    clock: Clock,
    base: Instant,
    /// The time that the node's clock clock_micros in the current turn.
    clock_micros: Arc<AtomicU64>,
    pub(super) paused_until: u64,
    /// The time at which the node was stopped right after it read its clock.
    pub(super) stopped_at: Option<u64>,
    /// The build that the node runs.
    pub(super) build: Build,
    /// The factor of the duration of syncs, and when it ends.
    pub(super) slow: (u64, u64),
    pub(super) hung_until: u64,
    pub(super) starved: (u64, u64),
    pub(super) full_until: u64,
    /// The node is one of several initial voters.
    is_initial_voter: bool,
    /// The disk fails because of a fault, so the node may stop.
    pub(super) disk_fails: bool,
    /// Counters of all incarnations together.
    pub(super) metrics: Arc<Metrics>,
}

/// A running node.
pub(super) struct Node {
    pub(super) worker: Worker,
    pub(super) engine: Arc<Engine>,
    pub(super) pushed: Pushed,
    pub(super) replies: Arc<ReplyQueue>,
    inbox: WorkerInbox,
    inputs: Sender<Input>,
    queues: DiskQueues,
    metrics: Arc<Metrics>,
    background: Background,
    scrub: Scrub,
    /// Ticks since the last turn.
    pub(super) ticks: u32,
    /// Whether a turn, a log write and background work are scheduled.
    pub(super) turning: bool,
    pub(super) writing: bool,
    pub(super) writing_since: Option<u64>,
    pub(super) working: bool,
    sabotage: Option<Sabotage>,
    late: Vec<Record>,
}

impl Host {
    pub(super) fn new(id: HostId, base: Instant) -> Host {
        Host {
            id,
            disk: MemoryDisk::new(),
            node: None,
            life: 0,
            log_at_start: BTreeMap::new(),
            latent: false,
            replaced: false,
            boots: 0,
            damaged_starts: 0,
            clock: Clock { since: 0, own: 0, percent: 100, off: 0 },
            base,
            clock_micros: Arc::default(),
            stopped_at: None,
            paused_until: 0,
            build: Build::Present,
            slow: (1, 0),
            hung_until: 0,
            starved: (1, 0),
            full_until: 0,
            disk_fails: false,
            is_initial_voter: false,
            metrics: Arc::default(),
        }
    }

    /// Starts the node from the content of its disk.
    pub(super) fn start(&mut self, plan: &Plan, seed: u64, now: u64) -> Result<(), String> {
        let mut options = Options::tiny();
        options.owner = format!("node {}", self.id);
        options.new_store_id = u128::from(self.id);
        self.log_at_start = self.files(&["log/"]);
        let engine = Engine::open(Arc::new(self.disk.clone()), options);
        let engine = Arc::new(engine.map_err(|error| error.to_string())?);
        self.damaged_starts += u64::from(engine.log().check_whole(FIRST_SHARD).is_err());
        let conf = match (self.id <= plan.nodes, self.replaced) {
            (false, _) => Conf::default(),
            (true, false) => Conf::of_members((1..=plan.nodes).map(member_on)),
            // By the time a disk is replaced, the configured members are all nodes of the plan.
            (true, true) => Conf::of_members(plan.all().map(member_on)),
        };
        let mut limits = Limits { follower_reads: plan.follower_reads, ..Limits::TINY };
        limits.entry_versions = self.build.entry_versions();
        if plan.sabotage == Some(Sabotage::AppliesNewerEntries) {
            limits.entry_versions.newest = u16::MAX;
        }
        limits.raft.lease = plan.leases.then_some(LEASE);
        if plan.sabotage == Some(Sabotage::WaitsForDisks) {
            limits.raft.disk_hangs = u64::MAX >> 1;
        }
        let seed = match plan.sabotage {
            Some(Sabotage::ReusesRequestNumbers) => self.id,
            _ => seed,
        };
        let boot = self.boots.to_string();
        let trust = || DiskTrust::read(Arc::new(self.disk.clone()), &boot);
        let trust = plan.suspect_disks.then(trust);
        let disk_is_suspect = trust.as_ref().is_some_and(DiskTrust::is_suspect)
            && plan.sabotage != Some(Sabotage::TrustsDisks);
        let snapshot_bytes_per_second = match plan.sabotage {
            Some(Sabotage::SendsAtOnce) => 1 << 40,
            _ => limits.snapshot_bytes_per_second,
        };
        let metrics = self.metrics.clone();
        let (unit, queues) = DiskUnit::new(engine.clone(), "memory".to_owned());
        let unit = Arc::new(unit);
        let (shard, node, id) = (FIRST_SHARD, NodeId(self.id), member_on(self.id).id);
        let opening = Opening { shard, id, node, conf, limits, seed, disk_is_suspect };
        let replica = Replica::open(&unit, &metrics, opening).map_err(|error| error.to_string())?;
        let machine: Arc<dyn StateMachine> = replica.machine().clone();
        let (inputs, input) = unbounded();
        let inbox = WorkerInbox::new(inputs.clone());
        let (outbox, pushed) = Outbox::pair(plan.all().filter(|&peer| peer != self.id).map(NodeId));
        let replies = Arc::<ReplyQueue>::default();
        let (base, clock_micros) = (self.base, self.clock_micros.clone());
        let cluster = "simulation".to_owned();
        let worker = Worker {
            disks: vec![Disk::new(unit, trust)],
            replicas: [(FIRST_SHARD, replica)].into(),
            router: Arc::new(Router::new([(FIRST_SHARD, machine)].into())),
            inputs: input,
            frames: inbox.counter(),
            outbox,
            reply_queue: replies.clone(),
            metrics: metrics.clone(),
            publisher: Publisher::new(Arc::default(), cluster, NodeId(self.id), Vec::new()),
            started: self.time(now).now,
            clock: Box::new(move || {
                base + Duration::from_micros(clock_micros.load(Ordering::Relaxed))
            }),
            snapshot_bytes_per_second,
            state: State::new([FIRST_SHARD].into_iter()),
        };
        self.life += 1;
        self.is_initial_voter = self.id <= plan.nodes && plan.nodes > 1;
        self.node = Some(Node {
            worker,
            engine,
            pushed,
            replies,
            inbox,
            inputs,
            queues,
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

    /// Ends the node. The disk keeps everything that was written, synced or not.
    pub(super) fn kill(&mut self) {
        self.life += 1;
        // The drop of the node must not change the disk, so every operation on the disk fails
        // meanwhile.
        self.disk.crash_after(0);
        self.node = None;
        self.disk.clear_faults();
        self.full_until = 0;
        self.paused_until = 0;
        self.stopped_at = None;
    }

    /// Ends the node. The draw decides which unsynced writes the disk keeps.
    pub(super) fn lose_power(&mut self, seed: u64) {
        self.kill();
        self.latent |= self.disk.ignores_syncs();
        self.disk = self.disk.power_loss(seed);
        self.boots += 1;
    }

    /// Ends the node and loses its disk: an empty disk takes its place.
    pub(super) fn lose_disk(&mut self) {
        self.kill();
        self.disk = MemoryDisk::new();
        self.latent = false;
        self.replaced = true;
    }

    /// Whether the node runs at its usual pace, with a disk that does.
    pub(super) fn is_undisturbed(&self, now: u64) -> bool {
        let times =
            [self.paused_until, self.slow.1, self.hung_until, self.starved.1, self.full_until];
        self.node.is_some() && !self.disk_fails && times.iter().all(|&until| until <= now)
    }

    /// Flips some bits of the log or of tables, in the used parts of the files.
    pub(super) fn flip_bits(&mut self, draw: u64) {
        let mut rng = Rng::new(draw);
        for _ in 0..=rng.below(FLIPS_MAX) {
            let Some((path, sector, bytes)) = self.sector(&mut rng) else { break };
            let used = (bytes.len() - sector).min(SECTOR) as u64;
            self.disk.flip(&path, sector as u64 + rng.below(used), 1 << rng.below(8));
        }
        self.latent = true;
    }

    /// Gives some sectors of the log or of tables the content that they had when the node started,
    /// or the content of other sectors.
    pub(super) fn misplace_sectors(&mut self, draw: u64) {
        let mut rng = Rng::new(draw);
        // This stops early when no sector is in use any more: each may have its content from the
        // start again.
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

    /// A used sector of a file of the log or of a table: the file, the offset of the sector, and
    /// the content of the file. `None` when no sector is in use.
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

    /// The files whose names contain one of `parts`, with their content.
    fn files(&self, parts: &[&str]) -> BTreeMap<String, Vec<u8>> {
        let named = |path: &String| parts.iter().any(|part| path.contains(part));
        let files = self.disk.files().into_iter().filter(named);
        files.filter_map(|path| Some((path.clone(), self.disk.bytes(&path).ok()?))).collect()
    }

    /// Whether the node may lack votes or entries that it acknowledged, or does not run.
    pub(super) fn is_impaired(&self) -> bool {
        self.latent
            || self.disk.ignores_syncs()
            || self.node.as_ref().is_none_or(|node| {
                let hard = node.engine.log().hard_state(FIRST_SHARD);
                let new = hard.term == Term(0) && self.is_initial_voter;
                let raft = node.replica().raft();
                raft.is_recovering() || raft.is_damaged() || new || hard.vote == Vote::Withheld
            })
    }

    /// The node's time at the beginning of a turn. This also sets the time that the clock shows
    /// during the turn.
    pub(super) fn begin_turn(&mut self, now: u64, sabotage: Option<Sabotage>) -> Time {
        let looked = self.stopped_at.take().unwrap_or(now);
        let again = if sabotage == Some(Sabotage::TrustsOldClock) { looked } else { now };
        self.clock_micros.store(self.clock.own(again), Ordering::Relaxed);
        self.time(looked)
    }

    /// The node's time.
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

    /// The simulated time that passes while the node's clock advances by `own`.
    pub(super) fn stretch(&self, own: u64) -> u64 {
        own * 100 / self.clock.percent
    }

    /// The duration of a turn.
    pub(super) fn turn_time(&self, now: u64) -> u64 {
        let (factor, until) = self.starved;
        if now < until { 50 * factor } else { 50 }
    }

    /// The duration of a sync that normally takes `usual`.
    pub(super) fn sync_time(&self, usual: u64, now: u64) -> u64 {
        let (factor, until) = self.slow;
        let time = if now < until { (usual * factor).min(2 * SECOND) } else { usual };
        time.max(self.hung_until.saturating_sub(now))
    }

    /// Whether the disk lost power in the middle of an operation.
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
    /// Queues an input for the next turn of the worker.
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
        !self.queues.log_jobs.is_empty()
    }

    /// Counts a tick. Returns whether the loop wakes for it.
    pub(super) fn tick(&mut self) -> bool {
        self.ticks += 1;
        self.ticks >= self.worker.ticks_to_sleep()
    }

    pub(super) fn is_called(&self) -> bool {
        !self.queues.background_calls.is_empty()
    }

    /// Writes the queued records to the log. Returns the completed writes by shard, or why the
    /// write failed.
    pub(super) fn commit(&mut self) -> Result<Vec<(ShardId, u64)>, String> {
        let (records, done) = logger::gather(self.queues.log_jobs.try_iter());
        let records = Sabotage::records(self.sabotage, records, &mut self.late);
        self.engine.log().commit(&records).map_err(|error| error.to_string())?;
        Ok(done)
    }

    /// Does the work of the background thread. Returns how often the scrub has read and checked
    /// everything.
    pub(super) fn work(&mut self, scrubs: bool) -> u64 {
        while self.queues.background_calls.try_recv().is_ok() {}
        let limits = &Limits::TINY;
        let inputs = self.inputs.clone();
        let notify = move |event: DiskEvent| inputs.send(Input::Disk(DiskNumber(0), event)).is_ok();
        let done = self.background.work(&self.engine, limits, &notify, &self.metrics);
        let after = done.and_then(|()| self.engine.log().write_sync_marker());
        if let Err(error) = after {
            tracing::warn!(%error, "background work failed");
            if let OnError::Stop(why) = background::on_error(&error) {
                self.input(Input::Disk(DiskNumber(0), DiskEvent::Failed(why)));
            }
        }
        if scrubs {
            let (engine, metrics) = (&self.engine, &self.metrics);
            background::scrub_step(&mut self.scrub, engine, &notify, metrics, SCRUB_BYTES);
        }
        self.scrub.rounds()
    }

    pub(super) fn replica(&self) -> &Replica {
        &self.worker.replicas[&FIRST_SHARD]
    }
}
