//! Replication and commitment (§5.3, §5.4.2): batched, pipelined, with flow control by bytes.

use super::conf::Conf;
use super::core::{Raft, Role};
use super::entries::Entries;
use super::log::LogReader;
use super::message::{Body, Message};
use super::progress::Mode;
use super::{Index, PeerId, Term, kind};
use bedstone_engine::LogId;
use bedstone_engine::wal::Entry;
use bytes::Bytes;

impl Raft {
    /// Adds an entry to a leader's log. Its write and its appends leave with the next effects.
    pub(super) fn append(&mut self, kind: u8, data: Bytes) -> LogId {
        let id = LogId { term: self.hard.term, index: self.log.last().index + 1 };
        self.uncommitted_bytes += data.len();
        if kind == kind::CHANGE {
            self.changes.push_back((id.index, data.clone()));
        }
        self.log.push(Entry { id, kind, data });
        id
    }

    /// Sends each follower what it lacks, as far as its window allows.
    pub(super) fn send_appends(&mut self, reader: &dyn LogReader) {
        if self.role != Role::Leader {
            return;
        }
        self.log.seal_batch();
        let (last, witness_limit) = (self.log.last().index, self.witness_limit());
        for at in 0..self.progress.len() {
            let peer = self.progress[at].peer;
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
        let peer = progress.peer;
        let lacks = progress.next <= end;
        let asks = lacks || matches!(progress.mode, Mode::Probe { .. });
        if !asks || !progress.may_send(config.inflight_bytes_max, config.inflight_appends_max) {
            return None;
        }
        let previous = progress.next - 1;
        let mut entries = match log.term(previous) {
            Some(_) if lacks => log.entries(progress.next, config.append_bytes_max, reader),
            _ => Entries::default(),
        };
        let Some(term) = log.term(previous).filter(|_| !lacks || !entries.is_empty()) else {
            // What it lacks was released from the log: only a snapshot helps.
            progress.enter(Mode::Snapshot);
            self.snapshots.insert(peer);
            return None;
        };
        if self.conf.witnesses.contains(&peer) {
            let known = entries.iter().take_while(|entry| entry.id.index <= end);
            entries = known.map(withheld).collect();
        }
        let last = entries.last().map_or(previous, |entry| entry.id.index);
        progress.sent(last, entries.bytes(), self.now);
        Some(Body::Append { previous: LogId { term, index: previous }, entries, commit })
    }

    /// Looks again at followers whose answer does not come: what they were sent may be lost.
    pub(super) fn retry_stalled(&mut self) {
        let since = self.now.saturating_sub(self.config.election.start);
        let base = self.log.base().index;
        for progress in self.progress.iter_mut() {
            match progress.mode {
                Mode::Probe { .. } => progress.probe(base),
                Mode::Replicate if progress.is_stalled(since) => progress.probe(base),
                _ => {}
            }
        }
    }

    /// The connection to a peer was lost or refused a message: find out anew where its log is.
    pub fn unreachable(&mut self, peer: PeerId) {
        self.peer_silent(peer);
        if self
            .progress
            .get_mut(peer)
            .is_some_and(|peer| !std::mem::replace(&mut peer.disconnected, true))
        {
            self.unquiesce();
        }
        if let Some(progress) = self.progress.get_mut(peer)
            && progress.mode == Mode::Replicate
        {
            progress.probe(self.log.base().index);
            // Not at once: the next heartbeat's turn, or the peer's own word, comes first.
            progress.mode = Mode::Probe { sent: true };
        }
    }

    /// A follower installed a snapshot of `at`, or got none.
    pub fn snapshot_sent(&mut self, peer: PeerId, at: Option<Index>) {
        if let Some(progress) = self.progress.get_mut(peer)
            && progress.mode == Mode::Snapshot
        {
            progress.probe(self.log.base().index.max(at.unwrap_or(0)));
            // Another attempt is not made at once: at the next heartbeat's turn.
            progress.mode = Mode::Probe { sent: at.is_none() };
        }
    }

    /// A peer is connected again.
    pub fn reachable(&mut self, peer: PeerId) {
        if let Some(progress) = self.progress.get_mut(peer) {
            progress.disconnected = false;
            self.unquiesce();
        }
        if let Some(progress) = self.progress.get_mut(peer)
            && matches!(progress.mode, Mode::Probe { .. })
        {
            progress.probe(self.log.base().index);
        }
    }

    /// This follower's tree is now the snapshot at `at`, from the leader of `term`, durably.
    /// Returns whether the log on disk must begin anew after it; if not, it is released up to
    /// there.
    pub fn snapshot_installed(
        &mut self,
        leader: PeerId,
        term: Term,
        at: LogId,
        conf: Conf,
    ) -> bool {
        let agrees = self.log.term(at.index) == Some(at.term);
        // Entries may have come whose write is not even handed out yet.
        let reset = !agrees || at.index > self.log.last_handed_out();
        if agrees {
            self.log.cover_with_snapshot(at);
            self.changes.retain(|(index, _)| *index > at.index);
        } else {
            assert!(at.index > self.hard.commit, "a committed entry never gives way");
            self.log.reset(at);
            self.changes.clear();
        }
        if at.index > self.hard.commit {
            self.conf = conf;
            self.commit_to(at.index);
        }
        self.applied(at.index);
        self.damaged = false;
        if term == self.hard.term {
            self.acknowledge(leader, at.index);
        }
        reset
    }

    pub(super) fn on_append(
        &mut self,
        peer: PeerId,
        previous: LogId,
        entries: Entries,
        commit: Index,
    ) {
        if !self.accept_leader(peer) {
            return;
        }
        if self.conf.voters.is_empty() {
            // Changes alone do not say who the members are: a new replica begins with a snapshot.
            return self.ask_for_snapshot(peer);
        }
        if self.log.term(previous.index) != Some(previous.term) {
            if previous.index <= self.hard.commit {
                // Older than what is settled here, perhaps released already: all of it agrees.
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
            None => entry.id.index <= self.log.base().index,
        };
        let news = match previous == self.log.last() {
            true => 0,
            false => entries.iter().position(|entry| !known(entry)).unwrap_or(entries.len()),
        };
        if let Some(first) = entries.get(news).map(|entry| entry.id.index) {
            if first <= self.hard.commit {
                // A committed entry never gives way. The sender or this replica is damaged: nothing
                // of it is taken, and the driver says so.
                self.committed_conflict = Some(peer);
                return;
            }
            if first <= self.log.last().index {
                // Entries of a leader that lost give way to this one's (§5.3).
                self.log.truncate(first);
                self.changes.retain(|(index, _)| *index < first);
            }
            let entries = entries.slice(news..entries.len());
            let changes = entries.iter().filter(|entry| entry.kind == kind::CHANGE);
            self.changes.extend(changes.map(|entry| (entry.id.index, entry.data.clone())));
            self.log.append(entries);
        }
        // Only what this append proved to agree can be taken as committed.
        self.commit_to(commit.min(matched));
        self.learn_committed(self.reads.committed);
        self.acknowledge(peer, matched);
    }

    /// Nothing that is here can be built on.
    fn ask_for_snapshot(&mut self, leader: PeerId) {
        let (hint, refused) = (LogId::default(), 0);
        self.send_after_durable(leader, Body::AppendRefused { hint, refused });
    }

    /// Takes `peer` as this term's leader.
    pub(super) fn accept_leader(&mut self, peer: PeerId) -> bool {
        if self.role == Role::Leader {
            // Two leaders in a term: the peer breaks the protocol. Nothing it says is taken.
            return false;
        }
        if self.role != Role::Follower || self.leader != Some(peer) {
            self.become_follower(self.hard.term, Some(peer));
        }
        self.heard_leader = self.now;
        self.wait_for_leader();
        true
    }

    pub(super) fn on_heartbeat(&mut self, peer: PeerId, committed: LogId, round: u64) {
        if self.accept_leader(peer) {
            // Its term tells: the leader may still count what was acknowledged here and then lost.
            self.learn_committed(committed);
            self.try_end_recovery();
            self.send_after_term_durable(peer, Body::HeartbeatReply { round });
            if self.damaged {
                self.ask_for_snapshot(peer);
            }
        }
    }

    pub(super) fn commit_to(&mut self, commit: Index) {
        let moves = commit > self.hard.commit;
        self.hard.commit = self.hard.commit.max(commit);
        self.try_end_recovery();
        if moves {
            self.advance_conf();
        }
    }

    pub(super) fn broadcast_heartbeat(&mut self) {
        if self.config.lease.is_some() {
            // Which heartbeats were answered says when they left.
            self.reads.round += 1;
            self.lease.sent(self.reads.round);
        }
        let (term, round, committed) = (self.hard.term, self.reads.round, self.committed());
        self.send.extend(self.progress.iter().map(|progress| {
            let body = Body::Heartbeat { committed, round };
            Message { peer: progress.peer, term, body }
        }));
    }

    pub(super) fn on_append_reply(&mut self, peer: PeerId, matched: Index) {
        let (now, last) = (self.now, self.log.last().index);
        let Some(progress) = self.progress.get_mut(peer) else { return };
        if matched <= last && progress.accept(matched, now) {
            self.advance_commit();
            self.send_timeout_now_if_ready();
        }
    }

    pub(super) fn on_append_refused(&mut self, peer: PeerId, hint: LogId, refused: Index) {
        let (now, agreement) = (self.now, self.log.agreement(hint));
        let Some(progress) = self.progress.get_mut(peer) else { return };
        progress.hear(now);
        if refused == 0 && progress.mode != Mode::Snapshot {
            // Nothing comes before the first entry: the follower is new. Or it has entries, what it
            // applied is damaged, and it goes on to acknowledge.
            if progress.matched == 0 {
                progress.enter(Mode::Snapshot);
            }
            self.snapshots.insert(peer);
        }
        let current = match progress.mode {
            // Below what it acknowledged there is nothing to find: it lost that. It is asked again
            // at the pace of heartbeats only.
            Mode::Probe { .. } => refused + 1 == progress.next && refused > progress.matched,
            Mode::Replicate => refused > progress.matched,
            Mode::Snapshot => false,
        };
        if current {
            progress.back_up(agreement.index.min(refused.saturating_sub(1)) + 1);
        }
    }

    /// Commits what a majority has durable, if it ends with an entry of this term: entries of
    /// earlier terms are never committed by counting (§5.4.2).
    pub(super) fn advance_commit(&mut self) {
        // A change that becomes effective may let more be committed.
        while self.role == Role::Leader && self.commit_what_is_reached() {}
    }

    /// How far the log is known to be durable at a peer, or here.
    pub(super) fn matched(&self, peer: PeerId) -> Index {
        match self.progress.get(peer) {
            Some(progress) => progress.matched,
            None if peer == self.id => self.log.persisted(),
            None => 0,
        }
    }

    fn commit_what_is_reached(&mut self) -> bool {
        if self.hard.commit == self.log.last().index {
            return false;
        }
        let commit = self.conf.quorum_value(|peer| self.matched(peer));
        if commit <= self.hard.commit || self.log.term(commit) != Some(self.hard.term) {
            return false;
        }
        let bytes = self.log.bytes(self.hard.commit + 1, commit);
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(bytes);
        self.reads.committed_in_term();
        self.commit_to(commit);
        true
    }
}

/// What a witness is told of an entry: that it is there, and who the members are; the commands stay
/// here.
fn withheld(entry: &Entry) -> Entry {
    match entry.kind {
        kind::NORMAL => Entry { id: entry.id, kind: kind::WITHHELD, data: Bytes::new() },
        _ => entry.clone(),
    }
}
