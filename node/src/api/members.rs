//! The operator's requests that change the members or the leader of a shard.

use super::http_state::{State, json};
use crate::raft::conf::MemberChange;
use crate::raft::{Change, Member};
use crate::request::admin::{AdminError, AdminRequest};
use crate::status::{ShardStatus, Status};
use axum::Json;
use axum::extract::{Path, State as AxumState};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bedstone_engine::ShardId;
use bedstone_net::NodeId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A voter that lacks at most this many entries counts as current.
const BEHIND_MAX: u64 = 10_000;
/// A request fails when the worker has not answered after this time.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// Bytes of a request's body at most.
pub(super) const BODY_BYTES_MAX: usize = 16 << 10;

/// Changes of a shard's members: all of them take effect together, or none.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeMembers {
    /// Nodes that become voters.
    pub voters: Vec<u64>,
    /// Nodes that become learners: they receive the log and do not vote.
    pub learners: Vec<u64>,
    /// Nodes that stop being members.
    pub remove: Vec<u64>,
    /// Make the change even if the new voters that are up and current are no majority.
    pub force: bool,
}

/// A request for a leader transfer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeLeader {
    /// The node that becomes the leader.
    pub to: u64,
}

impl ChangeMembers {
    /// Whether the request contains no change.
    pub fn is_empty(&self) -> bool {
        self.steps().is_empty()
    }

    fn steps(&self) -> Vec<MemberChange> {
        let on = |node| Member::first_on(NodeId(node));
        let voters = self.voters.iter().map(|&peer| MemberChange::AddVoter(on(peer)));
        let learners = self.learners.iter().map(|&peer| MemberChange::AddLearner(on(peer)));
        let remove = self.remove.iter().map(|&peer| MemberChange::Remove(on(peer).id));
        voters.chain(learners).chain(remove).collect()
    }

    /// The reason why the request is invalid in a cluster of these nodes; `None` if it is valid.
    fn invalid_reason(&self, nodes: &[NodeId]) -> Option<String> {
        let steps = self.steps();
        if self.is_empty() {
            return Some("name nodes in voters, learners or remove".to_owned());
        }
        for (number, step) in steps.iter().enumerate() {
            let peer = step.peer();
            if !matches!(step, MemberChange::Remove(_)) && !nodes.contains(&NodeId(peer.0)) {
                return Some(format!(
                    "node {peer} is none of this cluster: its configuration names {nodes:?}"
                ));
            }
            if steps[..number].iter().any(|before| before.peer() == peer) {
                return Some(format!("node {peer} is named twice"));
            }
        }
        None
    }

    /// The reason why the change could leave the shard without a majority; `None` if there is none.
    /// The reason names the new voters that are down, that lack more than [`BEHIND_MAX`] entries,
    /// or that have not reported their log to the leader yet.
    fn unsafe_reason(&self, status: &Status, shard: &ShardStatus) -> Option<Refusal> {
        let named: Vec<u64> = self.steps().into_iter().map(|step| step.peer().0).collect();
        let mut voters: Vec<u64> = shard.voters.clone();
        voters.retain(|peer| !named.contains(peer));
        voters.extend(&self.voters);
        let lag = |peer| shard.lag.iter().find(|&&(follower, _)| follower == peer).map(|of| of.1);
        // A new leader counts a follower's log as empty until the follower reports, and so does a
        // leader while the follower receives a snapshot.
        let silent = |peer| lag(peer) == Some(shard.last);
        let current = |peer| {
            let near = lag(peer).is_some_and(|lag| lag <= BEHIND_MAX) && !silent(peer);
            peer == status.node || status.is_alive(peer) && near
        };
        let (able, unable): (Vec<u64>, Vec<u64>) =
            voters.into_iter().partition(|&peer| current(peer));
        // The Raft core refuses a change that leaves no voter.
        if unable.is_empty() || able.len() > unable.len() {
            return None;
        }
        let soon = |peer: &u64| status.is_alive(*peer) && silent(*peer);
        let soon: Vec<u64> = unable.iter().copied().filter(soon).collect();
        if able.len() + soon.len() > unable.len() - soon.len() {
            let why = format!(
                "nodes {soon:?} have no entries yet, or have not reported them to the leader. \
                 Without these nodes, the remaining new voters are no majority. Repeat the \
                 request later, or set force"
            );
            return Some(refuse(StatusCode::SERVICE_UNAVAILABLE, &why));
        }
        let why = format!(
            "among the new voters, nodes {unable:?} are down or more than {BEHIND_MAX} entries \
             behind, and the other voters are no majority: the shard would stop until these \
             nodes catch up. Start them, or let them catch up as learners, or set force"
        );
        Some(refuse(StatusCode::CONFLICT, &why))
    }
}

/// The status code and the reason of a refused request.
type Refusal = (StatusCode, String);

/// `POST /shards/{shard}/members`.
pub async fn members(
    AxumState(state): AxumState<State>,
    Path(shard): Path<u64>,
    Json(request): Json<ChangeMembers>,
) -> Result<Response, Refusal> {
    if let Some(why) = request.invalid_reason(&state.shared.nodes) {
        return Err(refuse(StatusCode::BAD_REQUEST, &why));
    }
    let (shard, status) = (ShardId(shard), state.shared.status.get());
    let leads = led_here(&status, shard)?;
    if let Some(refusal) = request.unsafe_reason(&status, leads).filter(|_| !request.force) {
        return Err(refusal);
    }
    let change = Change::Steps { steps: request.steps(), explicit: false };
    ask(&state, shard, AdminRequest::ChangeMembers(change)).await
}

/// `POST /shards/{shard}/leader`.
pub async fn leader(
    AxumState(state): AxumState<State>,
    Path(shard): Path<u64>,
    Json(request): Json<ChangeLeader>,
) -> Result<Response, Refusal> {
    let (shard, status) = (ShardId(shard), state.shared.status.get());
    led_here(&status, shard)?;
    if status.nodes.iter().any(|node| node.id == request.to && !node.alive) {
        let why = format!("node {} is not connected: start it, or name another node", request.to);
        return Err(refuse(StatusCode::CONFLICT, &why));
    }
    ask(&state, shard, AdminRequest::TransferLeadership(Member::first_on(NodeId(request.to)).id))
        .await
}

fn led_here(status: &Status, shard: ShardId) -> Result<&ShardStatus, Refusal> {
    let Some(found) = status.shards.iter().find(|found| found.id == shard.0) else {
        return Err(refuse(
            StatusCode::NOT_FOUND,
            &format!("there is no shard {shard} on this node"),
        ));
    };
    if found.leader == status.node {
        return Ok(found);
    }
    let leader = (found.leader > 0).then_some(found.leader);
    Err(not_leader(status, shard, leader))
}

fn not_leader(status: &Status, shard: ShardId, leader: Option<u64>) -> Refusal {
    let Some(leader) = leader else {
        let why = format!("shard {shard} has no leader now: try again");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &why);
    };
    let node = status.nodes.iter().find(|node| node.id == leader);
    let at = node.map_or(String::new(), |node| format!(" at http://{}", node.http));
    refuse(
        StatusCode::MISDIRECTED_REQUEST,
        &format!("node {leader} leads shard {shard}: send the request to it{at}"),
    )
}

fn refuse(code: StatusCode, why: &str) -> Refusal {
    (code, format!("{why}\n"))
}

async fn ask(state: &State, shard: ShardId, request: AdminRequest) -> Result<Response, Refusal> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let answer = Box::new(move |done| {
        // Sending fails if the request has timed out: its receiver is gone then.
        let _ = answer.send(done);
    });
    (state.operate)(shard, request, answer);
    let busy = "the node is busy or stopping: see /status, and repeat the request";
    let Ok(Ok(done)) = tokio::time::timeout(ANSWER_TIME_MAX, answered).await else {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, busy));
    };
    match done {
        // The worker accepted the request; `/status` shows when the change is complete.
        Ok(()) => Ok((StatusCode::ACCEPTED, json(&serde_json::json!({}))).into_response()),
        Err(AdminError::NotLeader(leader)) => {
            let leader = leader.map(|node| node.0);
            Err(not_leader(&state.shared.status.get(), shard, leader))
        }
        Err(AdminError::Invalid(why)) => Err(refuse(StatusCode::CONFLICT, &why)),
        Err(AdminError::NotNow(why)) => {
            Err(refuse(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}; try again")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::NodeStatus;

    const LAST: u64 = 2 * BEHIND_MAX;

    fn cluster(up: &[u64], lag: &[(u64, u64)]) -> (Status, ShardStatus) {
        let node = |id| NodeStatus { id, alive: up.contains(&id), ..NodeStatus::default() };
        let status = Status { node: 1, nodes: (1..=4).map(node).collect(), ..Status::default() };
        let (voters, lag) = (vec![1, 2, 3], lag.to_vec());
        let shard = ShardStatus { voters, lag, last: LAST, ..Default::default() };
        (status, shard)
    }

    #[test]
    fn a_change_that_could_stop_the_shard_needs_force() {
        let remove_two = ChangeMembers { remove: vec![2], ..Default::default() };
        let add_four = ChangeMembers { voters: vec![4], ..Default::default() };
        let swap = ChangeMembers { voters: vec![4], remove: vec![3], ..Default::default() };
        let lag = [(2, 5), (3, 5)];
        let refusal = |request: &ChangeMembers, up: &[u64], lag: &[(u64, u64)]| {
            let (status, shard) = cluster(up, lag);
            request.unsafe_reason(&status, &shard)
        };
        let unsafe_reason = |request: &ChangeMembers, up: &[u64], lag: &[(u64, u64)]| {
            let refusal = refusal(request, up, lag)?;
            assert_eq!(refusal.0, StatusCode::CONFLICT);
            Some(refusal.1)
        };
        assert_eq!(unsafe_reason(&remove_two, &[1, 2, 3], &lag), None);
        let why = unsafe_reason(&remove_two, &[1, 2], &lag).expect("1 of 2 is no majority");
        assert!(why.contains("nodes [3] are down"), "{why}");
        assert_eq!(unsafe_reason(&add_four, &[1, 2, 3], &lag), None, "3 of 4 are a majority");
        assert!(unsafe_reason(&add_four, &[1, 2], &lag).is_some(), "2 of 4 are no majority");
        assert_eq!(unsafe_reason(&swap, &[1, 2], &lag), None, "2 of 3 are a majority");
        assert!(unsafe_reason(&swap, &[1, 2], &[(2, BEHIND_MAX + 1)]).is_some());
        let (code, why) = refusal(&swap, &[1, 2], &[(2, LAST)]).expect("node 2 did not report yet");
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{why}");
        assert!(unsafe_reason(&swap, &[1], &[(2, LAST)]).is_some(), "nodes 2 and 4 are down");
    }

    #[test]
    fn nodes_must_be_known_and_named_once() {
        let invalid_reason =
            |request: ChangeMembers| request.invalid_reason(&[NodeId(1), NodeId(2), NodeId(3)]);
        let twice = ChangeMembers { voters: vec![2], remove: vec![2], ..Default::default() };
        assert_eq!(invalid_reason(twice).as_deref(), Some("node 2 is named twice"));
        let unknown = ChangeMembers { learners: vec![9], ..Default::default() };
        assert!(invalid_reason(unknown).is_some_and(|why| why.starts_with("node 9 is none of")));
        let gone = ChangeMembers { remove: vec![9], ..Default::default() };
        assert_eq!(
            invalid_reason(gone),
            None,
            "a node that left the cluster can still be a member"
        );
        assert!(invalid_reason(ChangeMembers::default()).is_some());
    }
}
