//! The time of a replica, in ticks, and the moments at which something is due.

use super::Tick;
use std::ops::Range;

/// See the module. Invariants: `now` never decreases, and `heard_leader` is never after `now`. Both
/// follow from the methods: only [`Timers::tick`] moves `now`, and nothing else is a source of
/// time.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    now: Tick,
    /// When the role times out: a follower then campaigns, and a leader then counts the members
    /// that it has heard.
    deadline: Tick,
    /// When the leader was last heard. At the start of a replica this is `now`.
    heard_leader: Tick,
    next_heartbeat: Tick,
    /// The state of the generator of election timeouts (xorshift64); never 0.
    rng_state: u64,
}

impl Timers {
    /// Timers that are due at the first tick, unless they are set before. `seed` is not 0.
    pub(super) fn new(seed: u64) -> Timers {
        assert!(seed != 0, "the generator of election timeouts needs a seed");
        Timers { now: 0, deadline: 0, heard_leader: 0, next_heartbeat: 0, rng_state: seed }
    }

    pub(super) fn now(&self) -> Tick {
        self.now
    }

    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    /// The moment `ticks` ago, or the start of the replica.
    pub(super) fn ago(&self, ticks: Tick) -> Tick {
        self.now.saturating_sub(ticks)
    }

    /// Whether the role times out.
    pub(super) fn is_due(&self) -> bool {
        self.now >= self.deadline
    }

    /// Makes the role time out at the next tick.
    pub(super) fn make_due(&mut self) {
        self.deadline = 0;
    }

    /// The next random number.
    #[inline]
    pub(super) fn draw(&mut self) -> u64 {
        self.rng_state ^= self.rng_state << 13;
        self.rng_state ^= self.rng_state >> 7;
        self.rng_state ^= self.rng_state << 17;
        self.rng_state
    }

    /// Begins an election timeout of a random length from this range.
    pub(super) fn wait_for_leader(&mut self, election: &Range<Tick>) {
        let Range { start, end } = *election;
        self.deadline = self.now + start + self.draw() % (end - start);
    }

    /// The leader was heard now.
    pub(super) fn hear_leader(&mut self) {
        self.heard_leader = self.now;
    }

    /// Whether the leader was heard less than `ticks` ago.
    pub(super) fn heard_leader_within(&self, ticks: Tick) -> bool {
        self.now < self.heard_leader + ticks
    }

    /// A leader counts the members that it has heard after this many ticks.
    pub(super) fn count_members_after(&mut self, ticks: Tick) {
        self.deadline = self.now + ticks;
    }

    /// The next heartbeats are due after this many ticks.
    pub(super) fn heartbeat_after(&mut self, ticks: Tick) {
        self.next_heartbeat = self.now + ticks;
    }

    /// Whether heartbeats are due.
    pub(super) fn heartbeat_is_due(&self) -> bool {
        self.now >= self.next_heartbeat
    }
}
