//! Which tables to merge next: lazy levelling (Dostoevsky, SIGMOD 2018). Pure: shapes in, a choice
//! out.
//!
//! Flushes make runs. When there are too many, they are merged with each other, similar sizes
//! first, or, once they weigh enough beside the bottom run, into that. So a version is written
//! about once per merge of similar runs and once per round through the bottom, and almost all data
//! lies in one run. Values in the log weigh like those in tables: merging finds out which are dead.

use crate::limits::Limits;
use crate::lsm::version::BOTTOM;
use crate::table::TableMeta;
use bytes::Bytes;

/// A run as the choice sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The run.
    pub run: u64,
    /// Its tables, ascending.
    pub tables: Vec<TableMeta>,
    /// Bytes of its tables and of the values they point to.
    pub weight: u64,
}

/// Tables to merge, and where the result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Numbers of the tables of each run, newest run first, each ascending by key.
    pub inputs: Vec<Vec<u64>>,
    /// The run of the outputs.
    pub run: u64,
    /// Nothing older lies anywhere else, so settled tombstones go.
    pub bottom: bool,
}

/// The most urgent merge of runs, newest first, if any is due.
pub fn pick(runs: &[Shape], limits: &Limits) -> Option<Choice> {
    let (bottom, upper) = match runs.split_last() {
        Some((last, upper)) if last.run == BOTTOM => (Some(last), upper),
        _ => (None, runs),
    };
    if upper.len() < limits.runs_max {
        return None;
    }
    let total: u64 = upper.iter().map(|run| run.weight).sum();
    let all = |runs: &[Shape]| -> Vec<Vec<u64>> {
        let numbers = |run: &Shape| run.tables.iter().map(|table| table.number).collect();
        runs.iter().map(numbers).collect()
    };
    let Some(bottom) = bottom else {
        return Some(Choice { inputs: all(upper), run: BOTTOM, bottom: true });
    };
    if total * limits.bottom_ratio >= bottom.weight {
        let mut inputs = all(upper);
        let tables = || upper.iter().flat_map(|run| &run.tables);
        let smallest = tables().map(|table| &table.smallest).min()?;
        let largest = tables().map(|table| &table.largest).max()?;
        let below = bottom.tables.iter().filter(|table| touches(table, smallest, largest));
        inputs.push(below.map(|table| table.number).collect());
        return Some(Choice { inputs, run: BOTTOM, bottom: true });
    }
    // The newest runs, as long as the next is not much larger than those before it together.
    let mut weight = 0;
    let similar = upper.iter().take_while(|run| {
        let fits = weight == 0 || run.weight <= 2 * weight;
        weight += run.weight;
        fits
    });
    let count = similar.count().max(2);
    let run = upper[0].run;
    Some(Choice { inputs: all(&upper[..count]), run, bottom: false })
}

fn touches(table: &TableMeta, smallest: &Bytes, largest: &Bytes) -> bool {
    table.smallest <= largest && smallest <= &table.largest
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { runs_max: 3, bottom_ratio: 4, ..Limits::TINY };

    fn run(run: u64, weight: u64, ranges: &[&str]) -> Shape {
        let key = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let table = |(i, range): (usize, &&str)| {
            let (smallest, largest) = range.split_once('-').unwrap();
            let (smallest, largest) = (key(smallest), key(largest));
            TableMeta { number: run * 10 + i as u64, bytes: 1, smallest, largest, ts_max: 0 }
        };
        Shape { run, tables: ranges.iter().enumerate().map(table).collect(), weight }
    }

    #[test]
    fn few_runs_stay() {
        let runs = [run(2, 10, &["a-z"]), run(1, 10, &["a-z"]), run(0, 10, &["a-z"])];
        assert_eq!(pick(&runs, &LIMITS), None);
    }

    #[test]
    fn the_first_bottom_takes_all() {
        let runs = [run(3, 10, &["a-z"]), run(2, 10, &["a-z"]), run(1, 10, &["a-z"])];
        let choice = pick(&runs, &LIMITS).unwrap();
        let inputs = vec![vec![30], vec![20], vec![10]];
        assert_eq!(choice, Choice { inputs, run: BOTTOM, bottom: true });
    }

    #[test]
    fn heavy_runs_go_into_what_they_touch_of_the_bottom() {
        let bottom = run(0, 100, &["a-c", "d-f", "x-z"]);
        let runs = [run(3, 10, &["b-e"]), run(2, 10, &["b-b"]), run(1, 10, &["b-b"]), bottom];
        let choice = pick(&runs, &LIMITS).unwrap();
        let inputs = vec![vec![30], vec![20], vec![10], vec![0, 1]];
        assert_eq!(choice, Choice { inputs, run: BOTTOM, bottom: true });
    }

    #[test]
    fn light_runs_of_similar_size_are_merged_with_each_other() {
        let bottom = run(0, 1000, &["a-z"]);
        let runs = [run(4, 10, &["a-z"]), run(3, 10, &["a-z"]), run(1, 90, &["a-z"]), bottom];
        let choice = pick(&runs, &LIMITS).unwrap();
        assert_eq!(choice, Choice { inputs: vec![vec![40], vec![30]], run: 4, bottom: false });
    }
}
