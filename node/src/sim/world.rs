//! The event loop of a simulation.

use super::build::Build;
use super::checks::Checks;
use super::clients::{ANSWER_TIME, Clients};
use super::host::{Host, Node};
use super::network::{ConnectionEvent, Network, Travelling};
use super::outcome::{Failure, Ran};
use super::plan::{MILLI, Plan, SECOND};
use super::replicas::host_of;
use super::rng::Rng;
use super::sabotage::Sabotage;
use crate::disk_unit::{DiskEvent, DiskNumber};
use crate::limits::{REQUEST_TIME, TICK};
use crate::raft::Message;
use crate::request::mailbox::{ClientBatch, ClientRequest, Mailbox};
use crate::sim::replicas::HostId;
use crate::wire::{Coalesced, SnapshotOutcome, Transfer, decode_raft, kind, take_coalesced};
use crate::worker::Input;
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::{Index, LogId, ShardId};
use bedstone_net::{Event as NetEvent, NodeId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Interval of the maintenance of connections and of the background work.
const LINKS: u64 = 100 * MILLI;
/// Interval of the comparison of trees.
const LOOK: u64 = 200 * MILLI;
/// This long after the end of all faults the cluster must have one leader and serve requests.
const SETTLE_TIME: u64 = 15 * SECOND;
/// This long after the end of all faults all damage must be repaired.
const REPAIR_TIME: u64 = 120 * SECOND;
/// A node notices within this time that its disk is an older copy. The node is down for a part of
/// this time.
const NOTICE_TIME: u64 = 10 * SECOND;
/// Bound on the events of a run: a run that reaches it makes no progress.
const EVENTS_MAX: u64 = 20_000_000;

pub(super) enum Event {
    Tick(HostId, u64),
    Turn(HostId, u64),
    Commit(HostId, u64),
    Committed(HostId, u64, Vec<(ShardId, u64)>),
    Work(HostId, u64),
    Look(HostId, u64),
    Arrive(Travelling),
    Links,
    Ask(usize),
    GiveUp(usize, u64),
    Fault(usize),
    /// Clogs the first node for the time that follows it, and kills the second node. The last field
    /// is the time until the second node starts again.
    Clog(HostId, u64, HostId, u64),
    /// The power loss of a node with a lying disk, and the time until the node starts again.
    PowerCut(HostId, u64),
    /// The disk of a node is replaced by an older copy, and the time until the node starts again.
    Restore(HostId, MemoryDisk, u64),
    Start(HostId, u64),
    Room(HostId),
    Heal,
    /// There must be one leader by now; clients send no more requests.
    CheckLeader,
    /// Each member must accept a write and answer reads.
    FinalRequests,
    /// All final requests must be answered by now.
    End,
}

/// A node whose disk was replaced by an older copy of itself. No other fault comes before the node
/// notices it, because the group does not survive a second fault at this moment.
pub(super) struct Outdated {
    pub(super) id: HostId,
    /// The last entry that the node had acknowledged.
    pub(super) acknowledged: LogId,
    /// The last committed index among the acknowledged entries.
    pub(super) committed: Index,
    pub(super) since: u64,
}

struct Due {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) rng: Rng,
    pub(super) now: u64,
    heap: BinaryHeap<Reverse<Due>>,
    number: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) network: Network,
    clients: Clients,
    checks: Checks,
    pub(super) healed: bool,
    /// The node whose disk was replaced by an older copy, until the node notices it.
    pub(super) outdated: Option<Outdated>,
    /// A node ran a build that writes entries of the next version.
    pub(super) has_later_entries: bool,
    resting: bool,
    /// Number of final requests, sent after the end of all faults.
    last: u64,
    refused_before: u64,
    /// The members of the group at the end.
    members: Vec<HostId>,
    ended: bool,
    trace: crc32fast::Hasher,
    pub(super) ran: Ran,
    leaders: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(plan: &'a Plan) -> World<'a> {
        let base = crate::clock::now();
        World {
            plan,
            rng: Rng::new(plan.seed ^ 0x0077_6f72),
            now: 0,
            heap: BinaryHeap::new(),
            number: 0,
            hosts: plan.all().map(|id| Host::new(id, base)).collect(),
            network: Network::new(plan),
            clients: Clients::new(plan),
            checks: Checks::default(),
            healed: false,
            outdated: None,
            has_later_entries: false,
            resting: false,
            last: 0,
            refused_before: 0,
            members: Vec::new(),
            ended: false,
            trace: crc32fast::Hasher::new(),
            ran: Ran::default(),
            leaders: 0,
        }
    }

    pub(super) fn run(mut self) -> Result<Ran, Failure> {
        self.go().map_err(|failure| Failure { at: self.now, ..failure })?;
        self.ran.trace = self.trace.finalize();
        self.ran.time = self.now;
        self.ran.committed = self.checks.committed();
        self.ran.answered = self.clients.answered;
        self.ran.unknown = self.clients.unknown;
        self.ran.refused = self.clients.refused;
        self.ran.lost = self.network.lost;
        Ok(self.ran)
    }

    fn go(&mut self) -> Result<(), Failure> {
        for id in self.plan.all() {
            self.start(id)?;
        }
        self.after(0, Event::Links);
        for client in 0..self.plan.clients as usize {
            self.after(SECOND, Event::Ask(client));
        }
        for at in 0..self.plan.faults.len() {
            self.after(self.plan.faults[at].at, Event::Fault(at));
        }
        self.after(self.plan.horizon, Event::Heal);
        while let Some(Reverse(due)) = self.heap.pop() {
            self.now = due.at;
            self.ran.events += 1;
            if self.ran.events > EVENTS_MAX {
                return Err(Failure::new("progress", "the simulation does not end".to_owned()));
            }
            self.event(due.event)?;
            if self.ended {
                break;
            }
        }
        self.ran.elections = self.leaders;
        let resumed = self.hosts.iter().map(|host| host.metrics.snapshots_resumed.get());
        self.ran.resumed = resumed.sum();
        let damaged = self.hosts.iter().map(|h| h.metrics.shards_damaged.get() + h.damaged_starts);
        self.ran.damaged = damaged.sum();
        let outdated = self.hosts.iter().map(|host| host.metrics.durability_lost.get());
        self.ran.outdated = outdated.sum();
        self.clients.check()
    }

    pub(super) fn after(&mut self, wait: u64, event: Event) {
        self.at(self.now + wait, event);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.heap.push(Reverse(Due { at, number: self.number, event }));
    }

    pub(super) fn note(&mut self, what: u8, of: u64) {
        self.trace.update(&self.now.to_le_bytes());
        self.trace.update(&[what]);
        self.trace.update(&of.to_le_bytes());
    }

    pub(super) fn host(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id as usize - 1]
    }

    /// Whether an event for an incarnation of a node still applies.
    fn lives(&self, id: HostId, life: u64) -> bool {
        let host = &self.hosts[id as usize - 1];
        host.life == life && host.node.is_some()
    }

    /// The time to which a paused node puts off what it does; `None` when it goes on.
    fn paused(&self, id: HostId) -> Option<u64> {
        let until = self.hosts[id as usize - 1].paused_until;
        (until > self.now).then_some(until)
    }

    fn event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Tick(id, life) | Event::Turn(id, life) | Event::Work(id, life)
                if self.lives(id, life) && self.paused(id).is_some() =>
            {
                let until = self.paused(id).unwrap_or_default();
                self.at(until, event);
                Ok(())
            }
            Event::Tick(id, life) => {
                if !self.lives(id, life) {
                    return Ok(());
                }
                let pace = self.host(id).stretch(TICK.as_micros() as u64);
                self.after(pace, Event::Tick(id, life));
                let due = self.host(id).node.as_mut().is_some_and(Node::tick);
                if due { self.turn(id) } else { Ok(()) }
            }
            Event::Turn(id, life) => {
                if !self.lives(id, life) {
                    return Ok(());
                }
                self.host(id).node.iter_mut().for_each(|node| node.turning = false);
                self.turn(id)
            }
            Event::Commit(id, life) if self.lives(id, life) => self.commit(id),
            Event::Committed(id, life, done) if self.lives(id, life) => {
                if let Some(node) = &mut self.host(id).node {
                    node.writing = false;
                    node.writing_since = None;
                    node.input(Input::Disk(DiskNumber(0), DiskEvent::Persisted(done)));
                }
                self.write(id);
                self.wake(id);
                Ok(())
            }
            Event::Work(id, life) if self.lives(id, life) => {
                self.host(id).node.iter_mut().for_each(|node| node.working = false);
                self.work(id)
            }
            Event::Look(id, life) if self.lives(id, life) => {
                self.after(LOOK, Event::Look(id, life));
                let host = &self.hosts[id as usize - 1];
                self.checks.tree(host)
            }
            Event::Arrive(travelling) => {
                self.arrive(travelling);
                Ok(())
            }
            Event::Links => {
                self.links();
                self.watch_outdated()
            }
            Event::Ask(client) => {
                self.ask(client);
                Ok(())
            }
            Event::GiveUp(client, slot) => {
                if self.clients.give_up(client, slot) {
                    self.ask_later(client);
                }
                Ok(())
            }
            Event::Fault(at) => self.fault(at),
            Event::PowerCut(..) | Event::Clog(..) | Event::Restore(..) => {
                self.fault_continues(event);
                Ok(())
            }
            Event::Start(id, life) => {
                let host = self.host(id);
                if host.life == life && host.node.is_none() { self.start(id) } else { Ok(()) }
            }
            Event::Room(id) => {
                let now = self.now;
                let host = self.host(id);
                if host.full_until <= now {
                    host.disk.limit_space(u64::MAX >> 1);
                }
                Ok(())
            }
            Event::Heal => self.heal(),
            Event::CheckLeader => self.try_quiesce(),
            Event::FinalRequests => {
                if self.clients.are_waiting() {
                    self.after(LINKS, Event::FinalRequests)
                } else {
                    self.send_final_requests()
                }
                Ok(())
            }
            Event::End => self.end(),
            Event::Commit(..) | Event::Committed(..) | Event::Work(..) | Event::Look(..) => Ok(()),
        }
    }

    // Nodes.

    fn start(&mut self, id: HostId) -> Result<(), Failure> {
        let (now, plan, seed) = (self.now, self.plan, self.rng.draw());
        self.note(1, id);
        if let Err(error) = self.host(id).start(plan, seed, now) {
            if self.host(id).latent {
                // The node names the damage and does not start; its disk is replaced.
                self.host(id).lose_disk();
                let life = self.host(id).life;
                self.after(SECOND, Event::Start(id, life));
                return Ok(());
            }
            if self.host(id).full_until > now {
                // The disk has no room for the start, which is tried again, as a supervisor does.
                let life = self.host(id).life;
                self.after(SECOND, Event::Start(id, life));
                return Ok(());
            }
            return Err(Failure::new("starts-again", format!("node {id}: {error}")));
        }
        let life = self.host(id).life;
        let first = 1 + self.rng.below(TICK.as_micros() as u64);
        self.after(first, Event::Tick(id, life));
        self.after(LOOK, Event::Look(id, life));
        self.background(id, 1);
        Ok(())
    }

    /// Ends a node, which starts again after `down`.
    pub(super) fn end_life(&mut self, id: HostId, down: u64, power: bool) {
        let seed = self.rng.draw();
        self.note(2, id);
        let host = self.host(id);
        if power {
            host.lose_power(seed)
        } else {
            host.kill()
        }
        let life = host.life;
        self.checks.ended(id);
        self.network.ended(id);
        for client in self.clients.waiting_for(id) {
            let slot = self.clients.slot(client);
            if self.clients.give_up(client, slot) {
                self.ask_later(client);
            }
        }
        self.after(down, Event::Start(id, life));
    }

    /// Runs a turn of a node's loop and handles its output.
    fn turn(&mut self, id: HostId) -> Result<(), Failure> {
        let (now, sabotage) = (self.now, self.plan.sabotage);
        let host = self.host(id);
        let time = host.begin_turn(now, sabotage);
        let Some(node) = &mut host.node else { return Ok(()) };
        let led = node.replica().raft().is_leader();
        let ticks = std::mem::take(&mut node.ticks);
        let turned = node.worker.turn(None, ticks, time);
        if self.is_over(id, turned.map(drop))? {
            return Ok(());
        }
        self.note(if ticks > 0 { 3 } else { 4 }, id);
        self.checks.turn(&self.hosts[id as usize - 1], now)?;
        let host = self.host(id);
        let life = host.life;
        let Some(node) = &host.node else { return Ok(()) };
        let leads = node.replica().raft().is_leader();
        let (frames, replies) = (node.pushed.take(), node.replies.take());
        let called = node.is_called() && !node.working;
        self.leaders += u64::from(leads && !led);
        let frames = frames.into_iter().map(|(to, frame)| (to.0, frame));
        let frames = frames
            .flat_map(|(to, frame)| Sabotage::frames(sabotage, to, frame).into_iter().enumerate());
        for (copy, (to, frame)) in frames {
            if let Ok((_, Transfer::Ack { outcome: SnapshotOutcome::Installed, .. })) =
                Transfer::decode(frame.kind, frame.body.clone())
            {
                self.ran.snapshots += 1;
                self.host(id).latent = false;
            }
            let messages = match frame.kind {
                kind::RAFT => decode_raft(frame.body.clone()).into_iter().collect(),
                kind::COALESCED => {
                    let heartbeats = take_coalesced(frame.body.clone()).unwrap_or_default();
                    let addressed = |coalesced: Coalesced| (coalesced.to, coalesced.message);
                    heartbeats.into_iter().map(addressed).collect()
                }
                _ => Vec::new(),
            };
            for (to, message) in messages {
                // On the side of the sender, the peer of a message is the receiver.
                let message = Message { peer: to, ..message };
                self.checks.sends(&self.hosts[id as usize - 1], &message)?;
            }
            self.trace.update(&frame.body);
            for (at, mut travelling) in self.network.send(id, life, to, frame, now) {
                // The outbox knows nothing of a second copy.
                travelling.settled |= copy > 0;
                self.at(at, Event::Arrive(travelling));
            }
        }
        for (mailbox, slot, answer) in replies {
            self.trace.update(&answer);
            match self.clients.answer(&mailbox, slot, &answer)? {
                Some(_) if self.last > 0 => self.send_final_requests(),
                Some(client) => self.ask_later(client),
                None => {}
            }
        }
        self.write(id);
        if called {
            self.background(id, 1 + self.now % 500);
        }
        Ok(())
    }

    /// Whether the last step of a node ended it: the disk lost power during the step, or the node
    /// reports that it cannot continue.
    fn is_over(&mut self, id: HostId, did: Result<(), String>) -> Result<bool, Failure> {
        if self.host(id).is_down() {
            let down = 20 * MILLI + self.rng.below(3 * SECOND);
            self.end_life(id, down, true);
            return Ok(true);
        }
        let Err(why) = did else { return Ok(false) };
        let now = self.now;
        let host = self.host(id);
        let failing = std::mem::take(&mut host.disk_fails);
        if !failing && host.full_until <= now {
            return Err(Failure::new("goes-on", format!("node {id}: {why}")));
        }
        let down = 20 * MILLI + self.rng.below(3 * SECOND);
        self.end_life(id, down, failing);
        Ok(true)
    }

    /// Schedules a turn of a node that has work, after the time that a turn takes.
    pub(super) fn wake(&mut self, id: HostId) {
        let now = self.now;
        let host = self.host(id);
        let (life, wait) = (host.life, host.turn_time(now));
        let Some(node) = &mut host.node else { return };
        if !std::mem::replace(&mut node.turning, true) {
            self.after(wait, Event::Turn(id, life));
        }
    }

    /// Schedules a log write of the queued records, unless a write is under way.
    fn write(&mut self, id: HostId) {
        let host = self.host(id);
        let life = host.life;
        let Some(node) = &mut host.node else { return };
        if node.has_jobs() && !std::mem::replace(&mut node.writing, true) {
            self.after(1, Event::Commit(id, life));
        }
    }

    fn commit(&mut self, id: HostId) -> Result<(), Failure> {
        let usual = 100 + self.rng.below(self.plan.sync);
        let now = self.now;
        let host = self.host(id);
        let (life, wait) = (host.life, host.sync_time(usual, now));
        let Some(node) = &mut host.node else { return Ok(()) };
        node.writing_since = Some(now);
        let committed = node.commit();
        match committed {
            Ok(done) => {
                if !self.is_over(id, Ok(()))? {
                    self.after(wait, Event::Committed(id, life, done));
                }
            }
            Err(why) => {
                if !self.is_over(id, Ok(()))? {
                    if let Some(node) = &self.hosts[id as usize - 1].node {
                        node.input(Input::Disk(DiskNumber(0), DiskEvent::Failed(why)));
                    }
                    self.wake(id);
                }
            }
        }
        Ok(())
    }

    fn background(&mut self, id: HostId, wait: u64) {
        let host = self.host(id);
        let life = host.life;
        let Some(node) = &mut host.node else { return };
        node.working = true;
        self.after(wait, Event::Work(id, life));
    }

    fn work(&mut self, id: HostId) -> Result<(), Failure> {
        let host = self.host(id);
        let Some(node) = &mut host.node else { return Ok(()) };
        let rounds = node.work(host.latent);
        // The damage is gone once a whole scrub round of this incarnation is over and nothing is
        // left to repair.
        let raft = node.replica().raft();
        host.latent &= rounds < 2 || raft.is_damaged() || raft.is_recovering();
        if self.is_over(id, Ok(()))? {
            return Ok(());
        }
        self.background(id, LINKS);
        self.wake(id);
        Ok(())
    }

    // The network.

    fn arrive(&mut self, travelling: Travelling) {
        let (from, life, to) = (travelling.from, travelling.life, travelling.to);
        if !travelling.settled && self.lives(from, life) {
            let node = self.hosts[from as usize - 1].node.as_ref();
            node.iter().for_each(|node| node.pushed.settled(NodeId(to), &travelling.frame));
        }
        let Some(travelling) = self.network.arrive(travelling, self.now) else { return };
        self.note(5, from << 8 | to);
        if let Some(node) = &self.hosts[to as usize - 1].node {
            node.net(NetEvent::Frames(NodeId(from), vec![travelling.frame]));
            self.wake(to);
        }
    }

    fn links(&mut self) {
        self.after(LINKS, Event::Links);
        let (now, hosts) = (self.now, &self.hosts);
        let runs = |id: HostId| hosts[id as usize - 1].node.is_some();
        let answers = |id: HostId| runs(id) && hosts[id as usize - 1].paused_until <= now;
        // As in `bedstone_net::hello`, a node with another protocol version is refused.
        let build = |id: HostId| hosts[id as usize - 1].build;
        let agree = |one, other| build(one).speaks_with(build(other));
        let (events, moving) = self.network.maintain(now, runs, answers, agree);
        for event in events {
            let (id, event) = match event {
                ConnectionEvent::Up(id, peer) => (id, NetEvent::Up(NodeId(peer))),
                ConnectionEvent::Down(id, peer) => (id, NetEvent::Down(NodeId(peer))),
            };
            if let Some(node) = &self.hosts[id as usize - 1].node {
                node.net(event);
                self.wake(id);
            }
        }
        moving.into_iter().for_each(|travelling| self.at(now, Event::Arrive(travelling)));
    }

    /// A node with an older copy of its disk recovers, or receives the entries again.
    fn watch_outdated(&mut self) -> Result<(), Failure> {
        let Some(Outdated { id, acknowledged, committed, since }) = self.outdated else {
            return Ok(());
        };
        let Some(node) = &self.hosts[id as usize - 1].node else { return Ok(()) };
        let (raft, applied) = (node.replica().raft(), node.replica().applied());
        let has_all = raft.term_at(acknowledged.index) == Some(acknowledged.term)
            || applied.index >= acknowledged.index;
        // A later leader may have replaced the entries that are not committed.
        let last = raft.last();
        let replaced = last.term > acknowledged.term && last.index >= committed;
        if raft.is_recovering() || has_all || replaced {
            self.outdated = None;
        } else if self.now > since + NOTICE_TIME {
            let text = format!("node {id} has not noticed that its disk is an older copy");
            return Err(Failure::new("older-copy-noticed", text));
        }
        Ok(())
    }

    // Clients.

    fn ask_later(&mut self, client: usize) {
        let wait = 1 + self.clients.think(client, self.plan.think);
        self.after(wait, Event::Ask(client));
    }

    fn ask(&mut self, client: usize) {
        if self.clients.is_waiting(client) || self.resting {
            return;
        }
        let hosts = &self.hosts;
        let runs = |id: HostId| hosts[id as usize - 1].node.is_some();
        match self.clients.ask(client, runs) {
            Some((node, port, request)) => self.submit(client, node, port, request),
            None => self.after(50 * MILLI, Event::Ask(client)),
        }
    }

    fn submit(
        &mut self,
        client: usize,
        node: HostId,
        mailbox: Arc<Mailbox>,
        request: ClientRequest,
    ) {
        let slot = request.slot;
        self.note(6, node);
        let deadline = self.hosts[node as usize - 1].time(self.now).now + REQUEST_TIME;
        if let Some(node) = &self.hosts[node as usize - 1].node {
            node.input(Input::Client(ClientBatch { mailbox, requests: vec![request], deadline }));
        }
        self.wake(node);
        self.after(ANSWER_TIME, Event::GiveUp(client, slot));
    }

    // The end.

    /// Ends all faults.
    fn heal(&mut self) -> Result<(), Failure> {
        if self.outdated.is_some() {
            self.after(LINKS, Event::Heal);
            return Ok(());
        }
        self.note(8, 0);
        self.healed = true;
        self.network.heal();
        let now = self.now;
        for host in &mut self.hosts {
            host.paused_until = now;
            host.hung_until = now;
            host.full_until = now;
            host.slow = (1, 0);
            host.starved = (1, 0);
            host.set_pace(100, now);
            if !host.disk_fails {
                host.disk.clear_faults();
            }
        }
        // An upgrade that began on one node completes on all nodes. Once there may be entries of
        // the next version, only the build that applies them can continue.
        let has_later = |host: &Host| host.build == Build::LaterProtocol;
        let last = match self.hosts.iter().any(has_later) {
            _ if self.has_later_entries => Build::LaterEntries,
            true => Build::LaterProtocol,
            false => Build::Present,
        };
        for id in self.plan.all() {
            let host = self.host(id);
            let changes = std::mem::replace(&mut host.build, last) != last;
            if std::mem::take(&mut host.disk_fails) || host.disk.ignores_syncs() {
                // The disk was replaced, or reports syncs truthfully from now on.
                self.stop(id, 100 * MILLI, true);
            } else if changes {
                self.stop(id, 100 * MILLI, false);
            }
        }
        self.after(SETTLE_TIME, Event::CheckLeader);
        Ok(())
    }

    fn try_quiesce(&mut self) -> Result<(), Failure> {
        let leads =
            |host: &&Host| host.node.as_ref().is_some_and(|n| n.replica().raft().is_leader());
        if self.hosts.iter().filter(leads).count() != 1 {
            return Err(self.no_progress("there is not exactly one leader"));
        }
        self.resting = true;
        let leader = self.leader().and_then(|id| self.hosts[id as usize - 1].node.as_ref());
        self.members = leader
            .into_iter()
            .flat_map(|n| n.replica().raft().conf().members())
            .map(host_of)
            .collect();
        self.after(1, Event::FinalRequests);
        Ok(())
    }

    /// Sends the final requests: a write and the reads of all registers, at each member in turn.
    fn send_final_requests(&mut self) {
        if self.last == 0 {
            self.refused_before = self.clients.refused + self.clients.unknown;
            self.after(ANSWER_TIME, Event::End);
        }
        let each = self.plan.keys + 1;
        let (at, what) = (self.last / each, self.last % each);
        self.last += 1;
        if let Some(&node) = self.members.get(at as usize) {
            let (key, write) = if what == 0 { (0, true) } else { (what - 1, false) };
            let (node, port, request) = self.clients.final_request(0, node, key, write);
            self.submit(0, node, port, request);
        } else {
            // The followers learn the last commit index meanwhile.
            self.after(SECOND, Event::End);
        }
    }

    /// Waits until all damage is repaired, then checks that every member holds the same data.
    fn end(&mut self) -> Result<(), Failure> {
        // A node that is no member receives no data, so its damage stays.
        let members = self.members.clone();
        let awaits_repair = |host: &Host| host.latent && members.contains(&host.id);
        if self.hosts.iter().any(awaits_repair) && self.now < self.plan.horizon + REPAIR_TIME {
            self.after(SECOND, Event::End);
            return Ok(());
        }
        self.ended = true;
        if let Some(host) = self.hosts.iter().find(|host| awaits_repair(host)) {
            return Err(self.no_progress(&format!("the disk of node {} is damaged", host.id)));
        }
        let asked = self.members.len() as u64 * (self.plan.keys + 1);
        let refused = self.clients.refused + self.clients.unknown - self.refused_before;
        if self.last <= asked || refused > 0 {
            let why = &self.clients.last_refusal;
            let text = format!("{} of {asked} requests sent, {refused} refused: {why}", self.last);
            return Err(self.no_progress(&text));
        }
        let hosts = self.members.iter().map(|&id| &self.hosts[id as usize - 1]);
        let applied = |host: &Host| host.node.as_ref().map(|node| node.replica().applied().index);
        let applied: Vec<Index> = hosts.map(|host| applied(host).unwrap_or_default()).collect();
        if applied.iter().any(|&index| index != applied[0]) {
            return Err(self.no_progress(&format!("the nodes have applied {applied:?}")));
        }
        for at in 0..self.hosts.len() {
            self.checks.tree(&self.hosts[at])?;
        }
        Ok(())
    }

    fn no_progress(&self, what: &str) -> Failure {
        let nodes = self.hosts.iter().map(|host| match &host.node {
            Some(node) => format!("\nnode {}: {:?}", host.id, node.replica().raft().status()),
            None => format!("\nnode {} does not run", host.id),
        });
        let nodes: String = nodes.collect();
        Failure::new("progress", format!("{what} long after all faults ended{nodes}"))
    }
}
