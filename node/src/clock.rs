//! The only module that reads clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// One moment, as the two clocks of a node show it.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// Monotonic time.
    pub now: Instant,
    /// Milliseconds since 1970. The value may jump and go back.
    pub unix_millis: u64,
}

/// The present moment.
pub fn time() -> Time {
    Time { now: now(), unix_millis: unix_millis() }
}

/// Milliseconds since 1970, by the clock of this node.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
