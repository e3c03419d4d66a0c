//! The events of replicas as newline-delimited JSON, in the format of the trace that the TLA+
//! specification of etcd-io/raft reads (`tla/` there: name, nid, state, role, log, conf, msg). A
//! model checker that knows nothing of this code can check such a trace. Pre-votes and the queries
//! of a replica that lost its vote or log are not in that specification and are omitted.

use bedstone_node::raft::{Body, Conf, Message, PeerId, Raft, Role, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A trace; see the module documentation.
#[derive(Default)]
pub struct Trace {
    seen: BTreeMap<PeerId, Status>,
    /// The lines of the trace.
    pub lines: String,
}

fn name_of(peer: Option<PeerId>) -> String {
    peer.unwrap_or(0).to_string()
}

fn names(peers: impl IntoIterator<Item = PeerId>) -> Vec<String> {
    peers.into_iter().map(|peer| peer.to_string()).collect()
}

fn voters(conf: &Conf) -> Value {
    json!([names(conf.voters.iter().copied()), names(conf.outgoing.iter().copied())])
}

impl Trace {
    fn event(&mut self, name: &str, id: PeerId, of: &Status, more: &[(&str, Value)]) {
        let role = match of.role {
            Role::Follower => "StateFollower",
            Role::PreCandidate => "StatePreCandidate",
            Role::Candidate => "StateCandidate",
            Role::Leader => "StateLeader",
        };
        let state =
            json!({ "term": of.term, "vote": name_of(of.vote.peer()), "commit": of.commit });
        let mut event = json!({
            "name": name, "nid": id.to_string(), "state": state, "role": role,
            "log": of.last.index, "conf": voters(&of.conf),
        });
        more.iter().for_each(|(field, value)| event[*field] = value.clone());
        let line = json!({ "tag": "trace", "event": event });
        self.lines.push_str(&line.to_string());
        self.lines.push('\n');
    }

    /// A replica starts.
    pub fn starts(&mut self, id: PeerId, raft: &Raft) {
        let now = raft.status();
        self.event("InitState", id, &now, &[]);
        self.seen.insert(id, now);
    }

    /// A message is about to be processed.
    pub fn receives(&mut self, id: PeerId, raft: &Raft, message: &Message) {
        self.message("Receive", id, raft, message.peer, id, message);
    }

    /// A message is sent.
    pub fn sends(&mut self, id: PeerId, raft: &Raft, message: &Message) {
        self.message("Send", id, raft, id, message.peer, message);
    }

    fn message(
        &mut self,
        way: &str,
        id: PeerId,
        raft: &Raft,
        from: PeerId,
        to: PeerId,
        message: &Message,
    ) {
        let of =
            |what: &str, name: &str, fields: Value| (format!("{way}{what}"), name.into(), fields);
        let (name, kind, fields): (String, String, Value) = match &message.body {
            Body::Append { previous, entries, commit } => of(
                "AppendEntriesRequest",
                "MsgApp",
                json!({ "entries": entries.len(), "logTerm": previous.term,
                        "index": previous.index, "commit": commit }),
            ),
            Body::Heartbeat { committed, .. } => {
                of("AppendEntriesRequest", "MsgHeartbeat", json!({ "commit": committed.index }))
            }
            Body::AppendReply { matched } => {
                of("AppendEntriesResponse", "MsgAppResp", json!({ "index": matched }))
            }
            Body::AppendRefused { hint, refused } => of(
                "AppendEntriesResponse",
                "MsgAppResp",
                json!({ "index": refused, "reject": true, "rejectHint": hint.index,
                        "logTerm": hint.term }),
            ),
            Body::HeartbeatReply { .. } => {
                of("AppendEntriesResponse", "MsgHeartbeatResp", json!({}))
            }
            Body::Vote { last, .. } => of(
                "RequestVoteRequest",
                "MsgVote",
                json!({ "logTerm": last.term, "index": last.index }),
            ),
            Body::VoteReply { granted, .. } => {
                of("RequestVoteResponse", "MsgVoteResp", json!({ "reject": !granted }))
            }
            _ => return,
        };
        let mut told = json!({
            "type": kind, "term": message.term, "from": from.to_string(), "to": to.to_string(),
            "entries": 0, "logTerm": 0, "index": 0, "commit": 0, "vote": "0",
            "reject": false, "rejectHint": 0,
        });
        if let (Some(told), Value::Object(fields)) = (told.as_object_mut(), fields) {
            told.extend(fields);
        }
        self.event(&name, id, &raft.status(), &[("msg", told)]);
    }

    /// Records the changes of a replica after an input.
    pub fn looks(&mut self, id: PeerId, raft: &Raft) {
        let now = raft.status();
        let Some(before) = self.seen.insert(id, now.clone()) else { return };
        if (now.role, now.term) != (before.role, before.term) {
            match now.role {
                Role::Follower => self.event("BecomeFollower", id, &now, &[]),
                Role::Candidate => self.event("BecomeCandidate", id, &now, &[]),
                Role::Leader => self.event("BecomeLeader", id, &now, &[]),
                Role::PreCandidate => {}
            }
        }
        if now.role == Role::Leader {
            for index in before.last.index.max(before.commit) + 1..=now.last.index {
                let name = if now.changes.contains(&index) { "ChangeConf" } else { "Replicate" };
                self.event(name, id, &now, &[]);
            }
        }
        if now.commit > before.commit {
            self.event("Commit", id, &now, &[]);
        }
        if now.conf != before.conf {
            let newconf = names(now.conf.voters.iter().copied());
            self.event("ApplyConfChange", id, &now, &[("cc", json!({ "newconf": newconf }))]);
        }
    }

    /// A write is handed to the disk.
    pub fn ready(&mut self, id: PeerId, raft: &Raft) {
        self.event("Ready", id, &raft.status(), &[]);
    }
}
