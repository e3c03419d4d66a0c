//! The events of replicas as newline-delimited JSON, in the format of the trace that the TLA+
//! specification of etcd-io/raft reads (`tla/` there: name, nid, state, role, log, conf, msg). A
//! model checker that knows nothing of this code can check such a trace. Pre-votes and the queries
//! of a replica that lost its vote or log are not in that specification and are omitted.

use bedstone_node::raft::{Body, Conf, Message, Raft, ReplicaId, Role, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A trace; see the module documentation.
#[derive(Default)]
pub struct Trace {
    seen: BTreeMap<ReplicaId, Status>,
    /// The lines of the trace.
    pub lines: String,
}

fn name_of(peer: Option<ReplicaId>) -> String {
    peer.unwrap_or(ReplicaId(0)).to_string()
}

fn names(peers: impl IntoIterator<Item = ReplicaId>) -> Vec<String> {
    peers.into_iter().map(|peer| peer.to_string()).collect()
}

fn voters(conf: &Conf) -> Value {
    json!([names(conf.voters.iter().copied()), names(conf.outgoing.iter().copied())])
}

impl Trace {
    fn event(&mut self, name: &str, id: ReplicaId, of: &Status, more: &[(&str, Value)]) {
        let role = match of.role {
            Role::Follower => "StateFollower",
            Role::PreCandidate => "StatePreCandidate",
            Role::Candidate => "StateCandidate",
            Role::Leader => "StateLeader",
        };
        let state =
            json!({ "term": of.term.0, "vote": name_of(of.vote.peer()), "commit": of.commit.0 });
        let mut event = json!({
            "name": name, "nid": id.to_string(), "state": state, "role": role,
            "log": of.last.index.0, "conf": voters(&of.conf),
        });
        more.iter().for_each(|(field, value)| event[*field] = value.clone());
        let line = json!({ "tag": "trace", "event": event });
        self.lines.push_str(&line.to_string());
        self.lines.push('\n');
    }

    /// A replica starts.
    pub fn starts(&mut self, id: ReplicaId, raft: &Raft) {
        let now = raft.status();
        self.event("InitState", id, &now, &[]);
        self.seen.insert(id, now);
    }

    /// A message is about to be processed.
    pub fn receives(&mut self, id: ReplicaId, raft: &Raft, message: &Message) {
        self.message("Receive", id, raft, message.peer, id, message);
    }

    /// A message is sent.
    pub fn sends(&mut self, id: ReplicaId, raft: &Raft, message: &Message) {
        self.message("Send", id, raft, id, message.peer, message);
    }

    fn message(
        &mut self,
        way: &str,
        id: ReplicaId,
        raft: &Raft,
        from: ReplicaId,
        to: ReplicaId,
        message: &Message,
    ) {
        let of =
            |what: &str, name: &str, fields: Value| (format!("{way}{what}"), name.into(), fields);
        let (name, kind, fields): (String, String, Value) = match &message.body {
            Body::Append { previous, entries, commit } => of(
                "AppendEntriesRequest",
                "MsgApp",
                json!({ "entries": entries.len(), "logTerm": previous.term.0,
                        "index": previous.index.0, "commit": commit.0 }),
            ),
            Body::Heartbeat { committed, .. } => {
                of("AppendEntriesRequest", "MsgHeartbeat", json!({ "commit": committed.index.0 }))
            }
            Body::AppendReply { matched } => {
                of("AppendEntriesResponse", "MsgAppResp", json!({ "index": matched.0 }))
            }
            Body::AppendRefused { hint, refused } => of(
                "AppendEntriesResponse",
                "MsgAppResp",
                json!({ "index": refused.0, "reject": true, "rejectHint": hint.index.0,
                        "logTerm": hint.term.0 }),
            ),
            Body::HeartbeatReply { .. } => {
                of("AppendEntriesResponse", "MsgHeartbeatResp", json!({}))
            }
            Body::Vote { last, .. } => of(
                "RequestVoteRequest",
                "MsgVote",
                json!({ "logTerm": last.term.0, "index": last.index.0 }),
            ),
            Body::VoteReply { granted, .. } => {
                of("RequestVoteResponse", "MsgVoteResp", json!({ "reject": !granted }))
            }
            _ => return,
        };
        let mut told = json!({
            "type": kind, "term": message.term.0, "from": from.to_string(), "to": to.to_string(),
            "entries": 0, "logTerm": 0, "index": 0, "commit": 0, "vote": "0",
            "reject": false, "rejectHint": 0,
        });
        if let (Some(told), Value::Object(fields)) = (told.as_object_mut(), fields) {
            told.extend(fields);
        }
        self.event(&name, id, &raft.status(), &[("msg", told)]);
    }

    /// Records the changes of a replica after an input.
    pub fn looks(&mut self, id: ReplicaId, raft: &Raft) {
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
            let known = before.last.index.max(before.commit);
            for index in (known + 1).until(now.last.index + 1) {
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
    pub fn ready(&mut self, id: ReplicaId, raft: &Raft) {
        self.event("Ready", id, &raft.status(), &[]);
    }
}
