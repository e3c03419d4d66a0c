//! Sends one request to one replica in one state, and compares its reply and its new state. Four
//! implementations answer: our core, the two crates, and figure 2 of the paper, taken literally.

use super::cluster::{Id, Replica, Timing};
use super::noraft::{Noraft, entries, position};
use super::ours::Ours;
use super::raft_rs::RaftRs;
use crate::rng::Rng;
use bedstone_engine::wal::{Entry, EntryKind, HardState, Vote};
use bedstone_engine::{Index, LogId, ReplicaId, Term};
use bedstone_node::raft::{Body, Role};
use bytes::Bytes;
use noraft::{Message as NoraftMessage, NodeId, Term as NoraftTerm};
use raft::eraftpb::{self, MessageType};

/// Election timeouts that no test reaches.
const TIMING: Timing = Timing { election: 1000, heartbeat: 2 };
/// The replica under test.
const OWN: Id = 1;
/// The leader in states with a leader.
const LEADER: Id = 2;

/// The position of an entry: term and index.
pub type Place = (u64, u64);

/// The state of the replica before the request. The replica is a follower.
#[derive(Clone, Debug)]
pub struct State {
    /// The terms of the log's entries, from index 1 on.
    pub terms: Vec<u64>,
    /// The entries up to this index are released.
    pub base: u64,
    /// The commit index.
    pub commit: u64,
    /// The replica's term.
    pub term: u64,
    /// The replica's vote in this term.
    pub vote: Option<Id>,
    /// The replica receives heartbeats of node 2, which leads in this term.
    pub hears_leader: bool,
}

/// A request to the replica.
#[derive(Clone, Debug)]
pub enum Question {
    /// A vote request.
    Vote {
        /// The candidate.
        from: Id,
        /// The candidate's term.
        term: u64,
        /// The last entry of the candidate's log.
        last: Place,
    },
    /// A pre-vote request.
    PreVote {
        /// The peer that would become a candidate.
        from: Id,
        /// The term of that candidacy.
        term: u64,
        /// The last entry of that peer's log.
        last: Place,
    },
    /// An append of node 2.
    Append {
        /// The leader's term.
        term: u64,
        /// The entry before the new entries.
        previous: Place,
        /// The terms of the new entries.
        entries: Vec<u64>,
        /// The leader's commit index.
        commit: u64,
    },
    /// A heartbeat of node 2.
    Heartbeat {
        /// The leader's term.
        term: u64,
        /// The index up to which the log agrees and is committed.
        commit: u64,
    },
}

/// The reply of the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// The vote is granted.
    Granted,
    /// The vote is refused, or there is no reply (`no-answer`).
    Denied,
    /// The log agrees up to this index.
    Accepted(u64),
    /// The log does not agree.
    Refused,
    /// The heartbeat is acknowledged.
    Follows,
    /// The request is of an earlier term.
    Stale,
}

/// The reply, and the new state of the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The reply.
    pub reply: Reply,
    /// For a refused append: the position where the logs may agree.
    pub hint: Option<Place>,
    /// The term in the reply to a pre-vote.
    pub answer_term: Option<u64>,
    /// The replica's term.
    pub term: u64,
    /// The replica's vote.
    pub vote: Option<Id>,
    /// The replica's commit index.
    pub commit: u64,
    /// The terms of the entries after the log's base.
    pub log: Vec<u64>,
}

fn term_at(terms: &[u64], index: u64) -> Option<u64> {
    match index {
        0 => Some(0),
        _ => terms.get(index as usize - 1).copied(),
    }
}

fn last(terms: &[u64]) -> Place {
    (terms.last().copied().unwrap_or(0), terms.len() as u64)
}

fn hard_state(state: &State) -> HardState {
    let vote = state.vote.map_or(Vote::None, |peer| Vote::For(ReplicaId(peer)));
    HardState { term: Term(state.term), vote, commit: Index(state.commit) }
}

fn id((term, index): Place) -> LogId {
    LogId { term: Term(term), index: Index(index) }
}

/// Draws ascending terms from `from` on, none of them in `not`.
fn ascending(rng: &mut Rng, from: u64, len: u64, not: &[u64]) -> Vec<u64> {
    let mut term = from.max(1);
    let mut next = || {
        term += [0, 0, 0, 1, 2][rng.below(5) as usize];
        while not.contains(&term) {
            term += 1;
        }
        term
    };
    (0..len).map(|_| next()).collect()
}

/// Draws a replica and a request that it can receive when all nodes follow the protocol.
pub fn case(seed: u64) -> (State, Question) {
    let mut rng = Rng::new(seed);
    let len = rng.below(8);
    let terms = ascending(&mut rng, 1, len, &[]);
    let commit = rng.below(len + 1);
    let base = if rng.one_in(2) { rng.below(commit + 1) } else { 0 };
    let term = last(&terms).0 + rng.below(3) + u64::from(len == 0);
    let vote = [None, Some(1), Some(2), Some(3)][rng.below(4) as usize];
    let hears_leader = rng.one_in(3);
    // The request's term is often the replica's term, and sometimes an earlier or a later one.
    let near = |rng: &mut Rng| (term + [0, 1, 1, 1, 2, 3][rng.below(6) as usize]).max(2) - 1;
    // The leader's log agrees up to this index, and then has entries of other terms.
    let agrees = commit + rng.below(len - commit + 1);
    let (common, own) = terms.split_at(agrees as usize);
    let more = rng.below(5);
    let mut leaders = common.to_vec();
    leaders.extend(ascending(&mut rng, last(common).0, more, own));
    let mut of_leader = near(&mut rng).max(last(&leaders).0);
    if own.contains(&of_leader) && of_leader >= term {
        // The replica's own entries of this term would be entries of this leader.
        of_leader += 1;
    }
    let question = match rng.below(8) {
        kind @ 0..4 => {
            let (from, term) = (2 + rng.below(2), near(&mut rng));
            let index = (len + rng.below(4)).saturating_sub(2);
            let of_last = (last(&terms).0 + rng.below(3)).saturating_sub(1).min(term);
            let last = if index == 0 { (0, 0) } else { (of_last, index) };
            match kind {
                0..3 => Question::Vote { from, term, last },
                _ => Question::PreVote { from, term, last },
            }
        }
        4..7 => {
            let before = rng.below(leaders.len() as u64 + 1);
            let rest = &leaders[before as usize..];
            let count = rng.below(rest.len() as u64 + 1) as usize;
            Question::Append {
                term: of_leader,
                previous: (term_at(&leaders, before).unwrap_or(0), before),
                entries: rest[..count].to_vec(),
                commit: rng.below(leaders.len() as u64 + 1),
            }
        }
        // See `heartbeat-beyond-log`.
        _ => Question::Heartbeat { term: of_leader, commit: rng.below(agrees + 1) },
    };
    (State { terms, base, commit, term, vote, hears_leader }, question)
}

fn heartbeat(committed: LogId) -> Body {
    Body::Heartbeat { committed, round: 0, acknowledged: LogId::default() }
}

/// The answer of our core.
pub fn ours(state: &State, question: &Question) -> Answer {
    let State { term, base, .. } = *state;
    let disk = Ours::disk(3, &state.terms, base, hard_state(state));
    let mut replica = Ours::start(OWN, TIMING, 1, disk);
    if state.hears_leader {
        replica.ask(LEADER, term, heartbeat(id((0, 0))));
    }
    let (from, of, body) = match question.clone() {
        Question::Vote { from, term, last } => {
            (from, term, Body::Vote { last: id(last), leader_transfer: false })
        }
        Question::PreVote { from, term, last } => (from, term, Body::PreVote { last: id(last) }),
        Question::Append { term, previous, entries, commit } => {
            let entry = |(&term, index)| {
                let id = id((term, index));
                Entry { id, kind: EntryKind::COMMANDS, data: Bytes::copy_from_slice(&[0; 8]) }
            };
            let entries = entries.iter().zip(previous.1 + 1..).map(entry).collect();
            let commit = Index(commit);
            (LEADER, term, Body::Append { previous: id(previous), entries, commit })
        }
        Question::Heartbeat { term, commit } => {
            // Both logs agree up to this index.
            let committed = id((term_at(&state.terms, commit).unwrap_or(0), commit));
            (LEADER, term, heartbeat(committed))
        }
    };
    let said = replica.ask(from, of, body);
    assert!(said.len() <= 1, "more than one reply: {said:?}");
    let answer = said.first();
    let mut hint = None;
    let reply = match answer.map(|message| (&message.body, message.term.0 > of)) {
        Some((
            Body::VoteReply { granted: true, .. } | Body::PreVoteReply { granted: true, .. },
            _,
        )) => Reply::Granted,
        Some((Body::AppendReply { matched }, false)) => Reply::Accepted(matched.0),
        Some((Body::AppendRefused { hint: place, .. }, false)) => {
            hint = Some((place.term.0, place.index.0));
            Reply::Refused
        }
        Some((Body::HeartbeatReply { .. }, false)) => Reply::Follows,
        Some((Body::VoteReply { .. }, true)) if !is_vote(question) => Reply::Stale,
        Some((Body::VoteReply { .. } | Body::PreVoteReply { .. }, _)) | None => Reply::Denied,
        other => panic!("our core replies {other:?} to {question:?}"),
    };
    let core = &replica.raft;
    let indexes = Index(base + 1).until(core.last().index + 1);
    let terms = indexes.filter_map(|index| core.term_at(index));
    Answer {
        reply,
        hint,
        answer_term: answer.map(|message| message.term.0).filter(|_| is_pre_vote(question)),
        term: core.term().0,
        vote: replica.vote(),
        commit: core.commit().0,
        log: terms.map(|term| term.0).collect(),
    }
}

fn is_vote(question: &Question) -> bool {
    matches!(question, Question::Vote { .. } | Question::PreVote { .. })
}

fn is_pre_vote(question: &Question) -> bool {
    matches!(question, Question::PreVote { .. })
}

fn message(kind: MessageType, from: Id, term: u64, (log_term, index): Place) -> eraftpb::Message {
    let mut message =
        eraftpb::Message { from, to: OWN, term, log_term, index, ..Default::default() };
    message.set_msg_type(kind);
    message
}

/// The answer of the crate `raft`.
pub fn raft_rs(state: &State, question: &Question) -> Answer {
    let mut hard = eraftpb::HardState::default();
    (hard.term, hard.vote, hard.commit) = (state.term, state.vote.unwrap_or(0), state.commit);
    let disk = RaftRs::disk(3, &state.terms, state.base, hard);
    let mut replica = RaftRs::start(OWN, TIMING, disk, state.base);
    if state.hears_leader {
        replica.ask(message(MessageType::MsgHeartbeat, LEADER, state.term, (0, 0)));
    }
    let asked = match question.clone() {
        Question::Vote { from, term, last } => {
            message(MessageType::MsgRequestVote, from, term, last)
        }
        Question::PreVote { from, term, last } => {
            message(MessageType::MsgRequestPreVote, from, term, last)
        }
        Question::Append { term, previous, entries, commit } => {
            let entry = |(&term, index)| eraftpb::Entry {
                term,
                index,
                data: vec![0; 8].into(),
                ..Default::default()
            };
            let mut asked = message(MessageType::MsgAppend, LEADER, term, previous);
            let entries: Vec<_> = entries.iter().zip(previous.1 + 1..).map(entry).collect();
            asked.set_entries(entries.into());
            asked.commit = commit;
            asked
        }
        Question::Heartbeat { term, commit } => {
            let mut asked = message(MessageType::MsgHeartbeat, LEADER, term, (0, 0));
            asked.commit = commit;
            asked
        }
    };
    let of = asked.term;
    let said = replica.ask(asked);
    assert!(said.len() <= 1, "more than one reply: {said:?}");
    let answer = said.first();
    let mut hint = None;
    let reply = match answer.map(|message| (message.get_msg_type(), message)) {
        Some((MessageType::MsgAppendResponse, answer)) if answer.term > of => Reply::Stale,
        Some((MessageType::MsgAppendResponse, answer)) if answer.reject => {
            hint = Some((answer.log_term, answer.reject_hint));
            Reply::Refused
        }
        Some((MessageType::MsgAppendResponse, answer)) => Reply::Accepted(answer.index),
        Some((MessageType::MsgHeartbeatResponse, _)) => Reply::Follows,
        Some((_, answer)) if !answer.reject => Reply::Granted,
        Some(_) | None => Reply::Denied,
    };
    let core = &replica.node.raft;
    let vote = (core.vote != 0).then_some(core.vote);
    let terms =
        (state.base + 1..=core.raft_log.last_index()).map(|index| core.raft_log.term(index));
    Answer {
        reply,
        hint,
        answer_term: answer.map(|message| message.term).filter(|_| is_pre_vote(question)),
        term: core.term,
        vote,
        commit: core.raft_log.committed,
        log: terms.map(|term| term.expect("an entry of the log")).collect(),
    }
}

/// The answer of the crate `noraft`; `None` for requests that it does not support (`no-lease`) and
/// for appends below its log. Its log begins at the commit index, because the crate has no other
/// way to start with a commit index.
pub fn noraft(state: &State, question: &Question) -> Option<Answer> {
    if state.hears_leader {
        return None;
    }
    let from = NodeId::new(LEADER);
    let (asked, until) = match question {
        Question::Vote { from, term, last } => {
            let (from, last_position) = (NodeId::new(*from), position(last.0, last.1));
            (
                NoraftMessage::RequestVoteCall {
                    from,
                    term: NoraftTerm::new(*term),
                    last_position,
                },
                None,
            )
        }
        Question::Append { previous, .. } if previous.1 < state.commit => return None,
        Question::Append { term, previous, entries: terms, commit } => {
            let entries = entries(*previous, terms);
            let until = entries.last_position();
            let (term, commit_index) = (NoraftTerm::new(*term), (*commit).into());
            let call = NoraftMessage::AppendEntriesCall { from, term, commit_index, entries };
            (call, Some(until))
        }
        _ => return None,
    };
    let of = asked.term().get();
    let at = (term_at(&state.terms, state.commit)?, state.commit);
    let log = entries(at, &state.terms[state.commit as usize..]);
    let mut replica = Noraft::start((OWN, 3), TIMING, 1, (state.term, state.vote), log);
    let said = replica.ask(asked);
    let reply = match (said.first(), until) {
        (Some(NoraftMessage::RequestVoteReply { vote_granted: true, .. }), _) => Reply::Granted,
        (Some(NoraftMessage::AppendEntriesReply { term, .. }), _) if term.get() > of => {
            Reply::Stale
        }
        (Some(NoraftMessage::AppendEntriesReply { last_position, .. }), Some(until)) => {
            // See `whole-log`: the reply states only the end of the log.
            let has = replica.node.log().entries().contains(until);
            let agrees = has && last_position.index >= until.index;
            if agrees { Reply::Accepted(until.index.get()) } else { Reply::Refused }
        }
        _ => Reply::Denied,
    };
    let node = &replica.node;
    let end = node.log().last_position().index.get();
    let term = |index: u64| node.log().entries().get_term(index.into()).map(NoraftTerm::get);
    Some(Answer {
        reply,
        hint: None,
        answer_term: None,
        term: node.current_term().get(),
        vote: node.voted_for().map(NodeId::get),
        commit: node.commit_index().get(),
        log: (state.commit + 1..=end).filter_map(term).collect(),
    })
}

/// The answer of the paper. The paper has no pre-vote (§9.6 of the thesis has one), and it refuses
/// votes while a leader is active (§6). Heartbeats state here how far the log agrees.
pub fn figure_two(state: &State, question: &Question) -> Answer {
    let State { mut terms, mut commit, mut term, mut vote, .. } = state.clone();
    let up_to_date = |candidate: Place| candidate >= last(&state.terms);
    let (mut answer_term, mut follow) = (None, |of: u64| {
        let stale = of < term;
        if of > term {
            (term, vote) = (of, None);
        }
        !stale
    });
    let reply = match question {
        Question::Vote { .. } if state.hears_leader => Reply::Denied,
        Question::Vote { from, term: of, last } => {
            let granted = follow(*of) && up_to_date(*last) && vote.is_none_or(|to| to == *from);
            vote = if granted { Some(*from) } else { vote };
            if granted { Reply::Granted } else { Reply::Denied }
        }
        Question::PreVote { term: of, last, .. } => {
            let granted = *of > term && up_to_date(*last) && !state.hears_leader;
            answer_term = Some(if granted { *of } else { term });
            if granted { Reply::Granted } else { Reply::Denied }
        }
        Question::Append { term: of, .. } | Question::Heartbeat { term: of, .. }
            if !follow(*of) =>
        {
            Reply::Stale
        }
        Question::Append { previous, .. } if term_at(&terms, previous.1) != Some(previous.0) => {
            Reply::Refused
        }
        Question::Append { previous, entries, commit: leaders, .. } => {
            for (&of, index) in entries.iter().zip(previous.1 + 1..) {
                if term_at(&terms, index) != Some(of) {
                    terms.truncate(index as usize - 1);
                    terms.push(of);
                }
            }
            let matched = previous.1 + entries.len() as u64;
            commit = commit.max(matched.min(*leaders));
            Reply::Accepted(matched)
        }
        Question::Heartbeat { commit: leaders, .. } => {
            commit = commit.max(*leaders);
            Reply::Follows
        }
    };
    let log = terms.split_off(state.base as usize);
    Answer { reply, hint: None, answer_term, term, vote, commit, log }
}

/// An event at an elected leader.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The leader receives a command.
    Propose,
    /// A follower acknowledges that its log agrees up to an index.
    Ack(Id, u64),
}

/// Draws the number of nodes, the state of a replica that becomes leader, and the events that
/// follow.
pub fn leadership(seed: u64) -> (u64, State, Vec<Event>) {
    let mut rng = Rng::new(seed);
    let nodes = 3 + 2 * rng.below(2);
    let len = rng.below(6);
    let terms = ascending(&mut rng, 1, len, &[]);
    let commit = rng.below(len + 1);
    let term = last(&terms).0 + rng.below(3) + u64::from(len == 0);
    // The first entry of the leader's own term is in its log from the beginning.
    let mut last = len + 1;
    let event = |_| match rng.below(4) {
        0 => {
            last += 1;
            Event::Propose
        }
        _ => Event::Ack(2 + rng.below(nodes - 1), commit + rng.below(last - commit + 1)),
    };
    let events = (0..20).map(event).collect();
    let state = State { terms, base: 0, commit, term, vote: None, hears_leader: false };
    (nodes, state, events)
}

/// The commit index of our core as leader after each event.
pub fn our_commits(nodes: u64, state: &State, events: &[Event]) -> Vec<u64> {
    let State { term, .. } = *state;
    let disk = Ours::disk(nodes, &state.terms, 0, hard_state(state));
    let mut replica = Ours::start(OWN, TIMING, 1, disk);
    while replica.raft.status().role == Role::Follower {
        replica.tick();
    }
    let committed = LogId::default();
    for peer in 2..=nodes {
        replica.ask(peer, term + 1, Body::PreVoteReply { granted: true, committed });
    }
    for peer in 2..=nodes {
        replica.ask(peer, term + 1, Body::VoteReply { granted: true, committed });
    }
    assert_eq!(replica.leads(), Some(term + 1), "ours is elected by all");
    let take = |event: &Event| {
        match *event {
            Event::Propose => assert!(replica.propose(0), "a leader accepts proposals"),
            Event::Ack(peer, matched) => {
                replica.ask(peer, term + 1, Body::AppendReply { matched: Index(matched) });
            }
        }
        while replica.store() {}
        replica.commit()
    };
    events.iter().map(take).collect()
}

/// The commit index of raft-rs as leader after each event.
pub fn raft_rs_commits(nodes: u64, state: &State, events: &[Event]) -> Vec<u64> {
    let mut hard = eraftpb::HardState::default();
    (hard.term, hard.commit) = (state.term, state.commit);
    let disk = RaftRs::disk(nodes, &state.terms, 0, hard);
    let mut replica = RaftRs::start(OWN, TIMING, disk, 0);
    while replica.store() {}
    replica.node.campaign().expect("a voter campaigns");
    while replica.store() {}
    let term = state.term + 1;
    for kind in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
        for peer in 2..=nodes {
            replica.ask(message(kind, peer, term, (0, 0)));
        }
    }
    assert_eq!(replica.leads(), Some(term), "raft-rs is elected by all");
    let take = |event: &Event| {
        match *event {
            Event::Propose => assert!(replica.propose(0), "a leader accepts proposals"),
            Event::Ack(peer, matched) => {
                replica.ask(message(MessageType::MsgAppendResponse, peer, term, (0, matched)));
            }
        }
        while replica.store() {}
        replica.commit()
    };
    events.iter().map(take).collect()
}

/// The commit index of noraft as leader after each event.
pub fn noraft_commits(nodes: u64, state: &State, events: &[Event]) -> Vec<u64> {
    let at = (term_at(&state.terms, state.commit).unwrap_or(0), state.commit);
    let log = entries(at, &state.terms[state.commit as usize..]);
    let mut replica = Noraft::start((OWN, nodes), TIMING, 1, (state.term, None), log);
    replica.node.handle_election_timeout();
    let term = NoraftTerm::new(state.term + 1);
    for peer in (2..=nodes).map(NodeId::new) {
        replica.ask(NoraftMessage::RequestVoteReply { from: peer, term, vote_granted: true });
    }
    assert_eq!(replica.leads(), Some(term.get()), "noraft is elected by all");
    let take = |event: &Event| {
        match *event {
            Event::Propose => assert!(replica.propose(0), "a leader accepts proposals"),
            Event::Ack(peer, matched) => {
                let index = matched.into();
                let of = replica.node.log().entries().get_term(index).expect("an entry of its log");
                let last_position = position(of.get(), matched);
                let from = NodeId::new(peer);
                replica.ask(NoraftMessage::AppendEntriesReply { from, term, last_position });
            }
        }
        while replica.store() {}
        replica.commit()
    };
    events.iter().map(take).collect()
}
