//! Faults 1 to 4 with real processes: nodes are killed and stopped while clients write and read the
//! whole time. Every key's history must be linearizable, and at the end no acknowledged write may
//! be missing.

use bedstone_node::limits::Limits;
use bedstone_tests::cluster::{Cluster, eventually};
use bedstone_tests::load::{Load, verdict};
use redis::Client;
use rustix::process::Signal;
use std::time::Instant;

#[test]
fn kills_and_stops_lose_nothing_and_show_nothing_stale() {
    let mut cluster = Cluster::start();
    let began = Instant::now();
    let nodes: Vec<String> = (1..=3).map(|node| cluster.resp(node)).collect();
    let load = Load::start(&nodes, 1);
    load.wait_progress();

    // Fault 1: a follower is killed; nobody notices.
    let follower = cluster.leader() % 3 + 1;
    cluster.kill(follower);
    load.wait_progress();
    cluster.restart(follower);

    // Fault 2: the leader is killed; another one takes over.
    let leader = cluster.leader();
    cluster.kill(leader);
    let next = eventually("another leader", || Some(cluster.leader()).filter(|&l| l != leader));
    assert_ne!(leader, next);
    load.wait_progress();
    cluster.restart(leader);
    load.wait_progress();

    // Fault 3: all are killed at once.
    for node in 1..=3 {
        cluster.signal(node, Signal::KILL);
    }
    for node in 1..=3 {
        cluster.kill(node);
        cluster.spawn(node);
    }
    for node in 1..=3 {
        cluster.wait_ready(node);
    }
    load.wait_progress();

    // Fault 4: the leader sleeps longer than any election, then goes on as if nothing had been.
    let leader = cluster.leader();
    cluster.signal(leader, Signal::STOP);
    eventually("another leader", || {
        let other = leader % 3 + 1;
        let seen = cluster.status(other)?["shards"][0]["leader"].as_u64()?;
        (seen > 0 && seen != leader as u64).then_some(())
    });
    load.wait_progress();
    cluster.signal(leader, Signal::CONT);
    load.wait_progress();

    verdict(&nodes, load.finish(), began);
}

/// Bytes of snapshots that the others sent.
fn snapshot_bytes(cluster: &Cluster, receiver: usize) -> f64 {
    let of = |node| {
        let (_, text) = cluster.get(node, "/metrics").expect("answers");
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("bedstone_snapshot_sent_bytes_total "));
        line.expect("is there").parse::<f64>().expect("a number")
    };
    (1..=3).filter(|&node| node != receiver).map(of).sum()
}

#[test]
fn a_follower_behind_the_released_log_comes_back_by_snapshot() {
    let mut cluster = Cluster::start();
    let follower = cluster.leader() % 3 + 1;
    cluster.kill(follower);
    let other = follower % 3 + 1;
    let client = Client::open(format!("redis://{}", cluster.resp(other))).unwrap();
    let mut connection = client.get_connection().unwrap();
    // More than the log keeps: values large enough to fill its segments.
    let value = "v".repeat(256 << 10);
    for i in 0..1400 {
        redis::cmd("SET").arg(format!("big{i}")).arg(&value).exec(&mut connection).unwrap();
    }
    redis::cmd("SET").arg("small").arg("last").exec(&mut connection).unwrap();
    let begun = Instant::now();
    cluster.restart(follower);
    let client = Client::open(format!("redis://{}", cluster.resp(follower))).unwrap();
    let mut connection = client.get_connection().unwrap();
    // Weak reads are answered from the follower's own tree.
    eventually("the follower has all", || {
        let read = redis::cmd("KV.GET").arg("small").arg("WEAK").query::<String>(&mut connection);
        (read.ok()? == "last").then_some(())
    });
    let (seconds, sent) = (begun.elapsed().as_secs_f64(), snapshot_bytes(&cluster, follower));
    let (mib, pace) = (sent / f64::from(1 << 20), Limits::DEFAULT.snapshot_bytes_per_second as f64);
    eprintln!("a snapshot of {mib:.0} MiB took {seconds:.1} s, from the start of its receiver");
    assert!(sent > 1400.0 * value.len() as f64);
    assert!(sent < pace * (seconds + 0.1), "not faster than it may be");
    for i in 0..1400 {
        let found: String =
            redis::cmd("KV.GET").arg(format!("big{i}")).arg("WEAK").query(&mut connection).unwrap();
        assert_eq!(found, value);
    }
    let config = std::fs::read_dir(cluster.dir().join(format!("node{follower}/data/shards/1")));
    assert!(config.unwrap().count() > 2, "tables were installed");
}
