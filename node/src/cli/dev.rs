//! `bedstone dev`: a cluster of child processes on loopback, with its own certificate authority.

use super::http;
use super::output::print_line;
use crate::config::{Member, Settings};
use anyhow::{Context, Result, bail};
use bedstone_net::{Authority, NodeId};
use std::fs;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The cluster's name.
const CLUSTER: &str = "dev";
/// Time that the nodes have to become ready.
const READY_TIME: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// The keys of a configuration that follow from `--nodes` and `--port-base`.
const ADDRESSES: [&str; 4] = ["resp", "http", "peer", "members"];
/// Time that the nodes have to stop, before the command kills them.
const STOP_TIME: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(super) struct DevArgs {
    /// Number of nodes: 1 to 9.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Directory for the certificate authority and the directories of the nodes. The command
    /// creates the directory if it does not exist.
    #[arg(long, default_value = "bedstone-dev", value_name = "DIR")]
    data: PathBuf,
    /// First port number. Node i uses the ports N + 10 i (RESP), N + 10 i + 1 (HTTP) and
    /// N + 10 i + 2 (peer), where N is this number.
    #[arg(long, default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..=65000))]
    port_base: u16,
}

pub(super) fn run(args: DevArgs) -> Result<()> {
    let members: Vec<Member> = (1..=args.nodes).map(|node| member(node, args.port_base)).collect();
    fs::create_dir_all(&args.data)
        .with_context(|| format!("cannot create {}", args.data.display()))?;
    let authority = authority(&args.data)?;
    for member in &members {
        configure(&args.data, member, &members, &authority)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        // The handlers are installed before the first child starts: a signal that arrived earlier
        // would end this process and leave the children running.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut children = Children(Vec::new());
        for member in &members {
            let config = config_path(&args.data, member);
            let child = Command::new(std::env::current_exe()?)
                .args(["start", "--config"])
                .arg(&config)
                .stdin(Stdio::null())
                // The child gets its own process group: Ctrl-C then reaches only this process,
                // which stops the nodes.
                .process_group(0)
                .spawn()
                .with_context(|| format!("cannot start node {}", member.node))?;
            print_line(format!(
                "node {} pid {} resp {} http {} peer {}",
                member.node,
                child.id(),
                member.resp,
                member.http,
                member.peer
            ));
            children.0.push((member.node, child));
        }
        let stopped = async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        };
        tokio::pin!(stopped);
        tokio::select! {
            () = &mut stopped => return Ok(()),
            ready = wait_ready(&members, &mut children) => ready?,
        }
        print_line("ready");
        if std::io::stderr().is_terminal() {
            eprintln!(
                "try: redis-cli -p {} set hello world; stop with Ctrl-C",
                members[0].resp.rsplit(':').next().unwrap_or("7410")
            );
        }
        stopped.await;
        drop(children);
        Ok(())
    })
}

fn member(node: u16, base: u16) -> Member {
    let addr = |offset| SocketAddr::from(([127, 0, 0, 1], base + 10 * node + offset)).to_string();
    Member { node: NodeId(u64::from(node)), resp: addr(0), http: addr(1), peer: addr(2) }
}

fn node_dir(data: &Path, member: &Member) -> PathBuf {
    data.join(format!("node{}", member.node))
}

fn config_path(data: &Path, member: &Member) -> PathBuf {
    node_dir(data, member).join("bedstone.toml")
}

/// The certificate authority of this directory, created at the first start.
fn authority(data: &Path) -> Result<Authority> {
    let (cert, key) = (data.join("ca.pem"), data.join("ca-key.pem"));
    if cert.exists() && key.exists() {
        return Ok(Authority::from_pem(&fs::read_to_string(cert)?, &fs::read_to_string(key)?)?);
    }
    let authority = Authority::generate(CLUSTER)?;
    write_private(&key, &authority.key_pem)?;
    fs::write(cert, &authority.cert_pem)?;
    Ok(authority)
}

/// Writes the configuration of a node, and its certificate and key if the node has no key. An
/// existing configuration keeps everything but its addresses.
fn configure(
    data: &Path,
    member: &Member,
    members: &[Member],
    authority: &Authority,
) -> Result<()> {
    let dir = node_dir(data, member);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::write(dir.join("ca.pem"), &authority.cert_pem)?;
    if !dir.join("key.pem").exists() {
        let identity = authority.issue(member.node, CLUSTER)?;
        fs::write(dir.join("cert.pem"), &identity.cert_pem)?;
        write_private(&dir.join("key.pem"), &identity.key_pem)?;
    }
    let settings = Settings {
        node: Some(member.node.0),
        cluster: Some(CLUSTER.to_owned()),
        disk: Some(vec!["data".into()]),
        resp: Some(member.resp.parse()?),
        http: Some(member.http.parse()?),
        peer: Some(member.peer.parse()?),
        members: Some(members.iter().map(Member::to_string).collect()),
        ca: Some("ca.pem".into()),
        cert: Some("cert.pem".into()),
        key: Some("key.pem".into()),
        ..Settings::default()
    };
    let path = config_path(data, member);
    let mut table = toml::Table::try_from(settings)?;
    if let Ok(text) = fs::read_to_string(&path) {
        let mut present: toml::Table =
            toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        table.retain(|key, _| ADDRESSES.contains(&key));
        if table.iter().all(|(key, value)| present.get(key) == Some(value)) {
            return Ok(());
        }
        eprintln!("bedstone: changes the addresses in {}", path.display());
        present.extend(table);
        table = present;
    }
    fs::write(path, toml::to_string_pretty(&table)?)?;
    Ok(())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())?;
    Ok(())
}

async fn wait_ready(members: &[Member], children: &mut Children) -> Result<()> {
    let deadline = crate::clock::now() + READY_TIME;
    for member in members {
        loop {
            for (node, child) in &mut children.0 {
                if let Some(status) = child.try_wait()? {
                    bail!("node {node} ended before it was ready ({status}): see the text above");
                }
            }
            let answer = http::get(&member.http, "/readyz", POLL * 10);
            if matches!(answer, Ok((200, _))) {
                break;
            }
            if crate::clock::now() > deadline {
                bail!("node {} is not ready after {} s", member.node, READY_TIME.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// The processes of the nodes. A drop of this value sends SIGTERM to each process, and kills the
/// processes that still run after [`STOP_TIME`].
struct Children(Vec<(NodeId, Child)>);

impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in &self.0 {
            if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let deadline = crate::clock::now() + STOP_TIME;
        for (_, child) in &mut self.0 {
            while matches!(child.try_wait(), Ok(None)) {
                if crate::clock::now() > deadline {
                    let _ = child.kill();
                }
                std::thread::sleep(POLL);
            }
        }
    }
}
