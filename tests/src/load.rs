//! Clients that write to and read from a real cluster during a whole test, and the check of their
//! histories.

use crate::cluster::eventually;
use crate::history::{Action, Operation, is_linearizable};
use crate::rng::Rng;
use redis::{Client, Connection, RedisResult};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CLIENTS: u64 = 4;
const KEYS: u64 = 6;
/// How long a client waits for an answer before it treats the answer as lost.
const ANSWER_TIME: Duration = Duration::from_secs(8);

/// The operations of all clients, by key.
pub type Histories = BTreeMap<u64, Vec<Operation>>;

/// Clients that write and read until [`Load::finish`] stops them.
pub struct Load {
    stop: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Histories>>,
}

impl Load {
    /// Starts clients of the nodes at these addresses.
    pub fn start(nodes: &[String], seed: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let clients = (0..CLIENTS)
            .map(|number| {
                let nodes = nodes.to_vec();
                let (stop, progress) = (stop.clone(), progress.clone());
                let rng = Rng::new(seed * 100 + number);
                let client = LoadClient { number, nodes, begun, rng, connection: None, written: 0 };
                std::thread::spawn(move || client.run(&stop, &progress))
            })
            .collect();
        Load { stop, progress, clients }
    }

    /// Waits until the clients have received more than 200 further answers.
    pub fn wait_progress(&self) {
        let before = self.progress.load(Ordering::Relaxed);
        eventually("clients make progress", || {
            (self.progress.load(Ordering::Relaxed) > before + 200).then_some(())
        });
    }

    /// Stops the clients and returns their operations.
    pub fn finish(self) -> Histories {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Histories::new();
        for client in self.clients {
            for (key, mut operations) in client.join().expect("a client does not panic") {
                all.entry(key).or_default().append(&mut operations);
            }
        }
        all
    }
}

struct LoadClient {
    number: u64,
    nodes: Vec<String>,
    begun: Instant,
    rng: Rng,
    connection: Option<Connection>,
    written: u64,
}

impl LoadClient {
    fn run(mut self, stop: &AtomicBool, progress: &AtomicU64) -> Histories {
        let mut histories = Histories::new();
        while !stop.load(Ordering::Relaxed) {
            let key = self.rng.below(KEYS);
            let write = self.rng.one_in(2);
            let Some(mut connection) = self.connection.take().or_else(|| self.connect()) else {
                continue;
            };
            let begun = self.begun.elapsed().as_nanos() as u64;
            let name = format!("key{key}");
            let (action, result) = if write {
                self.written += 1;
                let value = self.number << 32 | self.written;
                let result: RedisResult<()> =
                    redis::cmd("SET").arg(name).arg(value).query(&mut connection);
                (Action::Write(value), result)
            } else {
                let result: RedisResult<Option<u64>> =
                    redis::cmd("GET").arg(name).query(&mut connection);
                (Action::Read(result.as_ref().ok().copied().flatten()), result.map(drop))
            };
            let ended = self.begun.elapsed().as_nanos() as u64;
            let ended = match result {
                Ok(()) => {
                    progress.fetch_add(1, Ordering::Relaxed);
                    self.connection = Some(connection);
                    Some(ended)
                }
                // The answer states that the operation did not happen, so the history omits the
                // operation. The checker relies on this statement.
                Err(error) if error.code() == Some("UNAVAILABLE") => {
                    // One client in four reconnects. If all stayed, all might be at nodes that
                    // reach no majority.
                    self.connection = Some(connection).filter(|_| !self.rng.one_in(4));
                    continue;
                }
                Err(_) => None,
            };
            histories.entry(key).or_default().push(Operation { action, begun, ended });
        }
        histories
    }

    fn connect(&mut self) -> Option<Connection> {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let client = Client::open(format!("redis://{}", self.nodes[node])).ok()?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(1)).ok()?;
        connection.set_read_timeout(Some(ANSWER_TIME)).ok()?;
        Some(connection)
    }
}

/// Reads every key once more at every node, and checks the history of each key.
///
/// # Panics
/// When a history is not linearizable.
pub fn verdict(nodes: &[String], mut histories: Histories, load_began: Instant) {
    // The last read of every key at every node must return the acknowledged writes.
    for node in nodes {
        let client = Client::open(format!("redis://{node}")).unwrap();
        let mut connection = client.get_connection().unwrap();
        for (key, operations) in &mut histories {
            let begun = load_began.elapsed().as_nanos() as u64;
            let read = || {
                redis::cmd("GET")
                    .arg(format!("key{key}"))
                    .query::<Option<u64>>(&mut connection)
                    .ok()
            };
            let value = eventually("the last read is answered", read);
            let ended = Some(load_began.elapsed().as_nanos() as u64);
            operations.push(Operation { action: Action::Read(value), begun, ended });
        }
    }
    let mut count = 0;
    for (key, operations) in &histories {
        count += operations.len();
        assert!(is_linearizable(operations), "the history of key{key} is not linearizable");
        planted(operations);
    }
    eprintln!("{count} operations on {} keys", histories.len());
}

/// The checker must be able to reject this very history: once with a stale read at its end, once
/// with its acknowledged writes lost.
fn planted(operations: &[Operation]) {
    let writes: Vec<&Operation> = operations
        .iter()
        .filter(|op| matches!(op.action, Action::Write(_)) && op.ended.is_some())
        .collect();
    let Some(first) = writes.iter().min_by_key(|op| op.ended) else { return };
    let Action::Write(old) = first.action else { return };
    let end = operations.iter().filter_map(|op| op.ended).max().unwrap_or(0);
    let after = |action| Operation { action, begun: end + 1, ended: Some(end + 2) };
    let overwritten = writes.iter().any(|op| op.begun > first.ended.unwrap_or(u64::MAX));
    if overwritten {
        let stale = [operations, &[after(Action::Read(Some(old)))]].concat();
        assert!(!is_linearizable(&stale), "a planted stale read was not caught");
    }
    let lost = [operations, &[after(Action::Read(None))]].concat();
    assert!(!is_linearizable(&lost), "a planted lost write was not caught");
}
