//! The network layer between real endpoints on loopback: frames arrive, a restarted peer is found
//! again, and unknown peers are refused.

use bedstone_net::{
    Authority, Config, Endpoint, Event, Frame, Identity, Inbox, Lane, NodeId, Outbox, Peer,
};
use bedstone_tests::cluster::eventually;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Runtime;

struct Channel(Sender<Event>);

impl Inbox for Channel {
    fn deliver(&self, event: Event) {
        let _ = self.0.send(event);
    }

    fn has_room(&self) -> bool {
        true
    }
}

struct Node {
    events: Receiver<Event>,
    outbox: Outbox,
    endpoint: Endpoint,
    _runtime: Runtime,
}

fn free_addr() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn start(
    node: u64,
    cluster: &str,
    listen: SocketAddr,
    other: (u64, SocketAddr),
    identity: Identity,
) -> Node {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (sender, events) = unbounded();
    let peers = vec![Peer { node: NodeId(other.0), addr: other.1.to_string() }];
    let cluster = cluster.to_owned();
    let node = NodeId(node);
    let config = Config { node, cluster, boot: 1, listen, identity, peers };
    let (endpoint, outbox) =
        Endpoint::start(runtime.handle(), config, Arc::new(Channel(sender))).unwrap();
    Node { events, outbox, endpoint, _runtime: runtime }
}

fn frame(lane: Lane, number: u8, len: usize) -> Frame {
    Frame { lane, kind: number, shard: 1, body: Bytes::from(vec![number; len]) }
}

fn await_up(node: &Node) {
    eventually("the peer connects", || {
        node.events.try_iter().find(|event| matches!(event, Event::Up(_))).map(drop)
    });
}

#[test]
fn frames_arrive_in_order_and_a_restarted_peer_is_found_again() {
    let authority = Authority::generate("c").unwrap();
    let (one, two) = (free_addr(), free_addr());
    let identities = [1, 2].map(|node| authority.issue(NodeId(node), "c").unwrap());
    let mut first = start(1, "c", one, (2, two), identities[0].clone());
    let second = start(2, "c", two, (1, one), identities[1].clone());
    await_up(&first);
    await_up(&second);
    for number in 1..=200 {
        for frame in [
            frame(Lane::Append, number, 3000 * usize::from(number)),
            frame(Lane::Control, number, 10),
        ] {
            // A frame that is refused because the queue is full is pushed again.
            let mut waits = Some(frame);
            eventually("room for the frame", || {
                waits = first.outbox.push(NodeId(2), waits.take()?).err();
                first.outbox.flush();
                waits.is_none().then_some(())
            });
        }
    }
    first.outbox.flush();
    let mut next = [1u8, 1];
    eventually("all frames", || {
        for event in second.events.try_iter() {
            let Event::Frames(NodeId(1), frames) = event else { continue };
            for frame in frames {
                let lane = usize::from(frame.lane == Lane::Control);
                assert_eq!(frame.kind, next[lane]);
                assert!(frame.body.iter().all(|&byte| byte == frame.kind));
                next[lane] += 1;
            }
        }
        (next == [201, 201]).then_some(())
    });
    // The peer's process ends without notice and starts again.
    let Node { _runtime: runtime, endpoint, .. } = second;
    drop(endpoint);
    runtime.shutdown_timeout(Duration::from_secs(1));
    let second = start(2, "c", two, (1, one), identities[1].clone());
    await_up(&second);
    eventually("frames arrive again", || {
        let _ = first.outbox.push(NodeId(2), frame(Lane::Control, 7, 1));
        first.outbox.flush();
        second.events.try_iter().find(|event| matches!(event, Event::Frames(..))).map(drop)
    });
}

#[test]
fn a_frame_too_long_for_its_lane_is_refused_by_push() {
    let authority = Authority::generate("c").unwrap();
    let identity = authority.issue(NodeId(1), "c").unwrap();
    let mut node = start(1, "c", free_addr(), (2, free_addr()), identity);
    assert!(node.outbox.push(NodeId(2), frame(Lane::Control, 1, 1 << 20)).is_err());
    assert!(node.outbox.push(NodeId(3), frame(Lane::Control, 1, 1)).is_err(), "an unknown peer");
}

/// Neither side of such a pair may accept the other as a peer, however often the first side tries.
fn refused(first: &Node, second: &Node) {
    eventually("several attempts failed", || {
        let failed = first.endpoint.counters().dials_failed.load(Ordering::Relaxed);
        let closed = second.endpoint.counters().violations.load(Ordering::Relaxed);
        (failed + closed >= 3).then_some(())
    });
    for node in [first, second] {
        let up = node.events.try_iter().any(|event| matches!(event, Event::Up(_)));
        assert!(!up, "an unknown peer was accepted");
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (one, two) = (free_addr(), free_addr());
    let identity = |node| Authority::generate("c").unwrap().issue(NodeId(node), "c").unwrap();
    let first = start(1, "c", one, (2, two), identity(1));
    let second = start(2, "c", two, (1, one), identity(2));
    refused(&first, &second);
}

#[test]
fn a_certificate_of_another_cluster_is_refused() {
    let authority = Authority::generate("both").unwrap();
    let (one, two) = (free_addr(), free_addr());
    let first = start(1, "red", one, (2, two), authority.issue(NodeId(1), "red").unwrap());
    let second = start(2, "blue", two, (1, one), authority.issue(NodeId(2), "blue").unwrap());
    refused(&first, &second);
}

#[test]
fn a_certificate_of_another_node_is_refused_and_counted() {
    let authority = Authority::generate("c").unwrap();
    let (one, two) = (free_addr(), free_addr());
    // The first endpoint claims to be node 1, with the certificate of node 3, which the second does
    // not know.
    let first = start(1, "c", one, (2, two), authority.issue(NodeId(3), "c").unwrap());
    let second = start(2, "c", two, (1, one), authority.issue(NodeId(2), "c").unwrap());
    eventually("the violation is counted", || {
        (second.endpoint.counters().violations.load(Ordering::Relaxed) > 0).then_some(())
    });
    refused(&first, &second);
}
