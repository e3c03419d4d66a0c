//! One replica in one state is asked one question: what it answers, and what it is then. Four ways
//! to find out: our core, the two crates, and figure 2 of the paper, read literally.

use super::cluster::{Id, Replica, Timing};
use super::noraft::{Noraft, entries, position};
use super::ours::Ours;
use super::raft_rs::RaftRs;
use crate::rng::Rng;
use bedstone_engine::LogId;
use bedstone_engine::wal::{Entry, HardState};
use bedstone_node::raft::{Body, Role, kind};
use bytes::Bytes;
use noraft::{Message as NoraftMessage, NodeId, Term};
use raft::eraftpb::{self, MessageType};

/// Nobody's election timeout passes by itself.
const TIMING: Timing = Timing { election: 1000, heartbeat: 2 };
/// The replica that is asked.
const OWN: Id = 1;
/// Who leads, where somebody does.
const LEADER: Id = 2;

/// Where an entry stands: term and index.
pub type Place = (u64, u64);

/// What a replica is before it is asked. It follows.
#[derive(Clone, Debug)]
pub struct State {
    /// The terms of its log's entries, from index 1 on.
    pub terms: Vec<u64>,
    /// Entries up to here are released.
    pub base: u64,
    /// The commit index.
    pub commit: u64,
    /// Its term.
    pub term: u64,
    /// Its vote in the term.
    pub vote: Option<Id>,
    /// It hears node 2 lead in its term.
    pub hears_leader: bool,
}

/// What it is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// To vote.
    Vote {
        /// The candidate.
        from: Id,
        /// Its term.
        term: u64,
        /// The last entry of its log.
        last: Place,
    },
    /// Whether it would vote.
    PreVote {
        /// Who would be a candidate.
        from: Id,
        /// The term that it would be one in.
        term: u64,
        /// The last entry of its log.
        last: Place,
    },
    /// To append entries, by node 2.
    Append {
        /// The leader's term.
        term: u64,
        /// The entry before them.
        previous: Place,
        /// The terms of the entries.
        entries: Vec<u64>,
        /// The leader's commit index.
        commit: u64,
    },
    /// To go on following node 2.
    Heartbeat {
        /// The leader's term.
        term: u64,
        /// How far the log agrees and is committed.
        commit: u64,
    },
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// The vote is granted.
    Granted,
    /// It is not, or nothing is said (`no-answer`).
    Denied,
    /// The log agrees up to here.
    Accepted(u64),
    /// The log does not agree.
    Refused,
    /// A heartbeat is answered.
    Follows,
    /// The question comes from an earlier term.
    Stale,
}

/// What it says, and what it is then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub reply: Reply,
    /// Of a refused append: where the log may agree.
    pub hint: Option<Place>,
    /// The term of the answer to a pre-vote.
    pub answer_term: Option<u64>,
    /// Its term.
    pub term: u64,
    /// Its vote.
    pub vote: Option<Id>,
    /// Its commit index.
    pub commit: u64,
    /// The terms of its log, after its base.
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

fn id((term, index): Place) -> LogId {
    LogId { term, index }
}

/// Ascending terms from `from` on, none of them in `not`.
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

/// A replica and a question that can come to it in a world that keeps to the protocol.
pub fn case(seed: u64) -> (State, Question) {
    let mut rng = Rng::new(seed);
    let len = rng.below(8);
    let terms = ascending(&mut rng, 1, len, &[]);
    let commit = rng.below(len + 1);
    let base = if rng.one_in(2) { rng.below(commit + 1) } else { 0 };
    let term = last(&terms).0 + rng.below(3) + u64::from(len == 0);
    let vote = [None, Some(1), Some(2), Some(3)][rng.below(4) as usize];
    let hears_leader = rng.one_in(3);
    // The term of the question is often the same, sometimes an earlier or a later one.
    let near = |rng: &mut Rng| (term + [0, 1, 1, 1, 2, 3][rng.below(6) as usize]).max(2) - 1;
    // The leader's log agrees up to somewhere, and then has entries of other terms.
    let agrees = commit + rng.below(len - commit + 1);
    let (common, own) = terms.split_at(agrees as usize);
    let more = rng.below(5);
    let mut leaders = common.to_vec();
    leaders.extend(ascending(&mut rng, last(common).0, more, own));
    let mut of_leader = near(&mut rng).max(last(&leaders).0);
    if own.contains(&of_leader) && of_leader >= term {
        // Those entries would be this leader's.
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

/// Our core.
pub fn ours(state: &State, question: &Question) -> Answer {
    let State { term, vote, commit, base, .. } = *state;
    let disk = Ours::disk(3, &state.terms, base, HardState { term, vote, commit });
    let mut replica = Ours::start(OWN, TIMING, 1, disk);
    if state.hears_leader {
        replica.ask(LEADER, term, Body::Heartbeat { committed: id((0, 0)), round: 0 });
    }
    let (from, of, body) = match question.clone() {
        Question::Vote { from, term, last } => {
            (from, term, Body::Vote { last: id(last), leader_transfer: false })
        }
        Question::PreVote { from, term, last } => (from, term, Body::PreVote { last: id(last) }),
        Question::Append { term, previous, entries, commit } => {
            let entry = |(&term, index)| {
                let id = LogId { term, index };
                Entry { id, kind: kind::NORMAL, data: Bytes::copy_from_slice(&[0; 8]) }
            };
            let entries = entries.iter().zip(previous.1 + 1..).map(entry).collect();
            (LEADER, term, Body::Append { previous: id(previous), entries, commit })
        }
        Question::Heartbeat { term, commit } => {
            // Up to there both logs agree.
            let committed = id((term_at(&state.terms, commit).unwrap_or(0), commit));
            (LEADER, term, Body::Heartbeat { committed, round: 0 })
        }
    };
    let said = replica.ask(from, of, body);
    assert!(said.len() <= 1, "one question, one answer: {said:?}");
    let answer = said.first();
    let mut hint = None;
    let reply = match answer.map(|message| (&message.body, message.term > of)) {
        Some((
            Body::VoteReply { granted: true, .. } | Body::PreVoteReply { granted: true, .. },
            _,
        )) => Reply::Granted,
        Some((Body::AppendReply { matched }, false)) => Reply::Accepted(*matched),
        Some((Body::AppendRefused { hint: place, .. }, false)) => {
            hint = Some((place.term, place.index));
            Reply::Refused
        }
        Some((Body::HeartbeatReply { .. }, false)) => Reply::Follows,
        Some((Body::VoteReply { .. }, true)) if !is_vote(question) => Reply::Stale,
        Some((Body::VoteReply { .. } | Body::PreVoteReply { .. }, _)) | None => Reply::Denied,
        other => panic!("ours says {other:?} to {question:?}"),
    };
    let core = &replica.raft;
    Answer {
        reply,
        hint,
        answer_term: answer.map(|message| message.term).filter(|_| is_pre_vote(question)),
        term: core.term(),
        vote: replica.vote(),
        commit: core.commit(),
        log: (base + 1..=core.last().index).filter_map(|index| core.term_at(index)).collect(),
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

/// The crate `raft`.
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
    assert!(said.len() <= 1, "one question, one answer: {said:?}");
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

/// The crate `noraft`; `None` where it is not asked (`no-lease`). Its log begins at its commit
/// index, for that is how it can be told one.
pub fn noraft(state: &State, question: &Question) -> Option<Answer> {
    if state.hears_leader {
        return None;
    }
    let from = NodeId::new(LEADER);
    let (asked, until) = match question {
        Question::Vote { from, term, last } => {
            let (from, last_position) = (NodeId::new(*from), position(last.0, last.1));
            (NoraftMessage::RequestVoteCall { from, term: Term::new(*term), last_position }, None)
        }
        Question::Append { previous, .. } if previous.1 < state.commit => return None,
        Question::Append { term, previous, entries: terms, commit } => {
            let entries = entries(*previous, terms);
            let until = entries.last_position();
            let (term, commit_index) = (Term::new(*term), (*commit).into());
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
            // See `whole-log`: it says no more than where its log ends.
            let has = replica.node.log().entries().contains(until);
            let agrees = has && last_position.index >= until.index;
            if agrees { Reply::Accepted(until.index.get()) } else { Reply::Refused }
        }
        _ => Reply::Denied,
    };
    let node = &replica.node;
    let end = node.log().last_position().index.get();
    let term = |index: u64| node.log().entries().get_term(index.into()).map(Term::get);
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

/// The paper. It has no pre-vote (§9.6 of the thesis has), refuses votes while a leader is heard
/// (§6), and its heartbeats say how far the log agrees.
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

/// What an elected leader is told, and what it then takes to be committed.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A command is proposed.
    Propose,
    /// A follower says that its log agrees up to an index.
    Ack(Id, u64),
}

/// A log that a leader of one of `nodes` begins with, and what happens then.
pub fn leadership(seed: u64) -> (u64, State, Vec<Event>) {
    let mut rng = Rng::new(seed);
    let nodes = 3 + 2 * rng.below(2);
    let len = rng.below(6);
    let terms = ascending(&mut rng, 1, len, &[]);
    let commit = rng.below(len + 1);
    let term = last(&terms).0 + rng.below(3) + u64::from(len == 0);
    // Its own first entry is there from the beginning.
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

/// The commit indexes of our core as leader, after each event.
pub fn our_commits(nodes: u64, state: &State, events: &[Event]) -> Vec<u64> {
    let State { term, vote, commit, .. } = *state;
    let disk = Ours::disk(nodes, &state.terms, 0, HardState { term, vote, commit });
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
            Event::Propose => assert!(replica.propose(0), "a leader takes proposals"),
            Event::Ack(peer, matched) => {
                replica.ask(peer, term + 1, Body::AppendReply { matched });
            }
        }
        while replica.store() {}
        replica.commit()
    };
    events.iter().map(take).collect()
}

/// Those of raft-rs.
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
            Event::Propose => assert!(replica.propose(0), "a leader takes proposals"),
            Event::Ack(peer, matched) => {
                replica.ask(message(MessageType::MsgAppendResponse, peer, term, (0, matched)));
            }
        }
        while replica.store() {}
        replica.commit()
    };
    events.iter().map(take).collect()
}

/// Those of noraft.
pub fn noraft_commits(nodes: u64, state: &State, events: &[Event]) -> Vec<u64> {
    let at = (term_at(&state.terms, state.commit).unwrap_or(0), state.commit);
    let log = entries(at, &state.terms[state.commit as usize..]);
    let mut replica = Noraft::start((OWN, nodes), TIMING, 1, (state.term, None), log);
    replica.node.handle_election_timeout();
    let term = Term::new(state.term + 1);
    for peer in (2..=nodes).map(NodeId::new) {
        replica.ask(NoraftMessage::RequestVoteReply { from: peer, term, vote_granted: true });
    }
    assert_eq!(replica.leads(), Some(term.get()), "noraft is elected by all");
    let take = |event: &Event| {
        match *event {
            Event::Propose => assert!(replica.propose(0), "a leader takes proposals"),
            Event::Ack(peer, matched) => {
                let index = matched.into();
                let of = replica.node.log().entries().get_term(index).expect("an entry it has");
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
