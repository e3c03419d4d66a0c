//! Fault 15 with real processes on file systems that are frozen under them: clients write and read
//! the whole time, and every key's history must be linearizable. Where the machine does not allow
//! it, the test says so.

use bedstone_tests::cluster::eventually;
use bedstone_tests::disks::Disks;
use bedstone_tests::load::{Load, verdict};
use std::time::{Duration, Instant};

/// How soon another leads when the leader's disk hangs: it steps down within two election timeouts,
/// of one second at most, and one of the others is elected within one more; as much again for a
/// machine that is busy.
const ANOTHER_LEADER: Duration = Duration::from_secs(6);

/// Waits until another than `node` leads, as a third sees it.
fn wait_other_leader(disks: &Disks, node: usize) {
    eventually("another leader", || {
        let other = node % 3 + 1;
        let leader = disks.cluster.status(other)?["shards"][0]["leader"].as_u64()?;
        (leader > 0 && leader != node as u64).then_some(())
    });
}

#[test]
fn a_disk_that_hangs_or_is_slow_stops_nobody() {
    let disks = match Disks::start() {
        Ok(disks) => disks,
        Err(why) => return eprintln!("SKIPPED, this machine cannot freeze a file system: {why}"),
    };
    let nodes: Vec<String> = (1..=3).map(|node| disks.cluster.resp(node)).collect();
    let began = Instant::now();
    let load = Load::start(&nodes, 15);
    load.wait_progress();

    // A follower's disk hangs: writes go on with the two others.
    let follower = disks.cluster.leader() % 3 + 1;
    disks.freeze(follower);
    load.wait_progress();
    disks.thaw(follower);
    load.wait_progress();

    // The leader's: it stops leading, whatever its network says of it.
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

    // A disk that works for a moment, then hangs for longer, over and over: a follower's, then the
    // leader's, who may lead on or not.
    for node in [disks.cluster.leader() % 3 + 1, disks.cluster.leader()] {
        for _ in 0..20 {
            disks.freeze(node);
            std::thread::sleep(Duration::from_millis(100));
            disks.thaw(node);
        }
        load.wait_progress();
    }

    // All at once: nothing is acknowledged, nothing is lost, and all go on by themselves.
    (1..=3).for_each(|node| disks.freeze(node));
    std::thread::sleep(Duration::from_secs(3));
    (1..=3).for_each(|node| disks.thaw(node));
    load.wait_progress();

    verdict(&nodes, load.finish(), began);
}
