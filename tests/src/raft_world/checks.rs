//! Properties that must hold after every event. Each check is named as in figure 3 of the Raft
//! paper, or states its purpose.

use super::disk::{Disk, Tree};
use bedstone_engine::wal::{Entry, EntryKind};
use bedstone_engine::{Index, LogId, Term};
use bedstone_node::raft::{Body, Conf, Message, Raft, ReplicaId, Vote};
use std::collections::{BTreeMap, BTreeSet};

/// Observations of all replicas so far.
#[derive(Default)]
pub(super) struct Checks {
    leaders: BTreeMap<Term, ReplicaId>,
    committed: BTreeMap<Index, Entry>,
    /// The digest and the members after each applied index.
    states: BTreeMap<Index, (Option<u64>, Conf)>,
    commits: BTreeMap<ReplicaId, Index>,
    /// The leaders at the last check, with their terms and their configurations.
    led: BTreeMap<ReplicaId, (Term, Conf)>,
    /// Granted votes that arrived, by candidate and term.
    votes: BTreeMap<(ReplicaId, Term), BTreeSet<ReplicaId>>,
}

impl Checks {
    /// The last index that is known to be committed.
    pub(super) fn committed(&self) -> Index {
        self.committed.keys().next_back().copied().unwrap_or(Index(0))
    }

    /// The configurations that were effective.
    pub(super) fn confs(&self) -> impl Iterator<Item = &Conf> {
        self.states.values().map(|(_, conf)| conf)
    }

    /// Records the arrival of a granted vote.
    pub(super) fn votes(&mut self, candidate: ReplicaId, term: Term, voter: ReplicaId) {
        self.votes.entry((candidate, term)).or_default().insert(voter);
    }

    /// Records a restart. A replica may know a lower commit index after its restart.
    pub(super) fn restarts(&mut self, id: ReplicaId) {
        self.commits.remove(&id);
        self.led.remove(&id);
    }

    /// Election safety: at most one leader in a term, elected by a majority. Leader completeness:
    /// the leader has every committed entry. The configuration allows the leader to lead.
    pub(super) fn leader(&mut self, id: ReplicaId, raft: &Raft) {
        if !raft.is_leader() {
            return;
        }
        let term = raft.term();
        if let Some(leader) = self.leaders.get(&term) {
            assert_eq!(*leader, id, "one leader in term {term}");
            return;
        }
        self.leaders.insert(term, id);
        let votes = self.votes.get(&(id, term));
        let said_yes = |peer| peer == id || votes.is_some_and(|votes| votes.contains(&peer));
        assert!(decided(raft.conf(), said_yes), "the leader {id} lacks the votes of a majority");
        assert!(
            raft.conf().is_electable(id),
            "{id} is elected, and may not lead by {:?}",
            raft.conf()
        );
        for (&index, entry) in &self.committed {
            let own = raft.term_at(index);
            let released = own.is_none() && index < raft.status().last.index;
            let agrees = own == Some(entry.id.term) || released;
            assert!(agrees, "the leader of term {term} lacks committed entry {:?}", entry.id);
        }
    }

    /// State machine safety: one entry at each committed index, and one state and one configuration
    /// after it. Only a replica that is or was a witness lacks commands.
    pub(super) fn applies(&mut self, entry: &Entry, tree: &Tree, was_witness: bool) {
        let index = entry.id.index;
        let known = self.committed.entry(index).or_insert_with(|| entry.clone());
        assert_eq!(known.id, entry.id, "one entry at each committed index");
        if entry.kind == EntryKind::WITHHELD {
            assert!(was_witness, "entry {index} lacks its command");
        } else if known.kind == EntryKind::WITHHELD {
            *known = entry.clone();
        } else {
            assert_eq!(*known, *entry, "one entry at each committed index");
        }
        let (digest, conf) =
            self.states.entry(index).or_insert_with(|| (tree.digest, tree.conf.clone()));
        *digest = digest.or(tree.digest);
        let same = tree.digest.is_none_or(|own| *digest == Some(own));
        assert!(same, "one state after entry {index}");
        assert_eq!(*conf, tree.conf, "one configuration after entry {index}");
        let witnesses = conf.witnesses.iter().filter(|peer| conf.voters.contains(peer)).count();
        assert!(2 * witnesses <= conf.voters.len(), "witnesses are a majority: {conf:?}");
    }

    /// A leader began a change: no other change is pending, and an entry of the leader's term is
    /// committed.
    pub(super) fn changes(&self, raft: &Raft) {
        let (pending, term) = (raft.status().changes.len(), raft.term());
        assert!(pending <= 1, "a change while another is under way");
        let settled = raft.term_at(raft.commit()) == Some(term);
        assert!(settled, "a change before the first commit of term {term}");
    }

    /// An entry that a replica counts as durable is on its disk.
    pub(super) fn durable(&self, id: ReplicaId, raft: &Raft, disk: &Disk) {
        let persisted = raft.persisted_index();
        let (own, on_disk) = (raft.term_at(persisted), disk.term(persisted));
        assert!(
            own == on_disk || persisted <= disk.tree.applied.index,
            "{id} takes {persisted} of term {own:?} for durable, its disk has {on_disk:?}"
        );
    }

    /// The commit index of a replica never falls, and its configuration is the one that the commit
    /// index implies. A leader commits only an entry of its own term and the entries before it. A
    /// majority of each set of voters has the committed entry durably: `has` returns whether a peer
    /// has an entry.
    pub(super) fn commit(
        &mut self,
        id: ReplicaId,
        raft: &Raft,
        tree: &Tree,
        has: impl Fn(ReplicaId, LogId) -> bool,
    ) {
        let commit = raft.commit();
        let before = self.commits.insert(id, commit).unwrap_or(Index(0));
        let led = if raft.is_leader() {
            self.led.insert(id, (raft.term(), raft.conf().clone()))
        } else {
            self.led.remove(&id)
        };
        if let Some((term, conf)) = led.filter(|_| raft.is_leader() && commit > before)
            && term == raft.term()
        {
            assert_eq!(raft.term_at(commit), Some(term), "the leader {id} commits by counting");
            let entry = LogId { term, index: commit };
            // The configuration before a change may decide about the commit of that change.
            let confs = [&conf, raft.conf()];
            let durable = confs.iter().any(|conf| decided(conf, |peer| has(peer, entry)));
            assert!(durable, "the leader {id} commits {entry:?}, which no majority has");
        }
        assert!(commit >= before, "the commit index of {id} fell from {before} to {commit}");
        // A replica that lost its disk is configured with members, and discards them until it has
        // members from other replicas.
        let forgot = raft.is_recovering() && commit == Index(0) && *raft.conf() == Conf::default();
        if commit == tree.applied.index && !forgot {
            assert_eq!(*raft.conf(), tree.conf, "changes are effective once they are committed");
        }
    }

    /// A leader counts no more bytes against its limit than are uncommitted.
    pub(super) fn uncommitted(&self, id: ReplicaId, raft: &Raft, disk: &Disk) {
        if !raft.is_leader() {
            return;
        }
        let (mut next, mut bytes) = (raft.commit() + 1, 0);
        while next <= raft.last().index {
            let entries = raft.entries(next, usize::MAX, disk);
            bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
            next += entries.len() as u64;
        }
        let counted = raft.uncommitted_bytes();
        assert!(counted <= bytes, "{id} counts {counted} uncommitted bytes of {bytes}");
    }

    /// The vote, the term and the entries that a message states are durable before the message
    /// leaves.
    pub(super) fn sends(&self, id: ReplicaId, message: &Message, raft: &Raft, disk: &Disk) {
        let Message { peer, term, body } = message;
        let term_and_vote = (disk.hard.term, disk.hard.vote);
        let votes_for = |peer| term_and_vote == (*term, Vote::For(peer)) || term_and_vote.0 > *term;
        match body {
            Body::VoteReply { granted: true, .. } => {
                assert!(
                    votes_for(*peer),
                    "{id} grants a vote that its disk lacks: {term_and_vote:?}"
                );
            }
            Body::Vote { .. } => {
                assert!(votes_for(id), "{id} campaigns, its disk: {term_and_vote:?}")
            }
            // An acknowledgement of an earlier term was true in that term; its entries may have
            // been replaced since.
            Body::AppendReply { matched } if *term == raft.term() => {
                let durable = disk.last().index.max(disk.tree.applied.index);
                assert!(*matched <= durable, "{id} acknowledges {matched}, its disk has {durable}");
                let (own, on_disk) = (raft.term_at(*matched), disk.term(*matched));
                let differs = own.is_some() && own != on_disk;
                assert!(
                    !differs || *matched <= disk.tree.applied.index,
                    "{id} acknowledges {matched} of term {own:?}, its disk has {on_disk:?}"
                );
                assert!(
                    term_and_vote.0 >= *term,
                    "{id} acknowledges in a term that its disk lacks"
                );
            }
            Body::HeartbeatReply { .. } => {
                assert!(term_and_vote.0 >= *term, "{id} follows in a term that its disk lacks");
            }
            Body::Append { entries, .. } => {
                let witness = raft.conf().witnesses.contains(peer);
                let lacks = entries.iter().any(|entry| entry.kind == EntryKind::WITHHELD);
                assert!(!lacks || witness, "{id} withholds commands from {peer}");
            }
            _ => {}
        }
    }
}

/// Whether a majority of each set of voters satisfies `is`. Counts independently of the core.
pub(super) fn decided(conf: &Conf, is: impl Fn(ReplicaId) -> bool) -> bool {
    let majority = |set: &[ReplicaId]| {
        set.is_empty() || 2 * set.iter().filter(|&&peer| is(peer)).count() > set.len()
    };
    !conf.voters.is_empty() && majority(&conf.voters) && majority(&conf.outgoing)
}
