//! Fault 31 with real processes: the directory of a node is replaced by an older copy of itself.
//! The leader's heartbeat shows the node that it lacks entries which it had acknowledged.

use bedstone_tests::cluster::{Cluster, eventually};
use redis::{Client, Connection};
use std::path::{Path, PathBuf};
use std::process::Command;

fn connect(cluster: &Cluster, node: usize) -> Connection {
    let client = Client::open(format!("redis://{}", cluster.resp(node))).expect("an address");
    client.get_connection().expect("connects")
}

/// Writes `count` values.
fn write(cluster: &Cluster, node: usize, name: &str, count: usize) {
    let mut connection = connect(cluster, node);
    for i in 0..count {
        let key = format!("{name}{i}");
        redis::cmd("SET").arg(key).arg("value").exec(&mut connection).expect("is written");
    }
}

/// Copies the files of a node that does not run. Returns the copy.
fn copy_files(cluster: &Cluster, node: usize) -> PathBuf {
    let copy = cluster.dir().join(format!("older-copy-{node}"));
    copy_dir(&cluster.dir().join(format!("node{node}")), &copy);
    copy
}

/// Replaces the files of a node that does not run by a copy.
fn restore_files(cluster: &Cluster, node: usize, copy: &Path) {
    let dir = cluster.dir().join(format!("node{node}"));
    std::fs::remove_dir_all(&dir).expect("is removed");
    copy_dir(copy, &dir);
}

fn copy_dir(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "cp failed");
}

fn metric(cluster: &Cluster, node: usize, name: &str) -> Option<u64> {
    let (_, text) = cluster.get(node, "/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.parse().ok()
}

const LOST: &str = "bedstone_raft_durability_lost_total";

#[test]
fn a_node_with_an_older_copy_of_its_disk_notices_and_is_refilled() {
    let mut cluster = Cluster::start();
    let follower = cluster.leader() % 3 + 1;
    write(&cluster, 1, "early", 100);
    cluster.kill(follower);
    let copy = copy_files(&cluster, follower);
    cluster.restart(follower);
    let leader = cluster.leader();
    write(&cluster, leader, "late", 500);
    cluster.kill(follower);
    restore_files(&cluster, follower, &copy);
    cluster.restart(follower);
    assert_eq!(metric(&cluster, follower, LOST), Some(1), "the loss is noticed before it is ready");
    // A ready node may lack the last entries; it receives them without a further request.
    let mut connection = connect(&cluster, follower);
    for i in 0..500 {
        let get = redis::cmd("KV.GET").arg(format!("late{i}")).arg("WEAK").to_owned();
        eventually("the node has every entry again", || {
            let found: Option<String> = get.query(&mut connection).expect("is read");
            (found? == "value").then_some(())
        });
    }
    write(&cluster, follower, "after", 10);
}
