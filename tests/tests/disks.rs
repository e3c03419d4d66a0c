//! Fault 15 with real processes on file systems that the test freezes. Clients write and read
//! during the whole test, and the history of every key must be linearizable. Where the machine
//! cannot freeze a file system, the test reports that it is skipped.

use bedstone_tests::cluster::eventually;
use bedstone_tests::disks::Disks;
use bedstone_tests::load::{Load, verdict};
use std::time::{Duration, Instant};

/// The limit on the time until another node leads when the leader's disk hangs. The leader steps
/// down within two election timeouts of at most one second each, and another node is elected within
/// one further second. The limit is twice this time, for a busy machine.
const ANOTHER_LEADER: Duration = Duration::from_secs(6);

/// Waits until a node other than `node` leads, according to another node.
fn wait_other_leader(disks: &Disks, node: usize) {
    eventually("another leader", || {
        let other = node % 3 + 1;
        let leader = disks.cluster.status(other)?["shards"][0]["leader"].as_u64()?;
        (leader > 0 && leader != node as u64).then_some(())
    });
}

#[test]
fn a_hung_or_slow_disk_does_not_stop_the_cluster() {
    let disks = match Disks::start() {
        Ok(disks) => disks,
        Err(why) => return eprintln!("SKIPPED, this machine cannot freeze a file system: {why}"),
    };
    let nodes: Vec<String> = (1..=3).map(|node| disks.cluster.resp(node)).collect();
    let began = Instant::now();
    let load = Load::start(&nodes, 15);
    load.wait_progress();

    // A follower's disk hangs: writes continue with the two other nodes.
    let follower = disks.cluster.leader() % 3 + 1;
    disks.freeze(follower);
    load.wait_progress();
    disks.thaw(follower);
    load.wait_progress();

    // The leader's disk hangs: the leader steps down, although its network works.
    let leader = disks.cluster.leader();
    disks.freeze(leader);
    let frozen = Instant::now();
    wait_other_leader(&disks, leader);
    let took = frozen.elapsed();
    eprintln!("a leader whose disk hung was replaced within {:.1} s", took.as_secs_f64());
    assert!(took < ANOTHER_LEADER);
    load.wait_progress();
    disks.thaw(leader);
    load.wait_progress();

    // A disk works for a moment and then hangs for longer, again and again: first a follower's
    // disk, then the leader's. The leader may keep its leadership or lose it.
    for node in [disks.cluster.leader() % 3 + 1, disks.cluster.leader()] {
        for _ in 0..20 {
            disks.freeze(node);
            std::thread::sleep(Duration::from_millis(100));
            disks.thaw(node);
        }
        load.wait_progress();
    }

    // All disks hang at once: no write is acknowledged, no write is lost, and all nodes continue by
    // themselves.
    (1..=3).for_each(|node| disks.freeze(node));
    std::thread::sleep(Duration::from_secs(3));
    (1..=3).for_each(|node| disks.thaw(node));
    load.wait_progress();

    verdict(&nodes, load.finish(), began);
}
