//! Election safety: at most one leader in a term (Raft, §5.2).

use super::super::host::Node;
use super::super::outcome::Failure;
use crate::raft::Term;
use crate::sim::replicas::HostId;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Election {
    leaders: BTreeMap<Term, HostId>,
}

impl Election {
    pub(super) fn turn(&mut self, id: HostId, node: &Node) -> Result<(), Failure> {
        let raft = node.replica().raft();
        if raft.is_leader() {
            let leader = *self.leaders.entry(raft.term()).or_insert(id);
            if leader != id {
                let text = format!("nodes {leader} and {id} both lead in term {}", raft.term());
                return Err(Failure::new("election-safety", text));
            }
        }
        Ok(())
    }
}
