//! A cluster of real processes on loopback. `bedstone dev` creates the cluster; tests kill, stop
//! and restart its nodes.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Only one cluster runs at a time: three nodes and a load are enough for two cores.
static ONE: Mutex<()> = Mutex::new(());
static NEXT_BASE: AtomicU16 = AtomicU16::new(0);
/// How long a test waits for a condition before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// The binary under test, built by the same `cargo test`.
pub fn binary() -> PathBuf {
    let exe = std::env::current_exe().expect("a test has a path");
    let dir = exe.ancestors().nth(2).expect("target/<profile>/deps");
    let binary = dir.join("bedstone");
    let advice = "run `cargo build --release` first, or test the whole workspace";
    assert!(binary.exists(), "{} is missing: {advice}", binary.display());
    binary
}

/// Returns the lock that every running cluster holds.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ports that no other test of this process uses.
pub fn port_base() -> u16 {
    let process = (std::process::id() % 120) as u16 * 100;
    20_000 + process + NEXT_BASE.fetch_add(40, Ordering::Relaxed) % 100
}

/// Waits until `probe` returns a value, and returns that value.
///
/// # Panics
/// When `probe` returns no value within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not reached within {PATIENCE:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// A running cluster. Dropping it ends its processes.
pub struct Cluster {
    dev: Child,
    dir: tempfile::TempDir,
    base: u16,
    nodes: Vec<Node>,
    _one: MutexGuard<'static, ()>,
}

struct Node {
    pid: u32,
    /// Set once a test, not `bedstone dev`, has started the node.
    child: Option<Child>,
}

impl Cluster {
    /// Starts three nodes and waits until they are ready.
    pub fn start() -> Cluster {
        Self::start_in(tempfile::tempdir().expect("a directory for the data"))
    }

    /// Starts three nodes in `dir`. Their data directories may already exist there.
    pub fn start_in(dir: tempfile::TempDir) -> Cluster {
        let one = one_at_a_time();
        let base = port_base();
        let mut dev = Command::new(binary())
            .args(["dev", "--port-base", &base.to_string(), "--data"])
            .arg(dir.path())
            .env("BEDSTONE_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .expect("bedstone dev starts");
        let mut lines = BufReader::new(dev.stdout.take().expect("piped")).lines();
        let mut nodes = Vec::new();
        loop {
            let line = lines.next().expect("dev prints ready before it ends").expect("text");
            if line == "ready" {
                break;
            }
            let mut words = line.split(' ');
            let pid = words.nth(3).and_then(|pid| pid.parse().ok()).expect("node <i> pid <pid>");
            nodes.push(Node { pid, child: None });
        }
        Cluster { dev, dir, base, nodes, _one: one }
    }

    /// The client address of a node, 1 to 3.
    pub fn resp(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.base + 10 * node as u16)
    }

    /// The HTTP address of a node.
    pub fn http(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.base + 10 * node as u16 + 1)
    }

    /// The directory with the cluster's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Gets a page from a node's HTTP address; `None` when the node does not answer.
    pub fn get(&self, node: usize, path: &str) -> Option<(u16, String)> {
        http_get(&self.http(node), path)
    }

    /// A node's status.
    pub fn status(&self, node: usize) -> Option<serde_json::Value> {
        let (_, body) = self.get(node, "/status")?;
        serde_json::from_str(&body).ok()
    }

    /// Waits until all nodes that answer report the same leader, and returns that leader.
    pub fn leader(&self) -> usize {
        eventually("a leader", || {
            let mut leaders = (1..=3).filter_map(|node| {
                self.status(node)?["shards"][0]["leader"].as_u64().map(|leader| leader as usize)
            });
            let first = leaders.next()?;
            (first > 0 && leaders.all(|leader| leader == first)).then_some(first)
        })
    }

    /// Sends a signal to a node.
    pub fn signal(&self, node: usize, signal: Signal) {
        let pid = Pid::from_raw(self.nodes[node - 1].pid as i32).expect("a process");
        let _ = kill_process(pid, signal);
    }

    /// Kills a node with SIGKILL and waits for its end.
    pub fn kill(&mut self, node: usize) {
        self.signal(node, Signal::KILL);
        if let Some(child) = &mut self.nodes[node - 1].child {
            let _ = child.wait();
        }
        let pid = self.nodes[node - 1].pid;
        eventually("the killed node is gone", || has_ended(pid).then_some(()));
    }

    /// Starts a killed node again, and waits until it is ready.
    pub fn restart(&mut self, node: usize) {
        self.spawn(node);
        self.wait_ready(node);
    }

    /// Starts a killed node again.
    pub fn spawn(&mut self, node: usize) {
        let child = Command::new(binary())
            .args(["start", "--config"])
            .arg(self.config(node))
            .env("BEDSTONE_LOG", "warn")
            .spawn()
            .expect("bedstone start starts");
        self.nodes[node - 1] = Node { pid: child.id(), child: Some(child) };
    }

    /// Adds a setting to a node's configuration. Returns the previous text of the configuration.
    pub fn add_setting(&self, node: usize, line: &str) -> String {
        let file = self.config(node);
        let text = std::fs::read_to_string(&file).expect("the configuration is readable");
        std::fs::write(file, format!("{line}\n{text}")).expect("a file can be written");
        text
    }

    /// The path of a node's configuration.
    pub fn config(&self, node: usize) -> PathBuf {
        self.dir().join(format!("node{node}/bedstone.toml"))
    }

    /// Waits until a node is ready.
    pub fn wait_ready(&self, node: usize) {
        eventually("the node is ready", || {
            matches!(self.get(node, "/readyz"), Some((200, _))).then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 1..=self.nodes.len() {
            self.signal(node, Signal::CONT);
            self.signal(node, Signal::KILL);
            if let Some(child) = &mut self.nodes[node - 1].child {
                let _ = child.wait();
            }
        }
        if let Some(pid) = Pid::from_raw(self.dev.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.dev.wait();
    }
}

/// Whether a process has ended and released its ports. A zombie counts as ended, because its parent
/// may not have waited for it yet. All threads must have ended: other threads may still hold the
/// sockets while the first thread is a zombie.
fn has_ended(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat"));
        let state = stat.ok().and_then(|text| text.rsplit(") ").next()?.chars().next());
        state.is_none_or(|state| state == 'Z')
    })
}

/// Runs a command to its end. When the command fails, the error contains its standard error output.
pub fn run(program: &str, args: &[&str], input: &str) -> Result<(), String> {
    let why = |error: std::io::Error| format!("{program}: {error}");
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(why)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(why)?;
    }
    let output = child.wait_with_output().map_err(why)?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or(format!("{program} {}: {said}", args.join(" ")))
}

/// Starts `bedstone shard` with these arguments, for the node with this HTTP address.
pub fn shard(http: &str, words: &str) -> Child {
    Command::new(binary())
        .arg("shard")
        .args(words.split(' '))
        .args(["--http", http])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a command starts")
}

/// Sends one GET request; `None` when the server does not answer.
pub fn http_get(addr: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
