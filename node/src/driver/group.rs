//! One shard's replica here: the Raft core, the tree, and the requests in between.

use super::logger::LogJob;
use super::peers::Peers;
use super::pending::{Answers, Asker, Pending, age_seconds};
use super::reads::Waiting;
use super::transfer::{Incoming, Outgoing};
use crate::api::port::Batch;
use crate::limits::{Limits, PROPOSALS_IN_FLIGHT, QUEUED_COMMANDS_MAX, REPLAY_BYTES};
use crate::metrics::Metrics;
use crate::raft::{
    Boot, Change, Conf, Durability, Effects, Index, LogReader, Message, PeerId, Raft, Read,
    RecoveryWait, Refused, Role, kind,
};
use crate::shard::apply::{apply_entry, ts_of};
use crate::shard::command::{decode_batch, encode_batch};
use crate::shard::reply::Reply;
use crate::shard::system;
use crate::status::ShardStatus;
use crate::wire::{self, Forwarded, Replied, Transfer};
use bedstone_engine::lsm::InLog;
use bedstone_engine::wal::{Entry, HardState, Record};
use bedstone_engine::{Engine, Error, LogId, ShardId, Tree};
use bedstone_net::{Frame, Lane, Outbox};
use bytes::Bytes;
use crossbeam_channel::Sender;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// What a group needs from the driver for a step.
pub struct Context<'a> {
    /// The time of this step.
    pub now: Instant,
    /// The same, in nanoseconds since the node started.
    pub elapsed: u64,
    /// What that is at the moment of the call.
    pub clock: &'a dyn Fn() -> u64,
    /// The same by the calendar, in milliseconds since 1970.
    pub unix_millis: u64,
    /// The other nodes.
    pub peers: &'a mut Peers,
    /// The disk.
    pub engine: &'a Engine,
    /// The way to the net.
    pub outbox: &'a mut Outbox,
    /// The way to the log.
    pub log: &'a Sender<LogJob>,
    /// Calls the background thread.
    pub background: &'a Sender<()>,
    /// Counters.
    pub metrics: &'a Metrics,
    /// Answers of this step.
    pub answers: &'a mut Answers,
    /// Room for what a core asks for.
    pub effects: &'a mut Effects,
    /// Bytes of snapshots that may be sent now, by all shards together.
    pub snapshot_room: &'a mut i64,
}

/// Commands that were proposed as one entry; `None` for those whose asker was answered already.
pub(super) struct Proposal {
    pub(super) at: LogId,
    pub(super) commands: Vec<Option<Pending>>,
}

/// See the module.
pub struct Group {
    pub(super) shard: ShardId,
    node: PeerId,
    pub(super) limits: Limits,
    pub(super) raft: Raft,
    pub(super) tree: Arc<Tree>,
    /// The members as of `applied`.
    pub(super) conf: Conf,
    pub(super) applied: LogId,
    pub(super) commit: Index,
    pub(super) ticks: u64,
    leader_seen: Option<PeerId>,
    /// The timestamp of the last entry proposed here.
    pub(super) ts: u64,
    /// Not proposed or forwarded yet, in order.
    pub(super) writes: VecDeque<Pending>,
    pub(super) reads: VecDeque<Pending>,
    /// Proposed, in log order.
    pub(super) proposals: VecDeque<Proposal>,
    /// Reads that wait for a quorum's word, by token.
    pub(super) rounds: BTreeMap<u64, Vec<Pending>>,
    /// Reads that wait for an index to be applied.
    pub(super) waiting: Vec<Waiting>,
    /// Sent to the leader, by id.
    pub(super) forwarded: BTreeMap<u64, (PeerId, Pending)>,
    pub(super) next_id: u64,
    /// No forwarding before this tick: the leader that was asked is none.
    pub(super) hold_until: u64,
    pub(super) outgoing: BTreeMap<PeerId, Outgoing>,
    pub(super) incoming: Option<Incoming>,
    pub(super) acks: Vec<(PeerId, Transfer)>,
    /// What the log must be told of an installed snapshot.
    pub(super) installed: Option<Record>,
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
                // A follower that needs them gets a snapshot instead.
                warn!(%error, shard = self.shard, "cannot read the log");
                Vec::new()
            }
        }
    }
}

impl Group {
    /// Starts the replica from what the disk has.
    pub fn open(
        engine: &Engine,
        shard: ShardId,
        node: PeerId,
        conf: Conf,
        limits: &Limits,
        seed: u64,
        doubted: bool,
    ) -> bedstone_engine::Result<Group> {
        let tree = engine.open_shard(shard)?;
        let (_, last) = engine.log().bounds(shard);
        let applied = tree.applied();
        // The shard's own word on its members counts, once it has one.
        let conf = system::members(&tree)?.unwrap_or(conf);
        let mut boot = Boot {
            id: node,
            conf: conf.clone(),
            changes: Vec::new(),
            hard: engine.log().hard_state(shard),
            applied,
            base: engine.log().base(shard),
            runs: engine.log().terms(shard),
            last: last.index,
            seed,
            durability: Durability::Intact,
        };
        let mut installed = None;
        if let Err(error) = engine.log().check_whole(shard) {
            // What it promised is not known any more. Alone it could not learn it from anybody.
            if conf.is_sole_voter(node) || conf == Conf::default() {
                return Err(error);
            }
            warn!(%error, shard, "the shard asks the others what it promised");
            (boot.base, boot.runs, boot.last) = (applied, Vec::new(), applied.index);
            boot.durability = Durability::Lost;
        } else if boot.hard == HardState::default() && last == LogId::default() {
            // New, or in the place of a disk that was lost: only the others know.
            if applied == LogId::default() && !conf.voters.is_empty() {
                boot.durability = Durability::Empty;
            }
        } else if engine.log().term(shard, applied.index) != Some(applied.term) {
            // A snapshot was installed, and the power went before the log heard of it.
            (boot.base, boot.runs, boot.last) = (applied, Vec::new(), applied.index);
            installed = Some(Record::Reset { shard, at: applied });
        } else {
            boot.changes = changes_after(engine, shard, applied.index, last.index)?;
        }
        if doubted && boot.durability == Durability::Intact && !boot.conf.voters.is_empty() {
            boot.durability = Durability::Suspect;
        }
        let ts = tree.ts();
        Ok(Group {
            shard,
            node,
            limits: limits.clone(),
            raft: Raft::new(limits.raft.clone(), boot),
            tree,
            conf,
            applied,
            commit: applied.index,
            ticks: 0,
            leader_seen: None,
            ts,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            proposals: VecDeque::new(),
            rounds: BTreeMap::new(),
            waiting: Vec::new(),
            forwarded: BTreeMap::new(),
            // An answer to a life before this one is not taken for one to it.
            next_id: seed >> 1,
            hold_until: 0,
            outgoing: BTreeMap::new(),
            incoming: None,
            acks: Vec::new(),
            installed,
        })
    }

    /// The Raft core, to look at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The last entry applied.
    pub fn applied(&self) -> LogId {
        self.applied
    }

    /// Proposes a change of the members.
    ///
    /// # Errors
    /// [`Refused`]: nothing was proposed.
    pub fn change(&mut self, change: &Change) -> Result<LogId, Refused> {
        self.raft.change(change)
    }

    /// Hands leadership to another member.
    ///
    /// # Errors
    /// [`Refused`]: nothing changes.
    pub fn hand_over(&mut self, to: PeerId) -> Result<(), Refused> {
        self.raft.transfer(to)
    }

    /// The tree, for readers that take it as it is.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Commands that wait to be proposed or forwarded.
    pub fn queued(&self) -> usize {
        self.writes.len() + self.reads.len()
    }

    /// Whether nothing is to be done here before something comes, however much time passes.
    pub fn is_at_rest(&self) -> bool {
        let asked = self.queued() + self.proposals.len() + self.rounds.len() + self.waiting.len();
        let transfers = self.outgoing.len() + self.acks.len();
        self.raft.is_quiescent()
            && self.applied.index == self.commit
            && asked + self.forwarded.len() + transfers == 0
            && self.incoming.is_none()
            && self.installed.is_none()
    }

    // Inputs.

    /// Requests of a client of this node.
    pub fn client(&mut self, batch: Batch, answers: &mut Answers, metrics: &Metrics) {
        for request in batch.requests {
            let pending = Pending {
                command: request.command,
                asker: Asker::Client(batch.port.clone(), request.slot),
                resp3: request.resp3,
                of_leader: !self.limits.follower_reads,
                deadline: batch.deadline,
            };
            self.queue(pending, answers, metrics);
        }
    }

    fn queue(&mut self, pending: Pending, answers: &mut Answers, metrics: &Metrics) {
        if self.queued() >= QUEUED_COMMANDS_MAX {
            return answers.unavailable(pending, "too many requests wait here", metrics);
        }
        if pending.command.is_read() {
            self.reads.push_back(pending);
        } else {
            self.writes.push_back(pending);
        }
    }

    /// A frame of a peer; `None` when it is malformed.
    pub fn frame(
        &mut self,
        peer: PeerId,
        frame: Frame,
        now: Instant,
        answers: &mut Answers,
        metrics: &Metrics,
    ) -> Option<()> {
        match frame.kind {
            wire::kind::RAFT => self.message(Message::decode(peer, frame.body)?),
            wire::kind::FORWARD => {
                for request in Forwarded::decode_all(frame.body)? {
                    if !self.raft.is_leader() {
                        answers.ask_elsewhere(peer, self.shard, request.id);
                        continue;
                    }
                    let pending = Pending {
                        command: request.command,
                        asker: Asker::Peer(peer, self.shard, request.id),
                        resp3: request.resp3,
                        of_leader: true,
                        deadline: now + Duration::from_millis(u64::from(request.left)),
                    };
                    self.queue(pending, answers, metrics);
                }
            }
            wire::kind::REPLY => {
                for replied in Replied::decode_all(frame.body)? {
                    self.replied(replied, answers);
                }
            }
            other => self.transfer(peer, Transfer::decode(other, frame.body)?, metrics),
        }
        Some(())
    }

    pub(super) fn requeue(&mut self, pending: Pending) {
        if pending.command.is_read() {
            self.reads.push_front(pending);
        } else {
            self.writes.push_front(pending);
        }
    }

    /// A Raft message of a peer.
    pub fn message(&mut self, message: Message) {
        self.raft.step(message);
    }

    /// A peer's node is not heard any more.
    pub fn peer_silent(&mut self, peer: PeerId) {
        self.raft.peer_silent(peer);
    }

    /// A write is durable.
    pub fn persisted(&mut self, seq: u64) {
        self.raft.persisted(seq);
    }

    /// A peer connected.
    pub fn peer_up(&mut self, peer: PeerId) {
        self.raft.reachable(peer);
    }

    /// A peer's connection is gone, and with it what was on the way.
    pub fn peer_down(&mut self, peer: PeerId, answers: &mut Answers, metrics: &Metrics) {
        self.raft.unreachable(peer);
        // Its snapshot goes on when it is back.
        self.outgoing.get_mut(&peer).into_iter().for_each(Outgoing::cut);
        self.raft.snapshot_sent(peer, None);
        let lost: Vec<u64> =
            self.forwarded.iter().filter(|(_, (to, _))| *to == peer).map(|(&id, _)| id).collect();
        for id in lost {
            let Some((_, pending)) = self.forwarded.remove(&id) else { continue };
            if pending.command.is_read() {
                self.requeue(pending);
            } else {
                answers.unknown(pending, "the leader was lost", metrics);
            }
        }
    }

    /// A memtable went into tables: the log before it can go, but for what slow followers may want.
    pub fn flushed(&mut self, engine: &Engine, log: &Sender<LogJob>) {
        let flushed = self.tree.flushed();
        let (segments, limits) = (engine.log().entry_segments(), &self.limits);
        let keep = if segments > limits.log_segments { 0 } else { limits.log_retain_entries };
        // Who gets a snapshot needs what comes after it; but not at the price of the whole disk.
        let ats = self.outgoing.values().map(|outgoing| outgoing.at.index);
        let needed = ats.min().filter(|_| segments <= limits.log_segments_sending);
        let index = flushed.index.saturating_sub(keep).min(needed.unwrap_or(Index::MAX));
        if index <= engine.log().base(self.shard).index {
            return;
        }
        if let Some(term) = self.raft.term_at(index) {
            let upto = LogId { term, index };
            self.raft.compacted(upto);
            let records = vec![Record::Release { shard: self.shard, upto }];
            let _ = log.send(LogJob { records, done: None });
        }
    }

    /// Time passed.
    pub fn tick(&mut self, context: &mut Context<'_>) {
        self.ticks += 1;
        self.raft.tick();
        self.expire(context);
        self.expire_transfers();
    }

    /// Answers what nobody will wait for any longer.
    fn expire(&mut self, context: &mut Context<'_>) {
        let (now, metrics) = (context.now, context.metrics);
        for queue in [&mut self.writes, &mut self.reads] {
            while let Some(pending) = queue.pop_front_if(|pending| pending.deadline <= now) {
                context.answers.unavailable(pending, "no leader took it in time", metrics);
            }
        }
        for proposal in &mut self.proposals {
            for command in &mut proposal.commands {
                let Some(pending) = command.take_if(|pending| pending.deadline <= now) else {
                    continue;
                };
                context.answers.unknown(pending, "no quorum answered in time", metrics);
            }
        }
        let late = self.forwarded.extract_if(.., |_, (_, pending)| pending.deadline <= now);
        for (_, (_, pending)) in late {
            context.answers.unknown(pending, "the leader did not answer in time", metrics);
        }
        for reads in self.rounds.values_mut().chain(self.waiting.iter_mut().map(|w| &mut w.reads)) {
            for pending in reads.extract_if(.., |pending| pending.deadline <= now) {
                context.answers.unavailable(pending, "no quorum answered in time", metrics);
            }
        }
    }

    // Effects.

    /// Proposes or forwards what waits, and executes the core's effects.
    pub fn step(&mut self, context: &mut Context<'_>) -> bedstone_engine::Result<()> {
        self.log_installed(context);
        self.watch_leader(context);
        if self.raft.is_leader() {
            self.propose(context);
        } else {
            self.forward(context);
        }
        self.begin_reads(context.elapsed);
        self.execute(context);
        let applied = self.apply(context);
        self.mend(applied, context.metrics)?;
        let answered = self.answer_reads(context);
        self.mend(answered, context.metrics)?;
        // Applying makes room in the core and may have freed the next proposal's turn.
        if self.raft.is_leader() && !self.writes.is_empty() && self.may_propose() {
            self.propose(context);
            self.execute(context);
        }
        let sent = self.continue_transfers(context);
        self.mend(sent, context.metrics)
    }

    fn watch_leader(&mut self, context: &mut Context<'_>) {
        let leader = self.raft.leader();
        if leader != self.leader_seen {
            if let Some(leader) = leader {
                info!(shard = self.shard, leader, term = self.raft.term(), "follows a leader");
                context.metrics.leader_changes.inc();
            }
            self.leader_seen = leader;
        }
        if !self.raft.is_leader() && !self.proposals.is_empty() {
            let commands = self.proposals.drain(..).flat_map(|proposal| proposal.commands);
            for pending in commands.flatten() {
                context.answers.unknown(pending, "this node stopped leading", context.metrics);
            }
        }
        if !self.raft.is_leader() {
            // Other nodes' requests go back to them: they find the leader themselves.
            for queue in [&mut self.writes, &mut self.reads] {
                queue.retain(|pending| match pending.asker {
                    Asker::Peer(peer, shard, id) => {
                        context.answers.ask_elsewhere(peer, shard, id);
                        false
                    }
                    Asker::Client(..) => true,
                });
            }
        }
    }

    fn may_propose(&self) -> bool {
        self.proposals.len() < PROPOSALS_IN_FLIGHT && !self.tree.is_behind()
    }

    /// Puts the writes that wait into as few entries as they fit.
    fn propose(&mut self, context: &mut Context<'_>) {
        if let Err(full) = context.engine.check_space() {
            self.refuse_growth(&full, context);
        }
        while !self.writes.is_empty() && self.may_propose() {
            let (mut commands, mut bytes) = (Vec::new(), 0);
            while let Some(pending) = self.writes.front() {
                let size = pending.command.encoded_len();
                if bytes > 0 && bytes + size > self.limits.entry_bytes {
                    break;
                }
                bytes += size;
                commands.extend(self.writes.pop_front());
            }
            self.ts = ts_of(context.unix_millis).max(self.ts + 1);
            let data = encode_batch(self.ts, commands.iter().map(|pending| &pending.command));
            match self.raft.propose(data) {
                Ok(at) => {
                    context.metrics.entry_commands.observe(commands.len() as f64);
                    let commands = commands.into_iter().map(Some).collect();
                    self.proposals.push_back(Proposal { at, commands });
                }
                Err(_) => {
                    commands.into_iter().rev().for_each(|pending| self.writes.push_front(pending));
                    return;
                }
            }
        }
    }

    /// Answers the writes that would take room of a disk that has next to none.
    fn refuse_growth(&mut self, full: &Error, context: &mut Context<'_>) {
        let (taken, refused) =
            self.writes.drain(..).partition(|pending| pending.command.spares_room());
        self.writes = taken;
        let refused: VecDeque<Pending> = refused;
        for pending in refused {
            context.metrics.proposals_failed.inc();
            let text = format!("NOSPACE {full}; deletes are taken, and so are writes afterwards");
            context.answers.reply(pending.asker, pending.resp3, &Reply::Error(text));
        }
    }

    fn execute(&mut self, context: &mut Context<'_>) {
        let mut effects = std::mem::take(context.effects);
        let reader = ShardLog { engine: context.engine, shard: self.shard };
        self.raft.effects_into(&reader, &mut effects);
        for message in effects.send.drain(..) {
            let peer = message.peer;
            if !context.peers.is_up(peer) {
                self.raft.unreachable(peer);
                continue;
            }
            if Peers::is_beat(&message.body) {
                context.peers.beat(self.shard, &message);
                continue;
            }
            let lane = match message.body {
                crate::raft::Body::Append { .. } => Lane::Append,
                _ => Lane::Control,
            };
            let (kind, shard) = (wire::kind::RAFT, self.shard);
            let frame = Frame { lane, kind, shard, body: message.encode() };
            if context.outbox.push(peer, frame).is_err() {
                self.raft.unreachable(peer);
            }
        }
        if let Some(write) = effects.write.take() {
            let mut records = log_records(self.shard, &write.entries, write.hard);
            if effects.reset_log {
                // In one commit with the vote for nobody: without that, the log would look whole.
                records.insert(0, Record::Reset { shard: self.shard, at: self.applied });
            }
            let done = Some((self.shard, write.seq));
            let _ = context.log.send(LogJob { records, done });
        }
        self.commit = self.commit.max(effects.commit);
        if let Some(peer) = effects.committed_conflict {
            error!(
                shard = self.shard,
                peer, "a leader contradicts a committed entry: check both disks"
            );
        }
        for (token, read) in effects.reads.drain(..) {
            let Some(reads) = self.rounds.remove(&token) else { continue };
            match read {
                Read::At(index) => self.waiting.push(Waiting { index, leased: false, reads }),
                Read::ByLease(index) => self.waiting.push(Waiting { index, leased: true, reads }),
                // This node stopped leading; a read is safe to ask again.
                Read::Failed => reads.into_iter().for_each(|pending| self.requeue(pending)),
            }
        }
        for peer in std::mem::take(&mut effects.snapshots) {
            self.send_snapshot(peer, context);
        }
        *context.effects = effects;
    }

    /// Takes committed entries into the tree and answers who waits for them.
    fn apply(&mut self, context: &mut Context<'_>) -> bedstone_engine::Result<()> {
        if self.raft.is_damaged() {
            return Ok(());
        }
        let (begun, before) = (crate::clock::now(), self.applied.index);
        while self.applied.index < self.commit && !self.tree.is_behind() {
            let reader = ShardLog { engine: context.engine, shard: self.shard };
            let entries = self.raft.entries(self.applied.index + 1, REPLAY_BYTES, &reader);
            if entries.is_empty() {
                let what = "a committed entry";
                let expected = format!("entry {} of shard {}", self.applied.index + 1, self.shard);
                return Err(Error::corrupt("log", 0, what, expected, "none"));
            }
            for entry in entries.iter() {
                if entry.id.index > self.commit {
                    break;
                }
                self.apply_entry(entry, context)?;
            }
        }
        if self.applied.index > before {
            context.metrics.apply_seconds.observe(begun.elapsed().as_secs_f64());
        }
        self.raft.applied(self.applied.index);
        if self.tree.job().is_some() {
            let _ = context.background.try_send(());
        }
        Ok(())
    }

    fn apply_entry(
        &mut self,
        entry: &Entry,
        context: &mut Context<'_>,
    ) -> bedstone_engine::Result<()> {
        let replies = if entry.kind == kind::NORMAL {
            let Some((ts, commands)) = decode_batch(entry.data.clone()) else {
                let (what, found) = ("a log entry", format!("{:?}", entry.id));
                return Err(Error::corrupt("log", 0, what, "a batch of commands", found));
            };
            let place = context.engine.log().place(self.shard, entry.id);
            let in_log = place.map(|place| InLog { data: &entry.data, place });
            apply_entry(&self.tree, entry.id, ts, &commands, in_log)?
        } else {
            if entry.kind == kind::WITHHELD {
                let (what, expected) = ("a log entry", "its commands");
                let found = "none: this disk was a witness's; begin anew with an empty one";
                return Err(Error::corrupt("log", 0, what, expected, found));
            }
            if entry.kind == kind::CHANGE {
                self.conf.apply_entry_data(&entry.data);
            }
            // A new leader's first entry keeps them as well, so that every tree comes to have them.
            let members = system::keep_members(&self.conf);
            self.tree.apply(entry.id, self.tree.ts() + 1, None, [members]);
            Vec::new()
        };
        self.applied = entry.id;
        while let Some(proposal) = self.proposals.pop_front_if(|p| p.at.index <= entry.id.index) {
            if proposal.at != entry.id {
                // Another leader's entry stands in its place.
                for pending in proposal.commands.into_iter().flatten() {
                    context.answers.unknown(pending, "another leader took over", context.metrics);
                }
                continue;
            }
            for (pending, reply) in proposal.commands.into_iter().zip(&replies) {
                let Some(pending) = pending else { continue };
                let age = age_seconds(pending.deadline, context.now);
                context.metrics.write_seconds.observe(age);
                context.metrics.answered.inc();
                context.answers.reply(pending.asker, pending.resp3, reply);
            }
        }
        Ok(())
    }

    /// What status shows.
    pub fn status(&self) -> ShardStatus {
        let raft = self.raft.status();
        let stats = self.tree.stats();
        let role = match raft.role {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate | Role::PreCandidate => "candidate",
        };
        let lag = raft.matched.iter().map(|&(peer, m)| (peer, raft.last.index.saturating_sub(m)));
        ShardStatus {
            id: self.shard,
            leader: raft.leader.unwrap_or(0),
            role: role.to_owned(),
            term: raft.term,
            commit: raft.commit.max(self.applied.index),
            applied: self.applied.index,
            last: raft.last.index,
            damaged: self.raft.is_damaged(),
            recovery_wait: self.raft.recovery_wait().map_or_else(String::new, awaited),
            persisted: raft.persisted,
            voters: raft.conf.voters.to_vec(),
            learners: raft.conf.learners.iter().chain(&*raft.conf.learners_next).copied().collect(),
            witnesses: raft.conf.witnesses.to_vec(),
            changing: raft.conf.is_joint() || !raft.changes.is_empty(),
            lag: lag.collect(),
            memtable_bytes: stats.memtable_bytes,
            table_bytes: stats.table_bytes,
            log_value_bytes: stats.log_value_bytes,
            file_value_bytes: stats.file_value_bytes,
            tables: stats.tables,
        }
    }

    /// This node.
    pub fn node(&self) -> PeerId {
        self.node
    }
}

/// What an operator can do about it.
fn awaited(what: RecoveryWait) -> String {
    match what {
        RecoveryWait::Members => "waits for a node that knows who its members are".to_owned(),
        RecoveryWait::Answer(peer) => format!("asks node {peer} what it promised before"),
        RecoveryWait::SameMembers(peer) => format!(
            "does not begin: node {peer} was told other `members`; make them the same, and restart \
             who was wrong"
        ),
        RecoveryWait::AnyMembers(peer) => {
            format!("does not begin: node {peer} was told of no members; is `join` set there?")
        }
        RecoveryWait::OldDisk(peer) => format!(
            "waits: with that of node {peer}, more disks are new than it survives; start a node \
             that has its disk from before"
        ),
    }
}

/// The changes of the members among entries that are to be applied again.
fn changes_after(
    engine: &Engine,
    shard: ShardId,
    applied: Index,
    last: Index,
) -> bedstone_engine::Result<Vec<(Index, Bytes)>> {
    let (mut changes, mut next) = (Vec::new(), applied + 1);
    while next <= last {
        let entries = engine.log().entries(shard, next, last + 1, REPLAY_BYTES)?;
        let Some(end) = entries.last().map(|entry| entry.id.index) else { break };
        let of_kind = entries.into_iter().filter(|entry| entry.kind == kind::CHANGE);
        changes.extend(of_kind.map(|entry| (entry.id.index, entry.data)));
        next = end + 1;
    }
    Ok(changes)
}

/// A write as log records: one for each run of entries of one term, and the hard state with them,
/// so that a commit index is never durable without the entries it speaks of.
fn log_records(
    shard: ShardId,
    entries: &[Entry],
    state: bedstone_engine::wal::HardState,
) -> Vec<Record> {
    let mut records = Vec::with_capacity(2);
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let run = rest
            .iter()
            .take_while(|entry| {
                bytes += entry.data.len();
                entry.id.term == first.id.term
                    && (bytes <= REPLAY_BYTES / 2 || entry.id == first.id)
            })
            .count();
        let (run, later) = rest.split_at(run);
        let datas = run.iter().map(|entry| (entry.kind, entry.data.clone()));
        let record = Record::entries(shard, first.id, datas);
        records.push(record.expect("entries are within the limits that const assertions relate"));
        rest = later;
    }
    records.push(Record::HardState { shard, state });
    records
}
