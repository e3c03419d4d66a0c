//! Replication and commitment (§5.3, §5.4.2): batched, pipelined, with flow control by bytes.

use super::conf::Conf;
use super::core::Raft;
use super::entries::Entries;
use super::leadership::Role;
use super::log::LogReader;
use super::message::{Body, Message};
use super::progress::{Mode, Progress};
use super::volatile::Applying;
use super::{EntryKind, Index, ReplicaId, Term};
use bedstone_engine::LogId;
use bedstone_engine::wal::Entry;
use bytes::Bytes;

impl Raft {
    /// Adds an entry to a leader's log. The write and the appends of the entry leave with the next
    /// effects.
    pub(super) fn append(&mut self, kind: EntryKind, data: Bytes) -> LogId {
        let id = LogId { term: self.hard.term, index: self.log.last().index + 1 };
        self.uncommitted_bytes += data.len();
        if kind == EntryKind::CHANGE {
            self.conf.add(id.index, data.clone());
        }
        self.log.push(Entry { id, kind, data });
        id
    }

    /// Sends each follower the entries that it lacks, as far as its window allows.
    pub(super) fn send_appends(&mut self, reader: &dyn LogReader) {
        if self.role() != Role::Leader {
            return;
        }
        self.log.seal_batch();
        let (last, witness_limit) = (self.log.last().index, self.witness_limit());
        for at in 0..self.progress.len() {
            let peer = self.progress[at].peer();
            let is_witness = self.conf.witnesses.contains(&peer);
            let end = if is_witness { witness_limit } else { last };
            while let Some(body) = self.next_append(at, end, reader) {
                self.send_now(peer, body);
            }
        }
    }

    fn next_append(&mut self, at: usize, end: Index, reader: &dyn LogReader) -> Option<Body> {
        let (log, config, commit) = (&self.log, &self.config, self.hard.commit);
        let progress = &mut self.progress[at];
        let peer = progress.peer();
        let lacks = progress.next() <= end;
        let asks = lacks || matches!(progress.mode(), Mode::Probe { .. });
        if !asks || !progress.may_send(config.inflight_bytes_max, config.inflight_appends_max) {
            return None;
        }
        let previous = progress.next() - 1;
        let mut entries = match log.term(previous) {
            Some(_) if lacks => log.entries(progress.next(), config.append_bytes_max, reader),
            _ => Entries::default(),
        };
        let Some(term) = log.term(previous).filter(|_| !lacks || !entries.is_empty()) else {
            // The entries that the follower lacks were released from the log: only a snapshot
            // helps.
            progress.enter(Mode::Snapshot);
            self.snapshots.insert(peer);
            return None;
        };
        // A witness receives only entries up to its limit, without commands.
        if self.conf.witnesses.contains(&peer) {
            let known = entries.iter().take_while(|entry| entry.id.index <= end);
            entries = known.map(without_commands).collect();
        }
        let last = entries.last().map_or(previous, |entry| entry.id.index);
        progress.sent(last, entries.bytes(), self.timers.now());
        Some(Body::Append { previous: LogId { term, index: previous }, entries, commit })
    }

    /// Probes followers whose replies do not arrive: the appends to them may be lost.
    pub(super) fn retry_stalled(&mut self) {
        let since = self.timers.ago(self.config.election.start);
        let base = self.log.base().index;
        for progress in self.progress.iter_mut() {
            match progress.mode() {
                Mode::Probe { .. } => progress.probe(base),
                Mode::Replicate if progress.is_stalled(since) => progress.probe(base),
                _ => {}
            }
        }
    }

    /// The connection to a peer was lost or refused a message. The leader must probe the peer's log
    /// again.
    pub fn unreachable(&mut self, peer: ReplicaId) {
        self.peer_silent(peer);
        if self.progress.get_mut(peer).is_some_and(Progress::disconnect) {
            self.unquiesce();
        }
        if let Some(progress) = self.progress.get_mut(peer)
            && progress.mode() == Mode::Replicate
        {
            // The probe does not leave at once: the next heartbeat's turn, or a reply of the peer,
            // comes first.
            progress.probe_later(self.log.base().index);
        }
    }

    /// A follower installed a snapshot at index `at`, or received none.
    pub fn snapshot_sent(&mut self, peer: ReplicaId, at: Option<Index>) {
        if let Some(progress) = self.progress.get_mut(peer)
            && progress.mode() == Mode::Snapshot
        {
            let base = self.log.base().index;
            match at {
                Some(at) => progress.probe(base.max(at)),
                // The next attempt waits for the next heartbeat's turn.
                None => progress.probe_later(base),
            }
        }
    }

    /// A peer is connected again.
    pub fn reachable(&mut self, peer: ReplicaId) {
        if let Some(progress) = self.progress.get_mut(peer) {
            progress.connect();
            self.unquiesce();
        }
        if let Some(progress) = self.progress.get_mut(peer)
            && matches!(progress.mode(), Mode::Probe { .. })
        {
            progress.probe(self.log.base().index);
        }
    }

    /// The tree of this replica is now, durably, the snapshot at `at` from the leader of `term`.
    /// Returns whether the log on disk must restart after `at`. If not, the log is released up to
    /// `at`.
    pub fn snapshot_installed(
        &mut self,
        leader: ReplicaId,
        term: Term,
        at: LogId,
        conf: Conf,
    ) -> bool {
        let agrees = self.log.term(at.index) == Some(at.term);
        // The entries that the snapshot covers may be in memory only, before their write is handed
        // out.
        let reset = !agrees || at.index > self.log.last_handed_out();
        if agrees {
            // The replica may have become leader since the snapshot began.
            if self.role() == Role::Leader && at.index > self.hard.commit {
                self.count_committed(at.index);
            }
            self.log.cover_with_snapshot(at);
            self.conf.release(at.index);
        } else {
            assert!(at.index > self.hard.commit, "a committed entry never gives way");
            self.log.reset(at);
            self.conf.release(Index::END);
        }
        if at.index > self.hard.commit {
            self.conf.install(conf);
            self.commit_to(at.index);
        }
        self.applied(at.index);
        self.applying = Applying::Running;
        if term == self.hard.term {
            self.acknowledge(leader, at.index);
        }
        reset
    }

    pub(super) fn on_append(
        &mut self,
        peer: ReplicaId,
        previous: LogId,
        entries: Entries,
        commit: Index,
    ) {
        if !self.accept_leader(peer) {
            return;
        }
        if self.conf.voters.is_empty() {
            // Change entries alone do not define the members: a new replica begins with a snapshot.
            return self.request_snapshot(peer);
        }
        if self.log.term(previous.index) != Some(previous.term) {
            if previous.index <= self.hard.commit {
                // The append is older than the commit index here, and `previous` perhaps released
                // already. The logs agree up to the commit index.
                let matched = self.hard.commit;
                return self.acknowledge(peer, matched);
            }
            let hint = self.log.agreement(previous);
            let refused = previous.index;
            return self.send_after_durable(peer, Body::AppendRefused { hint, refused });
        }
        let matched = entries.last().map_or(previous.index, |entry| entry.id.index);
        let known = |entry: &Entry| match self.log.term(entry.id.index) {
            Some(term) => term == entry.id.term,
            // A snapshot covers the entries up to the base.
            None => entry.id.index <= self.log.base().index,
        };
        let news = if previous == self.log.last() {
            0
        } else {
            entries.iter().position(|entry| !known(entry)).unwrap_or(entries.len())
        };
        if let Some(first) = entries.get(news).map(|entry| entry.id.index) {
            if first <= self.hard.commit {
                // A committed entry is never replaced. The log of the sender or of this replica is
                // damaged: no entry is accepted, and the driver reports the conflict.
                self.committed_conflict = Some(peer.into());
                return;
            }
            if first <= self.log.last().index {
                // Entries of an earlier leader give way to entries of this leader (§5.3).
                self.log.truncate(first);
                self.conf.truncate(first);
            }
            let entries = entries.slice(news..entries.len());
            let changes = entries.iter().filter(|entry| entry.kind == EntryKind::CHANGE);
            changes.for_each(|entry| self.conf.add(entry.id.index, entry.data.clone()));
            self.log.append(entries);
        }
        // Only entries that this append proved to agree may count as committed.
        self.commit_to(commit.min(matched));
        self.learn_committed(self.reads.committed());
        self.acknowledge(peer, matched);
    }

    /// Requests a snapshot from the leader, by a refusal at index 0.
    fn request_snapshot(&mut self, leader: ReplicaId) {
        let (hint, refused) = (LogId::default(), Index(0));
        self.send_after_durable(leader, Body::AppendRefused { hint, refused });
    }

    /// Accepts `peer` as the leader of this term. Returns whether the message of `peer` counts.
    pub(super) fn accept_leader(&mut self, peer: ReplicaId) -> bool {
        if self.role() == Role::Leader {
            // Two leaders in one term: the peer violates the protocol, and its message is ignored.
            return false;
        }
        if self.role() != Role::Follower || self.leader() != Some(peer) {
            self.become_follower(self.hard.term, Some(peer));
        }
        self.timers.hear_leader();
        self.wait_for_leader();
        true
    }

    pub(super) fn on_heartbeat(
        &mut self,
        peer: ReplicaId,
        committed: LogId,
        round: u64,
        acknowledged: LogId,
    ) {
        if self.accept_leader(peer) {
            if self.has_lost(acknowledged) {
                return self.recover_lost(peer, acknowledged);
            }
            self.leadership.hear_commit(committed.index);
            // The term of `committed` decides whether this log has that entry. The index alone
            // proves nothing, because the leader may still count entries that were acknowledged
            // here and then lost.
            self.learn_committed(committed);
            self.try_end_recovery();
            self.send_after_term_durable(peer, Body::HeartbeatReply { round });
            if self.is_damaged() {
                self.request_snapshot(peer);
            }
        }
    }

    pub(super) fn commit_to(&mut self, commit: Index) {
        let moves = commit > self.hard.commit;
        self.hard.commit_to(commit);
        self.try_end_recovery();
        if moves {
            self.advance_conf();
        }
    }

    pub(super) fn broadcast_heartbeat(&mut self) {
        if self.config.lease.is_some() {
            // Each broadcast has its own round, so the answered round shows when its heartbeats
            // left.
            self.lease.sent(self.reads.begin_heartbeat_round());
        }
        let (term, round, committed) = (self.hard.term, self.reads.round(), self.committed());
        let log = &self.log;
        self.outbox.send_all(self.progress.iter().map(|progress| {
            let index = self.progress.acknowledged(progress);
            let acknowledged = LogId { term: log.term(index).unwrap_or_default(), index };
            let body = Body::Heartbeat { committed, round, acknowledged };
            Message { peer: progress.peer(), term, body }
        }));
    }

    pub(super) fn on_append_reply(&mut self, peer: ReplicaId, matched: Index) {
        let (now, last) = (self.timers.now(), self.log.last().index);
        let Some(progress) = self.progress.get_mut(peer) else { return };
        if matched <= last && progress.accept(matched, now) {
            self.advance_commit();
            self.send_timeout_now_if_ready();
        }
    }

    pub(super) fn on_append_refused(&mut self, peer: ReplicaId, hint: LogId, refused: Index) {
        let (now, agreement) = (self.timers.now(), self.log.agreement(hint));
        let Some(progress) = self.progress.get_mut(peer) else { return };
        progress.hear(now);
        if refused == Index(0) && progress.mode() != Mode::Snapshot {
            // A refusal at index 0 requests a snapshot. Either the follower is new, or it has
            // entries and its applied state is damaged. In the second case the follower still
            // acknowledges entries.
            if progress.matched() == Index(0) {
                progress.enter(Mode::Snapshot);
            }
            self.snapshots.insert(peer);
        }
        let current = match progress.mode() {
            // A follower that refuses an index it acknowledged has lost entries: a search below
            // that index finds nothing. The follower is probed again only at the pace of
            // heartbeats.
            Mode::Probe { .. } => refused + 1 == progress.next() && refused > progress.matched(),
            Mode::Replicate => refused > progress.matched(),
            Mode::Snapshot => false,
        };
        if current {
            progress.back_up(agreement.index.min(refused.previous()) + 1);
        }
    }

    /// Commits the entries that are durable at a majority, if the last of them is of this term.
    /// Entries of earlier terms are never committed by counting (§5.4.2).
    pub(super) fn advance_commit(&mut self) {
        // A change that becomes effective may allow further commits.
        while self.role() == Role::Leader && self.commit_durable_entries() {}
    }

    /// The last index known to be durable at a peer, or on this replica.
    pub(super) fn matched(&self, peer: ReplicaId) -> Index {
        match self.progress.get(peer) {
            Some(progress) => progress.matched(),
            None if peer == self.id => self.log.persisted(),
            None => Index(0),
        }
    }

    /// On a leader: the entries up to `commit` are uncommitted entries no more.
    fn count_committed(&mut self, commit: Index) {
        self.log.seal_batch();
        let bytes = self.log.bytes(self.hard.commit + 1, commit);
        assert!(bytes <= self.uncommitted_bytes, "all uncommitted bytes are counted");
        self.uncommitted_bytes -= bytes;
        assert!(
            self.uncommitted_bytes == 0 || commit < self.log.last().index,
            "without uncommitted entries there are no uncommitted bytes"
        );
    }

    fn commit_durable_entries(&mut self) -> bool {
        if self.hard.commit == self.log.last().index {
            return false;
        }
        let commit = self.conf.quorum_value(|peer| self.matched(peer));
        if commit <= self.hard.commit || self.log.term(commit) != Some(self.hard.term) {
            return false;
        }
        self.count_committed(commit);
        self.reads.committed_in_term();
        self.commit_to(commit);
        true
    }
}

/// The form of an entry for a witness. The witness learns that the entry exists and who the members
/// are. The commands stay here.
fn without_commands(entry: &Entry) -> Entry {
    match entry.kind {
        EntryKind::COMMANDS => {
            Entry { id: entry.id, kind: EntryKind::WITHHELD, data: Bytes::new() }
        }
        _ => entry.clone(),
    }
}
