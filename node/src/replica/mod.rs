//! One shard's replica on one disk: the Raft core, the state machine, and the requests in between.
//!
//! The parts own their state: `queue` the requests that wait, `proposals` the entries proposed
//! here, `read_tracker` the strong reads, `forward_tracker` the requests at the leader, `transfers`
//! the snapshots. The other files work on them, and [`Replica::step`] runs their steps in the one
//! legal order.

mod apply;
mod forward;
mod forward_tracker;
pub mod members;
pub mod open;
mod proposals;
mod propose;
mod queue;
mod read_tracker;
mod reads;
mod repair;
mod snapshot;
pub mod snapshot_stream;
mod transfers;

use crate::disk_unit::DiskUnit;
use crate::limits::{Limits, REPLAY_BYTES};
use crate::machine::StateMachine;
use crate::metrics::Metrics;
use crate::policy::ServedBy;
use crate::raft::conf::InvalidChange;
use crate::raft::{
    Body, Change, Conf, Effects, Index, LogReader, Message, PeerSet, Raft, RecoveryWait, Refused,
    ReplicaId, Role, Undecodable,
};
use crate::request::admin::AdminError;
use crate::request::mailbox::{ClientRequest, Mailbox};
use crate::request::replies::Replies;
use crate::request::{PendingRequest, Requester};
use crate::status::ShardStatus;
use crate::wire::{self, Address, Forwarded, Replied, Transfer};
use bedstone_engine::wal::{Entry, HardState, Record};
use bedstone_engine::{Engine, Error, LogId, ShardId, Tree};
use bedstone_net::{Frame, Lane, NodeId};
use forward_tracker::ForwardTracker;
use proposals::Proposals;
use queue::RequestQueue;
use read_tracker::ReadTracker;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};
use transfers::Snapshots;

/// The other nodes, as a replica reaches them.
pub trait Network {
    /// Whether a node is connected.
    fn is_connected(&self, node: NodeId) -> bool;
    /// Queues a frame for a node; `false` when the frame cannot leave.
    fn push(&mut self, node: NodeId, frame: Frame) -> bool;
    /// Adds a short message from a replica to the next frame of coalesced heartbeats for a node.
    fn coalesce(&mut self, node: NodeId, shard: ShardId, from: ReplicaId, message: &Message);
}

/// The circumstances of one turn of the worker, and the room for its effects.
pub struct Turn<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// The time of this turn in nanoseconds since the node started.
    pub elapsed: u64,
    /// The nanoseconds since the node started at the moment of the call.
    pub clock: &'a dyn Fn() -> u64,
    /// The time of this turn by the calendar, in milliseconds since 1970.
    pub unix_millis: u64,
    /// The way to the other nodes.
    pub net: &'a mut dyn Network,
    /// The replies of this turn.
    pub replies: &'a mut Replies,
    /// Room for the effects of a core.
    pub effects: &'a mut Effects,
    /// Bytes of snapshots that all shards together may still send.
    pub snapshot_budget: &'a mut i64,
}

/// See the module.
///
/// Invariants: `applied.index <= commit`; `conf` is the configuration as of `applied`; entries are
/// applied one by one, in order (asserted in `apply`).
pub struct Replica {
    shard: ShardId,
    id: ReplicaId,
    node: NodeId,
    /// The nodes of replicas that sent a message and are no members as far as this replica knows.
    nodes_of_strangers: BTreeMap<ReplicaId, NodeId>,
    limits: Limits,
    disk: Arc<DiskUnit>,
    metrics: Arc<Metrics>,
    raft: Raft,
    machine: Arc<dyn StateMachine>,
    tree: Arc<Tree>,
    conf: Conf,
    /// The members that the log records.
    logged_conf: Option<Conf>,
    applied: LogId,
    commit: Index,
    /// The version of the entry or state that this build does not apply, once there is one.
    needs_version: Option<u16>,
    ticks: u64,
    leader_seen: Option<ReplicaId>,
    /// The tick at which this replica noticed the last change of the leader.
    leader_since: u64,
    queue: RequestQueue,
    proposals: Proposals,
    reads: ReadTracker,
    forwards: ForwardTracker,
    snapshots: Snapshots,
}

/// Reads a shard's durable entries.
struct ShardLog<'a> {
    engine: &'a Engine,
    shard: ShardId,
}

impl LogReader for ShardLog<'_> {
    fn entries(&self, first: Index, end: Index, max_bytes: usize) -> Vec<Entry> {
        match self.engine.log().entries(self.shard, first, end, max_bytes) {
            Ok(entries) => entries,
            Err(Error::Compacted { .. }) => Vec::new(),
            Err(error) => {
                // A follower that needs the entries gets a snapshot instead.
                warn!(%error, shard = self.shard.0, "the log cannot be read");
                Vec::new()
            }
        }
    }
}

impl Replica {
    /// The Raft core.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The disk of the replica.
    pub fn disk(&self) -> &Arc<DiskUnit> {
        &self.disk
    }

    /// The last entry applied.
    pub fn applied(&self) -> LogId {
        self.applied
    }

    /// The tree that holds the state.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// The state machine.
    pub fn machine(&self) -> &Arc<dyn StateMachine> {
        &self.machine
    }

    /// Requests that wait to be proposed or forwarded.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether the replica has nothing to do before the next input, however much time passes.
    pub fn is_quiescent(&self) -> bool {
        self.raft.is_quiescent()
            && self.applied.index == self.commit
            && self.queue.len() + self.proposals.len() == 0
            && self.reads.is_empty()
            && self.forwards.is_empty()
            && self.snapshots.is_empty()
    }

    // Inputs.

    /// Proposes a change of the members.
    ///
    /// # Errors
    /// [`AdminError`]: nothing was proposed.
    pub fn change_members(&mut self, change: &Change) -> Result<(), AdminError> {
        self.raft.change(change).map(drop).map_err(|refused| self.admin_error(refused))
    }

    /// Transfers leadership to another member.
    ///
    /// # Errors
    /// [`AdminError`]: nothing changes.
    pub fn transfer_leadership(&mut self, to: ReplicaId) -> Result<(), AdminError> {
        self.raft.transfer(to).map_err(|refused| self.admin_error(refused))
    }

    /// Transfers leadership to the connected follower with the most entries, because this node is
    /// about to stop. Returns whether this replica leads and another one can.
    pub fn hand_over(&mut self, net: &dyn Network) -> bool {
        if !self.raft.is_leader() {
            return false;
        }
        let conf = self.raft.conf();
        let connected = |peer| self.node_of(peer).is_some_and(|node| net.is_connected(node));
        let able = self
            .raft
            .progress()
            .filter(|progress| conf.is_electable(progress.peer()) && connected(progress.peer()));
        let Some(successor) = able.max_by_key(|progress| progress.matched()) else { return false };
        let successor = successor.peer();
        let _ = self.raft.transfer(successor);
        true
    }

    fn admin_error(&self, refused: Refused) -> AdminError {
        // A replica outside the configuration would be the first one on its node.
        let node = |peer| self.node_of(peer).unwrap_or(NodeId(peer.0));
        match refused {
            Refused::NotLeader(leader) => {
                AdminError::NotLeader(leader.and_then(|leader| self.node_of(leader)))
            }
            Refused::CannotLead(peer) => AdminError::Invalid(format!(
                "node {} cannot lead: it is no voter, or a witness",
                node(peer)
            )),
            Refused::InvalidChange(InvalidChange::Witness(peer)) => AdminError::Invalid(format!(
                "node {}: a witness can only be removed, and a member cannot become a witness",
                node(peer)
            )),
            Refused::InvalidChange(InvalidChange::Zero) => {
                AdminError::Invalid("0 is not the id of a node".to_owned())
            }
            Refused::InvalidChange(invalid) => AdminError::Invalid(invalid.to_string()),
            Refused::Transferring(peer) => AdminError::NotNow(format!(
                "leadership is being transferred to node {}",
                node(peer)
            )),
            other => AdminError::NotNow(other.to_string()),
        }
    }

    /// A request of a client of this node.
    pub fn on_client(
        &mut self,
        request: ClientRequest,
        mailbox: &Arc<Mailbox>,
        deadline: Instant,
        replies: &mut Replies,
    ) {
        let served_by =
            if self.limits.follower_reads { ServedBy::AnyReplica } else { ServedBy::Leader };
        let request = PendingRequest {
            command: request.command,
            requester: Requester::Client(mailbox.clone(), request.slot),
            resp3: request.resp3,
            served_by,
            deadline,
        };
        self.submit(request, replies);
    }

    fn submit(&mut self, request: PendingRequest, replies: &mut Replies) {
        if self.queue.is_full() {
            return replies.unavailable(request, "too many requests wait here", &self.metrics);
        }
        self.queue.push(request);
    }

    /// A frame of a node.
    ///
    /// # Errors
    /// [`Undecodable`]: the frame has no effect.
    pub fn on_frame(
        &mut self,
        node: NodeId,
        frame: Frame,
        now: Instant,
        replies: &mut Replies,
    ) -> Result<(), Undecodable> {
        match frame.kind {
            wire::kind::RAFT => {
                let (to, message) = wire::decode_raft(frame.body)?;
                self.on_message(node, to, message);
            }
            wire::kind::FORWARD => {
                let requests = Forwarded::decode_all(frame.body).ok_or(Undecodable::Malformed)?;
                self.on_forward(node, requests, now, replies);
            }
            wire::kind::REPLY => {
                let answers = Replied::decode_all(frame.body).ok_or(Undecodable::Malformed)?;
                self.on_reply(answers, replies);
            }
            other => {
                let (Address { from, to }, transfer) = Transfer::decode(other, frame.body)?;
                if self.is_for_me(node, from, to) {
                    self.on_transfer(from, transfer);
                }
            }
        }
        Ok(())
    }

    /// A Raft message from a node to the replica `to`.
    pub fn on_message(&mut self, node: NodeId, to: ReplicaId, message: Message) {
        if self.is_for_me(node, message.peer, to) {
            self.raft.step(message);
        }
    }

    /// No frame of a node arrived for the silence timeout.
    pub fn on_node_silent(&mut self, node: NodeId, replies: &mut Replies) {
        for peer in self.peers_on(node) {
            self.raft.peer_silent(peer);
        }
        self.end_forwards(|silent| silent == node, replies);
    }

    /// A write is durable.
    pub fn on_persisted(&mut self, seq: u64) {
        self.raft.persisted(seq);
    }

    /// A node connected.
    pub fn on_node_up(&mut self, node: NodeId) {
        for peer in self.peers_on(node) {
            self.raft.reachable(peer);
        }
    }

    /// The connection to a node is lost, with the frames on the way.
    pub fn on_node_down(&mut self, node: NodeId, replies: &mut Replies) {
        for peer in self.peers_on(node) {
            self.raft.unreachable(peer);
            self.snapshots.disconnect(peer);
            self.raft.snapshot_sent(peer, None);
        }
        self.end_forwards(|lost| lost == node, replies);
    }

    /// A memtable was flushed: the log before it is released, but for the entries that slow
    /// followers may need.
    pub fn on_flushed(&mut self) {
        let flushed = self.tree.flushed();
        let log = self.disk.engine().log();
        let (segments, limits) = (log.entry_segments(), &self.limits);
        let keep = if segments > limits.log_segments { 0 } else { limits.log_retain_entries };
        // A follower that receives a snapshot needs the entries after the snapshot, but not at the
        // price of a full disk.
        let needed = self.snapshots.needed_from();
        let needed = needed.filter(|_| segments <= limits.log_segments_sending);
        let index =
            Index(flushed.index.distance_from(Index(keep))).min(needed.unwrap_or(Index::END));
        if index <= log.base(self.shard).index {
            return;
        }
        if let Some(term) = self.raft.term_at(index) {
            let upto = LogId { term, index };
            self.raft.compacted(upto);
            self.disk.log(vec![Record::Release { shard: self.shard, upto }], None);
        }
    }

    /// A tick of the worker's clock passed.
    pub fn on_tick(&mut self, now: Instant, replies: &mut Replies) {
        self.ticks += 1;
        self.raft.tick();
        self.expire_requests(now, replies);
        self.end_forwards_to_former_leaders(replies);
        self.expire_transfers();
    }

    /// Ends the replica and its state machine, because the disk failed. Replies to all requests.
    pub fn end(mut self, why: &str, replies: &mut Replies) {
        // The deadline of each request is before this time.
        let end = crate::clock::now() + Duration::from_secs(u64::from(u32::MAX));
        self.machine.end();
        for (node, shard, id) in self.queue.take_forwarded() {
            replies.redirect(node, shard, id);
        }
        for request in self.queue.take_late(end).into_iter().chain(self.reads.take_late(end)) {
            replies.unavailable(request, why, &self.metrics);
        }
        for request in self.proposals.take_late(end).into_iter().chain(self.forwards.take_late(end))
        {
            replies.unknown(request, why, &self.metrics);
        }
    }

    /// Replies to the requests whose deadline has passed.
    fn expire_requests(&mut self, now: Instant, replies: &mut Replies) {
        for request in self.queue.take_late(now) {
            replies.unavailable(request, "no leader took it in time", &self.metrics);
        }
        for request in self.proposals.take_late(now) {
            replies.unknown(request, "no quorum answered in time", &self.metrics);
        }
        for request in self.forwards.take_late(now) {
            replies.unknown(request, "the leader did not answer in time", &self.metrics);
        }
        for request in self.reads.take_late(now) {
            replies.unavailable(request, "no quorum answered in time", &self.metrics);
        }
    }

    // Effects.

    /// Proposes or forwards the waiting requests, and executes the core's effects.
    ///
    /// # Errors
    /// The replica cannot continue, and no other replica can repair it.
    pub fn step(&mut self, turn: &mut Turn<'_>) -> bedstone_engine::Result<()> {
        self.log_installed();
        self.watch_leader(turn.replies);
        if self.raft.is_leader() {
            self.propose(turn);
        } else {
            self.forward(turn);
        }
        self.begin_reads(turn.elapsed);
        let executed = self.execute(turn);
        self.repair(executed)?;
        let applied = self.apply(turn);
        self.repair(applied)?;
        let answered = self.answer_reads(turn);
        self.repair(answered)?;
        // Applying entries makes room in the core for the next proposal.
        if self.raft.is_leader() && self.queue.has_writes() && self.may_propose() {
            self.propose(turn);
            let executed = self.execute(turn);
            self.repair(executed)?;
        }
        let sent = self.continue_transfers(turn);
        self.repair(sent)
    }

    /// Notices a change of the leader. A replica that does not lead cannot finish the proposals of
    /// its own term, nor requests that other nodes forwarded.
    fn watch_leader(&mut self, replies: &mut Replies) {
        let leader = self.raft.leader();
        if leader != self.leader_seen {
            if let Some(leader) = leader {
                let node = self.node_of(leader).unwrap_or_default();
                let (shard, term) = (self.shard, self.raft.term());
                info!(shard = shard.0, leader = leader.0, %node, term = term.0, "follows a leader");
                self.metrics.leader_changes.inc();
            }
            self.leader_seen = leader;
            self.leader_since = self.ticks;
        }
        if self.raft.is_leader() {
            return;
        }
        for request in self.proposals.take_all() {
            replies.unknown(request, "this node stopped leading", &self.metrics);
        }
        for (node, shard, id) in self.queue.take_forwarded() {
            replies.redirect(node, shard, id);
        }
    }

    /// Executes the core's effects in the order that [`Effects`] states.
    ///
    /// # Errors
    /// The state cannot be read for a snapshot. All other effects were executed.
    fn execute(&mut self, turn: &mut Turn<'_>) -> bedstone_engine::Result<()> {
        let mut effects = std::mem::take(turn.effects);
        let reader = ShardLog { engine: self.disk.engine(), shard: self.shard };
        self.raft.effects_into(&reader, &mut effects);
        for message in effects.send.drain(..) {
            self.send(&message, turn.net);
        }
        if let Some(write) = effects.write.take() {
            let mut records = log_records(self.shard, &write.entries, write.hard);
            if effects.reset_log {
                // The reset and the withheld vote are one commit: without the vote, the reset log
                // would count as complete.
                records.insert(0, Record::Reset { shard: self.shard, at: self.applied });
            }
            self.disk.log(records, Some((self.shard, write.seq)));
        }
        self.commit = self.commit.max(effects.commit);
        if let Some(peer) = effects.committed_conflict.take() {
            error!(
                shard = self.shard.0,
                peer = peer.0,
                "a leader sent another entry than the one committed here: check both disks"
            );
        }
        if let Some(lost) = effects.lost.take() {
            error!(
                shard = self.shard.0,
                term = lost.term.0,
                index = lost.index.0,
                last = self.raft.last().index.0,
                "this replica acknowledged an entry that its disk no longer has: the disk is an \
                 older copy, or lost what it had synced; the replica queries the other voters, and \
                 the leader refills it; check the disk"
            );
            self.metrics.durability_lost.inc();
        }
        for (token, read) in effects.reads.drain(..) {
            for again in self.reads.on_read_index(token, read) {
                self.queue.push_front(again);
            }
        }
        let peers = std::mem::take(&mut effects.snapshots);
        *turn.effects = effects;
        peers.into_iter().try_for_each(|peer| self.send_snapshot(peer, turn))
    }

    fn send(&mut self, message: &Message, net: &mut dyn Network) {
        let peer = message.peer;
        let Some(node) = self.node_of(peer).filter(|&node| net.is_connected(node)) else {
            return self.raft.unreachable(peer);
        };
        if is_coalesced(&message.body) {
            return net.coalesce(node, self.shard, self.id, message);
        }
        let lane = match message.body {
            Body::Append { .. } => Lane::Append,
            _ => Lane::Control,
        };
        let (kind, shard) = (wire::kind::RAFT, self.shard);
        let body = wire::encode_raft(self.id, message);
        if !net.push(node, Frame { lane, kind, shard: shard.0, body }) {
            self.raft.unreachable(peer);
        }
    }

    /// The replica as status shows it.
    pub fn status(&self) -> ShardStatus {
        let raft = self.raft.status();
        let stats = self.tree.stats();
        let role = match raft.role {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate | Role::PreCandidate => "candidate",
        };
        let node = |peer: &ReplicaId| self.node_of(*peer).unwrap_or_default().0;
        let lag = |&(ref peer, matched): &(ReplicaId, Index)| {
            (node(peer), raft.last.index.distance_from(matched))
        };
        let nodes = |peers: &PeerSet| peers.iter().map(node).collect::<Vec<u64>>();
        let wait = self.raft.recovery_wait();
        let commit = raft.commit.max(self.applied.index).0;
        let leader_commit = if raft.role == Role::Leader { commit } else { raft.leader_commit.0 };
        ShardStatus {
            id: self.shard.0,
            leader: raft.leader.as_ref().map_or(0, node),
            role: role.to_owned(),
            term: raft.term.0,
            commit,
            leader_commit,
            applied: self.applied.index.0,
            last: raft.last.index.0,
            damaged: self.raft.is_damaged(),
            needs_version: self.needs_version.unwrap_or(0),
            recovery_wait: match wait {
                Some(wait) => describe_wait(wait, node),
                None if self.raft.is_catching_up() => {
                    "receives the entries that its disk lacks; it votes again afterwards".to_owned()
                }
                None => String::new(),
            },
            persisted: raft.persisted.0,
            voters: nodes(&raft.conf.voters),
            learners: [nodes(&raft.conf.learners), nodes(&raft.conf.learners_next)].concat(),
            witnesses: nodes(&raft.conf.witnesses),
            changing: raft.conf.is_joint() || !raft.changes.is_empty(),
            lag: raft.matched.iter().map(lag).collect(),
            memtable_bytes: stats.memtable_bytes,
            table_bytes: stats.table_bytes,
            log_value_bytes: stats.log_value_bytes,
            file_value_bytes: stats.file_value_bytes,
            tables: stats.tables,
        }
    }
}

/// Whether a message is one of the short ones that the shards of a node send together.
fn is_coalesced(body: &Body) -> bool {
    use Body::{Heartbeat, HeartbeatReply, Quiesce, Unquiesce};
    matches!(body, Heartbeat { .. } | HeartbeatReply { .. } | Quiesce { .. } | Unquiesce)
}

/// The wait of a recovering replica in words, with the operator's next step where there is one.
fn describe_wait(wait: RecoveryWait, node: impl Fn(&ReplicaId) -> u64) -> String {
    let node = |peer| node(&peer);
    match wait {
        RecoveryWait::Members => "waits for a node that knows the shard's members".to_owned(),
        RecoveryWait::Answer(peer) => {
            let peer = node(peer);
            format!("waits for node {peer} to report its term and log; start node {peer}")
        }
        RecoveryWait::SameMembers(peer) => format!(
            "does not begin: node {0} is configured with other `members`; make `members` the \
             same on all nodes, and restart the nodes that you changed",
            node(peer)
        ),
        RecoveryWait::AnyMembers(peer) => format!(
            "does not begin: node {0} is configured without members; is `join` set on node \
             {0}?",
            node(peer)
        ),
        RecoveryWait::NewDisk(peer) => format!(
            "waits: with the disk of node {0}, more disks are new than the shard survives; \
             start a node that still has its old disk",
            node(peer)
        ),
        RecoveryWait::Disputed(peer) => format!(
            "is disputed: this node and node {0} both lost entries that they had acknowledged, so \
             neither can prove what was committed; start this node or node {0} from its newest \
             disk",
            node(peer)
        ),
    }
}

/// A write as log records: one for each run of entries of one term, and the hard state with them,
/// so that a commit index is never durable without the entries up to it.
fn log_records(shard: ShardId, entries: &[Entry], state: HardState) -> Vec<Record> {
    let mut records = Vec::with_capacity(2);
    let mut left = entries;
    while let Some(first) = left.first() {
        let mut bytes = 0;
        let run = left
            .iter()
            .take_while(|entry| {
                bytes += entry.data.len();
                entry.id.term == first.id.term
                    && (bytes <= REPLAY_BYTES / 2 || entry.id == first.id)
            })
            .count();
        let (run, later) = left.split_at(run);
        let datas = run.iter().map(|entry| (entry.kind, entry.data.clone()));
        let record = Record::entries(shard, first.id, datas);
        records.push(record.expect("entries are within the limits that const assertions relate"));
        left = later;
    }
    records.push(Record::HardState { shard, state });
    records
}
