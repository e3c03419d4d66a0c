//! Key to shard: every path from a client to the data goes through the router.
//!
//! In this version one shard has all keys. Further shards take part in elections and heartbeats
//! only, so that the cost of an idle shard can be measured.

use crate::machine::StateMachine;
use crate::machine::command::{Command, Read};
use bedstone_engine::ShardId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The shard that has all keys, in this version.
pub const FIRST_SHARD: ShardId = ShardId(1);

/// The shards of a node.
pub struct Router {
    machines: BTreeMap<ShardId, Arc<dyn StateMachine>>,
}

impl Router {
    /// A router over the shards of a node, with the state machine of each.
    ///
    /// # Panics
    /// [`FIRST_SHARD`] is missing.
    pub fn new(machines: BTreeMap<ShardId, Arc<dyn StateMachine>>) -> Router {
        assert!(machines.contains_key(&FIRST_SHARD), "the first shard has all keys");
        Router { machines }
    }

    /// The shard that executes a command.
    pub fn route(&self, _command: &Command) -> ShardId {
        FIRST_SHARD
    }

    /// The state machine of the shard that executes a read, for weak reads.
    pub fn machine(&self, _read: &Read) -> &dyn StateMachine {
        &*self.machines[&FIRST_SHARD]
    }

    /// The state machines of all shards.
    pub fn machines(&self) -> impl Iterator<Item = &dyn StateMachine> {
        self.machines.values().map(|machine| &**machine)
    }
}
