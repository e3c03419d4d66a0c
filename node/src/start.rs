//! Putting a node together: files, sockets, threads, in an order in which each failure has a name.

use crate::api::http;
use crate::api::members::Operate;
use crate::api::port::Replies;
use crate::api::server;
use crate::api::shared::Shared;
use crate::bootstrap::{self, Begun};
use crate::config::Config;
use crate::doubt::Doubt;
use crate::driver::group::Group;
use crate::driver::{Driver, DriverInbox, Input, State, background, logger};
use crate::limits::{Limits, TICK};
use crate::metrics::Metrics;
use crate::raft::{Conf, Lease};
use crate::shard::system;
use crate::status::{NodeStatus, StatusCell};
use anyhow::{Context, Result, anyhow};
use bedstone_engine::disk::os::OsDisk;
use bedstone_engine::limits::Limits as EngineLimits;
use bedstone_engine::wal::HardState;
use bedstone_engine::{Engine, LogId, Options, ShardId};
use bedstone_net::{Endpoint, Identity, Peer};
use crossbeam_channel::{Sender, bounded, unbounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Where Linux names each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The shard that has all keys, in this version.
pub const SHARD: ShardId = 1;

/// Runs a node until it is told to stop or cannot go on.
///
/// # Errors
/// What is wrong with the data, a port, a certificate or the disk, and what to do about it.
pub fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Ports first: a second start of the same node should say so before it touches the data.
    let resp = runtime
        .block_on(TcpListener::bind(config.resp))
        .with_context(|| format!("cannot listen for clients on {} (`resp`)", config.resp))?;
    let http = runtime
        .block_on(TcpListener::bind(config.http))
        .with_context(|| format!("cannot listen for operators on {} (`http`)", config.http))?;
    raise_open_files();
    let disk = Arc::new(OsDisk::open(&config.disk)?);
    let engine = Arc::new(open_engine(&config, disk.clone())?);
    let configured = Conf::of(config.members.iter().map(|member| member.node));
    let shards = SHARD..SHARD + config.shards;
    let begun = shards.clone().map(|shard| begun(&engine, shard)).collect::<Result<Vec<_>>>()?;
    if config.join && begun.iter().any(|begun| *begun != Begun::No) {
        warn!(
            "take `join` out of the configuration: with it, a node whose disk was lost believes \
             that it never voted"
        );
    }
    let first = if config.join { Conf::default() } else { configured.clone() };
    let conf = bootstrap::first_members(&*disk, first, config.node, &begun)?;
    let mut limits = Limits { follower_reads: config.follower_reads, ..Limits::DEFAULT };
    limits.raft.lease = config
        .lease_drift_ppm
        .map(|drift| Lease::new(limits.raft.election.start, TICK.as_nanos() as u64, drift));
    let doubt = config.suspect_disk_after_reboot.then(|| open_doubt(disk)).transpose()?;
    let doubted = doubt.as_ref().is_some_and(Doubt::is_open);
    if doubted {
        info!(
            "the machine was started since this node was last sure of its disk: it asks the others"
        );
    }
    let open = |shard| -> Result<(ShardId, Group)> {
        let (conf, seed) = (conf.clone(), random()?);
        Ok((shard, Group::open(&engine, shard, config.node, conf, &limits, seed, doubted)?))
    };
    let groups = shards.map(open).collect::<Result<BTreeMap<_, _>>>()?;
    for (shard, group) in &groups {
        for peer in
            group.raft().conf().members().iter().filter(|id| !configured.voters.contains(id))
        {
            warn!(shard, peer, "`members` in the configuration lacks a member: it is not reached");
        }
    }
    let tree = groups[&SHARD].tree().clone();
    let (inputs, input) = unbounded();
    let inbox = DriverInbox::new(inputs.clone());
    let frames = inbox.counter();
    let (endpoint, outbox) = start_net(&config, runtime.handle(), inbox)?;
    let metrics = Arc::new(Metrics::default());
    let status = Arc::new(StatusCell::default());
    let replies = Arc::new(Replies::default());
    let (log, log_jobs) = unbounded();
    let (calls, called) = bounded(1);
    let nodes = config.members.iter().map(|member| NodeStatus {
        id: member.node,
        resp: member.resp.clone(),
        http: member.http.clone(),
        peer: member.peer.clone(),
        alive: false,
    });
    let driver = Driver {
        node: config.node,
        engine: engine.clone(),
        state: State::new(groups.keys().copied()),
        groups,
        inputs: input,
        frames,
        outbox,
        log,
        background: calls,
        replies: replies.clone(),
        metrics: metrics.clone(),
        status: status.clone(),
        cluster: config.cluster.clone(),
        nodes: nodes.collect(),
        path: config.disk.display().to_string(),
        started: crate::clock::now(),
        clock: Box::new(crate::clock::now),
        snapshot_bytes_per_second: config.snapshot_bytes_per_second,
        doubt,
    };
    let submit = inputs.clone();
    let shared = Arc::new(Shared {
        node: config.node,
        nodes: config.members.iter().map(|member| member.node).collect(),
        tree,
        allow_flush: config.allow_flush,
        submit: Box::new(move |batch| {
            let _ = submit.send(Input::Client(batch));
        }),
        cursors: Default::default(),
        status,
        counters: Default::default(),
    });
    let operate_inputs = inputs.clone();
    let operate: Operate = Arc::new(move |shard, members, answer| {
        let _ = operate_inputs.send(Input::Members(shard, members, answer));
    });
    let (done, mut failed) = tokio::sync::oneshot::channel();
    let threads = start_threads(driver, &engine, &inputs, &metrics, log_jobs, called, done)?;
    info!(node = config.node, resp = %config.resp, http = %config.http, peer = %config.peer,
          write_mode = ?engine.write_mode(), "started");
    let outcome = runtime.block_on(async {
        tokio::spawn(replies.distribute());
        tokio::spawn(server::listen(resp, shared.clone()));
        tokio::spawn(http::serve(
            http,
            http::State { shared, metrics, endpoint: endpoint.clone(), operate },
        ));
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            why = &mut failed => match why {
                Ok(Err(why)) => Err(anyhow!(why)),
                _ => Err(anyhow!("the driver stopped: its thread panicked")),
            },
        }
    });
    endpoint.close();
    let _ = inputs.send(Input::Stop);
    for thread in threads {
        let _ = thread.join();
    }
    outcome
}

/// Tables, log slots and connections are open files, and the usual soft limit is for programs that
/// cannot have many. Where it cannot be raised, an operation that meets it says so.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn open_engine(config: &Config, disk: Arc<OsDisk>) -> Result<Engine> {
    let limits = EngineLimits {
        memtable_bytes: config.memtable_bytes,
        segment_bytes: config.segment_bytes,
        reserve_bytes: config.reserve_bytes,
        ..EngineLimits::DEFAULT
    };
    let options = Options {
        limits,
        write_mode: config.write_mode,
        cache_bytes: config.cache_bytes,
        owner: format!("node {} of cluster {}", config.node, config.cluster),
        new_store_id: u128::from(random()?) << 64 | u128::from(random()?),
        threads: false,
    };
    let engine = Engine::open(disk, options)?;
    while engine.log().wants_slot() {
        engine.log().allocate_slot()?;
    }
    Ok(engine)
}

/// What the disk has of a shard.
fn begun(engine: &Engine, shard: ShardId) -> Result<Begun> {
    let (log, tree) = (engine.log(), engine.open_shard(shard)?);
    if system::members(&tree)?.is_some() {
        return Ok(Begun::Said);
    }
    let in_log = log.hard_state(shard) != HardState::default() || log.check_whole(shard).is_err();
    Ok(if in_log || tree.applied() != LogId::default() { Begun::Unsaid } else { Begun::No })
}

fn open_doubt(disk: Arc<OsDisk>) -> Result<Doubt> {
    let boot = std::fs::read_to_string(BOOT_ID).with_context(|| {
        format!("cannot read {BOOT_ID}, which `suspect_disk_after_reboot` needs")
    })?;
    Ok(Doubt::new(disk, boot.trim()))
}

fn start_net(
    config: &Config,
    runtime: &tokio::runtime::Handle,
    inbox: DriverInbox,
) -> Result<(Arc<Endpoint>, bedstone_net::Outbox)> {
    let identity = match &config.tls {
        Some([ca, cert, key]) => {
            let read = |path: &std::path::Path| {
                std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the certificate file {}", path.display()))
            };
            Identity { authority_pem: read(ca)?, cert_pem: read(cert)?, key_pem: read(key)? }
        }
        // Alone in its cluster: nobody can connect, nobody has a certificate of this authority.
        None => bedstone_net::Authority::generate(&config.cluster)?
            .issue(config.node, &config.cluster)?,
    };
    let others = config.members.iter().filter(|member| member.node != config.node);
    let peers = others.map(|member| Peer { node: member.node, addr: member.peer.clone() });
    let net = bedstone_net::Config {
        node: config.node,
        cluster: config.cluster.clone(),
        boot: crate::clock::unix_millis(),
        listen: config.peer,
        identity,
        peers: peers.collect(),
    };
    let (endpoint, outbox) = Endpoint::start(runtime, net, Arc::new(inbox))?;
    Ok((Arc::new(endpoint), outbox))
}

fn start_threads(
    driver: Driver,
    engine: &Arc<Engine>,
    inputs: &Sender<Input>,
    metrics: &Arc<Metrics>,
    log_jobs: crossbeam_channel::Receiver<logger::LogJob>,
    called: crossbeam_channel::Receiver<()>,
    done: tokio::sync::oneshot::Sender<Result<(), String>>,
) -> Result<Vec<JoinHandle<()>>> {
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.to_owned()).spawn(run)
    };
    let (log_engine, log_inputs, log_metrics) = (engine.clone(), inputs.clone(), metrics.clone());
    let (work_engine, work_inputs, work_metrics) =
        (engine.clone(), inputs.clone(), metrics.clone());
    Ok(vec![
        spawn(
            "bedstone-log",
            Box::new(move || {
                logger::run(&log_engine, &log_jobs, &log_inputs, &log_metrics);
            }),
        )?,
        spawn(
            "bedstone-compact",
            Box::new(move || {
                background::run(&work_engine, &called, &work_inputs, &work_metrics);
            }),
        )?,
        spawn(
            "bedstone-driver",
            Box::new(move || {
                let _ = done.send(driver.run());
            }),
        )?,
    ])
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| anyhow!("the system gives no random numbers: {error}"))
}
