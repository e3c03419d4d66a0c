//! Commits batches of 128-byte entries on three Raft cores; `raft.py` counts the instructions.
//!
//!     bedstone-raft-costs <entries in a batch> <batches>

use bedstone_benches::raft_cluster::Cluster;
use bytes::Bytes;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(batch)), Some(Ok(batches))) = (numbers.next(), numbers.next()) else {
        panic!("usage: bedstone-raft-costs <entries in a batch> <batches>");
    };
    let mut cluster = Cluster::new();
    let data = Bytes::from(vec![7; 128]);
    (0..batches).for_each(|_| cluster.commit(&data, batch));
}
