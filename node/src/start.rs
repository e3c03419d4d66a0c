//! Start of a node: opens ports and files and starts threads, in an order in which each failure has
//! its own error message.

use crate::api::http;
use crate::api::http_guard;
use crate::api::http_state::{self, Operate};
use crate::api::server;
use crate::api::shared::Shared;
use crate::bootstrap::{self, ShardData};
use crate::cluster::publish::Publisher;
use crate::config::Config;
use crate::disk_unit::trust::DiskTrust;
use crate::disk_unit::{DiskEvent, DiskNumber, DiskQueues, DiskUnit, background, logger};
use crate::limits::{Limits, STOP_TICKS, STOP_TIME, TICK};
use crate::machine::StateMachine;
use crate::metrics::Metrics;
use crate::raft::{Conf, Lease, Member};
use crate::replica::Replica;
use crate::replica::members::stored_members;
use crate::replica::open::Opening;
use crate::request::mailbox::ReplyQueue;
use crate::router::{FIRST_SHARD, Router};
use crate::status::{NodeStatus, StatusCell};
use crate::worker::inbox::WorkerInbox;
use crate::worker::{Disk, Input, State, Worker};
use anyhow::{Context, Result, anyhow};
use bedstone_engine::disk::os::OsDisk;
use bedstone_engine::limits::Limits as EngineLimits;
use bedstone_engine::wal::HardState;
use bedstone_engine::{Engine, LogId, Options, ShardId};
use bedstone_net::{Endpoint, Identity, Peer};
use crossbeam_channel::{Sender, unbounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

/// The file in which Linux keeps a random id of the present boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Runs a node until it receives a signal to stop or cannot continue.
///
/// # Errors
/// The fault of the data, a port, a certificate or the disk, and the operator's next step.
pub fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The ports are opened first: a second start of the same node fails before it touches the data.
    let resp = runtime
        .block_on(TcpListener::bind(config.resp))
        .with_context(|| format!("cannot listen for clients on {} (`resp`)", config.resp))?;
    let http = runtime
        .block_on(TcpListener::bind(config.http))
        .with_context(|| format!("cannot listen for operators on {} (`http`)", config.http))?;
    raise_open_files();
    let (inputs, input) = unbounded();
    let metrics = Arc::new(Metrics::default());
    let disk = open_disk(&config)?;
    let replicas = open_replicas(&config, &disk, &metrics)?;
    let machine = |replica: &Replica| replica.machine().clone();
    let machines = replicas.iter().map(|(&shard, replica)| (shard, machine(replica)));
    let router = Arc::new(Router::new(machines.collect::<BTreeMap<_, Arc<dyn StateMachine>>>()));
    let inbox = WorkerInbox::new(inputs.clone());
    let frames = inbox.counter();
    let (endpoint, outbox) = start_net(&config, runtime.handle(), inbox)?;
    let status = Arc::new(StatusCell::default());
    let reply_queue = Arc::new(ReplyQueue::default());
    let (cluster, nodes) = (config.cluster.clone(), nodes(&config));
    let write_mode = disk.engine.write_mode();
    let worker = Worker {
        disks: vec![Disk::new(disk.unit, disk.trust)],
        state: State::new(replicas.keys().copied()),
        replicas,
        router: router.clone(),
        inputs: input,
        frames,
        outbox,
        reply_queue: reply_queue.clone(),
        metrics: metrics.clone(),
        publisher: Publisher::new(status.clone(), cluster, config.node, nodes),
        started: crate::clock::now(),
        clock: Box::new(crate::clock::now),
        snapshot_bytes_per_second: config.snapshot_bytes_per_second,
    };
    let submit = inputs.clone();
    let (stopping, stops) = watch::channel(false);
    let shared = Arc::new(Shared {
        node: config.node,
        nodes: config.members.iter().map(|member| member.node).collect(),
        router,
        allow_flush: config.allow_flush,
        submit: Box::new(move |batch| {
            let _ = submit.send(Input::Client(batch));
        }),
        cursors: Default::default(),
        status,
        counters: Default::default(),
        stops,
    });
    let operate_inputs = inputs.clone();
    let operate: Operate = Arc::new(move |shard, request, reply| {
        let _ = operate_inputs.send(Input::Admin(shard, request, reply));
    });
    let (done, mut failed) = tokio::sync::oneshot::channel();
    let mut threads = serve_disk(DiskNumber(0), &disk.engine, disk.queues, &inputs, &metrics)?;
    threads.push(spawn("bedstone-worker", move || {
        let _ = done.send(worker.run());
    })?);
    info!(node = config.node.0, resp = %config.resp, http = %config.http, peer = %config.peer,
          ?write_mode, "started");
    let outcome = runtime.block_on(async {
        tokio::spawn(reply_queue.distribute());
        let listener = tokio::spawn(server::listen(resp, shared.clone()));
        let state = http_state::State {
            shared: shared.clone(),
            metrics,
            endpoint: endpoint.clone(),
            operate,
        };
        let names = config.members.iter().map(|member| &member.http).chain(&config.http_hosts);
        let hosts = http_guard::hosts(names.map(String::as_str));
        tokio::spawn(http::serve(http, state, hosts));
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let outcome = tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            why = &mut failed => match why {
                Ok(Err(why)) => Err(anyhow!(why)),
                _ => Err(anyhow!("the worker stopped: its thread panicked")),
            },
        };
        if outcome.is_ok() {
            listener.abort();
            finish(&inputs, &shared, &stopping).await;
        }
        let _ = tokio::time::timeout(STOP_TIME, endpoint.close()).await;
        outcome
    });
    let _ = inputs.send(Input::Stop);
    for thread in threads {
        let _ = thread.join();
    }
    outcome
}

/// Ends the work of a node that is about to stop: other nodes lead its shards, and its clients
/// receive the replies to the requests that the node has accepted.
async fn finish(inputs: &Sender<Input>, shared: &Shared, stopping: &watch::Sender<bool>) {
    let (done, handed_over) = tokio::sync::oneshot::channel();
    let _ = inputs.send(Input::HandOver(Box::new(move || {
        let _ = done.send(());
    })));
    if tokio::time::timeout(STOP_TIME, handed_over).await.is_err() {
        warn!("the node stops while it still leads: no other node took over in time");
    }
    if shared.nodes.len() > 1 {
        // Requests that other nodes have sent here go back to them, and by the end of this time
        // every other node knows the new leader.
        tokio::time::sleep(TICK * STOP_TICKS).await;
    }
    let _ = stopping.send(true);
    let all_closed = async {
        while shared.counters.connected.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(TICK / 10).await;
        }
    };
    let _ = tokio::time::timeout(STOP_TIME, all_closed).await;
}

/// An open disk, before its threads run.
struct OpenDisk {
    files: Arc<OsDisk>,
    engine: Arc<Engine>,
    unit: Arc<DiskUnit>,
    queues: DiskQueues,
    trust: Option<DiskTrust>,
}

fn open_disk(config: &Config) -> Result<OpenDisk> {
    let files = Arc::new(OsDisk::open(&config.disk)?);
    let engine = Arc::new(open_engine(config, files.clone())?);
    let (unit, queues) = DiskUnit::new(engine.clone(), config.disk.display().to_string());
    let trust = config.suspect_disk_after_reboot.then(|| read_trust(files.clone())).transpose()?;
    if trust.as_ref().is_some_and(DiskTrust::is_suspect) {
        info!(
            "the machine was booted after this disk was last known to be complete: the node \
             queries the other nodes"
        );
    }
    Ok(OpenDisk { files, engine, unit: Arc::new(unit), queues, trust })
}

fn open_replicas(
    config: &Config,
    disk: &OpenDisk,
    metrics: &Arc<Metrics>,
) -> Result<BTreeMap<ShardId, Replica>> {
    let first_on = |node| Member::first_on(node).id;
    let configured = Conf::of(config.members.iter().map(|member| first_on(member.node)));
    let shards = (FIRST_SHARD.0..FIRST_SHARD.0 + config.shards).map(ShardId);
    let shard_data = |shard| shard_data(&disk.engine, shard);
    let shard_data = shards.clone().map(shard_data).collect::<Result<Vec<_>>>()?;
    if config.join && shard_data.iter().any(|shard_data| *shard_data != ShardData::Empty) {
        warn!(
            "remove `join` from the configuration: with `join`, a node that lost its disk starts \
             as if it had never voted"
        );
    }
    let first = if config.join { Conf::default() } else { configured.clone() };
    let conf = bootstrap::first_members(&*disk.files, first, first_on(config.node), &shard_data)?;
    let mut limits = Limits { follower_reads: config.follower_reads, ..Limits::DEFAULT };
    limits.raft.lease = config
        .lease_drift_ppm
        .map(|drift| Lease::new(limits.raft.election.start, TICK.as_nanos() as u64, drift));
    let node = config.node;
    let mut replicas = BTreeMap::new();
    for shard in shards {
        let opening = Opening {
            shard,
            id: first_on(config.node),
            node,
            conf: conf.clone(),
            limits: limits.clone(),
            seed: random()?,
            disk_is_suspect: disk.trust.as_ref().is_some_and(DiskTrust::is_suspect),
        };
        let replica = Replica::open(&disk.unit, metrics, opening)?;
        let conf = replica.raft().conf();
        let nodes = conf.homes.iter().map(|member| member.home.node);
        for peer in nodes.filter(|&node| configured.on_node(node).next().is_none()) {
            warn!(
                shard = shard.0,
                peer = peer.0,
                "a member of the shard is missing in `members` and cannot be reached: add it"
            );
        }
        replicas.insert(shard, replica);
    }
    Ok(replicas)
}

/// The nodes of the configuration, for the status.
fn nodes(config: &Config) -> Vec<NodeStatus> {
    let nodes = config.members.iter().map(|member| NodeStatus {
        id: member.node.0,
        resp: member.resp.clone(),
        http: member.http.clone(),
        peer: member.peer.clone(),
        alive: false,
    });
    nodes.collect()
}

/// Raises the soft limit of open files to the hard limit. Tables, log slots and connections are
/// open files, and the usual soft limit is too low for a node. If the limit cannot be raised, an
/// operation that reaches the limit reports an error.
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

/// Determines which data of a shard the disk contains.
fn shard_data(engine: &Engine, shard: ShardId) -> Result<ShardData> {
    let (log, tree) = (engine.log(), engine.open_shard(shard)?);
    if stored_members(engine, shard, &tree)?.is_some() {
        return Ok(ShardData::MembersKnown);
    }
    let in_log = log.hard_state(shard) != HardState::default() || log.check_whole(shard).is_err();
    Ok(if in_log || tree.applied() != LogId::default() {
        ShardData::MembersUnknown
    } else {
        ShardData::Empty
    })
}

fn read_trust(disk: Arc<OsDisk>) -> Result<DiskTrust> {
    let boot = std::fs::read_to_string(BOOT_ID).with_context(|| {
        format!("cannot read {BOOT_ID}, which `suspect_disk_after_reboot` needs")
    })?;
    Ok(DiskTrust::read(disk, boot.trim()))
}

fn start_net(
    config: &Config,
    runtime: &tokio::runtime::Handle,
    inbox: WorkerInbox,
) -> Result<(Arc<Endpoint>, bedstone_net::Outbox)> {
    let identity = match &config.tls {
        Some([ca, cert, key]) => {
            let read = |path: &std::path::Path| {
                std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the certificate file {}", path.display()))
            };
            Identity { authority_pem: read(ca)?, cert_pem: read(cert)?, key_pem: read(key)? }
        }
        // The node is alone in its cluster. No other node can connect, since no other node has a
        // certificate of this authority.
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

/// Starts the log thread and the compaction thread of a disk.
fn serve_disk(
    number: DiskNumber,
    engine: &Arc<Engine>,
    queues: DiskQueues,
    inputs: &Sender<Input>,
    metrics: &Arc<Metrics>,
) -> Result<Vec<JoinHandle<()>>> {
    let DiskQueues { log_jobs, background_calls } = queues;
    let notify = || {
        let inputs = inputs.clone();
        move |event: DiskEvent| inputs.send(Input::Disk(number, event)).is_ok()
    };
    let (log_engine, log_metrics, log_notify) = (engine.clone(), metrics.clone(), notify());
    let (work_engine, work_metrics, work_notify) = (engine.clone(), metrics.clone(), notify());
    Ok(vec![
        spawn("bedstone-log", move || {
            logger::run(&log_engine, &log_jobs, &log_notify, &log_metrics);
        })?,
        spawn("bedstone-compact", move || {
            background::run(&work_engine, &background_calls, &work_notify, &work_metrics);
        })?,
    ])
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(run)?)
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| anyhow!("the system provides no random numbers: {error}"))
}
