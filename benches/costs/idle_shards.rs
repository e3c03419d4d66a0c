//! The cost of unused shards: three nodes as separate processes, with real disks and real QUIC
//! between them, and the share of a core that all three use once every shard is quiescent.
//!
//!     bedstone-idle-shards <shards> <seconds>

use anyhow::{Context, Result, bail};
use bedstone_net::{Authority, NodeId};
use bedstone_node::config::{Member, Settings};
use bedstone_node::start;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const CLUSTER: &str = "idle";
const USAGE: &str = "usage: bedstone-idle-shards <shards> <seconds>";
/// Pause between two checks whether all shards are quiescent.
const LOOK: Duration = Duration::from_millis(500);
/// Time limit for elections, and until all shards are quiescent.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["node", shards, config] => node(shards.parse()?, Path::new(config)),
        [shards, seconds] => measure(shards, Duration::from_secs(seconds.parse()?)),
        _ => bail!(USAGE),
    }
}

/// Runs one of the nodes.
fn node(shards: u64, config: &Path) -> Result<()> {
    let mut config = Settings::read(config)?.check()?;
    config.shards = shards;
    start::run(config)
}

/// The node processes, which end when this value is dropped.
struct Nodes(Vec<(Child, SocketAddr)>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn measure(shards: &str, time: Duration) -> Result<()> {
    let dir = tempfile::tempdir_in(".")?;
    let nodes = start_nodes(dir.path(), shards)?;
    let begun = Instant::now();
    while !nodes
        .0
        .iter()
        .all(|(_, http)| active_shards(*http).is_ok_and(|active_shards| active_shards == 0))
    {
        if begun.elapsed() > PATIENCE {
            bail!("the shards did not become quiescent in time");
        }
        std::thread::sleep(LOOK);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{shards} shards on three nodes are quiescent after {:.0?}", begun.elapsed())?;
    // The first rounds of the background work follow an election, so the nodes are not idle yet.
    std::thread::sleep(time / 4);
    let (before, begun) = (cpu(&nodes)?, Instant::now());
    std::thread::sleep(time);
    let (after, elapsed) = (cpu(&nodes)?, begun.elapsed());
    let mut total = Duration::ZERO;
    for ((name, after), (_, before)) in after.iter().zip(&before) {
        let taken = after.saturating_sub(*before);
        total += taken;
        writeln!(out, "{name:>24} {:.3} % of a core", share(taken, elapsed))?;
    }
    writeln!(out, "all three nodes: {:.3} % of a core", share(total, elapsed))?;
    Ok(())
}

fn share(taken: Duration, of: Duration) -> f64 {
    taken.as_secs_f64() / of.as_secs_f64() * 100.0
}

fn start_nodes(dir: &Path, shards: &str) -> Result<Nodes> {
    let authority = Authority::generate(CLUSTER)?;
    // All sockets are held until all ports are drawn, so that no port is drawn twice.
    let sockets = (0..3).map(|_| -> Result<_> {
        let tcp = || TcpListener::bind("127.0.0.1:0");
        Ok((UdpSocket::bind("127.0.0.1:0")?, tcp()?, tcp()?))
    });
    let sockets = sockets.collect::<Result<Vec<_>>>()?;
    let members = sockets.iter().zip(1..).map(|((peer, resp, http), node)| -> Result<_> {
        let (peer, resp, http) = (peer.local_addr()?, resp.local_addr()?, http.local_addr()?);
        let [peer, resp, http] = [peer, resp, http].map(|addr| addr.to_string());
        Ok(Member { node: NodeId(node), peer, resp, http })
    });
    let members = members.collect::<Result<Vec<_>>>()?;
    drop(sockets);
    let mut nodes = Nodes(Vec::new());
    for member in &members {
        let home = dir.join(member.node.to_string());
        fs::create_dir(&home)?;
        let identity = authority.issue(member.node, CLUSTER)?;
        fs::write(home.join("ca.pem"), &identity.authority_pem)?;
        fs::write(home.join("cert.pem"), &identity.cert_pem)?;
        fs::write(home.join("key.pem"), &identity.key_pem)?;
        let all = members.iter().map(|member| format!("\"{member}\"")).collect::<Vec<_>>();
        let text = format!(
            "node = {}\ncluster = \"{CLUSTER}\"\ndisk = [\"data\"]\npeer = \"{}\"\n\
             resp = \"{}\"\nhttp = \"{}\"\nmembers = [{}]\nca = \"ca.pem\"\n\
             cert = \"cert.pem\"\nkey = \"key.pem\"\n",
            member.node,
            member.peer,
            member.resp,
            member.http,
            all.join(", ")
        );
        let config = home.join("bedstone.toml");
        fs::write(&config, text)?;
        let child = Command::new(std::env::current_exe()?)
            .args(["node", shards])
            .arg(&config)
            .spawn()
            .context("cannot start a node")?;
        nodes.0.push((child, member.http.parse()?));
    }
    Ok(nodes)
}

/// The number of shards of a node that are not quiescent.
fn active_shards(http: SocketAddr) -> Result<u64> {
    let mut stream = TcpStream::connect(http)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix("bedstone_raft_shards_active "));
    let leads = text.lines().any(|line| line == "bedstone_raft_has_leader 1");
    if !leads {
        bail!("not all shards have a leader");
    }
    Ok(line.context("the node reports no count")?.parse()?)
}

/// The processor time of each thread of the nodes so far.
fn cpu(nodes: &Nodes) -> Result<Vec<(String, Duration)>> {
    let mut all = Vec::new();
    for (child, _) in &nodes.0 {
        let mut threads: Vec<_> =
            fs::read_dir(format!("/proc/{}/task", child.id()))?.collect::<Result<_, _>>()?;
        threads.sort_by_key(fs::DirEntry::file_name);
        for thread in threads {
            let read = |file: &str| fs::read_to_string(thread.path().join(file));
            let (name, stat) = (read("comm")?, read("schedstat")?);
            let nanos = stat.split(' ').next().unwrap_or_default().parse()?;
            all.push((name.trim().to_owned(), Duration::from_nanos(nanos)));
        }
    }
    Ok(all)
}
