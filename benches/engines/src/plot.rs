//! A comparison as an SVG. Each workload has a group of bars, one bar per store: the store's figure
//! divided by that of the best peer. Up is better, on a scale of powers of two.

use crate::report::{Report, Row};
use std::fmt::Write;

const COLOURS: [&str; 9] = [
    "#0b6e99", "#d9730d", "#e0a63a", "#6940a5", "#a98bd0", "#448361", "#7fb394", "#9b2c2c",
    "#787774",
];
const BAR: f64 = 14.0;
const GAP: f64 = 22.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 70.0;
/// Height of one doubling.
const DOUBLING: f64 = 44.0;
/// Bars end at this many doublings.
const DOUBLINGS_MAX: f64 = 5.0;

/// Draws one figure of every workload. `ours` is the store that is not a peer.
pub fn svg(report: &Report, metric: &str, ours: &str) -> String {
    let mut stores: Vec<&str> = Vec::new();
    let mut workloads: Vec<&str> = Vec::new();
    for row in report.rows.iter().filter(|row| row.median.contains_key(metric)) {
        if !stores.contains(&row.store.as_str()) {
            stores.push(&row.store);
        }
        if !workloads.contains(&row.workload.as_str()) {
            workloads.push(&row.workload);
        }
    }
    let group = |name: &str| -> Vec<(&str, f64)> {
        let rows = report.rows.iter().filter(|row| row.workload == name);
        let ratios = ratios(&rows.collect::<Vec<_>>(), metric, ours);
        stores.iter().filter_map(|s| ratios.iter().find(|(store, _)| store == s)).copied().collect()
    };
    let groups = workloads.iter().map(|&name| (name, group(name)));
    let groups: Vec<_> = groups.filter(|(_, bars)| !bars.is_empty()).collect();
    let doublings = groups.iter().flat_map(|(_, bars)| bars).map(|(_, ratio)| ratio.log2());
    let reach = |least: f64, doubling: f64| least.max(doubling.ceil()).min(DOUBLINGS_MAX);
    let above = doublings.clone().fold(1.0, reach);
    let below = doublings.fold(1.0, |least, doubling| reach(least, -doubling));
    let bars: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let legend = stores.len() as f64 * 130.0;
    let width = (LEFT + bars as f64 * BAR + groups.len() as f64 * GAP + 20.0).max(LEFT + legend);
    let middle = TOP + above * DOUBLING;
    let bottom = middle + below * DOUBLING;
    let height = bottom + 90.0;
    let shape = &report.shape;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">{metric} against the best peer, {} keys, \
         {}-byte values: up is better</text>\n",
        shape.keys, shape.value,
    );
    for (i, store) in stores.iter().enumerate() {
        let x = LEFT + i as f64 * 130.0;
        let colour = COLOURS[i % COLOURS.len()];
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"34\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"44\">{store}</text>",
            x + 16.0
        );
    }
    for step in -(below as i32)..=above as i32 {
        let y = middle - f64::from(step) * DOUBLING;
        let label = if step < 0 { format!("1/{}", 1 << -step) } else { (1 << step).to_string() };
        let colour = if step == 0 { "#333" } else { "#ddd" };
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}×</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    let mut x = LEFT + GAP / 2.0;
    for (name, bars) in &groups {
        let begin = x;
        for (store, ratio) in bars {
            let place = stores.iter().position(|s| s == store).unwrap_or(0);
            let colour = COLOURS[place % COLOURS.len()];
            let tall = ratio.log2().clamp(-below, above) * DOUBLING;
            let (y, tall) = if tall > 0.0 { (middle - tall, tall) } else { (middle, -tall) };
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill=\"{colour}\"><title>{store}: {ratio:.2}×</title></rect>",
                BAR - 2.0,
                tall.max(1.5)
            );
            x += BAR;
        }
        let (at, y) = ((begin + x) / 2.0, bottom + 16.0);
        let _ = writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"end\" \
             transform=\"rotate(-35 {at:.1} {y:.1})\">{name}</text>"
        );
        x += GAP;
    }
    out.push_str("</svg>\n");
    out
}

/// Each store's figure divided by that of the best peer, turned so that more is better.
fn ratios<'a>(rows: &[&'a Row], metric: &str, ours: &str) -> Vec<(&'a str, f64)> {
    let more_is_better = metric == "ops_per_s";
    let score = |row: &Row| {
        let figure = row.median.get(metric).copied()?.max(1e-9);
        Some(if more_is_better { figure } else { 1.0 / figure })
    };
    let peers = rows.iter().filter(|row| row.store != ours).filter_map(|row| score(row));
    let best = peers.fold(0.0, f64::max);
    if best == 0.0 {
        return Vec::new();
    }
    rows.iter().filter_map(|row| Some((row.store.as_str(), score(row)? / best))).collect()
}
