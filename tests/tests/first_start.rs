//! The first start of a cluster whose nodes are configured with different members. No node begins,
//! each node reports the reason, and once the configuration is corrected the cluster begins.

use bedstone_tests::cluster::{Cluster, eventually};

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
