//! The loop: inputs in, effects executed in the one legal order.
//!
//! One thread owns the replicas of its shards. Each turn takes the inputs that have arrived (client
//! requests, frames, durable writes, ticks), lets the replicas work, then executes their effects:
//! frames and replies leave with one wake-up each, writes go to the disk's logger, committed
//! entries into the state machine. The loop waits for no disk and no peer, except that a read of a
//! table block that is not cached waits for the disk.

pub mod inbox;
#[cfg(test)]
mod tests;

use crate::clock::Time;
use crate::cluster::peers::{PeerNetwork, Peers};
use crate::cluster::publish::Publisher;
use crate::disk_unit::trust::DiskTrust;
use crate::disk_unit::{DiskEvent, DiskNumber, DiskUnit, restore_trust};
use crate::limits::{INPUTS_PER_STEP, TICK, TICKS_PER_SECOND};
use crate::metrics::Metrics;
use crate::policy::ServedBy;
use crate::raft::{Effects, Undecodable};
use crate::replica::{Replica, Turn};
use crate::request::admin::{AdminError, AdminReply, AdminRequest};
use crate::request::mailbox::{ClientBatch, ReplyQueue};
use crate::request::replies::Replies;
use crate::request::{PendingRequest, Requester};
use crate::router::Router;
use crate::wire::{self, Coalesced};
use bedstone_engine::ShardId;
use bedstone_net::{Event, Frame, NodeId, Outbox};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tracing::{error, warn};

/// An input of the loop.
pub enum Input {
    /// From the net.
    Net(Event),
    /// From a client connection of this node.
    Client(ClientBatch),
    /// From a disk of this node.
    Disk(DiskNumber, DiskEvent),
    /// From an operator, for a shard.
    Admin(ShardId, AdminRequest, AdminReply),
    /// Transfer the leadership of every shard, because the node is about to stop. The reply comes
    /// once this node leads no shard that another node can lead.
    HandOver(Box<dyn FnOnce() + Send>),
    /// Stop.
    Stop,
}

/// A disk of the node, and its trust record where the disk is not trusted without one.
pub struct Disk {
    unit: Arc<DiskUnit>,
    /// The trust record; `None` where the disk is trusted.
    trust: Option<DiskTrust>,
    /// The disk failed: no replica uses it any more.
    failed: bool,
}

impl Disk {
    /// A disk that works.
    pub fn new(unit: Arc<DiskUnit>, trust: Option<DiskTrust>) -> Disk {
        Disk { unit, trust, failed: false }
    }
}

/// The parts of the loop.
pub struct Worker {
    /// The disks, by [`DiskNumber`].
    pub disks: Vec<Disk>,
    /// The replicas of the shards here.
    pub replicas: BTreeMap<ShardId, Replica>,
    /// Key to shard.
    pub router: Arc<Router>,
    /// Inputs.
    pub inputs: Receiver<Input>,
    /// Frames delivered by the net and not taken yet.
    pub frames: Arc<AtomicUsize>,
    /// The way to the net.
    pub outbox: Outbox,
    /// The way to the clients.
    pub reply_queue: Arc<ReplyQueue>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Publishes the status.
    pub publisher: Publisher,
    /// The time of the start.
    pub started: Instant,
    /// The time at the moment of the call.
    pub clock: Box<dyn Fn() -> Instant + Send>,
    /// Bytes of snapshots that the node sends in a second.
    pub snapshot_bytes_per_second: u64,
    /// The state that the loop keeps from turn to turn.
    pub state: State,
}

/// The state that the loop keeps from turn to turn besides the replicas.
#[derive(Default)]
pub struct State {
    peers: Peers,
    replies: Replies,
    /// Room for the effects of a core.
    effects: Effects,
    snapshot_budget: i64,
    /// The node is about to stop: it transfers every leadership, and reports here that it has none.
    handing_over: Option<Box<dyn FnOnce() + Send>>,
    /// The shards that are not quiescent: only these cost anything in a turn.
    active: BTreeSet<ShardId>,
}

impl State {
    /// The state of a node that starts with these shards.
    pub fn new(shards: impl Iterator<Item = ShardId>) -> State {
        State { active: shards.collect(), ..State::default() }
    }
}

impl Worker {
    /// Runs until [`Input::Stop`] arrives.
    ///
    /// # Errors
    /// The reason for which this node cannot continue.
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
            last_tick = if passed <= sleep {
                last_tick + TICK * passed
            } else {
                // After a pause of the process, time continues from now, without a burst of ticks.
                time.now
            };
            if !self.turn(first, passed.min(sleep), time)? {
                return Ok(());
            }
        }
    }

    /// Ticks that the loop may sleep: while all shards are quiescent, until the next frame of
    /// coalesced heartbeats is due.
    pub fn ticks_to_sleep(&self) -> u32 {
        if self.state.active.is_empty() { self.state.peers.ticks_to_heartbeat() } else { 1 }
    }

    /// One turn of the loop: takes `first` and the inputs that wait, lets the replicas work, and
    /// executes their effects. `ticks` is the number of [`TICK`]s since the last turn, at most
    /// [`Worker::ticks_to_sleep`] as of then. Returns `false` after [`Input::Stop`].
    ///
    /// # Errors
    /// The reason for which this node cannot continue.
    pub fn turn(&mut self, first: Option<Input>, ticks: u32, time: Time) -> Result<bool, String> {
        let more = self.inputs.clone();
        for input in first.into_iter().chain(more.try_iter().take(INPUTS_PER_STEP)) {
            match input {
                Input::Stop => return Ok(false),
                Input::Net(event) => self.on_net(event, time.now),
                Input::Client(batch) => self.on_client(batch),
                Input::Disk(disk, event) => self.on_disk(disk, event)?,
                Input::Admin(shard, request, reply) => self.on_admin(shard, request, reply),
                Input::HandOver(done) => {
                    self.state.active.extend(self.replicas.keys());
                    self.state.handing_over = Some(done);
                }
            }
        }
        self.hand_over();
        if let Err((disk, why)) = self.step(ticks, time) {
            self.fail_disk(disk, why)?;
        }
        if ticks > 0 {
            self.restore_trust()?;
            self.publish_if_due(ticks);
        }
        Ok(true)
    }

    fn on_net(&mut self, event: Event, now: Instant) {
        let State { peers, replies, active, .. } = &mut self.state;
        match event {
            Event::Up(peer) => {
                peers.connected(peer);
                active.extend(self.replicas.keys());
                for replica in self.replicas.values_mut() {
                    replica.on_node_up(peer);
                }
            }
            Event::Down(peer) => {
                peers.disconnected(peer);
                active.extend(self.replicas.keys());
                for replica in self.replicas.values_mut() {
                    replica.on_node_down(peer, replies);
                }
            }
            Event::Frames(peer, frames) => {
                let waiting = self.frames.fetch_sub(frames.len(), Ordering::Relaxed);
                assert!(waiting >= frames.len(), "every frame was counted when it arrived");
                peers.heard(peer);
                for frame in frames {
                    self.on_frame(peer, frame, now);
                }
            }
        }
    }

    fn on_frame(&mut self, peer: NodeId, frame: Frame, now: Instant) {
        let (kind, shard) = (frame.kind, ShardId(frame.shard));
        if kind == wire::kind::COALESCED {
            let Some(messages) = wire::take_coalesced(frame.body) else {
                return warn!(%peer, kind, "a malformed frame is dropped");
            };
            for Coalesced { shard, to, message } in messages {
                if let Some(replica) = self.activate(shard) {
                    replica.on_message(peer, to, message);
                }
            }
            return;
        }
        let State { replies, active, .. } = &mut self.state;
        let Some(replica) = self.replicas.get_mut(&shard) else {
            return warn!(%peer, shard = shard.0, "a frame for a shard that is not here is dropped");
        };
        active.insert(shard);
        match replica.on_frame(peer, frame, now, replies) {
            Ok(()) => {}
            Err(Undecodable::Unknown(unknown)) => {
                warn!(%peer, kind, unknown, "a frame of a later build is dropped: upgrade here")
            }
            Err(Undecodable::Malformed) => warn!(%peer, kind, "a malformed frame is dropped"),
        }
    }

    fn on_client(&mut self, batch: ClientBatch) {
        let ClientBatch { mailbox, requests, deadline } = batch;
        let State { replies, active, .. } = &mut self.state;
        for request in requests {
            let shard = self.router.route(&request.command);
            let Some(replica) = self.replicas.get_mut(&shard) else {
                let request = PendingRequest {
                    command: request.command,
                    requester: Requester::Client(mailbox.clone(), request.slot),
                    resp3: request.resp3,
                    served_by: ServedBy::Leader,
                    deadline,
                };
                let why = format!("the disk of shard {shard} failed on this node");
                replies.unavailable(request, &why, &self.metrics);
                continue;
            };
            active.insert(shard);
            replica.on_client(request, &mailbox, deadline, replies);
        }
    }

    fn on_disk(&mut self, disk: DiskNumber, event: DiskEvent) -> Result<(), String> {
        match event {
            DiskEvent::Failed(why) => return self.fail_disk(disk, why),
            DiskEvent::Persisted(writes) => {
                for (shard, seq) in writes {
                    if let Some(replica) = self.activate(shard) {
                        replica.on_persisted(seq);
                    }
                }
            }
            DiskEvent::Flushed(shard) => {
                if let Some(replica) = self.activate(shard) {
                    replica.on_flushed();
                }
            }
            DiskEvent::Damaged(shard, damage) => {
                if let Some(replica) = self.activate(shard) {
                    replica.damaged(&damage);
                }
            }
        }
        Ok(())
    }

    /// A disk failed. Its replicas end, because they can guarantee nothing any more. The replicas
    /// on other disks go on.
    ///
    /// # Errors
    /// The reason, if no disk is left.
    fn fail_disk(&mut self, disk: DiskNumber, why: String) -> Result<(), String> {
        if std::mem::replace(&mut self.disks[disk.0].failed, true) {
            return Ok(());
        }
        if self.disks.iter().all(|disk| disk.failed) {
            return Err(why);
        }
        let unit = self.disks[disk.0].unit.clone();
        error!(
            disk = unit.path(),
            why, "the disk failed, and its shards stop here: replace the disk and restart the node"
        );
        let on_disk = |_: &ShardId, replica: &mut Replica| Arc::ptr_eq(replica.disk(), &unit);
        for (shard, replica) in self.replicas.extract_if(.., on_disk) {
            self.state.active.remove(&shard);
            self.publisher.fail(shard);
            replica.end("the disk of the shard failed", &mut self.state.replies);
        }
        Ok(())
    }

    /// Transfers the leaderships of a node that is about to stop. A transfer that does not succeed
    /// is repeated.
    fn hand_over(&mut self) {
        let State { peers, handing_over, .. } = &mut self.state;
        let Some(done) = handing_over.take() else { return };
        let net = PeerNetwork { peers, outbox: &mut self.outbox };
        let mut leads = false;
        for replica in self.replicas.values_mut() {
            leads |= replica.hand_over(&net);
        }
        if leads {
            *handing_over = Some(done);
        } else {
            done();
        }
    }

    fn on_admin(&mut self, shard: ShardId, request: AdminRequest, reply: AdminReply) {
        let Some(replica) = self.activate(shard) else {
            return reply(Err(AdminError::NotLeader(None)));
        };
        reply(match request {
            AdminRequest::ChangeMembers(change) => replica.change_members(&change),
            AdminRequest::TransferLeadership(to) => replica.transfer_leadership(to),
        });
    }

    /// The replica of a shard, which takes part in the next step.
    fn activate(&mut self, shard: ShardId) -> Option<&mut Replica> {
        let replica = self.replicas.get_mut(&shard)?;
        self.state.active.insert(shard);
        Some(replica)
    }

    /// Lets the replicas work and executes their effects.
    ///
    /// # Errors
    /// A disk on which a replica cannot continue, and the reason.
    fn step(&mut self, ticks: u32, time: Time) -> Result<(), (DiskNumber, String)> {
        let State { peers, replies, effects, active, snapshot_budget, .. } = &mut self.state;
        if ticks > 0 {
            // The budget does not accumulate, and an overdraft is paid back.
            let budget = self.snapshot_bytes_per_second as i64 / TICKS_PER_SECOND;
            *snapshot_budget = (*snapshot_budget + budget * i64::from(ticks)).min(budget);
        }
        for _ in 0..ticks {
            for peer in peers.tick() {
                active.extend(self.replicas.keys());
                for replica in self.replicas.values_mut() {
                    replica.on_node_silent(peer, replies);
                }
            }
        }
        let (mut quiescent, mut failed) = (Vec::new(), Ok(()));
        let since_start = |now: Instant| now.duration_since(self.started).as_nanos() as u64;
        let clock = || since_start((self.clock)());
        let mut net = PeerNetwork { peers, outbox: &mut self.outbox };
        for &shard in active.iter() {
            let replica = self.replicas.get_mut(&shard).expect("an active shard is here");
            let mut turn = Turn {
                now: time.now,
                elapsed: since_start(time.now),
                clock: &clock,
                unix_millis: time.unix_millis,
                net: &mut net,
                replies,
                effects,
                snapshot_budget,
            };
            if ticks > 0 {
                replica.on_tick(time.now, turn.replies);
            }
            if let Err(error) = replica.step(&mut turn) {
                error!(%error, shard = shard.0, "the shard cannot continue");
                failed = Err((number_of(&self.disks, replica), error.to_string()));
                break;
            }
            if replica.is_quiescent() {
                quiescent.push(shard);
            }
        }
        for shard in quiescent {
            active.remove(&shard);
            self.publisher.mark_outdated(shard);
        }
        peers.send_coalesced(ticks > 0, &mut self.outbox);
        replies.send_to_peers(&mut self.outbox);
        self.outbox.flush();
        replies.flush_to_clients(&self.reply_queue);
        failed
    }

    /// Restores the trust in each suspect disk on which no replica recovers any more.
    fn restore_trust(&mut self) -> Result<(), String> {
        for number in 0..self.disks.len() {
            let disk = &mut self.disks[number];
            let is_suspect = disk.trust.as_ref().is_some_and(DiskTrust::is_suspect);
            if disk.failed || !is_suspect {
                continue;
            }
            let mut replicas = self.replicas.values();
            let recovers = |replica: &Replica| {
                Arc::ptr_eq(replica.disk(), &disk.unit) && replica.raft().is_recovering()
            };
            if replicas.any(recovers) {
                continue;
            }
            if let Err(why) = restore_trust(&mut disk.trust) {
                self.fail_disk(DiskNumber(number), why)?;
            }
        }
        Ok(())
    }

    fn publish_if_due(&mut self, ticks: u32) {
        let State { peers, active, .. } = &self.state;
        let Some(shards) = self.publisher.due(ticks, active) else { return };
        let replica = |shard| Some((shard, self.replicas.get(&shard)?.status()));
        let disks = self.disks.iter().map(|disk| &*disk.unit);
        let changed = shards.into_iter().filter_map(replica);
        self.publisher.publish(changed, peers, disks, &self.metrics);
        let active_replicas = active.iter().filter_map(|shard| self.replicas.get(shard));
        let pending: usize = active_replicas.map(Replica::queued).sum();
        self.metrics.active_shards.set(active.len() as i64);
        self.metrics.pending.set(pending as i64);
    }
}

/// The disk of a replica.
fn number_of(disks: &[Disk], replica: &Replica) -> DiskNumber {
    let at = disks.iter().position(|disk| Arc::ptr_eq(&disk.unit, replica.disk()));
    DiskNumber(at.expect("each replica is on a disk of its node"))
}
