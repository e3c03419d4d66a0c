//! Starts of a cluster: with nodes that are configured with different members, and on a directory
//! that was used before.

use bedstone_tests::cluster::{Cluster, binary, eventually, port_base};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// No node begins, each node reports the reason, and once the configuration is corrected the
/// cluster begins.
#[test]
fn a_cluster_starts_once_all_nodes_are_configured_with_the_same_members() {
    let mut cluster = Cluster::start();
    for node in 1..=3 {
        cluster.kill(node);
        std::fs::remove_dir_all(cluster.dir().join(format!("node{node}/data"))).expect("removed");
    }
    let config = cluster.config(3);
    let right = std::fs::read_to_string(&config).expect("the configuration is readable");
    let one_more = r#"members = ["4=127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", "#;
    std::fs::write(&config, right.replace("members = [", one_more))
        .expect("the configuration is writable");
    (1..=3).for_each(|node| cluster.spawn(node));
    let says = |cluster: &Cluster, node, text: &str| {
        eventually("the node reports why it does not begin", || {
            let (_, body) = cluster.get(node, "/readyz")?;
            body.contains(text).then_some(())
        });
    };
    says(&cluster, 1, "node 3 is configured with other `members`");
    says(&cluster, 2, "node 3 is configured with other `members`");
    says(&cluster, 3, "waits for node 4");

    // The data that the wrong start wrote has no effect.
    cluster.kill(3);
    std::fs::write(&config, right).expect("the configuration is writable");
    cluster.spawn(3);
    (1..=3).for_each(|node| cluster.wait_ready(node));
    let status = cluster.status(3).expect("a status");
    assert_eq!(status["shards"][0]["voters"], serde_json::json!([1, 2, 3]));
}

/// The files and directories below `dir` that other users may use.
fn open_to_others(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("is readable") {
        let path = entry.expect("an entry").path();
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        if mode & 0o077 != 0 {
            found.push(format!("{} has mode {mode:o}", path.display()));
        }
        if path.is_dir() {
            found.extend(open_to_others(&path));
        }
    }
    found
}

#[test]
fn data_and_keys_are_private() {
    let cluster = Cluster::start();
    assert_eq!(open_to_others(cluster.dir()), Vec::<String>::new());
}

/// Runs `bedstone dev` until the nodes are ready, then ends it.
fn run_dev(dir: &Path, base: u16) {
    let mut dev = Command::new(binary())
        .args(["dev", "--nodes", "1", "--port-base", &base.to_string(), "--data"])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("bedstone dev starts");
    let lines = BufReader::new(dev.stdout.take().expect("piped")).lines();
    let ready = lines.map_while(Result::ok).any(|line| line == "ready");
    assert!(ready, "bedstone dev prints ready");
    let pid = rustix::process::Pid::from_raw(dev.id() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("is signalled");
    dev.wait().expect("ends");
}

#[test]
fn dev_keeps_a_configuration_that_was_edited() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node1/bedstone.toml");
    let (base, other_base) = (port_base(), port_base());
    run_dev(dir.path(), base);
    let text = std::fs::read_to_string(&file).expect("is written");
    let edited = format!("# a comment\ncache_mib = 64\n{text}");
    std::fs::write(&file, &edited).expect("is edited");
    run_dev(dir.path(), base);
    assert_eq!(std::fs::read_to_string(&file).expect("is there"), edited);
    // Other ports change the addresses alone.
    run_dev(dir.path(), other_base);
    let moved = std::fs::read_to_string(&file).expect("is there");
    assert!(moved.contains("cache_mib = 64"), "{moved}");
    assert!(moved.contains(&format!("127.0.0.1:{}", other_base + 10)), "{moved}");
}
