//! Faults 1 to 4, 10, 13 and 14 with real processes. Nodes are killed and stopped while clients
//! write and read during the whole test, tables are damaged, disks are full, and disks are suspect.
//! The history of every key must be linearizable, and at the end no acknowledged write may be
//! missing.

use bedstone_node::limits::Limits;
use bedstone_tests::cluster::{Cluster, binary, eventually, shard};
use bedstone_tests::load::{Load, verdict};
use redis::Client;
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

#[test]
fn killed_and_stopped_nodes_lose_no_write_and_serve_no_stale_read() {
    let mut cluster = Cluster::start();
    // Node 3 serves reads itself; the other nodes send reads to the leader.
    cluster.kill(3);
    cluster.add_setting(3, "follower_reads = true");
    cluster.restart(3);
    let began = Instant::now();
    let nodes: Vec<String> = (1..=3).map(|node| cluster.resp(node)).collect();
    let load = Load::start(&nodes, 1);
    load.wait_progress();

    // Fault 1: a follower is killed; the clients continue.
    let follower = cluster.leader() % 3 + 1;
    cluster.kill(follower);
    load.wait_progress();
    cluster.restart(follower);

    // Fault 2: the leader is killed; another node takes over.
    let leader = cluster.leader();
    cluster.kill(leader);
    let next = eventually("another leader", || Some(cluster.leader()).filter(|&l| l != leader));
    assert_ne!(leader, next);
    load.wait_progress();
    cluster.restart(leader);
    load.wait_progress();

    // Fault 3: all nodes are killed at once.
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

    // Fault 4: the leader is stopped for longer than an election, and then continues.
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

/// The bytes of snapshots that the other nodes have sent.
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
fn a_follower_behind_the_released_log_recovers_by_snapshot() {
    let mut cluster = Cluster::start();
    let follower = cluster.leader() % 3 + 1;
    cluster.kill(follower);
    let other = follower % 3 + 1;
    let client = Client::open(format!("redis://{}", cluster.resp(other))).unwrap();
    let mut connection = client.get_connection().unwrap();
    // More data than the log keeps: the values are large enough to fill its segments.
    let value = "v".repeat(256 << 10);
    for i in 0..1400 {
        redis::cmd("SET").arg(format!("big{i}")).arg(&value).exec(&mut connection).unwrap();
    }
    redis::cmd("SET").arg("small").arg("last").exec(&mut connection).unwrap();
    let begun = Instant::now();
    cluster.restart(follower);
    let client = Client::open(format!("redis://{}", cluster.resp(follower))).unwrap();
    let mut connection = client.get_connection().unwrap();
    // The follower's own tree answers weak reads.
    eventually("the follower has all", || {
        let read = redis::cmd("KV.GET").arg("small").arg("WEAK").query::<String>(&mut connection);
        (read.ok()? == "last").then_some(())
    });
    let (seconds, sent) = (begun.elapsed().as_secs_f64(), snapshot_bytes(&cluster, follower));
    let (mib, pace) = (sent / f64::from(1 << 20), Limits::DEFAULT.snapshot_bytes_per_second as f64);
    eprintln!("a snapshot of {mib:.0} MiB took {seconds:.1} s, from the start of its receiver");
    assert!(sent > 1400.0 * value.len() as f64);
    assert!(sent < pace * (seconds + 0.1), "the snapshot was sent faster than its limit");
    for i in 0..1400 {
        let found: String =
            redis::cmd("KV.GET").arg(format!("big{i}")).arg("WEAK").query(&mut connection).unwrap();
        assert_eq!(found, value);
    }
    let config = std::fs::read_dir(cluster.dir().join(format!("node{follower}/data/shards/1")));
    assert!(config.unwrap().count() > 2, "tables were installed");
}

/// Whether `bedstone check` finds no damage in a stopped node's data.
fn is_sound(data: &Path) -> bool {
    let checked = Command::new(binary()).arg("check").arg(data).output().expect("runs");
    checked.status.success()
}

/// Fault 10: bits of one node's tables flip while the node is down. Every answer of the node is
/// right or names the damage, and the node replaces the damaged data without an operator.
#[test]
fn damaged_tables_are_replaced_by_the_leaders_snapshot() {
    const KEYS: u64 = 20_000;
    let mut cluster = Cluster::start();
    let follower = cluster.leader() % 3 + 1;
    let other = follower % 3 + 1;
    let client = |cluster: &Cluster, node| {
        let client = Client::open(format!("redis://{}", cluster.resp(node))).unwrap();
        client.get_connection().unwrap()
    };
    let mut connection = client(&cluster, other);
    let value = |i: u64| format!("{i:0200}");
    for batch in 0..KEYS / 1000 {
        let mut pipe = redis::pipe();
        (0..1000).map(|i| batch * 1000 + i).for_each(|i| {
            pipe.set(format!("key{i}"), value(i)).ignore();
        });
        pipe.exec(&mut connection).unwrap();
    }
    // With little memory, the log's entries are flushed into tables at the next start.
    cluster.kill(follower);
    let home = cluster.dir().join(format!("node{follower}"));
    let config = std::fs::read_to_string(home.join("bedstone.toml")).unwrap();
    std::fs::write(home.join("bedstone.toml"), format!("memtable_mib = 1\n{config}")).unwrap();
    cluster.restart(follower);
    eventually("the follower has tables", || {
        let tables = cluster.status(follower)?["shards"][0]["tables"].as_u64()?;
        (tables > 0).then_some(())
    });
    cluster.kill(follower);
    let data = home.join("data");
    assert!(is_sound(&data), "before anything was damaged");
    for entry in std::fs::read_dir(data.join("shards/1")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|of| of == "sst") {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            // A table that was being written when the node was killed may be empty. No read uses
            // it.
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 4;
            }
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert!(!is_sound(&data), "after bits were flipped");

    cluster.restart(follower);
    let mut connection = client(&cluster, follower);
    for i in 0..KEYS {
        let get = |connection: &mut redis::Connection, how: &str| {
            redis::cmd("KV.GET").arg(format!("key{i}")).arg(how).query::<Option<String>>(connection)
        };
        assert_eq!(get(&mut connection, "STRONG").unwrap(), Some(value(i)), "a read at the leader");
        // The follower's own tree answers with the right value or with an error.
        eventually("the follower's own tree has the key again", || {
            let read = get(&mut connection, "WEAK").ok()?;
            assert_eq!(read, Some(value(i)));
            Some(())
        });
    }
    let (_, metrics) = cluster.get(follower, "/metrics").unwrap();
    assert!(metrics.contains("bedstone_shards_damaged_total 1\n"), "the damage was counted once");
    cluster.kill(follower);
    assert!(is_sound(&data), "after a snapshot replaced the damaged tables");
}

/// Fault 13, as far as real processes can show it: machines failed, and their disks may have lied
/// about syncs. The nodes query each other before they vote or acknowledge, and no write is lost.
#[test]
fn nodes_with_suspect_disks_recover_from_each_other() {
    let mut cluster = Cluster::start();
    let client = |cluster: &Cluster| {
        let client = Client::open(format!("redis://{}", cluster.resp(1))).unwrap();
        client.get_connection().unwrap()
    };
    redis::cmd("SET").arg("key").arg("before").exec(&mut client(&cluster)).unwrap();
    let home = |cluster: &Cluster, node| cluster.dir().join(format!("node{node}"));
    let boot_file = |cluster: &Cluster, node| home(cluster, node).join("data/BOOT");
    let is_noted = |cluster: &Cluster, node, but: &str| {
        let text = std::fs::read_to_string(boot_file(cluster, node)).ok()?;
        (text != but).then_some(())
    };
    for node in 1..=3 {
        cluster.kill(node);
        cluster.add_setting(node, "suspect_disk_after_reboot = true");
    }
    // The second round behaves as after a restart of the machine.
    for (other_boot, value) in [("", "before"), ("another 00000000\n", "after")] {
        for node in 1..=3 {
            if !other_boot.is_empty() {
                eventually("the node notes this boot", || is_noted(&cluster, node, ""));
                cluster.kill(node);
                std::fs::write(boot_file(&cluster, node), other_boot).unwrap();
            }
        }
        // One node alone neither votes nor acknowledges; once all nodes run, all are ready.
        cluster.spawn(1);
        eventually("the first node answers", || cluster.status(1));
        assert!(!matches!(cluster.get(1, "/readyz"), Some((200, _))));
        (2..=3).for_each(|node| cluster.spawn(node));
        (1..=3).for_each(|node| cluster.wait_ready(node));
        let mut connection = client(&cluster);
        let read: String = redis::cmd("GET").arg("key").query(&mut connection).unwrap();
        assert_eq!(read, value);
        redis::cmd("SET").arg("key").arg("after").exec(&mut connection).unwrap();
        for node in 1..=3 {
            eventually("the disk is trusted again", || is_noted(&cluster, node, other_boot));
        }
    }
    // A node whose disk is no longer suspect queries no other node after a kill: two of three nodes
    // are enough.
    (1..=3).for_each(|node| cluster.kill(node));
    (1..=2).for_each(|node| cluster.spawn(node));
    (1..=2).for_each(|node| cluster.wait_ready(node));
}

/// Fault 14: a follower's disk is nearly full, without any effect; then the leader's disk is.
/// Writes are refused, and all other operations continue: reads, deletes, membership changes and
/// leader transfers.
#[test]
fn a_nearly_full_disk_refuses_writes_only() {
    let mut cluster = Cluster::start();
    let client = |cluster: &Cluster, node| {
        let client = Client::open(format!("redis://{}", cluster.resp(node))).unwrap();
        client.get_connection().unwrap()
    };
    let set = |cluster: &Cluster, key: &str| {
        redis::cmd("SET").arg(key).arg("value").exec(&mut client(cluster, 1))
    };
    let operate = |cluster: &Cluster, node, words: &str| {
        let output = shard(&cluster.http(node), words).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    set(&cluster, "one").unwrap();
    set(&cluster, "two").unwrap();
    let follower = cluster.leader() % 3 + 1;
    cluster.kill(follower);
    let before = cluster.add_setting(follower, "reserve_mib = 1000000000");
    cluster.restart(follower);
    set(&cluster, "three").unwrap();

    operate(&cluster, follower, &format!("lead --to {follower}"));
    let error = set(&cluster, "four").expect_err("the leader's disk is full");
    assert_eq!(error.code(), Some("NOSPACE"));
    let mut connection = client(&cluster, follower);
    let read: String = redis::cmd("GET").arg("one").query(&mut connection).unwrap();
    assert_eq!(read, "value");
    let deleted: u64 = redis::cmd("DEL").arg("two").query(&mut connection).unwrap();
    assert_eq!(deleted, 1);
    let other = follower % 3 + 1;
    operate(&cluster, follower, &format!("members --remove {other}"));
    operate(&cluster, follower, &format!("members --learner {other}"));
    operate(&cluster, follower, &format!("members --voter {other}"));
    assert_eq!(cluster.leader(), follower);
    operate(&cluster, follower, &format!("lead --to {other}"));
    set(&cluster, "four").unwrap();

    // The disk has space again.
    operate(&cluster, follower, &format!("lead --to {follower}"));
    cluster.kill(follower);
    std::fs::write(cluster.config(follower), before).unwrap();
    cluster.restart(follower);
    operate(&cluster, other, &format!("lead --to {follower}"));
    set(&cluster, "five").unwrap();
    let mut connection = client(&cluster, other);
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert_eq!(left.len(), 4, "{left:?}");
}
