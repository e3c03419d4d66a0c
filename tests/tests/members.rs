//! Faults 16 and 25 with real processes in network namespaces. The command `bedstone shard members`
//! changes the members of a shard while nodes are killed, stopped, cut off and lost for good,
//! packets are lost, and clients write and read during the whole test. A node without a vote never
//! counts, and no acknowledged write is lost. Where the machine has no network namespaces, the test
//! reports that it is skipped.

use bedstone_tests::cluster::{eventually, http_get, shard};
use bedstone_tests::load::{Load, verdict};
use bedstone_tests::namespaces::Rule::Loss;
use bedstone_tests::namespaces::{NODES, Namespaces, SPARE};
use redis::Client;
use rustix::process::Signal;
use std::time::Instant;

/// Changes the members or the leader. Retries when a node that is down prevents the change.
fn change(cluster: &Namespaces, node: usize, words: &str) {
    eventually("the members change", || {
        let output = shard(&cluster.http(node), words).wait_with_output().expect("it ends");
        if !output.status.success() {
            eprintln!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        output.status.success().then_some(())
    });
}

/// Waits until a node has had no leader for as long as a request may wait.
fn wait_unavailable(cluster: &Namespaces, node: usize) {
    let client = Client::open(format!("redis://{}", cluster.resp(node))).expect("an address");
    let mut connection = client.get_connection().expect("a node answers");
    eventually("the node answers UNAVAILABLE", || {
        let set = redis::cmd("SET").arg("alone").arg(1).exec(&mut connection);
        (set.err()?.code() == Some("UNAVAILABLE")).then_some(())
    });
}

/// The voters and the learners according to the leader.
fn members(cluster: &Namespaces) -> (Vec<usize>, Vec<usize>) {
    eventually("the leader reports the members", || {
        NODES.into_iter().chain([SPARE]).find_map(|node| {
            let status = cluster.status(node)?;
            let shard = &status["shards"][0];
            let list = |name: &str| -> Option<Vec<usize>> {
                let nodes = shard[name].as_array()?.iter();
                nodes.map(|node| node.as_u64().map(|node| node as usize)).collect()
            };
            let settled = shard["role"] == "leader" && shard["changing"] == false;
            settled.then_some((list("voters")?, list("learners")?))
        })
    })
}

fn sorted(mut nodes: Vec<usize>) -> Vec<usize> {
    nodes.sort_unstable();
    nodes
}

/// Waits until the leader satisfies `leads`, according to the node `sees`. Returns this leader.
fn wait_leader(cluster: &Namespaces, sees: usize, leads: impl Fn(usize) -> bool) -> usize {
    eventually("the expected node leads", || {
        let (leader, _) = cluster.leader_seen_by(sees)?;
        leads(leader).then_some(leader)
    })
}

#[test]
fn membership_changes_survive_node_failures_and_nonvoters_never_count() {
    let mut cluster = match Namespaces::start() {
        Ok(cluster) => cluster,
        Err(why) => return eprintln!("SKIPPED, this machine has no network namespaces: {why}"),
    };
    let nodes: Vec<String> = NODES.into_iter().map(|node| cluster.resp(node)).collect();
    let began = Instant::now();
    let load = Load::start(&nodes, 25);
    load.wait_progress();

    // A follower is removed while the leader is killed (rows 2 and 25).
    let leader = cluster.leader();
    let (out, stays) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let remove = format!("members --remove {out}");
    let mut asked = shard(&cluster.http(stays), &remove);
    cluster.kill(leader);
    cluster.spawn(leader);
    cluster.wait_ready(leader);
    let _ = asked.wait();
    change(&cluster, stays, &remove);
    assert_eq!(members(&cluster), (sorted(vec![leader, stays]), vec![]));
    load.wait_progress();

    // One of the two voters is cut off (row 17). The other voter and the removed node reach each
    // other, but are not a majority.
    let leader = wait_leader(&cluster, stays, |_| true);
    let follower = if leader == stays { 6 - stays - out } else { stays };
    cluster.set(&Namespaces::alone(leader));
    wait_unavailable(&cluster, leader);
    wait_unavailable(&cluster, follower);
    assert_eq!(cluster.leader_seen_by(follower), None, "a removed node gave it a majority");
    assert!(cluster.status(out).is_some_and(|status| status["shards"][0]["role"] != "leader"));
    cluster.set(&[]);
    load.wait_progress();

    // The removed node returns as a learner while packets are lost, is killed meanwhile, and votes
    // again (rows 1, 19 and 25).
    cluster.set(&NODES.map(|node| Loss(node, 30)));
    let mut asked = shard(&cluster.http(stays), &format!("members --learner {out}"));
    cluster.kill(out);
    cluster.spawn(out);
    cluster.wait_ready(out);
    assert!(asked.wait().expect("a command ends").success(), "a learner is added while it is down");
    change(&cluster, stays, &format!("members --voter {out}"));
    cluster.set(&[]);
    assert_eq!(members(&cluster), (NODES.to_vec(), vec![]));

    // With the returned node there is a majority while another node is stopped (row 4).
    let leader = cluster.leader();
    let sleeper = if leader == stays { 6 - stays - out } else { stays };
    cluster.signal(sleeper, Signal::STOP);
    load.wait_progress();
    cluster.signal(sleeper, Signal::CONT);
    load.wait_progress();

    // A voter and a learner change places, in one joint change, while the leader is killed.
    let leader = cluster.leader();
    let (one, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    change(&cluster, leader, &format!("members --learner {one}"));
    assert_eq!(members(&cluster), (sorted(vec![leader, other]), vec![one]));
    let swap = format!("members --voter {one} --learner {other}");
    let mut asked = shard(&cluster.http(one), &swap);
    cluster.kill(leader);
    cluster.spawn(leader);
    cluster.wait_ready(leader);
    let _ = asked.wait();
    change(&cluster, one, &swap);
    assert_eq!(members(&cluster), (sorted(vec![leader, one]), vec![other]));
    load.wait_progress();

    // The learner is not part of any majority: without it all operations continue, and with it
    // alone none do.
    cluster.set(&Namespaces::alone(other));
    load.wait_progress();
    cluster.set(&Namespaces::alone(one));
    wait_unavailable(&cluster, leader);
    wait_unavailable(&cluster, one);
    assert_eq!(cluster.leader_seen_by(leader), None, "a learner gave it a majority");
    cluster.set(&[]);
    load.wait_progress();

    // Leadership is transferred to a node that is killed during the transfer.
    change(&cluster, other, &format!("lead --to {one}"));
    wait_leader(&cluster, leader, |leads| leads == one);
    change(&cluster, other, &format!("members --voter {other}"));
    let mut asked = shard(&cluster.http(one), &format!("lead --to {leader}"));
    cluster.kill(leader);
    load.wait_progress();
    cluster.spawn(leader);
    cluster.wait_ready(leader);
    let _ = asked.wait();
    assert_eq!(members(&cluster), (NODES.to_vec(), vec![]));
    load.wait_progress();
    verdict(&nodes, load.finish(), began);
}

#[test]
fn a_node_that_is_lost_for_good_is_replaced_by_a_new_one() {
    let mut cluster = match Namespaces::start() {
        Ok(cluster) => cluster,
        Err(why) => return eprintln!("SKIPPED, this machine has no network namespaces: {why}"),
    };
    let four = [1, 2, 3, SPARE];
    let began = Instant::now();
    let load = Load::start(&four.map(|node| cluster.resp(node)), 16);
    load.wait_progress();

    // A fourth node is added to the configurations, one node after the other. This does not make it
    // a member.
    cluster.configure(&four);
    for node in NODES {
        cluster.kill(node);
        cluster.spawn(node);
        cluster.wait_ready(node);
        load.wait_progress();
    }
    cluster.add_setting(SPARE, "join = true");
    cluster.spawn(SPARE);
    assert_eq!(members(&cluster), (NODES.to_vec(), vec![]), "a configuration changed the members");

    // After the loss of a disk the fourth node is not a member either: the node gets its members
    // from the other nodes.
    let replaced = cluster.leader() % 3 + 1;
    cluster.lose_disk(replaced);
    cluster.spawn(replaced);
    cluster.wait_ready(replaced);
    let status = cluster.status(replaced).expect("it answers");
    assert_eq!(status["shards"][0]["voters"], serde_json::json!(NODES));
    load.wait_progress();

    // The leader and its disk are lost for good. The fourth node replaces the leader.
    let lost = cluster.leader();
    let (one, other) = (lost % 3 + 1, (lost + 1) % 3 + 1);
    cluster.lose_disk(lost);
    wait_leader(&cluster, one, |leader| leader != lost);
    eventually("a node that is down cannot be made to lead", || {
        let words = format!("lead --to {lost} --timeout 1");
        let output = shard(&cluster.http(one), &words).wait_with_output().expect("it ends");
        String::from_utf8_lossy(&output.stderr).contains("is not connected").then_some(())
    });
    change(&cluster, one, &format!("members --learner {SPARE}"));
    cluster.wait_ready(SPARE);
    change(&cluster, one, &format!("members --voter {SPARE} --remove {lost}"));
    assert_eq!(members(&cluster), (sorted(vec![one, other, SPARE]), vec![]));
    load.wait_progress();

    // The fourth node counts: another node can fail now. The lost node returns with an empty disk,
    // and is not a member.
    cluster.spawn(lost);
    cluster.kill(one);
    wait_leader(&cluster, other, |leader| leader == other || leader == SPARE);
    load.wait_progress();
    cluster.spawn(one);
    cluster.wait_ready(one);
    assert_eq!(members(&cluster), (sorted(vec![one, other, SPARE]), vec![]));
    eventually("the lost node reports that it has no members", || {
        let (_, body) = http_get(&cluster.http(lost), "/readyz")?;
        (body == "not ready: shard 1 waits to be given its members\n").then_some(())
    });
    let nodes = [one, other, SPARE].map(|node| cluster.resp(node));
    verdict(&nodes, load.finish(), began);
}
