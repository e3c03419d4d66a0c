//! The words of a transcript for the states and messages of replicas.

use bedstone_engine::wal::{Entry, EntryKind};
use bedstone_engine::{Index, LogId};
use bedstone_node::raft::conf::MemberChange;
use bedstone_node::raft::{Body, Change, Conf, ReplicaId, Role, Vote};

pub(super) fn vote_text(vote: Vote) -> String {
    match vote {
        Vote::None => "none".to_owned(),
        Vote::Withheld => "withheld".to_owned(),
        Vote::For(peer) => peer.to_string(),
    }
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

pub(super) fn place(id: LogId) -> String {
    format!("{}/{}", id.term, id.index)
}

pub(super) fn conf_text(conf: &Conf) -> String {
    let list = |name: &str, set: &[ReplicaId]| {
        let ids: Vec<String> = set.iter().map(ToString::to_string).collect();
        if ids.is_empty() { String::new() } else { format!("{name} {} ", ids.join(",")) }
    };
    let text = [
        list("voters", &conf.voters),
        list("outgoing", &conf.outgoing),
        list("learners", &conf.learners),
        list("learners next", &conf.learners_next),
        list("witnesses", &conf.witnesses),
    ];
    let text = text.concat();
    if text.is_empty() { "no members".to_owned() } else { text.trim_end().to_owned() }
}

pub(super) fn entry_text(entry: &Entry) -> String {
    let what = match entry.kind {
        EntryKind::NOOP => "noop".to_owned(),
        EntryKind::WITHHELD => "withheld".to_owned(),
        EntryKind::CHANGE => match Change::decode(&entry.data) {
            Some(Change::Leave) => "leave".to_owned(),
            Some(Change::Steps { steps, .. }) => {
                let step = |step: &MemberChange| match step {
                    MemberChange::AddVoter(member) => format!("+{}", member.id),
                    MemberChange::AddLearner(member) => format!("~{}", member.id),
                    MemberChange::AddWitness(member) => format!("w{}", member.id),
                    MemberChange::Remove(id) => format!("-{id}"),
                };
                format!("change{}", steps.iter().map(step).collect::<String>())
            }
            None => "no change".to_owned(),
        },
        _ => format!("{:?}", String::from_utf8_lossy(&entry.data)),
    };
    format!("{}:{what}", place(entry.id))
}

/// The name of a message.
pub(super) fn body_name(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "pre-vote",
        Body::PreVoteReply { .. } => "pre-vote-reply",
        Body::Vote { .. } => "vote",
        Body::VoteReply { .. } => "vote-reply",
        Body::Append { .. } => "append",
        Body::AppendReply { .. } => "append-reply",
        Body::AppendRefused { .. } => "append-refused",
        Body::Heartbeat { .. } => "heartbeat",
        Body::HeartbeatReply { .. } => "heartbeat-reply",
        Body::TimeoutNow => "timeout-now",
        Body::Quiesce { .. } => "quiesce",
        Body::Unquiesce => "unquiesce",
        Body::ReadIndex { .. } => "read-index",
        Body::ReadIndexReply { .. } => "read-index-reply",
        Body::Recover { .. } => "recover",
        Body::RecoverReply { .. } => "recover-reply",
    }
}

/// The content of a message.
pub(super) fn body_text(body: &Body) -> String {
    let answer = |granted: &bool| if *granted { "yes" } else { "no" };
    match body {
        Body::PreVote { last } => format!("last {}", place(*last)),
        Body::Vote { last, leader_transfer } => {
            let why = if *leader_transfer { " handed over" } else { "" };
            format!("last {}{why}", place(*last))
        }
        Body::PreVoteReply { granted, committed } | Body::VoteReply { granted, committed } => {
            format!("{} committed {}", answer(granted), place(*committed))
        }
        Body::Append { previous, entries, commit } => {
            let entries: Vec<String> = entries.iter().map(entry_text).collect();
            format!("after {} [{}] commit {commit}", place(*previous), entries.join(" "))
        }
        Body::AppendReply { matched } => format!("matched {matched}"),
        Body::AppendRefused { hint, refused } => {
            format!("refused {refused} hint {}", place(*hint))
        }
        Body::Heartbeat { committed, round, acknowledged } => {
            let sent = format!("committed {} round {round}", place(*committed));
            match acknowledged.index {
                Index(0) => sent,
                _ => format!("{sent} acknowledged {}", place(*acknowledged)),
            }
        }
        Body::HeartbeatReply { round } => format!("round {round}"),
        Body::TimeoutNow | Body::Unquiesce => String::new(),
        Body::Quiesce { at } => format!("at {}", place(*at)),
        Body::ReadIndex { .. } => String::new(),
        Body::ReadIndexReply { at, .. } => format!("from {} on", place(*at)),
        Body::Recover { .. } => "query".to_owned(),
        Body::RecoverReply { new, last, commit, conf, .. } => {
            let new = if *new { "new, " } else { "" };
            format!("{new}last {} commit {commit}, {}", place(*last), conf_text(conf))
        }
    }
}
