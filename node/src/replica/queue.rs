//! The requests of a replica that are neither proposed nor forwarded.

use crate::limits::QUEUED_COMMANDS_MAX;
use crate::machine::command::Command;
use crate::request::{PendingRequest, Requester};
use crate::wire::RequestId;
use bedstone_engine::ShardId;
use bedstone_net::NodeId;
use std::collections::VecDeque;
use std::time::Instant;

/// Writes and reads, each in the order of their arrival.
///
/// Invariant, asserted in [`RequestQueue::push`]: a new request never makes the queues together
/// longer than [`QUEUED_COMMANDS_MAX`]. Requests that return from an attempt are put in front, past
/// the limit: they were counted when they arrived.
#[derive(Default)]
pub(super) struct RequestQueue {
    writes: VecDeque<PendingRequest>,
    reads: VecDeque<PendingRequest>,
}

impl RequestQueue {
    pub(super) fn len(&self) -> usize {
        self.writes.len() + self.reads.len()
    }

    /// Whether no further request is accepted.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= QUEUED_COMMANDS_MAX
    }

    /// Queues a request. The caller has checked that the queue is not full.
    pub(super) fn push(&mut self, request: PendingRequest) {
        assert!(!self.is_full(), "a full queue accepts no request");
        self.queue_of(&request).push_back(request);
    }

    /// Puts a request back in front of its queue, after an attempt that had no effect.
    pub(super) fn push_front(&mut self, request: PendingRequest) {
        self.queue_of(&request).push_front(request);
    }

    fn queue_of(&mut self, request: &PendingRequest) -> &mut VecDeque<PendingRequest> {
        if request.command.is_read() { &mut self.reads } else { &mut self.writes }
    }

    pub(super) fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Takes the writes of one log entry: as many as fit into `bytes_max`, and one at least.
    pub(super) fn take_entry(&mut self, bytes_max: usize) -> Vec<PendingRequest> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(request) = self.writes.front() {
            let size = request.command.encoded_len();
            if bytes > 0 && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            taken.extend(self.writes.pop_front());
        }
        taken
    }

    /// Takes the writes that need room on the disk.
    pub(super) fn take_growing_writes(&mut self) -> Vec<PendingRequest> {
        let (kept, growing): (VecDeque<_>, VecDeque<_>) =
            self.writes.drain(..).partition(|request| match &request.command {
                Command::Write(write) => write.allowed_when_nearly_full(),
                Command::Read(_) => true,
            });
        self.writes = kept;
        growing.into()
    }

    /// The next request for the leader: writes first, then reads that only the leader may answer.
    pub(super) fn pop_for_leader(&mut self) -> Option<PendingRequest> {
        if let Some(write) = self.writes.pop_front() {
            return Some(write);
        }
        let read = self.reads.iter().position(PendingRequest::needs_leader)?;
        self.reads.remove(read)
    }

    /// Whether [`RequestQueue::pop_for_leader`] has a request.
    pub(super) fn has_for_leader(&self) -> bool {
        self.has_writes() || self.reads.iter().any(PendingRequest::needs_leader)
    }

    /// Whether a read waits that this replica may answer.
    pub(super) fn has_local_reads(&self, is_leader: bool) -> bool {
        self.reads.iter().any(|read| is_leader || !read.needs_leader())
    }

    /// Takes the reads that this replica may answer.
    pub(super) fn take_local_reads(&mut self, is_leader: bool) -> Vec<PendingRequest> {
        let (taken, kept): (VecDeque<_>, _) =
            self.reads.drain(..).partition(|read| is_leader || !read.needs_leader());
        self.reads = kept;
        taken.into()
    }

    /// The replica cannot read its state: every read goes to the leader.
    pub(super) fn send_reads_to_leader(&mut self) {
        for read in &mut self.reads {
            read.served_by = crate::policy::ServedBy::Leader;
        }
    }

    /// Takes the requests that other nodes forwarded: the node, the shard and the request's number.
    pub(super) fn take_forwarded(&mut self) -> Vec<(NodeId, ShardId, RequestId)> {
        let mut taken = Vec::new();
        for queue in [&mut self.writes, &mut self.reads] {
            queue.retain(|request| match request.requester {
                Requester::Peer { peer, shard, id } => {
                    taken.push((peer, shard, id));
                    false
                }
                Requester::Client(..) => true,
            });
        }
        taken
    }

    /// Takes the requests whose deadline has passed.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<PendingRequest> {
        let mut late = Vec::new();
        for queue in [&mut self.writes, &mut self.reads] {
            while let Some(request) = queue.pop_front_if(|request| request.is_late(now)) {
                late.push(request);
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::argument::Key;
    use crate::machine::command::{Read, Write};
    use crate::policy::ServedBy;
    use std::time::Duration;

    fn request(command: Command, served_by: ServedBy, millis: u64) -> PendingRequest {
        PendingRequest {
            command,
            requester: Requester::Peer {
                peer: NodeId(2),
                shard: ShardId(1),
                id: RequestId(millis),
            },
            resp3: false,
            served_by,
            deadline: crate::clock::now() + Duration::from_millis(millis),
        }
    }

    fn delete() -> Command {
        Command::Write(Write::Delete { keys: [Key("key".into())].into_iter().collect() })
    }

    fn get() -> Command {
        Command::Read(Read::Get { key: Key("key".into()) })
    }

    fn ids(requests: &[PendingRequest]) -> Vec<u64> {
        let id = |request: &PendingRequest| match request.requester {
            Requester::Peer { id, .. } => id.0,
            Requester::Client(..) => 0,
        };
        requests.iter().map(id).collect()
    }

    #[test]
    fn the_queue_is_bounded_and_returned_requests_come_first() {
        let mut queue = RequestQueue::default();
        for id in 0..QUEUED_COMMANDS_MAX as u64 {
            queue.push(request(delete(), ServedBy::Leader, id));
        }
        assert!(queue.is_full());
        let entry = queue.take_entry(1);
        assert_eq!(ids(&entry), [0], "one write at least");
        entry.into_iter().for_each(|request| queue.push_front(request));
        assert_eq!(ids(&queue.take_entry(usize::MAX))[..3], [0, 1, 2]);
    }

    #[test]
    fn reads_are_answered_by_the_replicas_that_may() {
        let mut queue = RequestQueue::default();
        queue.push(request(get(), ServedBy::Leader, 1));
        queue.push(request(get(), ServedBy::AnyReplica, 2));
        assert!(queue.has_for_leader() && queue.has_local_reads(false));
        assert_eq!(ids(&queue.take_local_reads(false)), [2]);
        assert!(!queue.has_local_reads(false) && queue.has_local_reads(true));
        queue.push(request(delete(), ServedBy::Leader, 3));
        let for_leader: Vec<_> = std::iter::from_fn(|| queue.pop_for_leader()).collect();
        assert_eq!(ids(&for_leader), [3, 1], "writes first");
    }

    #[test]
    fn forwarded_and_late_requests_are_taken_out() {
        let mut queue = RequestQueue::default();
        queue.push(request(delete(), ServedBy::Leader, 1));
        queue.push(request(delete(), ServedBy::Leader, 60_000));
        let soon = crate::clock::now() + Duration::from_secs(1);
        assert_eq!(ids(&queue.take_late(soon)), [1]);
        assert_eq!(queue.take_forwarded(), [(NodeId(2), ShardId(1), RequestId(60_000))]);
        assert_eq!(queue.len(), 0);
    }
}
