//! A node sends snapshots no faster than the limit allows.

use super::super::host::Host;
use super::super::outcome::Failure;
use crate::limits::{Limits, TICKS_PER_SECOND};
use crate::sim::replicas::HostId;
use std::collections::BTreeMap;
use std::time::Instant;

/// A bucket that leaks at the allowed rate, by the node's own clock.
#[derive(Clone, Copy)]
struct Bucket {
    looked: Instant,
    sent: u64,
    bytes: f64,
}

#[derive(Default)]
pub(super) struct Paces {
    of: BTreeMap<HostId, Bucket>,
}

impl Paces {
    pub(super) fn turn(&mut self, host: &Host, now: u64) -> Result<(), Failure> {
        let pace = Limits::TINY.snapshot_bytes_per_second as f64;
        // The bucket may hold the bytes of two ticks, and of the chunks that exceeded the remaining
        // allowance.
        let chunk = Limits::TINY.snapshot_chunk_bytes as f64;
        let most = 2.0 * pace / TICKS_PER_SECOND as f64 + 4.0 * chunk;
        let (looked, sent) = (host.time(now).now, host.metrics.snapshot_bytes.get());
        let bucket = self.of.entry(host.id).or_insert(Bucket { looked, sent: 0, bytes: 0.0 });
        let leaked = pace * looked.saturating_duration_since(bucket.looked).as_secs_f64();
        let bytes = (bucket.bytes - leaked).max(0.0) + (sent - bucket.sent) as f64;
        *bucket = Bucket { looked, sent, bytes };
        if bytes > most {
            let text = format!("node {} sent {bytes:.0} bytes at once, limit {most:.0}", host.id);
            return Err(Failure::new("snapshot-pace", text));
        }
        Ok(())
    }
}
