//! A cluster of real processes, each in a network namespace of its own on one bridge. A test can
//! cut the links between nodes and make them lose packets, while clients still reach every node.
//! Needs root, `ip` and `nft`.

use crate::cluster::{binary, eventually, http_get, one_at_a_time, run};
use bedstone_net::{Authority, NodeId};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::MutexGuard;

/// The numbers of the nodes.
pub const NODES: [usize; 3] = [1, 2, 3];
/// The number of a node that is not a member at first.
pub const SPARE: usize = 4;
const HOSTS: [usize; 4] = [1, 2, 3, SPARE];
const CLUSTER: &str = "namespaces";

/// A fault on the packets that a node sends to other nodes.
#[derive(Clone, Copy)]
pub enum Rule {
    /// No packet from the first node arrives at the second.
    Cut(usize, usize),
    /// The node loses this percentage of the packets that it sends to its peers.
    Loss(usize, u32),
}

impl Rule {
    /// Cuts both directions between two nodes.
    pub fn link(one: usize, other: usize) -> [Rule; 2] {
        [Rule::Cut(one, other), Rule::Cut(other, one)]
    }
}

/// The cluster. Dropping it ends its processes and removes its network.
pub struct Namespaces {
    dir: tempfile::TempDir,
    /// A part of the network's names and addresses.
    net: u32,
    children: [Option<Child>; 4],
    authority: Authority,
    _one: MutexGuard<'static, ()>,
}

impl Namespaces {
    /// Starts three nodes and waits until they are ready. The error gives the reason when the
    /// machine does not allow this.
    pub fn start() -> Result<Namespaces, String> {
        let net = 1 + std::process::id() % 250;
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let authority = Authority::generate(CLUSTER).map_err(|error| error.to_string())?;
        let (children, _one) = ([const { None }; 4], one_at_a_time());
        let mut cluster = Namespaces { dir, net, children, authority, _one };
        run("nft", &["--version"], "")?;
        cluster.make_network()?;
        cluster.configure(&NODES);
        NODES.into_iter().for_each(|node| cluster.spawn(node));
        NODES.into_iter().for_each(|node| cluster.wait_ready(node));
        Ok(cluster)
    }

    fn make_network(&self) -> Result<(), String> {
        let bridge = format!("bst{}", self.net);
        let ip = |args: String| run("ip", &args.split(' ').collect::<Vec<_>>(), "");
        ip(format!("link add {bridge} type bridge"))?;
        ip(format!("addr add {}/24 dev {bridge}", self.address(254)))?;
        ip(format!("link set {bridge} up"))?;
        for node in HOSTS {
            let (space, link) = (self.space(node), format!("{bridge}v{node}"));
            ip(format!("netns add {space}"))?;
            ip(format!("link add {link} type veth peer name eth0 netns {space}"))?;
            ip(format!("link set {link} master {bridge}"))?;
            ip(format!("link set {link} up"))?;
            ip(format!("-n {space} addr add {}/24 dev eth0", self.address(node)))?;
            ip(format!("-n {space} link set eth0 up"))?;
            ip(format!("-n {space} link set lo up"))?;
        }
        Ok(())
    }

    fn space(&self, node: usize) -> String {
        format!("bst{}n{node}", self.net)
    }

    fn address(&self, host: usize) -> String {
        format!("10.219.{}.{host}", self.net)
    }

    fn node_dir(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node{node}"))
    }

    /// Writes the configurations of these nodes. Each configuration names all of them.
    pub fn configure(&self, nodes: &[usize]) {
        let members = nodes.iter().map(|&node| {
            let at = self.address(node);
            format!("\"{node}={at}:7412,{at}:7410,{at}:7411\"")
        });
        let members = members.collect::<Vec<_>>().join(", ");
        for &node in nodes {
            let (dir, at) = (self.node_dir(node), self.address(node));
            std::fs::create_dir_all(&dir).expect("a directory");
            let identity =
                self.authority.issue(NodeId(node as u64), CLUSTER).expect("a certificate");
            let write = |name: &str, text: &str| {
                std::fs::write(dir.join(name), text).expect("a file can be written");
            };
            write("ca.pem", &self.authority.cert_pem);
            write("cert.pem", &identity.cert_pem);
            write("key.pem", &identity.key_pem);
            let config = format!(
                "node = {node}\ncluster = \"{CLUSTER}\"\ndisk = [\"data\"]\n\
                 resp = \"{at}:7410\"\nhttp = \"{at}:7411\"\npeer = \"{at}:7412\"\n\
                 members = [{members}]\nca = \"ca.pem\"\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"
            );
            write("bedstone.toml", &config);
        }
    }

    /// The client address of a node.
    pub fn resp(&self, node: usize) -> String {
        format!("{}:7410", self.address(node))
    }

    /// The HTTP address of a node.
    pub fn http(&self, node: usize) -> String {
        format!("{}:7411", self.address(node))
    }

    /// Rules that cut a node off from all other nodes.
    pub fn alone(node: usize) -> Vec<Rule> {
        let others = NODES.into_iter().filter(|&other| other != node);
        others.flat_map(|other| Rule::link(node, other)).collect()
    }

    /// A node's status.
    pub fn status(&self, node: usize) -> Option<serde_json::Value> {
        let (_, body) = http_get(&self.http(node), "/status")?;
        serde_json::from_str(&body).ok()
    }

    /// The leader and its term according to a node; `None` when the node does not answer or has no
    /// leader.
    pub fn leader_seen_by(&self, node: usize) -> Option<(usize, u64)> {
        let shard = &self.status(node)?["shards"][0];
        let (leader, term) = (shard["leader"].as_u64()?, shard["term"].as_u64()?);
        (leader > 0).then_some((leader as usize, term))
    }

    /// Waits until all nodes report the same leader in the same term, and returns that leader.
    pub fn leader(&self) -> usize {
        eventually("a leader", || {
            let seen = NODES.map(|node| self.leader_seen_by(node));
            let first = seen[0]?;
            seen.iter().all(|seen| *seen == Some(first)).then_some(first.0)
        })
    }

    /// Adds a setting to a node's configuration. The node reads it at its next start.
    pub fn add_setting(&self, node: usize, line: &str) {
        let file = self.node_dir(node).join("bedstone.toml");
        let config = std::fs::read_to_string(&file).expect("the configuration is readable");
        std::fs::write(file, format!("{line}\n{config}")).expect("a file can be written");
    }

    /// Kills a node and removes its data.
    pub fn lose_disk(&mut self, node: usize) {
        self.kill(node);
        std::fs::remove_dir_all(self.node_dir(node).join("data")).expect("its data is removed");
    }

    /// Starts a node.
    pub fn spawn(&mut self, node: usize) {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.space(node)])
            .arg(binary())
            .args(["start", "--config"])
            .arg(self.node_dir(node).join("bedstone.toml"))
            .env("BEDSTONE_LOG", "warn")
            .spawn()
            .expect("a node starts");
        self.children[node - 1] = Some(child);
    }

    /// Waits until a node is ready.
    pub fn wait_ready(&self, node: usize) {
        eventually("the node is ready", || {
            let answer = http_get(&self.http(node), "/readyz");
            matches!(answer, Some((200, _))).then_some(())
        });
    }

    /// Sends a signal to a node.
    pub fn signal(&self, node: usize, signal: Signal) {
        let pid = self.children[node - 1].as_ref().and_then(|c| Pid::from_raw(c.id() as i32));
        let _ = pid.map(|pid| kill_process(pid, signal));
    }

    /// Kills a node with SIGKILL and waits for its end.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.children[node - 1].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Replaces all rules by these rules.
    pub fn set(&self, rules: &[Rule]) {
        for node in NODES {
            let lines: String = rules
                .iter()
                .map(|rule| match *rule {
                    Rule::Cut(from, to) if from == node => {
                        format!("    ip daddr {} drop\n", self.address(to))
                    }
                    Rule::Loss(from, percent) if from == node => {
                        format!("    udp dport 7412 numgen random mod 100 < {percent} drop\n")
                    }
                    _ => String::new(),
                })
                .collect();
            let hook = "type filter hook output priority 0; policy accept;";
            let chain = format!("  chain out {{\n    {hook}\n{lines}  }}\n");
            let table = format!("flush ruleset\ntable inet bedstone {{\n{chain}}}\n");
            let space = self.space(node);
            run("ip", &["netns", "exec", &space, "nft", "-f", "-"], &table).expect("nft succeeds");
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in HOSTS {
            self.signal(node, Signal::CONT);
            self.kill(node);
            let _ = run("ip", &["netns", "del", &self.space(node)], "");
        }
        let _ = run("ip", &["link", "del", &format!("bst{}", self.net)], "");
    }
}
