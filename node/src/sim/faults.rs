//! The effect of each planned fault on the world.

use super::build::Build;
use super::host::Host;
use super::outcome::Failure;
use super::plan::{Fault, MILLI, Who};
use super::replicas::{host_of, member_on};
use super::world::{Event, Outdated, World};
use crate::raft::Change;
use crate::request::admin::AdminRequest;
use crate::router::FIRST_SHARD;
use crate::sim::replicas::HostId;
use crate::worker::Input;
use bedstone_engine::disk::memory::MemoryDisk;

impl World<'_> {
    fn who(&self, who: Who) -> HostId {
        match who {
            Who::Node(id) => id.min(*self.plan.all().end()),
            Who::Leader => self.leader().unwrap_or(1),
        }
    }

    /// The leader of the latest term.
    pub(super) fn leader(&self) -> Option<HostId> {
        let leaders = self.hosts.iter().filter_map(|host| {
            let raft = host.node.as_ref()?.replica().raft();
            raft.is_leader().then_some((raft.term(), host.id))
        });
        leaders.max().map(|(_, id)| id)
    }

    pub(super) fn fault(&mut self, at: usize) -> Result<(), Failure> {
        if self.healed || self.outdated.is_some() {
            return Ok(());
        }
        let fault = &self.plan.faults[at].fault;
        *self.ran.faults.entry(fault.row()).or_default() += 1;
        self.note(7, at as u64);
        let now = self.now;
        match fault.clone() {
            disk @ (Fault::PowerLossAtOperation { .. }
            | Fault::SyncError { .. }
            | Fault::DiskFull { .. }
            | Fault::SlowDisk { .. }
            | Fault::HungDisk { .. }
            | Fault::LostDisk { .. }
            | Fault::BitFlip { .. }
            | Fault::WrongSector { .. }
            | Fault::LyingDisk { .. }
            | Fault::OlderCopy { .. }) => self.disk_fault(disk),
            Fault::Kill { who, down } => self.stop(self.who(who), down, false),
            Fault::PowerLoss { who, down } => self.stop(self.who(who), down, true),
            Fault::KillAll { down } => self.plan.all().for_each(|id| self.stop(id, down, false)),
            Fault::PowerLossAll { down } => {
                self.plan.all().for_each(|id| self.stop(id, down, true));
            }
            Fault::Pause { who, time } => {
                let id = self.who(who);
                let looked = self.rng.one_in(2);
                let host = self.host(id);
                host.paused_until = now + time;
                host.stopped_at = looked.then_some(now);
            }
            Fault::Partition { side, time } => {
                let of = |id: HostId| (side >> id) & 1;
                for from in self.plan.all() {
                    for to in self.plan.all().filter(|&to| of(to) != of(from)) {
                        self.network.cut(from, to, now + time);
                    }
                }
            }
            Fault::OneWay { from, to, time } => self.network.cut(from, to, now + time),
            Fault::Link { one, other, time } => {
                self.network.cut(one, other, now + time);
                self.network.cut(other, one, now + time);
            }
            Fault::Loss { one_in, time } => self.network.loss = (one_in, now + time),
            Fault::ClockJump { who, by } => {
                let id = self.who(who);
                self.host(id).jump(by);
            }
            Fault::ClockRate { who, percent, .. } => {
                let id = self.who(who);
                self.host(id).set_pace(percent, now);
            }
            Fault::Clogs { first, time, down } => {
                let nodes = *self.plan.all().end();
                for step in 0..nodes {
                    let next = |after: u64| 1 + (first + step + after) % nodes;
                    self.after(1 + step * time, Event::Clog(next(0), time, next(1), down));
                }
            }
            // A group that shrinks while a disk is lost could lose more disks than it survives.
            Fault::Members { .. } if self.hosts.iter().any(Host::is_impaired) => {}
            Fault::Members { mut steps } => {
                // A shrunk plan may lack some of these nodes.
                steps.retain(|step| self.plan.all().contains(&host_of(step.peer())));
                self.send_admin_request(AdminRequest::ChangeMembers(Change::Steps {
                    steps,
                    explicit: false,
                }));
            }
            Fault::TransferLeadership { to } => {
                self.send_admin_request(AdminRequest::TransferLeadership(member_on(to).id))
            }
            Fault::Upgrade { who, to, down } => {
                let id = self.who(who);
                let host = self.host(id);
                host.build = if host.build == Build::Present { to } else { Build::Present };
                self.has_later_entries |= host.build == Build::LaterEntries;
                self.stop(id, down, false);
            }
            Fault::Starve { who, factor, time } => {
                let id = self.who(who);
                self.host(id).starved = (factor, now + time);
            }
        }
        Ok(())
    }

    /// A later step of a fault that takes some time.
    pub(super) fn fault_continues(&mut self, event: Event) {
        match event {
            Event::PowerCut(id, down) if self.host(id).disk.ignores_syncs() => {
                self.end_life(id, down, true);
            }
            Event::Clog(id, time, other, down) => self.clog(id, time, other, down),
            Event::Restore(id, copy, down) => self.restore(id, copy, down),
            _ => {}
        }
    }

    /// A fault of one node's disk.
    fn disk_fault(&mut self, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::PowerLossAtOperation { who, operations, .. } => {
                let id = self.who(who);
                let host = self.host(id);
                if host.node.is_some() {
                    host.disk.crash_after(operations);
                }
            }
            Fault::SyncError { who, .. } => {
                let id = self.who(who);
                let host = self.host(id);
                if host.node.is_some() {
                    host.disk_fails = true;
                    host.disk.fail_syncs_after(0);
                }
            }
            Fault::DiskFull { who, room, time } => {
                let id = self.who(who);
                let host = self.host(id);
                host.full_until = now + time;
                host.disk.limit_space(room);
                self.after(time, Event::Room(id));
            }
            Fault::SlowDisk { who, factor, time } => {
                let id = self.who(who);
                self.host(id).slow = (factor, now + time);
            }
            Fault::HungDisk { who, time } => {
                let id = self.who(who);
                self.host(id).hung_until = now + time;
            }
            Fault::LostDisk { who, down } => {
                let id = self.who(who);
                if self.may_lose(id) {
                    self.stop(id, down, false);
                    self.host(id).lose_disk();
                    let life = self.host(id).life;
                    self.after(down, Event::Start(id, life));
                }
            }
            Fault::BitFlip { who, down, draw } => {
                let id = self.who(who);
                if self.may_lose(id) {
                    self.stop(id, down, false);
                    self.host(id).flip_bits(draw);
                }
            }
            Fault::WrongSector { who, down, draw } => {
                let id = self.who(who);
                if self.may_lose(id) {
                    self.stop(id, down, false);
                    self.host(id).misplace_sectors(draw);
                }
            }
            Fault::LyingDisk { who, time, down } => {
                let id = self.who(who);
                if self.plan.suspect_disks && self.may_lose(id) {
                    self.host(id).disk.ignore_syncs();
                    self.after(time, Event::PowerCut(id, down));
                }
            }
            Fault::OlderCopy { who, time, down } => {
                let id = self.who(who);
                if self.may_lose(id) {
                    let copy = self.host(id).disk.copy();
                    self.after(time, Event::Restore(id, copy, down));
                }
            }
            other => unreachable!("{other:?} is no fault of a disk"),
        }
    }

    /// Replaces the disk of a node by an older copy, as soon as no other fault is under way and the
    /// leader counts every entry of the node.
    fn restore(&mut self, id: HostId, copy: MemoryDisk, down: u64) {
        let (now, member) = (self.now, member_on(id).id);
        if self.healed {
            return;
        }
        let raft =
            |host: &HostId| Some(self.hosts[*host as usize - 1].node.as_ref()?.replica().raft());
        let leader = self.leader().filter(|leader| *leader != id).as_ref().and_then(raft);
        let acknowledged = raft(&id).zip(leader).map(|(raft, leader)| {
            let (last, status) = (raft.last(), leader.status());
            let counts = status.last == last && status.matched.contains(&(member, last.index));
            counts.then_some((last, raft.commit()))
        });
        let calm = self.outdated.is_none()
            && self.network.is_whole(now)
            && self.hosts.iter().all(|host| host.is_undisturbed(now))
            && self.may_lose(id);
        match acknowledged.flatten().filter(|_| calm) {
            Some((acknowledged, committed)) => {
                self.stop(id, down, false);
                self.host(id).disk = copy;
                self.outdated = Some(Outdated { id, acknowledged, committed, since: now });
            }
            None => self.after(100 * MILLI, Event::Restore(id, copy, down)),
        }
    }

    fn clog(&mut self, id: HostId, time: u64, other: HostId, down: u64) {
        if self.healed || self.outdated.is_some() {
            return;
        }
        for peer in self.plan.all() {
            self.network.cut(id, peer, self.now + time);
            self.network.cut(peer, id, self.now + time);
        }
        self.stop(other, down, false);
    }

    /// Whether the guarantees allow this node to lose data from its disk now: every node runs and
    /// has all of its data, enough other voters remain, and no configuration change is under way.
    fn may_lose(&self, id: HostId) -> bool {
        let whole = !self.hosts.iter().any(Host::is_impaired);
        let enough = |host: &Host| {
            let conf = host.node.as_ref().map(|node| node.replica().raft().conf().clone());
            conf.is_none_or(|conf| conf.voters.is_empty() || conf.voters.len() > 2)
        };
        let settled = |host: &Host| {
            host.node.as_ref().is_none_or(|node| {
                let raft = node.replica().raft();
                let changes = raft.conf().is_joint() || !raft.status().changes.is_empty();
                !changes && raft.members_are_durable()
            })
        };
        // A node that began alone has no peer to query, and a node that joined later starts without
        // the names of any peer.
        let takes_part = id <= self.plan.nodes && self.plan.nodes > 1;
        whole && takes_part && self.hosts.iter().all(|host| enough(host) && settled(host))
    }

    /// Sends an operator's request to the leader.
    fn send_admin_request(&mut self, members: AdminRequest) {
        let Some(leader) = self.leader() else { return };
        if let Some(node) = &self.hosts[leader as usize - 1].node {
            node.input(Input::Admin(FIRST_SHARD, members, Box::new(|_| ())));
            self.wake(leader);
        }
    }

    pub(super) fn stop(&mut self, id: HostId, down: u64, power: bool) {
        if self.host(id).node.is_some() {
            self.end_life(id, down, power);
        }
    }
}
