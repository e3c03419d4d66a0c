//! A snapshot between real processes whose connection is cut during the transfer. The transfer
//! resumes where it stopped, and the receiver then has all acknowledged writes. Where the machine
//! has no network namespaces, the test reports that it is skipped.

use bedstone_tests::cluster::{eventually, http_get, shard};
use bedstone_tests::namespaces::{NODES, Namespaces};
use redis::{Client, Commands, Connection};

const KEYS: usize = 96;
const VALUE_BYTES: usize = 64 << 10;

fn connect(cluster: &Namespaces, node: usize) -> Connection {
    let client = Client::open(format!("redis://{}", cluster.resp(node))).expect("an address");
    client.get_connection().expect("a node answers")
}

fn value(key: usize) -> Vec<u8> {
    (0..VALUE_BYTES).map(|at| (key * 31 + at * 7) as u8).collect()
}

/// A counter of a node.
fn counter(cluster: &Namespaces, node: usize, name: &str) -> u64 {
    eventually("the node reports its counters", || {
        let (_, text) = http_get(&cluster.http(node), "/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    })
}

#[test]
fn an_interrupted_snapshot_resumes_where_it_stopped() {
    let mut cluster = match Namespaces::start() {
        Ok(cluster) => cluster,
        Err(why) => return eprintln!("SKIPPED, this machine has no network namespaces: {why}"),
    };
    for node in NODES {
        cluster.add_setting(node, "snapshot_mib_per_second = 1");
        cluster.kill(node);
        cluster.spawn(node);
        cluster.wait_ready(node);
    }
    let leader = cluster.leader();
    let mut client = connect(&cluster, leader);
    for key in 0..KEYS {
        let () = client.set(format!("key{key}"), value(key)).expect("the write is accepted");
    }

    // A disk is lost. The link is cut after a third of the snapshot was sent.
    let emptied = leader % 3 + 1;
    cluster.lose_disk(emptied);
    cluster.spawn(emptied);
    let sent =
        |cluster: &Namespaces| counter(cluster, leader, "bedstone_snapshot_sent_bytes_total");
    eventually("a third was sent", || {
        (sent(&cluster) as usize > KEYS * VALUE_BYTES / 3).then_some(())
    });
    cluster.set(&Namespaces::alone(emptied));
    eventually("the leader sees that the node is down", || {
        let status = cluster.status(leader)?;
        (status["nodes"][emptied - 1]["alive"] == false).then_some(())
    });
    assert!(sent(&cluster) < (KEYS * VALUE_BYTES) as u64, "it was cut too late");
    cluster.set(&[]);
    cluster.wait_ready(emptied);
    assert_eq!(cluster.leader(), leader, "the same leader sent all of it");
    assert!(counter(&cluster, emptied, "bedstone_snapshots_resumed_total") > 0);
    let twice = 2 * (KEYS * VALUE_BYTES) as u64;
    assert!(sent(&cluster) < twice * 3 / 4, "received data was sent again");

    // The node has all data.
    let words = format!("lead --to {emptied}");
    let output = shard(&cluster.http(leader), &words).wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut client = connect(&cluster, emptied);
    for key in 0..KEYS {
        let found: Vec<u8> = client.get(format!("key{key}")).expect("it answers");
        assert!(found == value(key), "key{key} has another value");
    }
}
