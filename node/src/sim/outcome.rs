//! The outcome of a run: its counts, or the check that failed.

use std::collections::BTreeMap;

/// A check that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The name of the check.
    pub check: &'static str,
    /// The state that fails the check.
    pub text: String,
    /// Time of the failure, in microseconds of simulated time.
    pub at: u64,
}

impl Failure {
    pub(super) fn new(check: &'static str, text: String) -> Failure {
        Failure { check, text, at: 0 }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} after {:.3} s: {}", self.check, self.at as f64 / 1e6, self.text)
    }
}

/// The counts of a run.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// A digest of the run.
    pub trace: u32,
    /// Processed events.
    pub events: u64,
    /// Simulated time, in microseconds.
    pub time: u64,
    /// Committed entries.
    pub committed: u64,
    /// Requests with an answer from a node, other than a refusal.
    pub answered: u64,
    /// Requests with an unknown outcome: the node lost track of them or never answered.
    pub unknown: u64,
    /// Requests that a node refused as unavailable or for lack of space.
    pub refused: u64,
    /// Lost frames, including frames that the stream sent again.
    pub lost: u64,
    /// Installed snapshots.
    pub snapshots: u64,
    /// Snapshot transfers that continued after an interruption.
    pub resumed: u64,
    /// Times that a node found damage in its log or in a table.
    pub damaged: u64,
    /// Times that a node noticed that its disk lacks entries that it had acknowledged.
    pub outdated: u64,
    /// Won elections.
    pub elections: u64,
    /// Injected faults, by row of the list in `docs/TESTING.md`.
    pub faults: BTreeMap<usize, u64>,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hours = self.time as f64 / 3.6e9;
        let Ran { events, committed, answered, unknown, refused, .. } = self;
        write!(f, "{hours:.1} simulated hours, {events} events, {committed} entries committed, ")?;
        write!(f, "{answered} requests answered, {unknown} unknown, {refused} refused, ")?;
        let Ran { lost, snapshots, resumed, damaged, outdated, elections, .. } = self;
        write!(
            f,
            "{lost} frames lost, {snapshots} snapshots, {resumed} resumed, {damaged} damaged, "
        )?;
        write!(f, "{outdated} outdated, {elections} elections; faults by row:")?;
        self.faults.iter().try_for_each(|(row, count)| write!(f, " {row}: {count}"))
    }
}

impl Ran {
    /// Adds the counts of another run.
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
        self.outdated += other.outdated;
        self.elections += other.elections;
        for (&row, count) in &other.faults {
            *self.faults.entry(row).or_default() += count;
        }
    }
}
