//! One replica: its state, its inputs, and the collection of its effects.

use super::boot::{Boot, Durability};
use super::conf::{Conf, InvalidChange};
use super::durable::DurableState;
use super::effective_conf::EffectiveConf;
use super::entries::Entries;
use super::leadership::{Leadership, Role};
use super::lease::{Lease, LeaseState};
use super::log::{LogReader, RaftLog};
use super::message::{Body, Message};
use super::outbox::Outbox;
use super::peer_set::PeerSet;
use super::progress::{Progress, ProgressMap};
use super::query::{Answer, KnownMembers, Query, Recovery};
use super::read_rounds::{Read, Reads};
use super::timers::Timers;
use super::volatile::{Applying, Quiescence, Transfer};
use super::{EntryKind, Index, ReplicaId, Seq, Term, Tick};
use bedstone_engine::LogId;
use bedstone_engine::wal::{HardState, Vote};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// The settings of a replica. Times are in ticks.
#[derive(Clone, Debug)]
pub struct Config {
    /// A follower campaigns when it has heard no leader for a time drawn from this range.
    pub election: Range<Tick>,
    /// The interval between two heartbeats of a leader.
    pub heartbeat: Tick,
    /// The disk counts as hung when it has not completed a write for this long. A replica whose
    /// disk hangs cannot lead.
    pub disk_hangs: Tick,
    /// A leader without requests for this long makes its group quiescent, see
    /// [`Raft::is_quiescent`]. `None` turns quiescence off.
    pub quiesce_after: Option<Tick>,
    /// The lease with which a leader answers reads without a round of heartbeats, if any. All
    /// members must have the same setting.
    pub lease: Option<Lease>,
    /// Bytes of entries in one append.
    pub append_bytes_max: usize,
    /// Bytes of entries under way to one follower.
    pub inflight_bytes_max: usize,
    /// Appends under way to one follower.
    pub inflight_appends_max: usize,
    /// Bytes of entries that are not committed yet. Beyond this limit the leader refuses proposals.
    pub uncommitted_bytes_max: usize,
    /// Bytes of entries kept in memory for slow followers. While entries are not applied yet, twice
    /// as many bytes are kept. A leader also keeps all entries that are not committed.
    pub recent_bytes_max: usize,
}

impl Config {
    /// The settings for servers.
    pub const DEFAULT: Config = Config {
        election: 10..20,
        heartbeat: 2,
        disk_hangs: 10,
        quiesce_after: Some(40),
        lease: None,
        append_bytes_max: 512 << 10,
        inflight_bytes_max: 4 << 20,
        inflight_appends_max: 256,
        uncommitted_bytes_max: 64 << 20,
        recent_bytes_max: 16 << 20,
    };
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The number of ticks after which a write has taken longer than usual.
const DISK_LATE: Tick = 1;

/// A write that must become durable. The driver then reports the write with [`Raft::persisted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The number of the write. Writes complete in the order of their numbers.
    pub seq: Seq,
    /// The new hard state.
    pub hard: HardState,
    /// Entries to append. Older entries in the log from the first of these indexes on are replaced.
    pub entries: Entries,
}

/// The effects to execute. Each field states its place in the order of execution, which the comment
/// of module `raft` explains.
#[derive(Debug, Default)]
pub struct Effects {
    /// First: messages that may leave at once, before `write` is durable. Messages that depend on a
    /// write are not here yet: they appear in later effects, after [`Raft::persisted`].
    pub send: Vec<Message>,
    /// Second: the next write to the log. Writes must reach the log in the order of their numbers.
    pub write: Option<Write>,
    /// Third: entries up to this index may be applied. The driver need not wait until `write` is
    /// durable.
    pub commit: Index,
    /// Third, together with `commit`: the outcomes of reads, by token. A read may be served only
    /// once the entries up to its index are applied.
    pub reads: Vec<(u64, Read)>,
    /// Peers that need a snapshot. The driver takes the field, at any place in the order.
    pub snapshots: PeerSet,
    /// Part of the second step: the log restarts after `applied`. The restart precedes `write`, and
    /// both must become durable atomically. Other contents of the log on disk are not needed any
    /// more.
    pub reset_log: bool,
    /// A peer that sent, as leader, an entry that differs from the entry committed here at the same
    /// index. The log of the peer or of this replica is damaged. No entry of that append was
    /// accepted. The driver takes the field and reports the conflict, at any place in the order.
    pub committed_conflict: Option<ReplicaId>,
    /// The leader counts this entry as acknowledged by this replica, and the log of this replica
    /// lacks it: the disk lost records, or is an older copy of itself. The replica recovers. The
    /// driver takes the field and reports the loss, at any place in the order.
    pub lost: Option<LogId>,
}

/// The reason why an input was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This replica does not lead. The field is the leader, if known.
    #[error("this node does not lead the group")]
    NotLeader(Option<ReplicaId>),
    /// Too many bytes of entries wait to be committed.
    #[error("too many bytes of entries wait to be committed")]
    Full,
    /// A configuration change is in the log and not effective yet.
    #[error("the previous configuration change is not effective yet")]
    ChangePending,
    /// This leader has not committed an entry of its term yet.
    #[error("the new leader has not committed an entry of its term yet")]
    NoCommitInTerm,
    /// The configuration change is invalid.
    #[error("{0}")]
    InvalidChange(InvalidChange),
    /// A witness received entries that no voter with commands in the next configuration has yet.
    #[error("a witness has entries that no voter of the next configuration has yet")]
    CatchingUp,
    /// A transfer of leadership to a peer is under way.
    #[error("leadership is being transferred to replica {0}")]
    Transferring(ReplicaId),
    /// The peer cannot lead: it is no voter, or a witness.
    #[error("replica {0} cannot lead: it is no voter, or a witness")]
    CannotLead(ReplicaId),
}

/// The state of a replica, as a status shows it.
#[derive(Clone, Debug)]
pub struct Status {
    /// The role.
    pub role: Role,
    /// The leader, if known.
    pub leader: Option<ReplicaId>,
    /// The term.
    pub term: Term,
    /// The vote of the replica in this term.
    pub vote: Vote,
    /// The commit index.
    pub commit: Index,
    /// On a follower: the commit index in the last heartbeat of the leader; 0 before the first
    /// heartbeat.
    pub leader_commit: Index,
    /// The last entry.
    pub last: LogId,
    /// The last durable index.
    pub persisted: Index,
    /// On a leader: the last index known to be durable at each follower.
    pub matched: Vec<(ReplicaId, Index)>,
    /// The configuration, as far as this replica knows which changes are committed.
    pub conf: Conf,
    /// The indexes of configuration changes in the log that are not effective yet.
    pub changes: Vec<Index>,
    /// On a leader: the follower that leadership is being transferred to.
    pub transferring: Option<ReplicaId>,
}

/// One replica of one group.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(super) config: Arc<Config>,
    pub(super) id: ReplicaId,
    pub(super) conf: EffectiveConf,
    pub(super) hard: DurableState,
    pub(super) log: RaftLog,
    pub(super) leadership: Leadership,
    pub(super) timers: Timers,
    pub(super) progress: ProgressMap,
    /// On a leader: bytes of the entries that are not committed.
    pub(super) uncommitted_bytes: usize,
    pub(super) reads: Reads,
    pub(super) snapshots: PeerSet,
    pub(super) transfer: Option<Box<Transfer>>,
    pub(super) committed_conflict: Option<Box<ReplicaId>>,
    /// See [`Boot::restarted`].
    pub(super) restarted: bool,
    pub(super) recovery: Recovery,
    pub(super) reset_log: bool,
    pub(super) applying: Applying,
    pub(super) quiescence: Quiescence,
    pub(super) lease: LeaseState,
    pub(super) outbox: Outbox,
    /// Entries up to this index are applied. Never after the commit index, and never decreases
    /// (asserted in [`Raft::applied`]).
    applied: Index,
}

impl Raft {
    /// Starts a replica as a follower. Replicas of many groups may share one [`Config`].
    pub fn new(config: impl Into<Arc<Config>>, boot: Boot) -> Raft {
        let config = config.into();
        let lease = LeaseState::new(config.lease);
        let log = RaftLog::new(boot.base, boot.runs, boot.last);
        let mut hard = boot.hard;
        let draw = boot.seed ^ boot.id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let durability = match boot.durability {
            // The replica stopped before its recovery was complete: it had stored a
            // withheld vote.
            Durability::Intact | Durability::Suspect if hard.vote == Vote::Withheld => {
                Durability::Empty
            }
            durability => durability,
        };
        let recovery = match durability {
            _ if boot.conf.is_sole_voter(boot.id) => Recovery::Done,
            Durability::Intact => Recovery::Done,
            durability => Query::begin(draw >> 1, durability),
        };
        hard.commit = hard.commit.max(boot.applied.index).min(log.last().index);
        hard.term = hard.term.max(log.last().term);
        let mut raft = Raft {
            config,
            id: boot.id,
            conf: EffectiveConf::new(boot.conf, boot.changes),
            hard: DurableState::new(hard, boot.hard),
            log,
            leadership: Leadership::new(),
            timers: Timers::new(draw),
            progress: ProgressMap::default(),
            uncommitted_bytes: 0,
            reads: Reads::new(draw >> 2),
            snapshots: PeerSet::default(),
            transfer: None,
            committed_conflict: None,
            restarted: boot.restarted,
            recovery,
            reset_log: false,
            applying: Applying::Running,
            quiescence: Quiescence::default(),
            lease,
            outbox: Outbox::default(),
            applied: boot.applied.index,
        };
        raft.advance_conf();
        raft.wait_for_leader();
        if raft.conf.is_sole_voter(raft.id) {
            // No other replica can lead, so the election starts with the first tick.
            raft.timers.make_due();
        }
        raft
    }

    /// One tick has passed. The time of a quiescent replica stands still.
    pub fn tick(&mut self) {
        if self.is_quiescent() {
            return;
        }
        self.timers.tick();
        self.tick_reads();
        match self.role() {
            Role::Leader => self.tick_leader(),
            _ if self.is_querying() => self.tick_recovery(),
            _ if self.timers.is_due() => self.start_pre_vote(),
            _ => {}
        }
    }

    /// Processes a message from a peer. No message that decodes can cause a panic.
    pub fn step(&mut self, message: Message) {
        let Message { peer, term, body } = message;
        // Messages of unknown peers are processed too: a peer may know a configuration in which it
        // is a member before this replica knows that configuration.
        if peer == self.id {
            return;
        }
        self.unquiesce_for(peer, &body);
        let body = match body {
            Body::Recover { query_id, lost } => return self.on_recover(peer, query_id, lost),
            Body::RecoverReply { query_id, new, last, commit, conf } => {
                let known_members = match *conf {
                    _ if conf.voters.is_empty() => KnownMembers::None,
                    _ if *conf == *self.conf.get() => KnownMembers::Same,
                    _ => KnownMembers::Different,
                };
                let answer = Answer { term, new, last, commit, known_members };
                return self.on_recover_reply(peer, query_id, answer, *conf);
            }
            // A replica whose votes and log are uncertain takes part in nothing but the query.
            _ if self.is_querying() => return,
            other => other,
        };
        if term > self.hard.term && self.follows_higher_term(&body) {
            // A message of a later term ends the role of this replica in the current term (§5.1).
            self.become_follower(term, None);
        }
        let answerable = term <= self.hard.term;
        match body {
            Body::PreVote { last } => self.on_pre_vote(peer, term, last),
            Body::PreVoteReply { granted, committed } => {
                self.learn_committed(committed);
                self.on_pre_vote_reply(peer, term, granted);
            }
            // A message of a later term that this replica does not follow, see
            // `follows_higher_term`.
            _ if !answerable => {}
            Body::Vote { .. }
            | Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::Quiesce { .. }
                if term < self.hard.term =>
            {
                self.on_stale(peer);
            }
            _ if term < self.hard.term => {}
            Body::Vote { last, leader_transfer } => self.on_vote(peer, last, leader_transfer),
            Body::VoteReply { granted, committed } => {
                self.learn_committed(committed);
                self.on_vote_reply(peer, granted);
            }
            Body::Append { previous, entries, commit } => {
                self.on_append(peer, previous, entries, commit);
            }
            Body::AppendReply { matched } => self.on_append_reply(peer, matched),
            Body::AppendRefused { hint, refused } => self.on_append_refused(peer, hint, refused),
            Body::Heartbeat { committed, round, acknowledged } => {
                self.on_heartbeat(peer, committed, round, acknowledged);
            }
            Body::HeartbeatReply { round } => self.on_heartbeat_reply(peer, round),
            Body::Quiesce { at } => self.on_quiesce(peer, at),
            Body::TimeoutNow => self.on_timeout_now(peer),
            Body::ReadIndex { query_id } => self.on_read_index(peer, query_id),
            Body::ReadIndexReply { query_id, at } => self.on_read_index_reply(query_id, at),
            Body::Recover { .. } | Body::RecoverReply { .. } | Body::Unquiesce => {}
        }
    }

    /// Write `seq` is durable.
    pub fn persisted(&mut self, seq: Seq) {
        self.outbox.complete_write(seq, self.timers.now());
        self.log.on_persisted(seq);
        match self.role() {
            Role::Leader => self.advance_commit(),
            Role::Candidate => self.count_votes(),
            _ => {}
        }
    }

    /// Proposes a command. Returns the term and index of the entry in the log. The place is certain
    /// only if this replica still leads when the entry commits.
    pub fn propose(&mut self, data: Bytes) -> Result<LogId, Refused> {
        if self.role() != Role::Leader {
            return Err(Refused::NotLeader(self.leader()));
        }
        if let Some(transfer) = &self.transfer {
            return Err(Refused::Transferring(transfer.to));
        }
        if self.applying != Applying::Running {
            // The result of the command could not be computed here.
            return Err(Refused::NotLeader(None));
        }
        if self.uncommitted_bytes + data.len() > self.config.uncommitted_bytes_max {
            return Err(Refused::Full);
        }
        self.mark_active();
        Ok(self.append(EntryKind::COMMANDS, data))
    }

    /// Entries up to `index` are applied to the tree.
    pub fn applied(&mut self, index: Index) {
        assert!(
            index >= self.applied && index <= self.hard.commit,
            "applied entries are committed, and the applied index never decreases"
        );
        self.applied = index;
    }

    /// Keeps the bytes of entries in memory within bounds. Applied entries leave memory first. When
    /// the tree falls behind or stands still, durable entries leave memory too, and are read from
    /// the log again later. On a leader only committed entries leave in this way.
    #[inline(never)]
    fn bound_memory(&mut self) {
        self.log.evict(self.applied);
        if self.log.recent_bytes() > 2 * self.config.recent_bytes_max {
            self.log.evict(self.evictable_until());
        }
    }

    /// The last index that may leave memory once it is durable. A leader keeps uncommitted entries,
    /// because the leader counts the bytes of these entries.
    fn evictable_until(&self) -> Index {
        match self.role() {
            Role::Leader => self.hard.commit,
            _ => self.log.last().index,
        }
    }

    /// Bytes of durable entries in memory that could leave memory.
    pub fn evictable_bytes(&self) -> usize {
        self.log.bytes(Index(0), self.log.persisted().min(self.evictable_until()))
    }

    /// The log released the entries up to `upto`, which a snapshot covers.
    pub fn compacted(&mut self, upto: LogId) {
        self.log.compact(upto);
    }

    /// The effects that are required after some inputs.
    pub fn effects(&mut self, reader: &dyn LogReader) -> Effects {
        let mut effects = Effects::default();
        self.effects_into(reader, &mut effects);
        effects
    }

    /// Like [`Self::effects`], but writes to a value whose effects were executed, and reuses its
    /// capacity. The call is cheap when there are no effects.
    pub fn effects_into(&mut self, reader: &dyn LogReader, into: &mut Effects) {
        self.send_appends(reader);
        self.start_read_round();
        self.answer_followers();
        into.write = if self.log.has_unwritten() || self.hard_needs_write() {
            Some(self.next_write())
        } else {
            None
        };
        self.outbox.take_ready(&mut into.send);
        self.reads.take_settled(&mut into.reads);
        // An entry that is durable at a majority may be applied before this disk has the entry.
        // While the disk keeps up, the core waits for the disk, because an entry that has its place
        // in the log need not be copied.
        into.commit = if self.disk_is_late() {
            self.hard.commit
        } else {
            self.hard.commit.min(self.log.persisted())
        };
        into.reset_log = std::mem::take(&mut self.reset_log);
        // Rare effects are written only when there are any: the driver has taken the earlier ones.
        if !self.snapshots.is_empty() {
            into.snapshots = std::mem::take(&mut self.snapshots);
        }
        if let Some(peer) = self.committed_conflict.take() {
            into.committed_conflict = Some(*peer);
        }
        if let Recovery::Querying(query) = &mut self.recovery {
            into.lost = query.lost_entry.take();
        }
        if self.log.recent_bytes() > self.config.recent_bytes_max {
            self.bound_memory();
        }
    }

    fn next_write(&mut self) -> Write {
        let seq = self.outbox.begin_write(self.hard_needs_write(), self.timers.now());
        Write { seq, hard: self.hard.write(), entries: self.log.write(seq) }
    }

    /// The entries from `first` on, to be applied: at least one, then more up to `max_bytes`.
    pub fn entries(&self, first: Index, max_bytes: usize, reader: &dyn LogReader) -> Entries {
        self.log.entries(first, max_bytes, reader)
    }

    /// The term of an entry of the log, or of its base.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    /// The present state of the replica.
    pub fn status(&self) -> Status {
        let matched = self.progress.iter().map(|progress| (progress.peer(), progress.matched()));
        Status {
            role: self.role(),
            leader: self.leader(),
            term: self.hard.term,
            vote: self.hard.vote,
            commit: self.hard.commit,
            leader_commit: self.leadership.leader_commit(),
            last: self.log.last(),
            persisted: self.log.persisted(),
            matched: matched.collect(),
            conf: self.conf.get().clone(),
            changes: self.conf.changes().iter().map(|(index, _)| *index).collect(),
            transferring: self.transfer.as_ref().map(|transfer| transfer.to),
        }
    }

    /// The progress of each other member, on a leader.
    pub fn progress(&self) -> impl Iterator<Item = &Progress> {
        self.progress.iter()
    }

    /// The commit index.
    pub fn commit(&self) -> Index {
        self.hard.commit
    }

    /// The last entry before the log's first entry; only a snapshot covers it.
    pub fn base(&self) -> LogId {
        self.log.base()
    }

    /// The last entry of the log.
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// On a leader: bytes of entries that are not committed yet.
    pub fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// The last index that is durable on this replica's disk.
    pub fn persisted_index(&self) -> Index {
        self.log.persisted()
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        self.role() == Role::Leader
    }

    /// The role.
    pub(super) fn role(&self) -> Role {
        self.leadership.role()
    }

    /// The leader, if known.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.leadership.leader()
    }

    /// The term.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// The effective configuration.
    pub fn conf(&self) -> &Conf {
        self.conf.get()
    }

    /// Sends a message at once. The message must not state anything that is not durable yet.
    pub(super) fn send_now(&mut self, peer: ReplicaId, body: Body) {
        self.send_with_term(peer, self.hard.term, body);
    }

    /// Sends a message with a term that may differ from the current one: a pre-vote refers to a
    /// term that has not begun.
    pub(super) fn send_with_term(&mut self, peer: ReplicaId, term: Term, body: Body) {
        self.outbox.send(Message { peer, term, body });
    }

    /// Acknowledges entries up to `matched`. An acknowledgement covers all entries before it, so
    /// the new one replaces an acknowledgement that waits for the same write.
    pub(super) fn acknowledge(&mut self, peer: ReplicaId, matched: Index) {
        let (after, term) = (self.pending_write(), self.hard.term);
        if !self.outbox.extend_acknowledgement(after, peer, term, matched) {
            let message = Message { peer, term, body: Body::AppendReply { matched } };
            self.outbox.send_after(after, message);
        }
    }

    /// Sends a message once all decisions of this replica so far are durable.
    pub(super) fn send_after_durable(&mut self, peer: ReplicaId, body: Body) {
        let message = Message { peer, term: self.hard.term, body };
        self.outbox.send_after(self.pending_write(), message);
    }

    /// Sends a message that states the term but no entries. The message waits only until the term
    /// is durable.
    pub(super) fn send_after_term_durable(&mut self, peer: ReplicaId, body: Body) {
        let message = Message { peer, term: self.hard.term, body };
        let after = self.outbox.pending_vote(self.hard_needs_write());
        self.outbox.send_after(after, message);
    }

    /// The write after which the present state is durable. `None` when the state is durable
    /// already.
    pub(super) fn pending_write(&self) -> Option<Seq> {
        self.outbox.pending_write(self.log.has_unwritten() || self.hard_needs_write())
    }

    /// Releases capacity that an active replica needs and a quiescent one does not.
    pub(super) fn shrink_to_fit(&mut self) {
        self.outbox.shrink_to_fit();
        self.log.shrink_to_fit();
        self.progress.iter_mut().for_each(Progress::shrink_to_fit);
        self.reads.shrink_to_fit();
    }

    /// Whether the whole log, which ends at `last`, is durable, committed and applied, and no write
    /// is under way.
    pub(super) fn is_fully_applied(&self, last: Index) -> bool {
        let reached = [self.hard.commit, self.log.persisted(), self.applied];
        reached.iter().all(|&index| index == last)
            && self.pending_write().is_none()
            && self.committed_conflict.is_none()
    }

    /// Whether the disk has not completed a write for longer than a write usually takes.
    fn disk_is_late(&self) -> bool {
        self.disk_owes_for().is_some_and(|ticks| ticks > DISK_LATE)
    }

    /// Whether the disk has not completed a write for so long that it may hang.
    pub(super) fn disk_hangs(&self) -> bool {
        self.disk_owes_for().is_some_and(|ticks| ticks >= self.config.disk_hangs)
    }

    fn disk_owes_for(&self) -> Option<Tick> {
        self.outbox.disk_owes_for(self.timers.now())
    }

    /// Whether the hard state requires a write. Three things must become durable: the term and the
    /// vote, a restart of the log, and the fact that a configuration change is committed. While no
    /// member's disk has that last fact, the members before the change would have to elect a leader
    /// after a crash. In all other cases the commit index is stored with the next write.
    fn hard_needs_write(&self) -> bool {
        self.reset_log || self.hard.needs_write(self.conf.changed_at())
    }

    /// Whether this replica would have the same configuration after a crash.
    pub fn members_are_durable(&self) -> bool {
        self.outbox.pending_vote(self.hard_needs_write()).is_none()
    }
}
