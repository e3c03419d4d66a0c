//! A cluster of whole nodes in one thread: real engines, drivers, shards and wire formats over
//! disks, a network and clocks that are simulated, all from one seed. A seed draws a [`Plan`]:
//! nodes, clients, sizes, and faults of a few kinds. While the world is bad, every turn of every
//! node is checked; then all faults end, and the cluster must come to rest within a bound, take
//! writes at each node and hold the same everywhere. What the clients saw must be linearizable.
//!
//! The same seed runs the same way, on any machine: [`Ran::trace`] is a digest of all that
//! happened.

mod checks;
mod clients;
mod faults;
pub mod history;
mod host;
mod network;
pub mod plan;
pub mod rng;
pub mod sabotage;
pub mod scenario;
pub mod shrink;
mod world;

pub use plan::Plan;
pub use sabotage::Sabotage;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A promise that did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub check: &'static str,
    /// What was seen instead.
    pub text: String,
    /// When, in microseconds of simulated time.
    pub at: u64,
}

impl Failure {
    fn new(check: &'static str, text: String) -> Failure {
        Failure { check, text, at: 0 }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} after {:.3} s: {}", self.check, self.at as f64 / 1e6, self.text)
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// A digest of everything that happened.
    pub trace: u32,
    /// Events.
    pub events: u64,
    /// Simulated time, in microseconds.
    pub time: u64,
    /// Entries committed.
    pub committed: u64,
    /// Requests that were answered, and those of which nobody knows, and those refused.
    pub answered: u64,
    /// See `answered`.
    pub unknown: u64,
    /// See `answered`.
    pub refused: u64,
    /// Frames lost for good.
    pub lost: u64,
    /// Snapshots taken in.
    pub snapshots: u64,
    /// Of snapshots, how often one went on after a break.
    pub resumed: u64,
    /// How often a node found its log or a table damaged.
    pub damaged: u64,
    /// Elections won.
    pub elections: u64,
    /// Faults that came, by the row of the list.
    pub faults: BTreeMap<usize, u64>,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hours = self.time as f64 / 3.6e9;
        let Ran { events, committed, answered, unknown, refused, .. } = self;
        write!(f, "{hours:.1} simulated hours, {events} events, {committed} entries committed, ")?;
        write!(f, "{answered} requests answered, {unknown} unknown, {refused} refused, ")?;
        let Ran { lost, snapshots, resumed, damaged, elections, .. } = self;
        write!(
            f,
            "{lost} frames lost, {snapshots} snapshots, {resumed} resumed, {damaged} damaged, "
        )?;
        write!(f, "{elections} elections; faults by row:")?;
        self.faults.iter().try_for_each(|(row, count)| write!(f, " {row}: {count}"))
    }
}

impl Ran {
    /// Adds what another run did.
    pub fn add(&mut self, other: &Ran) {
        self.events += other.events;
        self.time += other.time;
        self.committed += other.committed;
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.lost += other.lost;
        self.snapshots += other.snapshots;
        self.resumed += other.resumed;
        self.damaged += other.damaged;
        self.elections += other.elections;
        for (&row, count) in &other.faults {
            *self.faults.entry(row).or_default() += count;
        }
    }
}

/// Runs a plan.
///
/// # Errors
/// The promise that did not hold; a panic of a node is one as well.
pub fn run(plan: &Plan) -> Result<Ran, Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::World::new(plan).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(Failure::new("no-panic", text.unwrap_or_default()))
    })
}
