//! The replica itself: its state, the inputs, and how effects are gathered.

use super::conf::{Conf, InvalidChange};
use super::entries::Entries;
use super::lease::{Lease, LeaseState};
use super::log::{LogReader, RaftLog};
use super::message::{Body, Message};
use super::peer_set::PeerSet;
use super::progress::{Progress, ProgressMap};
use super::quiescence::Quiescence;
use super::read_rounds::{Read, Reads};
use super::recovery::{Answer, KnownMembers, NOBODY, Query, Recovery};
use super::{Index, PeerId, Seq, Term, Tick, kind};
use bedstone_engine::LogId;
use bedstone_engine::wal::HardState;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// How a replica behaves. Times are in ticks.
#[derive(Clone, Debug)]
pub struct Config {
    /// A follower that hears no leader for a time drawn from this range campaigns.
    pub election: Range<Tick>,
    /// A leader's pause between heartbeats.
    pub heartbeat: Tick,
    /// A disk that owes an answer for so long hangs: this replica cannot lead.
    pub disk_hangs: Tick,
    /// A leader that nobody asks for anything for so long puts its group to rest, see
    /// [`Raft::is_quiescent`]; `None` for never.
    pub quiesce_after: Option<Tick>,
    /// Whether leaders may answer reads alone, and for how long; all members have the same.
    pub lease: Option<Lease>,
    /// Bytes of entries in one append.
    pub append_bytes_max: usize,
    /// Bytes of entries under way to one follower.
    pub inflight_bytes_max: usize,
    /// Appends under way to one follower.
    pub inflight_appends_max: usize,
    /// Bytes of entries that are not committed yet; beyond, proposals are refused.
    pub uncommitted_bytes_max: usize,
    /// Bytes of entries kept in memory for slow followers; twice as many where they are not
    /// applied yet, and by a leader what is not committed.
    pub recent_bytes_max: usize,
}

impl Config {
    /// For servers.
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

/// Ticks after which a write takes longer than usual.
const DISK_LATE: Tick = 1;

/// What a replica starts from.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Its own id.
    pub id: PeerId,
    /// The members as of `applied`.
    pub conf: Conf,
    /// The index and the data of each change in the log after `applied`, ascending.
    pub changes: Vec<(Index, Bytes)>,
    /// The durable hard state.
    pub hard: HardState,
    /// What the tree holds.
    pub applied: LogId,
    /// Where the log begins.
    pub base: LogId,
    /// First entry of each run of one term in the log.
    pub runs: Vec<LogId>,
    /// The log's last index.
    pub last: Index,
    /// Draws the election timeouts. No two lives of a replica have the same.
    pub seed: u64,
    /// Whether the disk has all that the replica promised.
    pub durability: Durability,
}

/// What a disk has of a replica's promises: its votes, and the entries that it acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// All of them.
    #[default]
    Intact,
    /// It is empty: there were none yet, or the disk was lost.
    Empty,
    /// All that it says it has, but perhaps not all that it said it had: the machine went down, and
    /// its disk is not trusted to keep what it was told to sync.
    Suspect,
    /// Not all: records were lost. What [`Boot`] says of the log is then what is to be kept of it,
    /// no more than what was applied.
    Lost,
}

impl Boot {
    /// Of a disk that is empty.
    pub fn new(id: PeerId, conf: Conf, seed: u64) -> Boot {
        Boot {
            id,
            conf,
            changes: Vec::new(),
            hard: HardState::default(),
            applied: LogId::default(),
            base: LogId::default(),
            runs: Vec::new(),
            last: 0,
            seed,
            durability: Durability::Intact,
        }
    }
}

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// A write that must become durable; [`Raft::persisted`] reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its number; writes complete in this order.
    pub seq: Seq,
    /// The new hard state.
    pub hard: HardState,
    /// Entries to append; they replace what the log has from the first of them on.
    pub entries: Entries,
}

/// What is to be done. See the module for the order.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages that may leave now.
    pub send: Vec<Message>,
    /// The next write.
    pub write: Option<Write>,
    /// Entries up to here may be applied.
    pub commit: Index,
    /// What became of reads, by their tokens.
    pub reads: Vec<(u64, Read)>,
    /// ProgressMap that need a snapshot.
    pub snapshots: PeerSet,
    /// The log begins anew after `applied`, durable as one with the write of these effects, which
    /// comes after it: what the disk has besides is not needed any more.
    pub reset_log: bool,
    /// A peer sent, as leader, another entry than the one committed here: its log or this one is
    /// damaged. Nothing of it was taken.
    pub committed_conflict: Option<PeerId>,
}

/// Why an input was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another node leads, if it is known which.
    #[error("another node leads")]
    NotLeader(Option<PeerId>),
    /// Too much waits to be committed.
    #[error("too much waits to be committed")]
    Full,
    /// A change of the members is in the log and not effective yet.
    #[error("the change before is not done yet")]
    ChangePending,
    /// This leader has not committed an entry of its term yet.
    #[error("the leader is new and has committed nothing yet")]
    NoCommitInTerm,
    /// The members cannot change so.
    #[error("{0}")]
    InvalidChange(InvalidChange),
    /// A witness was told of entries that no voter of the new members has yet.
    #[error("a witness knows of entries that no voter afterwards has yet")]
    CatchingUp,
    /// Leadership is being handed to a peer.
    #[error("leadership is being handed to node {0}")]
    Transferring(PeerId),
    /// The peer cannot lead: it is no voter, or a witness.
    #[error("node {0} cannot lead: it is no voter, or a witness")]
    CannotLead(PeerId),
}

/// What status shows.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its role.
    pub role: Role,
    /// Who leads, if known.
    pub leader: Option<PeerId>,
    /// The term.
    pub term: Term,
    /// For whom it voted in it.
    pub vote: Option<PeerId>,
    /// The commit index.
    pub commit: Index,
    /// The last entry.
    pub last: LogId,
    /// The last durable index.
    pub persisted: Index,
    /// Of a leader: the last index known to be durable at each follower.
    pub matched: Vec<(PeerId, Index)>,
    /// The members, as far as this replica knows what is committed.
    pub conf: Conf,
    /// Changes in the log that are not effective yet.
    pub changes: Vec<Index>,
    /// Of a leader: to whom it hands over.
    pub transferring: Option<PeerId>,
}

/// One replica of one group.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(super) config: Arc<Config>,
    pub(super) id: PeerId,
    pub(super) conf: Conf,
    /// The last change that is effective: that it is committed must be durable.
    pub(super) conf_index: Index,
    /// Index and data of the changes in the log that are not effective yet, ascending.
    pub(super) changes: VecDeque<(Index, Bytes)>,
    pub(super) hard: HardState,
    pub(super) log: RaftLog,
    pub(super) role: Role,
    pub(super) leader: Option<PeerId>,
    pub(super) now: Tick,
    /// When the role times out: a follower campaigns, a leader counts whom it heard.
    pub(super) deadline: Tick,
    /// When the leader was last heard.
    pub(super) heard_leader: Tick,
    pub(super) next_heartbeat: Tick,
    pub(super) votes: BTreeMap<PeerId, bool>,
    pub(super) progress: ProgressMap,
    pub(super) uncommitted_bytes: usize,
    pub(super) reads: Reads,
    pub(super) snapshots: PeerSet,
    pub(super) transfer: Option<super::transfer::Transfer>,
    pub(super) committed_conflict: Option<PeerId>,
    pub(super) recovery: Recovery,
    pub(super) reset_log: bool,
    /// What was applied here is damaged.
    pub(super) damaged: bool,
    pub(super) quiescence: Quiescence,
    pub(super) lease: LeaseState,
    applied: Index,
    hard_written: HardState,
    seq: Seq,
    seq_durable: Seq,
    /// The last write that had to be made for the hard state.
    hard_seq: Seq,
    /// Since when the disk owes an answer: the oldest write under way was handed out, or the one
    /// before it completed.
    disk_since: Option<Tick>,
    pub(super) send: Vec<Message>,
    /// Messages that wait for a write.
    awaiting_write: VecDeque<(Seq, Message)>,
    rng_state: u64,
}

impl Raft {
    /// Starts a replica as a follower. Those of many groups may share a configuration.
    pub fn new(config: impl Into<Arc<Config>>, boot: Boot) -> Raft {
        let config = config.into();
        let log = RaftLog::new(boot.base, boot.runs, boot.last);
        let mut hard = boot.hard;
        let draw = boot.seed ^ boot.id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let durability = match boot.durability {
            // It was on its way back when it stopped.
            Durability::Intact | Durability::Suspect if hard.vote == Some(NOBODY) => {
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
            conf: boot.conf,
            conf_index: 0,
            changes: boot.changes.into(),
            hard,
            log,
            role: Role::Follower,
            leader: None,
            now: 0,
            deadline: 0,
            heard_leader: 0,
            next_heartbeat: 0,
            votes: BTreeMap::new(),
            progress: ProgressMap::default(),
            uncommitted_bytes: 0,
            reads: Reads::new(draw >> 2),
            snapshots: PeerSet::default(),
            transfer: None,
            committed_conflict: None,
            recovery,
            reset_log: false,
            damaged: false,
            quiescence: Quiescence::default(),
            lease: LeaseState::default(),
            applied: boot.applied.index,
            hard_written: boot.hard,
            seq: 0,
            seq_durable: 0,
            hard_seq: 0,
            disk_since: None,
            send: Vec::new(),
            awaiting_write: VecDeque::new(),
            rng_state: draw,
        };
        raft.advance_conf();
        raft.wait_for_leader();
        if raft.conf.is_sole_voter(raft.id) {
            // Nobody else can lead.
            raft.deadline = 0;
        }
        raft
    }

    /// Time passed.
    pub fn tick(&mut self) {
        if self.is_quiescent() {
            return;
        }
        self.now += 1;
        self.tick_reads();
        match self.role {
            Role::Leader => self.tick_leader(),
            _ if self.is_querying() => self.tick_recovery(),
            _ if self.now >= self.deadline => self.start_pre_vote(),
            _ => {}
        }
    }

    /// A message came. Never panics on any message that decodes.
    pub fn step(&mut self, message: Message) {
        let Message { peer, term, body } = message;
        // Any peer may know of a configuration in which it has a say here, before this replica
        // does.
        if peer == self.id {
            return;
        }
        self.unquiesce_for(peer, &body);
        let body = match body {
            Body::Recover { question } => return self.on_recover(peer, question),
            Body::RecoverReply { question, new, last, commit, conf } => {
                let told = match *conf {
                    _ if conf.voters.is_empty() => KnownMembers::None,
                    _ if *conf == self.conf => KnownMembers::Same,
                    _ => KnownMembers::Different,
                };
                let answer = Answer { term, new, last, commit, told };
                return self.on_recover_reply(peer, question, answer, *conf);
            }
            _ if self.is_querying() => return,
            other => other,
        };
        if term > self.hard.term && self.follows_higher_term(&body) {
            // A message from a later term ends this replica's part in its own (§5.1).
            self.become_follower(term, None);
        }
        let answerable = term <= self.hard.term;
        match body {
            Body::PreVote { last } => self.on_pre_vote(peer, term, last),
            Body::PreVoteReply { granted, committed } => {
                self.learn_committed(committed);
                self.on_pre_vote_reply(peer, term, granted);
            }
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
            Body::Heartbeat { committed, round } => self.on_heartbeat(peer, committed, round),
            Body::HeartbeatReply { round } => self.on_heartbeat_reply(peer, round),
            Body::Quiesce { at } => self.on_quiesce(peer, at),
            Body::TimeoutNow => self.on_timeout_now(peer),
            Body::ReadIndex { question } => self.on_read_index(peer, question),
            Body::ReadIndexReply { question, at } => self.on_read_index_reply(question, at),
            Body::Recover { .. } | Body::RecoverReply { .. } | Body::Unquiesce => {}
        }
    }

    /// A write is durable.
    pub fn persisted(&mut self, seq: Seq) {
        assert!(seq > self.seq_durable && seq <= self.seq, "writes complete once, in order");
        self.seq_durable = seq;
        self.disk_since = (seq < self.seq).then_some(self.now);
        self.log.on_persisted(seq);
        while let Some((_, message)) = self.awaiting_write.pop_front_if(|(after, _)| *after <= seq)
        {
            self.send.push(message);
        }
        match self.role {
            Role::Leader => self.advance_commit(),
            Role::Candidate => self.count_votes(),
            _ => {}
        }
    }

    /// Proposes a command. Returns where it will stand in the log, if this replica still leads
    /// when it commits.
    pub fn propose(&mut self, data: Bytes) -> Result<LogId, Refused> {
        if self.role != Role::Leader {
            return Err(Refused::NotLeader(self.leader));
        }
        if let Some(transfer) = &self.transfer {
            return Err(Refused::Transferring(transfer.to));
        }
        if self.damaged {
            // It could not answer.
            return Err(Refused::NotLeader(None));
        }
        if self.uncommitted_bytes + data.len() > self.config.uncommitted_bytes_max {
            return Err(Refused::Full);
        }
        self.mark_active();
        Ok(self.append(kind::NORMAL, data))
    }

    /// Entries up to here are in the tree.
    pub fn applied(&mut self, index: Index) {
        assert!(
            index >= self.applied && index <= self.hard.commit,
            "applied entries are committed"
        );
        self.applied = index;
    }

    /// Entries in memory stay within bounds: those that are applied leave first. Where the tree
    /// falls behind, or is damaged, what is durable leaves too, and is read from the log again; on
    /// a leader only what is committed.
    #[inline(never)]
    fn bound_memory(&mut self) {
        self.log.forget(self.applied);
        if self.log.recent_bytes() > 2 * self.config.recent_bytes_max {
            self.log.forget(self.evictable_until());
        }
    }

    /// The end of what may leave memory once it is durable: a leader counts what is not committed.
    fn evictable_until(&self) -> Index {
        match self.role {
            Role::Leader => self.hard.commit,
            _ => self.log.last().index,
        }
    }

    /// Bytes of entries in memory that are durable and could leave it.
    pub fn spare_bytes(&self) -> usize {
        self.log.bytes(0, self.log.persisted().min(self.evictable_until()))
    }

    /// Entries up to here were released from the log; a snapshot covers them.
    pub fn compacted(&mut self, upto: LogId) {
        self.log.compact(upto);
    }

    /// What is to be done after some inputs.
    pub fn effects(&mut self, reader: &dyn LogReader) -> Effects {
        let mut effects = Effects::default();
        self.effects_into(reader, &mut effects);
        effects
    }

    /// The same, in the place of effects that were executed: their room is used again. Cheap when
    /// there is nothing.
    pub fn effects_into(&mut self, reader: &dyn LogReader, into: &mut Effects) {
        self.send_appends(reader);
        self.start_read_round();
        self.answer_followers();
        into.write = match self.log.has_unwritten() || self.hard_needs_write() {
            true => Some(self.next_write()),
            false => None,
        };
        hand_out(&mut self.send, &mut into.send);
        hand_out(&mut self.reads.settled, &mut into.reads);
        // What others have durably may be applied before this disk has it. While the disk keeps up
        // it is waited for: an entry that has its place in the log need not be copied.
        into.commit = match self.disk_is_late() {
            true => self.hard.commit,
            false => self.hard.commit.min(self.log.persisted()),
        };
        into.snapshots = std::mem::take(&mut self.snapshots);
        into.reset_log = std::mem::take(&mut self.reset_log);
        into.committed_conflict = self.committed_conflict.take();
        if self.log.recent_bytes() > self.config.recent_bytes_max {
            self.bound_memory();
        }
    }

    fn next_write(&mut self) -> Write {
        self.seq += 1;
        self.disk_since.get_or_insert(self.now);
        if self.hard_needs_write() {
            self.hard_seq = self.seq;
        }
        self.hard_written = self.hard;
        Write { seq: self.seq, hard: self.hard, entries: self.log.write(self.seq) }
    }

    /// Entries from `first` on, to be applied: at least one, then until `max_bytes`.
    pub fn entries(&self, first: Index, max_bytes: usize, reader: &dyn LogReader) -> Entries {
        self.log.entries(first, max_bytes, reader)
    }

    /// The term of an entry of the log, or of its base.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    /// What the replica is now.
    pub fn status(&self) -> Status {
        let matched = self.progress.iter().map(|progress| (progress.peer, progress.matched));
        Status {
            role: self.role,
            leader: self.leader,
            term: self.hard.term,
            vote: self.hard.vote,
            commit: self.hard.commit,
            last: self.log.last(),
            persisted: self.log.persisted(),
            matched: matched.collect(),
            conf: self.conf.clone(),
            changes: self.changes.iter().map(|(index, _)| *index).collect(),
            transferring: self.transfer.as_ref().map(|transfer| transfer.to),
        }
    }

    /// What a leader knows of each other member.
    pub fn progress(&self) -> impl Iterator<Item = &Progress> {
        self.progress.iter()
    }

    /// Up to where the log is known to be committed.
    pub fn commit(&self) -> Index {
        self.hard.commit
    }

    /// The last entry that only a snapshot has.
    pub fn base(&self) -> LogId {
        self.log.base()
    }

    /// The last entry of the log.
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// Of a leader: bytes of entries that are not committed yet.
    pub fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// The last index that is durable here.
    pub fn persisted_index(&self) -> Index {
        self.log.persisted()
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Who leads, if known.
    pub fn leader(&self) -> Option<PeerId> {
        self.leader
    }

    /// The term.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// The members.
    pub fn conf(&self) -> &Conf {
        &self.conf
    }

    /// Sends a message that speaks for nothing that is not durable.
    pub(super) fn send_now(&mut self, peer: PeerId, body: Body) {
        self.send.push(Message { peer, term: self.hard.term, body });
    }

    /// Sends a message of another term than the own: what a pre-vote speaks of is yet to come.
    pub(super) fn send_with_term(&mut self, peer: PeerId, term: Term, body: Body) {
        self.send.push(Message { peer, term, body });
    }

    /// Acknowledges entries. An acknowledgement covers all before it, so of those that wait for the
    /// same write only the last is kept.
    pub(super) fn acknowledge(&mut self, peer: PeerId, matched: Index) {
        let after = self.pending_write();
        let term = self.hard.term;
        if let Some((
            seq,
            Message { peer: to, term: of, body: Body::AppendReply { matched: last } },
        )) = self.awaiting_write.back_mut()
            && (Some(*seq), *to, *of) == (after, peer, term)
        {
            *last = matched.max(*last);
            return;
        }
        self.send_after_durable(peer, Body::AppendReply { matched });
    }

    /// Sends a message once everything that this replica has decided so far is durable.
    pub(super) fn send_after_durable(&mut self, peer: PeerId, body: Body) {
        let message = Message { peer, term: self.hard.term, body };
        match self.pending_write() {
            Some(seq) => self.awaiting_write.push_back((seq, message)),
            None => self.send.push(message),
        }
    }

    /// Sends a message that speaks for the term, but not for entries: it waits for the term alone.
    pub(super) fn send_after_term_durable(&mut self, peer: PeerId, body: Body) {
        let after = if self.hard_needs_write() { self.seq + 1 } else { self.hard_seq };
        let message = Message { peer, term: self.hard.term, body };
        if after > self.seq_durable {
            self.awaiting_write.push_back((after, message));
        } else {
            self.send.push(message);
        }
    }

    /// The write after which the present state is durable; `None` when it is already.
    pub(super) fn pending_write(&self) -> Option<Seq> {
        if self.log.has_unwritten() || self.hard_needs_write() {
            Some(self.seq + 1)
        } else {
            (self.seq > self.seq_durable).then_some(self.seq)
        }
    }

    /// What a replica has room for while it works, it need not keep while it rests.
    pub(super) fn shrink_to_fit(&mut self) {
        self.awaiting_write.shrink_to_fit();
        self.send.shrink_to_fit();
        self.votes.clear();
        self.log.shrink_to_fit();
        self.progress.iter_mut().for_each(Progress::shrink_to_fit);
        self.reads.shrink_to_fit();
    }

    /// All of the log up to `last`, its end, is durable, committed and applied, and nothing is on
    /// its way to the disk.
    pub(super) fn is_fully_applied(&self, last: Index) -> bool {
        let reached = [self.hard.commit, self.log.persisted(), self.applied];
        reached.iter().all(|&index| index == last)
            && self.pending_write().is_none()
            && self.committed_conflict.is_none()
    }

    /// The disk owes an answer for longer than a write usually takes.
    fn disk_is_late(&self) -> bool {
        self.disk_since.is_some_and(|since| self.now > since + DISK_LATE)
    }

    /// The disk owes an answer for so long that it may hang.
    pub(super) fn disk_hangs(&self) -> bool {
        self.disk_since.is_some_and(|since| self.now >= since + self.config.disk_hangs)
    }

    /// The term and the vote must be durable, that the log begins anew, and that a change of the
    /// members is committed: while no member's disk has that, those of before would have to elect
    /// after a crash. Otherwise the commit index goes along with the next write.
    fn hard_needs_write(&self) -> bool {
        self.reset_log
            || (self.hard.term, self.hard.vote) != (self.hard_written.term, self.hard_written.vote)
            || self.hard_written.commit < self.conf_index
    }

    /// Whether this replica would count the same members after a crash.
    pub fn members_are_durable(&self) -> bool {
        !self.hard_needs_write() && self.hard_seq <= self.seq_durable
    }

    /// A number for the next election timeout (xorshift64).
    pub(super) fn random_timeout(&mut self) -> Tick {
        self.rng_state ^= self.rng_state << 13;
        self.rng_state ^= self.rng_state >> 7;
        self.rng_state ^= self.rng_state << 17;
        let Range { start, end } = self.config.election;
        start + self.rng_state % (end - start)
    }
}

/// Gives what is in `from`, in the place of what was given before, whose room `from` gets.
fn hand_out<T>(from: &mut Vec<T>, into: &mut Vec<T>) {
    into.clear();
    if !from.is_empty() {
        std::mem::swap(from, into);
    }
}
