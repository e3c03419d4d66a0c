//! The members of a shard on this disk. The tree holds them, and the log has a copy, which the log
//! repeats at the head of each segment: a replica whose tables are damaged still knows which nodes
//! can repair it.

use super::Replica;
use crate::machine::system;
use crate::raft::{Conf, Index, ReplicaId};
use bedstone_engine::wal::Record;
use bedstone_engine::{Engine, Error, Result, ShardId, Tree};
use bedstone_net::NodeId;
use tracing::debug;

/// The number of replicas outside the configuration whose nodes are remembered.
const STRANGERS_MAX: usize = 16;

/// The members of a shard as its disk records them.
pub struct StoredMembers {
    /// The members.
    pub conf: Conf,
    /// The index of the entry as of which they are the members.
    pub index: Index,
    /// The damage of the tree, if the members come from the log.
    pub damage: Option<Error>,
}

/// The members of a shard on this disk; `None` if the shard has recorded none.
///
/// # Errors
/// The tree cannot be read, and the log has no copy.
pub fn stored_members(
    engine: &Engine,
    shard: ShardId,
    tree: &Tree,
) -> Result<Option<StoredMembers>> {
    let in_tree = |conf| StoredMembers { conf, index: tree.applied().index, damage: None };
    let damage = match system::members(tree) {
        Ok(conf) => return Ok(conf.map(in_tree)),
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error),
    };
    let in_log = engine.log().members(shard);
    let conf = in_log.and_then(|(index, members)| Some((index, Conf::decode(&members)?)));
    match conf {
        Some((index, conf)) => Ok(Some(StoredMembers { conf, index, damage: Some(damage) })),
        None => Err(damage),
    }
}

impl Replica {
    /// The node of another replica.
    pub(super) fn node_of(&self, peer: ReplicaId) -> Option<NodeId> {
        let known = self.raft.conf().node_of(peer);
        let stranger = || self.nodes_of_strangers.get(&peer).copied();
        known.or_else(stranger).or_else(|| self.raft.queried_conf()?.node_of(peer))
    }

    /// The other replicas on a node.
    pub(super) fn peers_on(&self, node: NodeId) -> Vec<ReplicaId> {
        let strangers = self.nodes_of_strangers.iter().filter(|(_, home)| **home == node);
        let all = self.raft.conf().on_node(node).chain(strangers.map(|(peer, _)| *peer));
        all.filter(|peer| *peer != self.id).collect()
    }

    /// Whether a message from the replica `from` on a node is for this replica. A message for
    /// another replica is for one that this disk no longer has. A sender that lives on another node
    /// by the configuration is an earlier replica.
    pub(super) fn is_for_me(&mut self, node: NodeId, from: ReplicaId, to: ReplicaId) -> bool {
        if to != self.id {
            let (shard, from, to) = (self.shard.0, from.0, to.0);
            debug!(shard, %node, from, to, "a message for another replica is dropped");
            return false;
        }
        match self.raft.conf().node_of(from) {
            Some(home) => home == node,
            None => {
                // A leader that this replica does not know yet, or a member that left.
                if self.nodes_of_strangers.len() >= STRANGERS_MAX {
                    self.nodes_of_strangers.pop_first();
                }
                self.nodes_of_strangers.insert(from, node);
                true
            }
        }
    }

    /// Writes the members to the log if they changed.
    pub(super) fn log_members(&mut self) {
        if self.logged_conf.as_ref() == Some(&self.conf) {
            return;
        }
        let mut members = Vec::new();
        self.conf.encode(&mut members);
        let (shard, index) = (self.shard, self.applied.index);
        self.disk.log(vec![Record::Members { shard, index, members: members.into() }], None);
        self.logged_conf = Some(self.conf.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::open::Opening;
    use super::*;
    use crate::disk_unit::DiskUnit;
    use crate::limits::Limits;
    use crate::raft::{Home, Member};
    use bedstone_engine::disk::memory::MemoryDisk;
    use bedstone_engine::{LogId, Options, Term};
    use std::sync::Arc;

    const SHARD: ShardId = ShardId(1);

    fn open(disk: &MemoryDisk) -> Engine {
        Engine::open(Arc::new(disk.clone()), Options::tiny()).expect("opens")
    }

    #[test]
    fn members_in_a_damaged_tree_are_read_from_the_log() {
        let (disk, conf) = (MemoryDisk::new(), Conf::of([1, 2, 3].map(ReplicaId)));
        let engine = open(&disk);
        let tree = engine.open_shard(SHARD).expect("opens");
        let stored = |engine: &Engine, tree: &Tree| stored_members(engine, SHARD, tree);
        assert!(stored(&engine, &tree).expect("reads").is_none(), "nothing is recorded yet");
        let at = LogId { term: Term(1), index: Index(7) };
        tree.apply(at, 1, None, [system::keep_members(&conf)]);
        tree.flush_all().expect("flushes");
        let found = stored(&engine, &tree).expect("reads").expect("is recorded");
        assert!(found.conf == conf && found.index == Index(7) && found.damage.is_none());
        let mut members = Vec::new();
        conf.encode(&mut members);
        let record = Record::Members { shard: SHARD, index: Index(7), members: members.into() };
        engine.log().commit(&[record]).expect("writes");
        // The record is repeated in later segments: many commits reuse the segment that held it.
        for _ in 0..2000 {
            engine.log().commit(&[]).expect("writes");
        }
        drop((tree, engine));
        for path in disk.files().into_iter().filter(|path| path.ends_with(".sst")) {
            let len = disk.bytes(&path).expect("a file").len() as u64;
            (0..len).step_by(64).for_each(|at| disk.flip(&path, at, 1));
        }
        let engine = open(&disk);
        let tree = engine.open_shard(SHARD).expect("opens");
        let found = stored(&engine, &tree).expect("reads").expect("is recorded");
        assert!(found.conf == conf && found.index == Index(7) && found.damage.is_some());
    }

    #[test]
    fn a_message_for_another_replica_is_dropped() {
        let member = |node| {
            let home = Home { node: NodeId(node), disk: 7 };
            Member { id: ReplicaId(100 + node), home }
        };
        let conf = Conf::of_members((1..=3).map(member));
        let engine = Arc::new(open(&MemoryDisk::new()));
        let (disk, _queues) = DiskUnit::new(engine, "memory".to_owned());
        let opening = Opening {
            shard: SHARD,
            id: ReplicaId(101),
            node: NodeId(1),
            conf,
            limits: Limits::TINY,
            seed: 1,
            disk_is_suspect: false,
        };
        let opened = Replica::open(&Arc::new(disk), &Arc::default(), opening);
        let mut replica = opened.expect("opens");
        let mut is_for_me =
            |node, from, to| replica.is_for_me(NodeId(node), ReplicaId(from), ReplicaId(to));
        assert!(is_for_me(2, 102, 101));
        assert!(!is_for_me(2, 102, 100), "another replica had this id");
        assert!(!is_for_me(3, 102, 101), "the sender lives on another node");
        assert!(is_for_me(9, 200, 101), "a leader that is not known yet");
        assert_eq!(replica.node_of(ReplicaId(102)), Some(NodeId(2)));
        assert_eq!(replica.peers_on(NodeId(2)), [ReplicaId(102)]);
        assert_eq!(replica.node_of(ReplicaId(200)), Some(NodeId(9)));
        assert_eq!(replica.peers_on(NodeId(9)), [ReplicaId(200)]);
    }
}
