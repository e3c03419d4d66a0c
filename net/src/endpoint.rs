//! QUIC by quinn: one connection per pair of nodes, dialled by the node with the lower id, with a
//! few streams that stay open in each direction. Connections, sockets and tokio tasks are in this
//! file alone.

use crate::error::{Error, Violation};
use crate::frame::{Frame, Lane, StreamId};
use crate::hello::Hello;
use crate::ids::NodeId;
use crate::limits::*;
use crate::outbox::{Handover, Outbox};
use crate::tls::{self, Identity};
use crate::window::FlooredCubic;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quinn::{Connection, IdleTimeout, RecvStream, SendStream, TransportConfig, VarInt};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

const CLOSE_VIOLATION: VarInt = VarInt::from_u32(1);
const CLOSE_REPLACED: VarInt = VarInt::from_u32(2);
/// Pause of a reader before it checks a full inbox again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// The configuration of an endpoint.
pub struct Config {
    /// The id of this node.
    pub node: NodeId,
    /// The name of its cluster; a DNS label.
    pub cluster: String,
    /// A number that grows with each start of the node.
    pub boot: u64,
    /// The UDP address on which peers reach this node.
    pub listen: SocketAddr,
    /// Certificates and key.
    pub identity: Identity,
    /// Every other node.
    pub peers: Vec<Peer>,
}

/// Another node.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// The address on which it listens for peers: `host:port`, resolved at each attempt to connect.
    pub addr: String,
}

/// An event that the endpoint delivers to the node.
#[derive(Debug)]
pub enum Event {
    /// A peer authenticated itself and sent its hello.
    Up(NodeId),
    /// The connection to a peer is gone; frames under way may be lost.
    Down(NodeId),
    /// The frames of one read of a stream, in order.
    Frames(NodeId, Vec<Frame>),
}

/// Receives the events of an endpoint. The thread of the net calls it, so it must not block.
pub trait Inbox: Send + Sync + 'static {
    /// Accepts an event.
    fn deliver(&self, event: Event);
    /// Whether the node has room for entries and snapshots; heartbeats do not depend on it.
    fn has_room(&self) -> bool;
}

/// Counters of one endpoint.
#[derive(Default)]
pub struct Counters {
    /// Failed attempts to connect to a peer.
    pub dials_failed: AtomicU64,
    /// Connections closed for a violation of the protocol.
    pub violations: AtomicU64,
    /// Frames dropped because their peer was not connected.
    pub dropped: AtomicU64,
}

/// The running endpoint. It stops with its runtime, not when it is dropped.
pub struct Endpoint {
    shared: Arc<Shared>,
}

struct Shared {
    node: NodeId,
    cluster: String,
    boot: u64,
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
    inbox: Arc<dyn Inbox>,
    handover: Arc<Handover>,
    links: BTreeMap<NodeId, Link>,
    counters: Counters,
}

/// The connection and the queues of one peer.
struct Link {
    addr: String,
    queues: [Queue; StreamId::COUNT],
    /// The connection in use, and its number in the order of connections.
    connection: Mutex<(u64, Option<Connection>)>,
}

impl Link {
    fn drop_queued(&self, shared: &Shared, peer: NodeId) {
        for queue in &self.queues {
            for frame in queue.frames.lock().drain(..) {
                shared.handover.settled(peer, &frame);
            }
        }
    }
}

#[derive(Default)]
struct Queue {
    frames: Mutex<VecDeque<Frame>>,
    notify: Notify,
}

impl Endpoint {
    /// Binds the socket and begins to connect, on the given runtime.
    ///
    /// # Errors
    /// [`Error::Listen`] and [`Error::Tls`].
    pub fn start(
        runtime: &Handle,
        config: Config,
        inbox: Arc<dyn Inbox>,
    ) -> Result<(Endpoint, Outbox), Error> {
        let transport = Arc::new(transport());
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(config.identity.server()?));
        server.transport_config(transport.clone()).migration(false).max_incoming(INCOMING_MAX);
        let mut client = quinn::ClientConfig::new(Arc::new(config.identity.client()?));
        client.transport_config(transport);
        let secret = config.identity.secret();
        let socket =
            bind(config.listen).map_err(|source| Error::Listen { addr: config.listen, source })?;
        let endpoint = {
            let _guard = runtime.enter();
            quinn::Endpoint::new(
                endpoint_config(&secret),
                Some(server),
                socket,
                Arc::new(quinn::TokioRuntime),
            )
            .map_err(|source| Error::Listen { addr: config.listen, source })?
        };
        let handover = Handover::new(config.peers.iter().map(|peer| peer.node));
        let link = |peer: Peer| {
            let connection = Mutex::new((0, None));
            (peer.node, Link { addr: peer.addr, queues: Default::default(), connection })
        };
        let shared = Arc::new(Shared {
            node: config.node,
            cluster: config.cluster,
            boot: config.boot,
            endpoint,
            client,
            inbox,
            handover: handover.clone(),
            links: config.peers.into_iter().map(link).collect(),
            counters: Counters::default(),
        });
        runtime.spawn(accept(shared.clone()));
        runtime.spawn(distribute(shared.clone()));
        for &peer in shared.links.keys().filter(|&&peer| peer > shared.node) {
            runtime.spawn(dial(shared.clone(), peer));
        }
        Ok((Endpoint { shared }, Outbox::new(handover)))
    }

    /// Counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The round-trip time to a connected peer, as QUIC measures it.
    pub fn round_trip(&self, peer: NodeId) -> Option<Duration> {
        let link = self.shared.links.get(&peer)?;
        let connection = link.connection.lock();
        connection.1.as_ref().map(Connection::rtt)
    }

    /// Closes all connections. Once the call returns, each peer that can be reached knows it.
    pub async fn close(&self) {
        self.shared.endpoint.close(VarInt::from_u32(0), b"stopping");
        self.shared.endpoint.wait_idle().await;
    }
}

fn transport() -> TransportConfig {
    let mut acks = quinn::AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(10));
    acks.max_ack_delay(Some(Duration::from_millis(1)));
    let mut mtu = quinn::MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(StreamId::COUNT as u32))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .send_fairness(false)
        .congestion_controller_factory(Arc::new(FlooredCubic::default()))
        .initial_rtt(Duration::from_millis(5))
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .keep_alive_interval(Some(KEEP_ALIVE_TIME))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIME).ok())
        .datagram_receive_buffer_size(None);
    transport
}

/// Greatest path MTU that discovery tries. A value above 6500 fails: ten larger segments exceed 64
/// KiB, the kernel refuses them, and quinn drops them without an error.
const MTU_BYTES: u16 = 6500;

/// The reset key and the connection ids are derived from the node's key, so that a restarted node
/// can notify a peer at once that its old connection is gone.
fn endpoint_config(secret: &[u8; 32]) -> quinn::EndpointConfig {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    let cid_key = u64::from_le_bytes(secret[..8].try_into().expect("eight bytes"));
    config.cid_generator(move || {
        Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(cid_key))
    });
    config.max_udp_payload_size(MTU_BYTES).expect("within QUIC's bounds");
    config
}

fn bind(addr: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel may grant smaller buffers; quinn recovers packets that are lost for lack of
    // buffer.
    socket.set_recv_buffer_size(SOCKET_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BYTES)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Moves pushed frames to the queues of their streams.
async fn distribute(shared: Arc<Shared>) {
    let mut frames = Vec::new();
    loop {
        shared.handover.take(&mut frames).await;
        for (peer, frame) in frames.drain(..) {
            let Some(link) = shared.links.get(&peer) else { continue };
            if link.connection.lock().1.is_none() {
                shared.handover.settled(peer, &frame);
                shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let queue = &link.queues[StreamId::of(&frame).position()];
            queue.frames.lock().push_back(frame);
            queue.notify.notify_one();
        }
    }
}

async fn accept(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let connecting = match incoming.accept() {
                Ok(connecting) => connecting,
                Err(error) => return debug!(%error, "a handshake was refused"),
            };
            match tokio::time::timeout(CONNECT_TIME, connecting).await {
                Ok(Ok(connection)) => {
                    let names = tls::proven_names(connection.peer_identity());
                    let known = names.iter().find_map(|name| {
                        let node = tls::node_of_name(name, &shared.cluster)?;
                        (shared.links.contains_key(&node) && node < shared.node).then_some(node)
                    });
                    match known {
                        Some(peer) => serve(&shared, peer, connection).await,
                        None => shared.refuse(&connection, &Violation::UnknownNode(names)),
                    }
                }
                Ok(Err(error)) => warn!(%error, "a peer's handshake failed"),
                Err(_) => warn!("a peer's handshake took too long"),
            }
        });
    }
}

/// Keeps a connection to a peer, and pauses longer after each failure.
async fn dial(shared: Arc<Shared>, peer: NodeId) {
    let link = &shared.links[&peer];
    let name = tls::server_name(peer, &shared.cluster);
    let mut pause = BACKOFF.0;
    loop {
        let attempt = async {
            let addr = tokio::net::lookup_host(&link.addr).await.ok()?.next()?;
            let client = shared.client.clone();
            let connecting = shared.endpoint.connect_with(client, addr, &name);
            match connecting.ok()?.await {
                Ok(connection) => Some(connection),
                Err(error) => {
                    debug!(%peer, %error, "cannot connect");
                    None
                }
            }
        };
        if let Ok(Some(connection)) = tokio::time::timeout(CONNECT_TIME, attempt).await {
            let served = shared.clone();
            serve(&served, peer, connection).await;
            pause = BACKOFF.0;
        } else {
            shared.counters.dials_failed.fetch_add(1, Ordering::Relaxed);
            pause = (pause * 2).min(BACKOFF.1);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Exchanges hellos, then carries frames both ways until the connection ends.
async fn serve(shared: &Arc<Shared>, peer: NodeId, connection: Connection) {
    let greeting = tokio::time::timeout(CONNECT_TIME, greet(shared, peer, &connection)).await;
    let Greeting { send, receive, version } = match greeting {
        Ok(Ok(greeting)) => greeting,
        Ok(Err(Some(violation))) => return shared.refuse(&connection, &violation),
        Ok(Err(None)) | Err(_) => return debug!(%peer, "no valid exchange of hellos"),
    };
    let link = &shared.links[&peer];
    let order = {
        let mut current = link.connection.lock();
        if let Some(old) = current.1.replace(connection.clone()) {
            // The peer connected again before its old connection timed out: frames on the old
            // connection are lost.
            old.close(CLOSE_REPLACED, b"replaced");
            link.drop_queued(shared, peer);
            shared.inbox.deliver(Event::Down(peer));
        }
        current.0 += 1;
        current.0
    };
    info!(%peer, version, "connected");
    shared.inbox.deliver(Event::Up(peer));
    tokio::spawn(read(shared.clone(), peer, connection.clone(), receive, Lane::Control));
    for stream in StreamId::all().filter(|stream| stream.lane() != Lane::Control) {
        let (shared, connection) = (shared.clone(), connection.clone());
        tokio::spawn(async move {
            if let Ok(send) = open(&connection, stream).await {
                write(shared, peer, connection, send, stream).await;
            }
        });
    }
    let control = StreamId::from_byte(0).expect("the control stream exists");
    tokio::spawn(write(shared.clone(), peer, connection.clone(), send, control));
    while let Ok(mut stream) = connection.accept_uni().await {
        let mut first = [0];
        if stream.read_exact(&mut first).await.is_err() {
            break;
        }
        match StreamId::from_byte(first[0]) {
            Ok(id) if id.lane() != Lane::Control => {
                let (shared, connection) = (shared.clone(), connection.clone());
                tokio::spawn(read(shared, peer, connection, Incoming::new(stream), id.lane()));
            }
            _ => shared.refuse(&connection, &Violation::Lane(first[0])),
        }
    }
    let reason = connection.closed().await;
    let mut current = link.connection.lock();
    if current.0 == order {
        current.1 = None;
        link.drop_queued(shared, peer);
        info!(%peer, %reason, "disconnected");
        shared.inbox.deliver(Event::Down(peer));
    }
}

/// The control streams of a connection whose hellos were exchanged.
struct Greeting {
    send: SendStream,
    receive: Incoming,
    /// The negotiated protocol version.
    version: u16,
}

/// Exchanges hellos on the control streams.
async fn greet(
    shared: &Shared,
    peer: NodeId,
    connection: &Connection,
) -> Result<Greeting, Option<Violation>> {
    let control = StreamId::from_byte(0).expect("the control stream exists");
    let mut send = open(connection, control).await.map_err(|_| None)?;
    let hello = Hello::new(shared.node, shared.boot, &shared.cluster).frame();
    let mut chunks = [Bytes::copy_from_slice(&hello.header()), hello.body];
    send.write_all_chunks(&mut chunks).await.map_err(|_| None)?;
    let mut stream = connection.accept_uni().await.map_err(|_| None)?;
    let mut first = [0];
    stream.read_exact(&mut first).await.map_err(|_| None)?;
    if first[0] != control.byte() {
        return Err(Some(Violation::Hello));
    }
    let mut incoming = Incoming::new(stream);
    loop {
        if let Some(frame) = Frame::decode(&mut incoming.buffer, Lane::Control)? {
            let version = Hello::decode(&frame)?.verify(peer, &shared.cluster)?;
            return Ok(Greeting { send, receive: incoming, version });
        }
        if !incoming.fill().await {
            return Err(None);
        }
    }
}

async fn open(connection: &Connection, stream: StreamId) -> Result<SendStream, ()> {
    let mut send = connection.open_uni().await.map_err(drop)?;
    let priority = match stream.lane() {
        Lane::Control => 2,
        Lane::Append => 1,
        Lane::Bulk => 0,
    };
    send.set_priority(priority).map_err(drop)?;
    send.write_all(&[stream.byte()]).await.map_err(drop)?;
    Ok(send)
}

/// A stream, and the bytes that were read from it and are not decoded yet.
struct Incoming {
    stream: RecvStream,
    buffer: BytesMut,
}

impl Incoming {
    fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Waits for more bytes; false at the end of the stream.
    async fn fill(&mut self) -> bool {
        let mut chunks: [Bytes; READ_CHUNKS] = Default::default();
        match self.stream.read_chunks(&mut chunks).await {
            Ok(Some(count)) => {
                chunks[..count].iter().for_each(|chunk| self.buffer.extend_from_slice(chunk));
                true
            }
            _ => false,
        }
    }
}

/// Delivers the frames of a stream, all frames of one read at once.
async fn read(
    shared: Arc<Shared>,
    peer: NodeId,
    connection: Connection,
    mut incoming: Incoming,
    lane: Lane,
) {
    loop {
        let mut frames = Vec::new();
        loop {
            match Frame::decode(&mut incoming.buffer, lane) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(violation) => return shared.refuse(&connection, &violation),
            }
        }
        if !frames.is_empty() {
            shared.inbox.deliver(Event::Frames(peer, frames));
        }
        // Entries and snapshots wait in QUIC's windows while the node is behind.
        while lane != Lane::Control && !shared.inbox.has_room() {
            tokio::time::sleep(FULL_PAUSE).await;
        }
        if !incoming.fill().await {
            return;
        }
    }
}

/// Writes the frames that are queued for a stream, many at a time.
async fn write(
    shared: Arc<Shared>,
    peer: NodeId,
    connection: Connection,
    mut send: SendStream,
    stream: StreamId,
) {
    let queue = &shared.links[&peer].queues[stream.position()];
    let mut small = BytesMut::new();
    let mut chunks: Vec<Bytes> = Vec::new();
    loop {
        let mut gathered = 0;
        while gathered < WRITE_BYTES {
            let Some(frame) = queue.frames.lock().pop_front() else { break };
            shared.handover.settled(peer, &frame);
            gathered += frame.len();
            small.extend_from_slice(&frame.header());
            if frame.body.len() <= COPY_BYTES_MAX {
                small.extend_from_slice(&frame.body);
            } else {
                chunks.push(small.split().freeze());
                chunks.push(frame.body);
            }
        }
        if !small.is_empty() {
            chunks.push(small.split().freeze());
        }
        if chunks.is_empty() {
            tokio::select! {
                () = queue.notify.notified() => continue,
                _ = connection.closed() => return,
            }
        }
        if send.write_all_chunks(&mut chunks).await.is_err() {
            return;
        }
        chunks.clear();
    }
}

impl Shared {
    fn refuse(&self, connection: &Connection, violation: &Violation) {
        self.counters.violations.fetch_add(1, Ordering::Relaxed);
        warn!(from = %connection.remote_address(), %violation, "a peer is refused");
        connection.close(CLOSE_VIOLATION, violation.to_string().as_bytes());
    }
}
