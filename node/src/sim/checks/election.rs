//! Election safety: at most one leader in a term (Raft, §5.2).

use super::super::Failure;
use super::super::host::Node;
use crate::raft::{PeerId, Term};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Election {
    leaders: BTreeMap<Term, PeerId>,
}

impl Election {
    pub(super) fn turn(&mut self, id: PeerId, node: &Node) -> Result<(), Failure> {
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
