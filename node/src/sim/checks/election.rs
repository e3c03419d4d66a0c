//! Election safety: one leader in a term at most (Raft, §5.2).

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
        let raft = node.group().raft();
        if raft.is_leader() {
            let leader = *self.leaders.entry(raft.term()).or_insert(id);
            if leader != id {
                let text = format!("{leader} and {id} lead in term {}", raft.term());
                return Err(Failure::new("election-safety", text));
            }
        }
        Ok(())
    }
}
