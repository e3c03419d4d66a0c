//! The end of the leader, as a client of another node sees it. The next leader is elected within a
//! second or so. No request may wait for the lost leader much longer.

use bedstone_tests::cluster::{Cluster, eventually};
use redis::{Client, Connection};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn connect(cluster: &Cluster, node: usize) -> Connection {
    let client = Client::open(format!("redis://{}", cluster.resp(node))).expect("an address");
    client.get_connection().expect("connects")
}

/// The waits and errors that a client saw.
#[derive(Default)]
struct Seen {
    /// The longest time from a request to its reply.
    longest: Duration,
    /// The replies that are errors.
    errors: Vec<String>,
}

/// A client that sends one request after the other.
struct Requests {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Seen>,
}

impl Requests {
    fn start(mut connection: Connection, command: &'static str) -> Requests {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stops, counts) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !stops.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let mut request = redis::cmd(command);
                request.arg("key");
                if command == "SET" {
                    request.arg("value");
                }
                if let Err(error) = request.exec(&mut connection) {
                    seen.errors.push(error.to_string());
                }
                seen.longest = seen.longest.max(begun.elapsed());
                counts.fetch_add(1, Ordering::Relaxed);
            }
            seen
        });
        Requests { stop, sent, thread }
    }

    /// Waits for further replies.
    fn wait_progress(&self) {
        let before = self.sent.load(Ordering::Relaxed);
        eventually("requests are answered", || {
            (self.sent.load(Ordering::Relaxed) > before + 50).then_some(())
        });
    }

    fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client does not panic")
    }
}

/// Sends a signal to the leader while clients of another node write and read. Returns what they
/// saw.
fn end_of_leader(signal: Signal) -> [Seen; 2] {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let other = leader % 3 + 1;
    let clients = ["SET", "GET"].map(|command| Requests::start(connect(&cluster, other), command));
    clients.iter().for_each(Requests::wait_progress);
    if signal == Signal::KILL {
        cluster.kill(leader);
    } else {
        cluster.signal(leader, signal);
    }
    eventually("another leader", || {
        let seen = cluster.status(other)?["shards"][0]["leader"].as_u64()?;
        (seen > 0 && seen != leader as u64).then_some(())
    });
    clients.iter().for_each(Requests::wait_progress);
    clients.map(Requests::finish)
}

/// Before, a forwarded request waited until the connection to the lost leader timed out, for four
/// seconds.
const LONGEST: Duration = Duration::from_millis(2500);

#[test]
fn requests_at_another_node_do_not_wait_for_a_killed_leader() {
    for seen in end_of_leader(Signal::KILL) {
        eprintln!("longest wait {:?}, errors {:?}", seen.longest, seen.errors);
        assert!(seen.longest < LONGEST, "a request waited for {:?}", seen.longest);
    }
}

#[test]
fn requests_at_another_node_do_not_wait_for_a_stopped_leader() {
    for seen in end_of_leader(Signal::STOP) {
        eprintln!("longest wait {:?}, errors {:?}", seen.longest, seen.errors);
        assert!(seen.longest < LONGEST, "a request waited for {:?}", seen.longest);
    }
}

#[test]
fn a_leader_hands_over_before_it_ends() {
    for seen in end_of_leader(Signal::TERM) {
        eprintln!("longest wait {:?}, errors {:?}", seen.longest, seen.errors);
        assert!(seen.errors.is_empty(), "{:?}", seen.errors);
        assert!(seen.longest < Duration::from_millis(500), "a request waited {:?}", seen.longest);
    }
}
