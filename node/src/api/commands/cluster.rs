//! CLUSTER: a cluster client sees one node that owns every slot, the queried node, and the other
//! live nodes as its replicas.

use super::decode::{Args, Outcome, answer, unknown_subcommand};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::reply::Reply;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[spec("cluster", -2, Flag::Read, Keys::NONE, cluster)];

/// A node as a cluster client sees it.
struct ClusterNode {
    id: String,
    host: String,
    port: i64,
}

/// The queried node, which owns every slot, and the other live nodes, which are its replicas: a
/// client that loses the queried node goes on with one of them.
fn nodes(client: &Client) -> Vec<ClusterNode> {
    let id = |node: u64| format!("{node:040x}");
    let own = client.shared.node.0;
    let (host, port) = (client.local.ip().to_string(), i64::from(client.local.port()));
    let status = client.shared.status.get();
    let others = status.nodes.iter().filter(|node| node.alive && node.id != own);
    let others = others.filter_map(|node| {
        let (host, port) = node.resp.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Some(ClusterNode { id: id(node.id), host, port: port.parse().ok()? })
    });
    std::iter::once(ClusterNode { id: id(own), host, port }).chain(others).collect()
}

fn slots(nodes: &[ClusterNode]) -> Reply {
    let node = |node: &ClusterNode| {
        let (host, id) = (Reply::text(&node.host), Reply::text(&node.id));
        Reply::Array(vec![host, Reply::Int(node.port), id, Reply::Array(vec![])])
    };
    let range = [Reply::Int(0), Reply::Int(16383)].into_iter().chain(nodes.iter().map(node));
    Reply::Array(vec![Reply::Array(range.collect())])
}

fn shards(nodes: &[ClusterNode]) -> Reply {
    let map = |pairs: Vec<(&str, Reply)>| {
        Reply::Map(pairs.into_iter().map(|(key, value)| (Reply::text(key), value)).collect())
    };
    let node = |(place, node): (usize, &ClusterNode)| {
        map(vec![
            ("id", Reply::text(&node.id)),
            ("port", Reply::Int(node.port)),
            ("ip", Reply::text(&node.host)),
            ("endpoint", Reply::text(&node.host)),
            ("role", Reply::text(if place == 0 { "master" } else { "replica" })),
            ("replication-offset", Reply::Int(0)),
            ("health", Reply::text("online")),
        ])
    };
    let slots = Reply::Array(vec![Reply::Int(0), Reply::Int(16383)]);
    let nodes = Reply::Array(nodes.iter().enumerate().map(node).collect());
    Reply::Array(vec![map(vec![("slots", slots), ("nodes", nodes)])])
}

fn node_lines(nodes: &[ClusterNode]) -> Reply {
    let line = |(place, node): (usize, &ClusterNode)| {
        let ClusterNode { id, host, port } = node;
        let address = format!("{id} {host}:{port}@{port}");
        match place {
            0 => format!("{address} myself,master - 0 0 1 connected 0-16383\n"),
            _ => format!("{address} slave {} 0 0 1 connected\n", nodes[0].id),
        }
    };
    Reply::text(nodes.iter().enumerate().map(line).collect::<String>())
}

fn cluster(client: &mut Client, args: &Args) -> Outcome {
    let nodes = nodes(client);
    answer(match args.subcommand().as_str() {
        "SLOTS" => slots(&nodes),
        "SHARDS" => shards(&nodes),
        "NODES" => node_lines(&nodes),
        "INFO" => Reply::text(format!(
            "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
             cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:{}\r\n\
             cluster_size:1\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n",
            nodes.len()
        )),
        "MYID" => Reply::text(&nodes[0].id),
        "KEYSLOT" if args.len() == 3 => Reply::Int(i64::from(key_slot(&args[2]))),
        _ => return unknown_subcommand(args),
    })
}

/// The slot that Redis Cluster gives a key: CRC-16/XMODEM of the key, or of its part in braces.
fn key_slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&b| b == b'{').and_then(|open| {
        let len = key[open + 1..].iter().position(|&b| b == b'}')?;
        (len > 0).then(|| &key[open + 1..open + 1 + len])
    });
    let crc = tag.unwrap_or(key).iter().fold(0u16, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 }
        })
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_slots_are_those_of_redis_cluster() {
        assert_eq!(key_slot(b"123456789"), 12739);
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"{user1000}.followers"));
    }
}
