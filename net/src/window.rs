//! Congestion control: Cubic (RFC 9438) with a floor under its window.
//!
//! Between the nodes of a cluster most packets are lost to a bad link, not to a full queue. Cubic
//! reduces its window at each loss, down to two packets. Where three of ten packets are lost, a
//! connection then sends one packet and waits for its timer. [`crate::limits::WINDOW_FLOOR_BYTES`]
//! in flight are no congestion on any link that a cluster can run on.

use crate::limits::WINDOW_FLOOR_BYTES;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// Makes the controllers of an endpoint's connections.
#[derive(Default)]
pub(crate) struct FlooredCubic {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for FlooredCubic {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Floored(Box::new(Cubic::new(self.cubic.clone(), now, current_mtu))))
    }
}

/// A controller whose window never falls below the floor.
struct Floored(Box<dyn Controller>);

impl Controller for Floored {
    fn window(&self) -> u64 {
        self.0.window().max(WINDOW_FLOOR_BYTES)
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window().max(WINDOW_FLOOR_BYTES)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.0.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Floored(self.0.clone_box()))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.0.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.0.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.0.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn the_window_stays_at_its_floor_after_losses() {
        let began = Instant::now();
        let mut window = Arc::new(FlooredCubic::default()).build(began, 1200);
        for second in 0..20 {
            let now = began + Duration::from_secs(second);
            window.on_congestion_event(now, now, second % 3 == 0, 1200);
            assert!(window.window() >= WINDOW_FLOOR_BYTES);
        }
        assert_eq!(window.clone_box().window(), WINDOW_FLOOR_BYTES, "the window is at its floor");
    }
}
