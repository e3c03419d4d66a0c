//! CLUSTER: a cluster client sees one node that owns every slot, the queried node.

use super::decode::{Args, Outcome, answer, unknown_subcommand};
use super::spec::{CommandSpec, Flag, Keys, spec};
use crate::api::client::Client;
use crate::machine::reply::Reply;

/// The commands of this family.
pub(super) const SPECS: &[CommandSpec] = &[spec("cluster", -2, Flag::Read, Keys::NONE, cluster)];

fn cluster(client: &mut Client, args: &Args) -> Outcome {
    let (host, port) = (client.local.ip().to_string(), i64::from(client.local.port()));
    let id = format!("{:040x}", client.shared.node.0);
    answer(match args.subcommand().as_str() {
        "SLOTS" => {
            let node =
                vec![Reply::text(host), Reply::Int(port), Reply::text(id), Reply::Array(vec![])];
            let range = vec![Reply::Int(0), Reply::Int(16383), Reply::Array(node)];
            Reply::Array(vec![Reply::Array(range)])
        }
        "SHARDS" => {
            let node = [
                ("id", Reply::text(id)),
                ("port", Reply::Int(port)),
                ("ip", Reply::text(host.clone())),
                ("endpoint", Reply::text(host)),
                ("role", Reply::text("master")),
                ("replication-offset", Reply::Int(0)),
                ("health", Reply::text("online")),
            ];
            let node = Reply::Map(node.map(|(key, value)| (Reply::text(key), value)).into());
            let slots = Reply::Array(vec![Reply::Int(0), Reply::Int(16383)]);
            let shard = [("slots", slots), ("nodes", Reply::Array(vec![node]))];
            let shard = shard.map(|(key, value)| (Reply::text(key), value));
            Reply::Array(vec![Reply::Map(shard.into())])
        }
        "NODES" => Reply::text(format!(
            "{id} {host}:{port}@{port} myself,master - 0 0 1 connected 0-16383\n"
        )),
        "INFO" => Reply::text(
            "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
             cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\n\
             cluster_size:1\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n",
        ),
        "MYID" => Reply::text(id),
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
