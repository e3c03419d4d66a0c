//! A worker whose replicas are on two disks.

use super::inbox::WorkerInbox;
use super::*;
use crate::disk_unit::{DiskQueues, logger};
use crate::limits::Limits;
use crate::machine::StateMachine;
use crate::machine::argument::Key;
use crate::machine::command::{Command, Write};
use crate::raft::{Conf, Member};
use crate::replica::open::Opening;
use crate::request::mailbox::{ClientRequest, Mailbox};
use crate::router::FIRST_SHARD;
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::{Engine, Options};
use crossbeam_channel::{Sender, unbounded};
use std::time::Duration;

const OTHER_SHARD: ShardId = ShardId(2);
const NODE: NodeId = NodeId(1);

/// A node that is alone in its cluster, with one shard on each of two disks.
struct TwoDisks {
    worker: Worker,
    inputs: Sender<Input>,
    served: Vec<(Arc<Engine>, DiskQueues)>,
    replies: Arc<ReplyQueue>,
    now: Instant,
    next_slot: u64,
}

impl TwoDisks {
    fn start() -> TwoDisks {
        let (inputs, input) = unbounded();
        let inbox = WorkerInbox::new(inputs.clone());
        let (outbox, _pushed) = Outbox::pair(std::iter::empty());
        let (metrics, replies) = (Arc::<Metrics>::default(), Arc::<ReplyQueue>::default());
        let (mut disks, mut served, mut replicas) = (Vec::new(), Vec::new(), BTreeMap::new());
        for shard in [FIRST_SHARD, OTHER_SHARD] {
            let memory = Arc::new(MemoryDisk::new());
            let engine = Arc::new(Engine::open(memory, Options::tiny()).expect("opens"));
            let (unit, queues) = DiskUnit::new(engine.clone(), format!("disk of {shard}"));
            let unit = Arc::new(unit);
            let opening = Opening {
                shard,
                id: Member::first_on(NODE).id,
                node: NODE,
                conf: Conf::of([Member::first_on(NODE).id]),
                limits: Limits::TINY,
                seed: 1,
                disk_is_suspect: false,
            };
            replicas.insert(shard, Replica::open(&unit, &metrics, opening).expect("opens"));
            disks.push(Disk::new(unit, None));
            served.push((engine, queues));
        }
        let machine = |(shard, replica): (&ShardId, &Replica)| (*shard, replica.machine().clone());
        let machines: BTreeMap<_, Arc<dyn StateMachine>> = replicas.iter().map(machine).collect();
        let now = crate::clock::now();
        let worker = Worker {
            disks,
            state: State::new(replicas.keys().copied()),
            replicas,
            router: Arc::new(Router::new(machines)),
            inputs: input,
            frames: inbox.counter(),
            outbox,
            reply_queue: replies.clone(),
            metrics,
            publisher: Publisher::new(Arc::default(), "test".to_owned(), NODE, Vec::new()),
            started: now,
            clock: Box::new(crate::clock::now),
            snapshot_bytes_per_second: 1 << 20,
        };
        TwoDisks { worker, inputs, served, replies, now, next_slot: 0 }
    }

    /// One turn, a tick long, and the writes that it hands to the disks.
    fn turn(&mut self) -> Result<bool, String> {
        self.now += TICK;
        let outcome = self.worker.turn(None, 1, Time { now: self.now, unix_millis: 1 });
        for (at, (engine, queues)) in self.served.iter().enumerate() {
            let (records, done) = logger::gather(queues.log_jobs.try_iter());
            engine.log().commit(&records).expect("memory works");
            self.input(DiskNumber(at), DiskEvent::Persisted(done));
        }
        outcome
    }

    fn input(&self, disk: DiskNumber, event: DiskEvent) {
        self.inputs.send(Input::Disk(disk, event)).expect("the worker is there");
    }

    /// Writes a key of the first shard. Returns the reply.
    fn write(&mut self) -> String {
        let keys = [Key(b"\x01key"[..].into())].into_iter().collect();
        let slot = self.next_slot;
        self.next_slot += 1;
        let command = Command::Write(Write::Delete { keys });
        let requests = vec![ClientRequest { command, resp3: false, slot }];
        let deadline = self.now + Duration::from_secs(60);
        let batch = ClientBatch { mailbox: Arc::<Mailbox>::default(), requests, deadline };
        self.inputs.send(Input::Client(batch)).expect("the worker is there");
        for _ in 0..100 {
            assert_eq!(self.turn(), Ok(true));
            if let Some((_, of, reply)) = self.replies.take().pop() {
                assert_eq!(of, slot);
                return String::from_utf8_lossy(&reply).into_owned();
            }
        }
        panic!("the write has no reply");
    }
}

#[test]
fn a_failed_disk_ends_only_its_own_shards() {
    let mut node = TwoDisks::start();
    assert_eq!(node.write(), ":0\r\n");
    node.input(DiskNumber(1), DiskEvent::Failed("it is broken".to_owned()));
    assert_eq!(node.write(), ":0\r\n");
    assert_eq!(node.worker.replicas.keys().collect::<Vec<_>>(), [&FIRST_SHARD]);
    node.input(DiskNumber(0), DiskEvent::Failed("it is broken too".to_owned()));
    assert_eq!(node.turn(), Err("it is broken too".to_owned()), "no disk is left");
}

#[test]
fn requests_for_a_shard_on_a_failed_disk_are_refused() {
    let mut node = TwoDisks::start();
    assert_eq!(node.write(), ":0\r\n");
    node.input(DiskNumber(0), DiskEvent::Failed("it is broken".to_owned()));
    let reply = node.write();
    assert!(reply.starts_with("-UNAVAILABLE the disk of shard 1 failed on this node"), "{reply}");
}
