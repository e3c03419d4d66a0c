//! The result of a comparison: medians over rounds, stored as JSON and printed as a table.

use crate::measure::Metrics;
use crate::workload::{Outcome, Shape};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A comparison.
#[derive(Serialize, Deserialize)]
pub struct Report {
    /// The amount of work.
    pub shape: Shape,
    /// One row per workload and store.
    pub rows: Vec<Row>,
}

/// One store under one workload.
#[derive(Serialize, Deserialize)]
pub struct Row {
    /// The workload.
    pub workload: String,
    /// The store.
    pub store: String,
    /// The median of each figure.
    pub median: Metrics,
    /// The figures, round by round.
    pub rounds: Vec<Metrics>,
}

impl Report {
    /// An empty report.
    pub fn new(shape: Shape) -> Self {
        Self { shape, rows: Vec::new() }
    }

    /// Adds the figures of one process.
    pub fn add(&mut self, store: &str, outcome: Outcome) {
        let Outcome { workload, metrics } = outcome;
        let known = |row: &&mut Row| row.workload == workload && row.store == store;
        match self.rows.iter_mut().find(known) {
            Some(row) => row.rounds.push(metrics),
            None => {
                let (store, rounds) = (store.to_owned(), vec![metrics]);
                self.rows.push(Row { workload, store, median: Metrics::new(), rounds });
            }
        }
    }

    /// Computes the medians and puts stores side by side, with workloads in the order of their
    /// first row.
    pub fn finish(&mut self) {
        let mut order: Vec<String> = Vec::new();
        for row in &mut self.rows {
            row.median = median(&row.rounds);
            if !order.contains(&row.workload) {
                order.push(row.workload.clone());
            }
        }
        self.rows.sort_by_key(|row| order.iter().position(|name| *name == row.workload));
    }

    /// A markdown table. `±` is half the range over the rounds, in percent of the median.
    pub fn table(&self) -> String {
        let mut out = String::from(
            "| workload | store | ops/s | ± | p50 µs | p99 µs | p99.9 µs | CPU µs/op | \
             settle s | device B/B | space | RSS MiB |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for Row { workload, store, median, rounds } in &self.rows {
            let show = |name: &str, decimals| match median.get(name) {
                Some(figure) => number(*figure, decimals),
                None => "-".to_owned(),
            };
            let mib = |name: &str| match median.get(name) {
                Some(bytes) => number(bytes / f64::from(1 << 20), 0),
                None => "-".to_owned(),
            };
            let space = match median.get("space_ratio") {
                Some(ratio) if !workload.starts_with("sync") => format!("{ratio:.2}×"),
                _ => format!("{} MiB", mib("space_bytes")),
            };
            let cells = [
                show("ops_per_s", 0),
                format!("{:.0}%", spread(rounds) * 100.0),
                show("p50_us", 1),
                show("p99_us", 1),
                show("p999_us", 1),
                show("cpu_us_per_op", 2),
                show("settle_s", 2),
                show("device_ratio", 2),
                space,
                mib("rss_bytes"),
            ];
            let _ = writeln!(out, "| {workload} | {store} | {} |", cells.join(" | "));
        }
        out
    }
}

fn median(rounds: &[Metrics]) -> Metrics {
    let names: std::collections::BTreeSet<&String> = rounds.iter().flat_map(|r| r.keys()).collect();
    let middle = |name: &&String| {
        let mut figures: Vec<f64> = rounds.iter().filter_map(|r| r.get(*name)).copied().collect();
        figures.sort_by(f64::total_cmp);
        let upper = figures[figures.len() / 2];
        let lower = figures[(figures.len() - 1) / 2];
        ((*name).clone(), (lower + upper) / 2.0)
    };
    names.iter().map(middle).collect()
}

fn spread(rounds: &[Metrics]) -> f64 {
    let all = || rounds.iter().filter_map(|round| round.get("ops_per_s")).copied();
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    let middle = median(rounds).get("ops_per_s").copied().unwrap_or(1.0);
    (most - least) / 2.0 / middle
}

/// Formats a figure, with a comma between thousands once it is large.
fn number(figure: f64, decimals: usize) -> String {
    if figure < 1000.0 {
        let decimals = if figure < 10.0 && decimals == 0 && figure > 0.0 { 1 } else { decimals };
        return format!("{figure:.decimals$}");
    }
    let digits = format!("{figure:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
