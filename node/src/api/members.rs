//! What an operator asks of a shard: who takes part in it, and who leads it.

use super::http::{State, json};
use crate::raft::conf::MemberChange;
use crate::raft::{Change, PeerId, Refused};
use crate::request::admin::{AdminReply, AdminRequest};
use crate::status::{ShardStatus, Status};
use axum::Json;
use axum::extract::{Path, State as AxumState};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bedstone_engine::ShardId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Entries that a voter may lack and still count as one that can go on at once.
const BEHIND_MAX: u64 = 10_000;
/// The longest time that the worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of what is asked.
pub(super) const ASKED_MAX: usize = 16 << 10;

/// Hands a request to the worker.
pub type Operate = Arc<dyn Fn(ShardId, AdminRequest, AdminReply) + Send + Sync>;

/// Changes of a shard's members: all of them are done together, or none.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeMembers {
    /// Nodes that are to vote.
    pub voters: Vec<PeerId>,
    /// Nodes that are to get the log and not vote.
    pub learners: Vec<PeerId>,
    /// Nodes that are to be no members any more.
    pub remove: Vec<PeerId>,
    /// Do it even where a majority of the voters could not go on at once.
    pub force: bool,
}

/// Another leader of a shard.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeLeader {
    /// The node that is to lead.
    pub to: PeerId,
}

impl ChangeMembers {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.steps().is_empty()
    }

    fn steps(&self) -> Vec<MemberChange> {
        let voters = self.voters.iter().map(|&peer| MemberChange::AddVoter(peer));
        let learners = self.learners.iter().map(|&peer| MemberChange::AddLearner(peer));
        let remove = self.remove.iter().map(|&peer| MemberChange::Remove(peer));
        voters.chain(learners).chain(remove).collect()
    }

    /// Why this makes no sense in a cluster of these nodes.
    fn nonsense(&self, nodes: &[PeerId]) -> Option<String> {
        let steps = self.steps();
        if self.is_empty() {
            return Some("name nodes in voters, learners or remove".to_owned());
        }
        for (number, step) in steps.iter().enumerate() {
            let peer = step.peer();
            if !matches!(step, MemberChange::Remove(_)) && !nodes.contains(&peer) {
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

    /// Why it could leave the shard without a majority: the voters afterwards that are down, or
    /// still lack much, or have not said yet what they have.
    fn imprudent(&self, status: &Status, shard: &ShardStatus) -> Option<Refusal> {
        let named: Vec<PeerId> = self.steps().into_iter().map(MemberChange::peer).collect();
        let mut voters: Vec<PeerId> = shard.voters.clone();
        voters.retain(|peer| !named.contains(peer));
        voters.extend(&self.voters);
        let lag = |peer| shard.lag.iter().find(|&&(follower, _)| follower == peer).map(|of| of.1);
        // To a new leader, or while it takes a snapshot, a follower has nothing.
        let silent = |peer| lag(peer) == Some(shard.last);
        let current = |peer| {
            let near = lag(peer).is_some_and(|lag| lag <= BEHIND_MAX) && !silent(peer);
            peer == status.node || status.is_alive(peer) && near
        };
        let (able, unable): (Vec<PeerId>, Vec<PeerId>) =
            voters.into_iter().partition(|&peer| current(peer));
        // That no voter is left is for the core to say.
        if unable.is_empty() || able.len() > unable.len() {
            return None;
        }
        let soon = |peer: &PeerId| status.is_alive(*peer) && silent(*peer);
        let soon: Vec<PeerId> = unable.iter().copied().filter(soon).collect();
        if able.len() + soon.len() > unable.len() - soon.len() {
            let why = format!(
                "nodes {soon:?} have nothing yet, or the leader does not know what, and without \
                 them the voters afterwards are no majority; ask again, or with force"
            );
            return Some(no(StatusCode::SERVICE_UNAVAILABLE, &why));
        }
        let why = format!(
            "of the voters afterwards, nodes {unable:?} are down or more than {BEHIND_MAX} \
             entries behind, and the others are no majority: the shard would wait for them. \
             Start them, or let them catch up as learners, or ask with force"
        );
        Some(no(StatusCode::CONFLICT, &why))
    }
}

/// Why it was not done.
type Refusal = (StatusCode, String);

/// `POST /shards/{shard}/members`.
pub async fn members(
    AxumState(state): AxumState<State>,
    Path(shard): Path<ShardId>,
    Json(asked): Json<ChangeMembers>,
) -> Result<Response, Refusal> {
    if let Some(why) = asked.nonsense(&state.shared.nodes) {
        return Err(no(StatusCode::BAD_REQUEST, &why));
    }
    let status = state.shared.status.get();
    let leads = led_here(&status, shard)?;
    if let Some(refusal) = asked.imprudent(&status, leads).filter(|_| !asked.force) {
        return Err(refusal);
    }
    let change = Change::Steps { steps: asked.steps(), explicit: false };
    ask(&state, shard, AdminRequest::ChangeMembers(change)).await
}

/// `POST /shards/{shard}/leader`.
pub async fn leader(
    AxumState(state): AxumState<State>,
    Path(shard): Path<ShardId>,
    Json(asked): Json<ChangeLeader>,
) -> Result<Response, Refusal> {
    let status = state.shared.status.get();
    led_here(&status, shard)?;
    if status.nodes.iter().any(|node| node.id == asked.to && !node.alive) {
        let why = format!("node {} is not connected: start it, or name another", asked.to);
        return Err(no(StatusCode::CONFLICT, &why));
    }
    ask(&state, shard, AdminRequest::TransferLeadership(asked.to)).await
}

fn led_here(status: &Status, shard: ShardId) -> Result<&ShardStatus, Refusal> {
    let Some(found) = status.shards.iter().find(|found| found.id == shard) else {
        return Err(no(StatusCode::NOT_FOUND, &format!("there is no shard {shard} here")));
    };
    if found.leader == status.node {
        return Ok(found);
    }
    let leader = (found.leader > 0).then_some(found.leader);
    Err(elsewhere(status, shard, leader))
}

fn elsewhere(status: &Status, shard: ShardId, leader: Option<PeerId>) -> Refusal {
    let Some(leader) = leader else {
        let why = format!("shard {shard} has no leader now; ask again");
        return no(StatusCode::SERVICE_UNAVAILABLE, &why);
    };
    let node = status.nodes.iter().find(|node| node.id == leader);
    let at = node.map_or(String::new(), |node| format!(" at http://{}", node.http));
    no(StatusCode::MISDIRECTED_REQUEST, &format!("node {leader} leads shard {shard}: ask it{at}"))
}

fn no(code: StatusCode, why: &str) -> Refusal {
    (code, format!("{why}\n"))
}

async fn ask(state: &State, shard: ShardId, request: AdminRequest) -> Result<Response, Refusal> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let answer = Box::new(move |done| {
        // Nobody waits any more.
        let _ = answer.send(done);
    });
    (state.operate)(shard, request, answer);
    let busy = "the node is busy or stopping; look at status";
    let Ok(Ok(done)) = tokio::time::timeout(PATIENCE, answered).await else {
        return Err(no(StatusCode::SERVICE_UNAVAILABLE, busy));
    };
    match done {
        // What was asked is in the log; status shows when it is done.
        Ok(()) => Ok((StatusCode::ACCEPTED, json(&serde_json::json!({}))).into_response()),
        Err(Refused::NotLeader(leader)) => {
            Err(elsewhere(&state.shared.status.get(), shard, leader))
        }
        Err(refused @ (Refused::InvalidChange(_) | Refused::CannotLead(_))) => {
            Err(no(StatusCode::CONFLICT, &refused.to_string()))
        }
        Err(refused) => Err(no(StatusCode::SERVICE_UNAVAILABLE, &format!("{refused}; ask again"))),
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
        let refusal = |asked: &ChangeMembers, up: &[u64], lag: &[(u64, u64)]| {
            let (status, shard) = cluster(up, lag);
            asked.imprudent(&status, &shard)
        };
        let imprudent = |asked: &ChangeMembers, up: &[u64], lag: &[(u64, u64)]| {
            let refusal = refusal(asked, up, lag)?;
            assert_eq!(refusal.0, StatusCode::CONFLICT);
            Some(refusal.1)
        };
        assert_eq!(imprudent(&remove_two, &[1, 2, 3], &lag), None);
        let why = imprudent(&remove_two, &[1, 2], &lag).expect("one of two is no majority");
        assert!(why.contains("nodes [3] are down"), "{why}");
        assert_eq!(imprudent(&add_four, &[1, 2, 3], &lag), None, "three of four can go on");
        assert!(imprudent(&add_four, &[1, 2], &lag).is_some(), "two of four cannot");
        assert_eq!(imprudent(&swap, &[1, 2], &lag), None, "two of three can");
        assert!(imprudent(&swap, &[1, 2], &[(2, BEHIND_MAX + 1)]).is_some());
        let (code, why) = refusal(&swap, &[1, 2], &[(2, LAST)]).expect("it is not known yet");
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{why}");
        assert!(imprudent(&swap, &[1], &[(2, LAST)]).is_some(), "nor will it be soon");
    }

    #[test]
    fn nodes_must_be_known_and_named_once() {
        let nonsense = |asked: ChangeMembers| asked.nonsense(&[1, 2, 3]);
        let twice = ChangeMembers { voters: vec![2], remove: vec![2], ..Default::default() };
        assert_eq!(nonsense(twice).as_deref(), Some("node 2 is named twice"));
        let unknown = ChangeMembers { learners: vec![9], ..Default::default() };
        assert!(nonsense(unknown).is_some_and(|why| why.starts_with("node 9 is none of")));
        let gone = ChangeMembers { remove: vec![9], ..Default::default() };
        assert_eq!(nonsense(gone), None, "who left the cluster can still be a member");
        assert!(nonsense(ChangeMembers::default()).is_some());
    }
}
