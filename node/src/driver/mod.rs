//! The loop: inputs in, effects executed in the one legal order.
//!
//! One thread owns the shards' replicas. Each step takes what has come (client requests, frames,
//! writes that became durable, ticks), lets the cores work, then executes their effects: frames and
//! replies leave with one wake-up each, writes go to the [`logger`], committed entries into the
//! tree. Nothing here waits for a disk or a peer, except that a table block which is not cached is
//! read where a read needs it.

pub mod background;
mod forward;
pub mod group;
pub mod logger;
mod mend;
pub mod peers;
pub mod pending;
mod reads;
mod snapshot;
pub mod transfer;

use crate::api::members::{Answer, Members};
use crate::api::port::{Batch, Replies};
use crate::clock::Time;
use crate::doubt::Doubt;
use crate::limits::{INBOX_FRAMES_MAX, INPUTS_PER_STEP, TICK, TICKS_PER_SECOND};
use crate::metrics::{Metrics, raise};
use crate::raft::{Effects, PeerId, Refused};
use crate::status::{DiskStatus, NodeStatus, ShardStatus, Status, StatusCell};
use crate::wire;
use bedstone_engine::{Engine, ShardId};
use bedstone_net::{Event, Frame, Inbox, Outbox};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use group::{Context, Group};
use logger::LogJob;
use peers::Peers;
use pending::Answers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tracing::{error, warn};

/// Ticks between publications of the status, while something happens and while all shards rest.
const STATUS_TICKS: (u64, u64) = (2, 100);

/// What the loop takes in.
pub enum Input {
    /// From the net.
    Net(Event),
    /// From a client connection of this node.
    Client(Batch),
    /// Writes that are durable, by shard.
    Persisted(Vec<(ShardId, u64)>),
    /// From an operator: what is to become of a shard's members.
    Members(ShardId, Members, Answer),
    /// A shard's memtable went into tables.
    Flushed(ShardId),
    /// Some of what a shard has here cannot be read.
    Damaged(ShardId, String),
    /// The log failed: this node cannot promise anything any more.
    Failed(String),
    /// Stop.
    Stop,
}

/// The net's way in. Counts frames so that the net can wait when the driver is behind.
pub struct DriverInbox {
    inputs: Sender<Input>,
    frames: Arc<AtomicUsize>,
}

impl DriverInbox {
    /// An inbox in front of the driver's channel.
    pub fn new(inputs: Sender<Input>) -> Self {
        Self { inputs, frames: Arc::default() }
    }

    /// The count that the driver lowers.
    pub fn counter(&self) -> Arc<AtomicUsize> {
        self.frames.clone()
    }
}

impl Inbox for DriverInbox {
    fn deliver(&self, event: Event) {
        if let Event::Frames(_, frames) = &event {
            self.frames.fetch_add(frames.len(), Ordering::Relaxed);
        }
        let _ = self.inputs.send(Input::Net(event));
    }

    fn has_room(&self) -> bool {
        self.frames.load(Ordering::Relaxed) < INBOX_FRAMES_MAX
    }
}

/// What the loop is made of.
pub struct Driver {
    /// This node.
    pub node: PeerId,
    /// The disk.
    pub engine: Arc<Engine>,
    /// The shards here.
    pub groups: BTreeMap<ShardId, Group>,
    /// What comes in.
    pub inputs: Receiver<Input>,
    /// Frames delivered and not taken yet.
    pub frames: Arc<AtomicUsize>,
    /// The way to the net.
    pub outbox: Outbox,
    /// The way to the log.
    pub log: Sender<LogJob>,
    /// Calls the background thread.
    pub background: Sender<()>,
    /// The way to the clients.
    pub replies: Arc<Replies>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where the status is left.
    pub status: Arc<StatusCell>,
    /// The cluster, for the status.
    pub cluster: String,
    /// Every node, for the status.
    pub nodes: Vec<NodeStatus>,
    /// Where the data is, for the status.
    pub path: String,
    /// When it started.
    pub started: Instant,
    /// What the time is at the moment of the call.
    pub clock: Box<dyn Fn() -> Instant + Send>,
    /// Bytes of snapshots that it sends in a second.
    pub snapshot_bytes_per_second: u64,
    /// Whether the disk may lack what it said it had; `None` where it is trusted.
    pub doubt: Option<Doubt>,
    /// What it has come to since.
    pub state: State,
}

/// What the loop keeps from turn to turn besides the shards.
#[derive(Default)]
pub struct State {
    peers: Peers,
    answers: Answers,
    /// Room for what a core asks for.
    effects: Effects,
    snapshot_room: i64,
    /// Ticks since the status was published.
    since_published: u64,
    /// The shards that do not rest: no other costs anything in a turn.
    awake: BTreeSet<ShardId>,
    /// What is published of each shard, and of which that is out of date.
    shards: BTreeMap<ShardId, Arc<ShardStatus>>,
    outdated: BTreeSet<ShardId>,
}

impl State {
    /// Of a node that starts with these shards.
    pub fn new(shards: impl Iterator<Item = ShardId>) -> State {
        State { awake: shards.collect(), ..State::default() }
    }
}

impl Driver {
    /// Runs until told to stop.
    ///
    /// # Errors
    /// Why this node cannot go on.
    pub fn run(mut self) -> Result<(), String> {
        let mut last_tick = self.started;
        loop {
            let sleep = self.ticks_to_sleep();
            let due = last_tick + TICK * sleep;
            let wait = due.saturating_duration_since(crate::clock::now());
            let first = match self.inputs.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let time = crate::clock::time();
            let passed = time.now.saturating_duration_since(last_tick);
            let passed = u32::try_from(passed.as_nanos() / TICK.as_nanos()).unwrap_or(u32::MAX);
            last_tick = match passed <= sleep {
                true => last_tick + TICK * passed,
                // After a pause of the process time goes on from here, with no burst of ticks.
                false => time.now,
            };
            if !self.turn(first, passed.min(sleep), time)? {
                return Ok(());
            }
        }
    }

    /// How many ticks the loop may sleep: while all shards rest, until peers expect a frame.
    pub fn ticks_to_sleep(&self) -> u32 {
        if self.state.awake.is_empty() { self.state.peers.ticks_to_beat() } else { 1 }
    }

    /// One turn of the loop: takes `first` and what else waits, lets the shards work, and hands on
    /// what they ask for. `ticks` is how often [`TICK`] has passed since the last turn: at most
    /// [`Driver::ticks_to_sleep`] of then. False when told to stop.
    ///
    /// # Errors
    /// Why this node cannot go on.
    pub fn turn(&mut self, first: Option<Input>, ticks: u32, time: Time) -> Result<bool, String> {
        let more = self.inputs.clone();
        for input in first.into_iter().chain(more.try_iter().take(INPUTS_PER_STEP)) {
            match input {
                Input::Stop => return Ok(false),
                Input::Failed(why) => return Err(why),
                other => self.take(other, time.now),
            }
        }
        self.step(ticks, time)?;
        if ticks > 0 {
            self.settle_doubt()?;
            self.publish_if_due(ticks);
        }
        Ok(true)
    }

    fn settle_doubt(&mut self) -> Result<(), String> {
        let Some(doubt) = self.doubt.as_mut().filter(|doubt| doubt.is_open()) else {
            return Ok(());
        };
        if self.groups.values().any(|group| group.raft().is_recovering()) {
            return Ok(());
        }
        match doubt.settle() {
            Err(error) if error.is_failed_write() => return Err(error.to_string()),
            Err(error) => {
                warn!(%error, "the others will be asked again at the next start");
                self.doubt = None;
            }
            Ok(()) => {}
        }
        Ok(())
    }

    fn take(&mut self, input: Input, now: Instant) {
        let State { peers, answers, awake, .. } = &mut self.state;
        match input {
            Input::Net(Event::Up(peer)) => {
                peers.connected(peer);
                awake.extend(self.groups.keys());
                self.groups.values_mut().for_each(|group| group.peer_up(peer));
            }
            Input::Net(Event::Down(peer)) => {
                peers.lost(peer);
                awake.extend(self.groups.keys());
                for group in self.groups.values_mut() {
                    group.peer_down(peer, answers, &self.metrics);
                }
            }
            Input::Net(Event::Frames(peer, frames)) => {
                self.frames.fetch_sub(frames.len(), Ordering::Relaxed);
                peers.heard(peer);
                frames.into_iter().for_each(|frame| self.frame(peer, frame, now));
            }
            Input::Client(batch) => {
                // One shard so far; a router by key comes between when there are more.
                if let Some((&shard, group)) = self.groups.iter_mut().next() {
                    awake.insert(shard);
                    group.client(batch, answers, &self.metrics);
                }
            }
            Input::Persisted(writes) => {
                for (shard, seq) in writes {
                    awake.insert(shard);
                    if let Some(group) = self.groups.get_mut(&shard) {
                        group.persisted(seq);
                    }
                }
            }
            Input::Members(shard, members, answer) => {
                awake.insert(shard);
                let group = self.groups.get_mut(&shard);
                let done = group.ok_or(Refused::NotLeader(None)).and_then(|group| match members {
                    Members::Change(change) => group.change(&change).map(drop),
                    Members::Transfer(to) => group.hand_over(to),
                });
                answer(done);
            }
            Input::Flushed(shard) => {
                awake.insert(shard);
                if let Some(group) = self.groups.get_mut(&shard) {
                    group.flushed(&self.engine, &self.log);
                }
            }
            Input::Damaged(shard, what) => {
                awake.insert(shard);
                if let Some(group) = self.groups.get_mut(&shard) {
                    group.damaged(&what, &self.metrics);
                }
            }
            Input::Failed(_) | Input::Stop => {}
        }
    }

    fn frame(&mut self, peer: PeerId, frame: Frame, now: Instant) {
        let (kind, shard) = (frame.kind, frame.shard);
        if kind == wire::kind::BEATS {
            let Some(beats) = wire::take_beats(peer, frame.body) else {
                return warn!(peer, kind, "a malformed frame is dropped");
            };
            for (shard, message) in beats {
                if let Some(group) = self.groups.get_mut(&shard) {
                    self.state.awake.insert(shard);
                    group.message(message);
                }
            }
            return;
        }
        let Some(group) = self.groups.get_mut(&shard) else {
            return warn!(peer, shard, "a frame for a shard that is not here");
        };
        self.state.awake.insert(shard);
        if group.frame(peer, frame, now, &mut self.state.answers, &self.metrics).is_none() {
            warn!(peer, kind, "a malformed frame is dropped");
        }
    }

    /// Lets the shards work and executes what they ask for.
    fn step(&mut self, ticks: u32, time: Time) -> Result<(), String> {
        let State { peers, answers, effects, awake, outdated, snapshot_room, .. } = &mut self.state;
        if ticks > 0 {
            // What was not used is gone, and what was used too much is paid back.
            let room = self.snapshot_bytes_per_second as i64 / TICKS_PER_SECOND;
            *snapshot_room = (*snapshot_room + room * i64::from(ticks)).min(room);
        }
        for _ in 0..ticks {
            for peer in peers.tick() {
                awake.extend(self.groups.keys());
                self.groups.values_mut().for_each(|group| group.peer_silent(peer));
            }
        }
        let mut rest = Vec::new();
        let since_start = |now: Instant| now.duration_since(self.started).as_nanos() as u64;
        let clock = || since_start((self.clock)());
        for &shard in awake.iter() {
            let Some(group) = self.groups.get_mut(&shard) else { continue };
            let mut context = Context {
                now: time.now,
                elapsed: since_start(time.now),
                clock: &clock,
                unix_millis: time.unix_millis,
                peers,
                engine: &self.engine,
                outbox: &mut self.outbox,
                log: &self.log,
                background: &self.background,
                metrics: &self.metrics,
                answers,
                effects,
                snapshot_room,
            };
            if ticks > 0 {
                group.tick(&mut context);
            }
            group.step(&mut context).map_err(|error| {
                error!(%error, "a shard cannot go on");
                error.to_string()
            })?;
            if group.is_at_rest() {
                rest.push(shard);
            }
        }
        for shard in rest {
            awake.remove(&shard);
            outdated.insert(shard);
        }
        peers.send_beats(ticks > 0, &mut self.outbox);
        forward::send_replies(&mut answers.peers, &mut self.outbox);
        self.outbox.flush();
        self.replies.flush(&mut answers.clients);
        Ok(())
    }

    fn publish_if_due(&mut self, ticks: u32) {
        let State { since_published, awake, outdated, .. } = &mut self.state;
        *since_published += u64::from(ticks);
        let (often, seldom) = STATUS_TICKS;
        let pause = if awake.is_empty() && outdated.is_empty() { seldom } else { often };
        if *since_published >= pause {
            *since_published = 0;
            self.publish();
        }
    }

    fn publish(&mut self) {
        let State { awake, outdated, shards, .. } = &mut self.state;
        outdated.extend(awake.iter());
        for shard in std::mem::take(outdated) {
            let status = self.groups.get(&shard).map(|group| Arc::new(group.status()));
            shards.extend(status.map(|status| (shard, status)));
        }
        let mut status = Status {
            cluster: self.cluster.clone(),
            node: self.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: self.nodes.clone(),
            ready: true,
            ..Status::default()
        };
        for node in &mut status.nodes {
            node.alive = node.id == self.node || self.state.peers.is_up(node.id);
        }
        let (mut lag, mut table_bytes, mut memtable_bytes) = (0, 0, 0);
        let (mut log_value_bytes, mut file_value_bytes) = (0, 0);
        let mut all_led = true;
        for shard in self.state.shards.values() {
            if shard.voters.is_empty() {
                (all_led, status.ready) = (false, false);
                status.reason = format!("shard {} waits to be given its members", shard.id);
            } else if !shard.has_member(self.node) {
                status.ready = false;
                status.reason = format!("this node is no member of shard {}", shard.id);
            } else if !shard.recovery_wait.is_empty() {
                (all_led, status.ready) = (false, false);
                status.reason = format!("shard {} {}", shard.id, shard.recovery_wait);
            } else if shard.leader == 0 {
                (all_led, status.ready) = (false, false);
                status.reason = format!("shard {} has no leader", shard.id);
            } else if shard.damaged {
                status.ready = false;
                status.reason =
                    format!("shard {} is damaged and recovery_wait a snapshot", shard.id);
            } else if shard.commit > shard.applied + 1 {
                status.ready = false;
                status.reason = format!(
                    "shard {} applies entry {} of {}",
                    shard.id, shard.applied, shard.commit
                );
            }
            lag += shard.commit - shard.applied;
            table_bytes += shard.table_bytes;
            memtable_bytes += shard.memtable_bytes as u64;
            log_value_bytes += shard.log_value_bytes;
            file_value_bytes += shard.file_value_bytes;
        }
        let logical_bytes = table_bytes + memtable_bytes + log_value_bytes + file_value_bytes;
        self.metrics.has_leader.set(i64::from(all_led));
        self.metrics.table_bytes.set(table_bytes as i64);
        self.metrics.memtable_bytes.set(memtable_bytes as i64);
        status.shards = self.state.shards.values().cloned().collect();
        let awake = self.state.awake.iter().filter_map(|shard| self.groups.get(shard));
        let pending: usize = awake.map(Group::queued).sum();
        self.metrics.awake.set(self.state.awake.len() as i64);
        self.metrics.pending.set(pending as i64);
        self.metrics.commit_lag.set(lag as i64);
        let segments = self.engine.log().segments().holds().len();
        let for_entries = self.engine.log().entry_segments();
        self.metrics.log_segments.set(segments as i64);
        self.metrics.log_segments_for_entries.set(for_entries as i64);
        let log_bytes = segments as u64 * self.engine.segment_bytes();
        self.metrics.logical_bytes.set(logical_bytes as i64);
        self.metrics.physical_bytes.set((table_bytes + file_value_bytes + log_bytes) as i64);
        let (hits, misses) = self.engine.cache().hits_and_misses();
        raise(&self.metrics.cache_hits, hits);
        raise(&self.metrics.cache_misses, misses);
        status.disks.push(DiskStatus {
            path: self.path.clone(),
            free_bytes: self.engine.free_bytes().unwrap_or(0),
            log_segments: segments,
            log_segments_for_entries: for_entries,
            log_segments_for_values: segments.saturating_sub(for_entries),
            write_mode: format!("{:?}", self.engine.write_mode()).to_lowercase(),
            health: self.engine.log().check().map_or_else(|e| e.to_string(), |()| "ok".to_owned()),
        });
        self.status.set(status);
    }
}
