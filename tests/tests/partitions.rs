//! Faults 1 to 4 and 17 to 19 with real processes in network namespaces. Links are cut in one or
//! both directions and lose packets, nodes are killed and stopped meanwhile, and clients that reach
//! every node write and read during the whole test. The history of every key must be linearizable,
//! and at the end no acknowledged write may be missing. Where the machine has no network
//! namespaces, the test reports that it is skipped.

use bedstone_tests::cluster::eventually;
use bedstone_tests::load::{Load, verdict};
use bedstone_tests::namespaces::Rule::{Cut, Loss};
use bedstone_tests::namespaces::{NODES, Namespaces, Rule};
use redis::Client;
use rustix::process::Signal;
use std::time::Instant;

/// Waits until a node other than `node` leads, according to another node.
fn wait_other_leader(cluster: &Namespaces, node: usize) {
    eventually("another leader", || {
        NODES.into_iter().filter(|&other| other != node).find_map(|other| {
            cluster.leader_seen_by(other).filter(|&(leader, _)| leader != node).map(drop)
        })
    });
}

#[test]
fn partitions_and_packet_loss_lose_no_write_and_serve_no_stale_read() {
    let mut cluster = match Namespaces::start() {
        Ok(cluster) => cluster,
        Err(why) => return eprintln!("SKIPPED, this machine has no network namespaces: {why}"),
    };
    // Node 3 serves reads itself; the other nodes send reads to the leader.
    cluster.kill(3);
    cluster.add_setting(3, "follower_reads = true");
    cluster.spawn(3);
    cluster.wait_ready(3);
    let nodes: Vec<String> = NODES.into_iter().map(|node| cluster.resp(node)).collect();
    let began = Instant::now();
    let load = Load::start(&nodes, 7);
    load.wait_progress();

    // Fault 17: the leader is cut off. The others elect a leader; the old leader accepts no write,
    // and answers so.
    let leader = cluster.leader();
    cluster.set(&Namespaces::alone(leader));
    wait_other_leader(&cluster, leader);
    let client = Client::open(format!("redis://{}", cluster.resp(leader))).unwrap();
    let mut connection = client.get_connection().unwrap();
    eventually("the minority answers UNAVAILABLE", || {
        let set = redis::cmd("SET").arg("minority").arg(1).exec(&mut connection);
        let error = set.expect_err("a minority accepts no write");
        (error.code() == Some("UNAVAILABLE")).then_some(())
    });
    load.wait_progress();
    cluster.set(&[]);
    load.wait_progress();

    // A follower is cut off: the other nodes continue, and its return causes no election.
    let leader = cluster.leader();
    let follower = leader % 3 + 1;
    let (_, term) = cluster.leader_seen_by(leader).expect("it leads");
    cluster.set(&Namespaces::alone(follower));
    load.wait_progress();
    cluster.set(&[]);
    assert_eq!(cluster.leader(), leader, "a follower that comes back changes no leader");
    assert_eq!(cluster.leader_seen_by(leader), Some((leader, term)));

    // Fault 18: no message of the leader reaches one follower; then two followers do not reach each
    // other. There is no storm of elections: the term rises by at most two.
    cluster.set(&[Cut(leader, follower)]);
    load.wait_progress();
    load.wait_progress();
    cluster.set(&[]);
    let leader = cluster.leader();
    let (_, before) = cluster.leader_seen_by(leader).expect("it leads");
    let (one, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.set(&Rule::link(one, other));
    for _ in 0..5 {
        load.wait_progress();
    }
    cluster.set(&Rule::link(leader, one));
    for _ in 0..5 {
        load.wait_progress();
    }
    cluster.set(&[]);
    let leader = cluster.leader();
    let (_, after) = cluster.leader_seen_by(leader).expect("it leads");
    assert!(after <= before + 2, "terms {before} to {after}: a storm of elections");

    // Fault 19: three of ten packets between nodes are lost, while the leader is killed and another
    // node is stopped.
    cluster.set(&NODES.map(|node| Loss(node, 30)));
    load.wait_progress();
    let leader = cluster.leader();
    cluster.kill(leader);
    wait_other_leader(&cluster, leader);
    load.wait_progress();
    cluster.spawn(leader);
    cluster.wait_ready(leader);
    let leader = cluster.leader();
    cluster.signal(leader, Signal::STOP);
    wait_other_leader(&cluster, leader);
    load.wait_progress();
    cluster.signal(leader, Signal::CONT);
    load.wait_progress();

    // All nodes are killed while packets are lost.
    NODES.into_iter().for_each(|node| cluster.kill(node));
    NODES.into_iter().for_each(|node| cluster.spawn(node));
    NODES.into_iter().for_each(|node| cluster.wait_ready(node));
    load.wait_progress();
    cluster.set(&[]);
    verdict(&nodes, load.finish(), began);
}
