//! What shards cost that nobody uses: three nodes as processes of their own, with real disks and
//! real QUIC between them, and the share of a core that all three take once every shard rests.
//!
//!     bedstone-idle-shards <shards> <seconds>

use anyhow::{Context, Result, bail};
use bedstone_net::Authority;
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
/// Between two looks whether all shards rest.
const LOOK: Duration = Duration::from_millis(500);
/// For elections, and until all rest.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["node", shards, config] => node(shards.parse()?, Path::new(config)),
        [shards, seconds] => measure(shards, Duration::from_secs(seconds.parse()?)),
        _ => bail!(USAGE),
    }
}

/// One of the nodes.
fn node(shards: u64, config: &Path) -> Result<()> {
    let mut config = Settings::read(config)?.check()?;
    config.shards = shards;
    start::run(config)
}

/// The nodes, which end with it.
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
    while !nodes.0.iter().all(|(_, http)| awake(*http).is_ok_and(|awake| awake == 0)) {
        if begun.elapsed() > PATIENCE {
            bail!("the shards do not come to rest");
        }
        std::thread::sleep(LOOK);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{shards} shards on three nodes rest after {:.0?}", begun.elapsed())?;
    // What follows an election is not rest yet: the first rounds of the background work.
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
    // Held until all are drawn, so that none is drawn twice.
    let sockets = (0..3).map(|_| -> Result<_> {
        let tcp = || TcpListener::bind("127.0.0.1:0");
        Ok((UdpSocket::bind("127.0.0.1:0")?, tcp()?, tcp()?))
    });
    let sockets = sockets.collect::<Result<Vec<_>>>()?;
    let members = sockets.iter().zip(1..).map(|((peer, resp, http), node)| -> Result<_> {
        let (peer, resp, http) = (peer.local_addr()?, resp.local_addr()?, http.local_addr()?);
        let [peer, resp, http] = [peer, resp, http].map(|addr| addr.to_string());
        Ok(Member { node, peer, resp, http })
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
            .context("a node does not start")?;
        nodes.0.push((child, member.http.parse()?));
    }
    Ok(nodes)
}

/// How many shards of a node do not rest.
fn awake(http: SocketAddr) -> Result<u64> {
    let mut stream = TcpStream::connect(http)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix("bedstone_raft_shards_awake "));
    let leads = text.lines().any(|line| line == "bedstone_raft_has_leader 1");
    if !leads {
        bail!("not all shards have a leader");
    }
    Ok(line.context("the node does not say")?.parse()?)
}

/// Processor time of each thread of the nodes so far.
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
