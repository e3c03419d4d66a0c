//! The choice of the tables to merge next: lazy levelling (Dostoevsky, SIGMOD 2018). A pure
//! function from shapes of runs to a choice.
//!
//! Flushes make runs. When there are too many runs, runs of similar size are merged with each
//! other. Once the upper runs are large enough compared with the bottom run, they are merged into
//! the bottom run instead. So a version is written about once per merge of similar runs and once
//! per merge into the bottom run, and almost all data is in one run. Values in the log count
//! towards a run's weight like values in tables, because a merge finds the dead values.

use crate::limits::Limits;
use crate::table::TableMeta;
use bytes::Bytes;

/// The run that the others are merged into in the end.
pub const BOTTOM: u64 = 0;

/// The properties of a run that the choice depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The run.
    pub run: u64,
    /// The run's tables, ascending by key.
    pub tables: Vec<TableMeta>,
    /// Bytes of the run's tables and of the values that these tables point to.
    pub weight: u64,
    /// The number of pieces of the run's range tombstones.
    pub ranges: usize,
    /// The first key that the run's range tombstones delete, and the end of the last of these
    /// ranges.
    pub extent: Option<(Bytes, Bytes)>,
    /// A range tombstone of the run covers a whole table of an older run.
    pub deletes_tables: bool,
}

/// The tables of one run that a merge reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The run.
    pub run: u64,
    /// The numbers of the tables, ascending by key: all tables of the run, unless the run also
    /// receives the outputs.
    pub tables: Vec<u64>,
}

/// The tables to merge, and the run of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The runs that the merge reads, newest first.
    pub inputs: Vec<Input>,
    /// The run of the outputs.
    pub run: u64,
    /// No older version of the inputs' keys exists outside the inputs, so tombstones at or before
    /// the horizon are dropped.
    pub bottom: bool,
}

impl Choice {
    /// Whether the merge reads a table.
    pub fn reads(&self, table: u64) -> bool {
        self.inputs.iter().any(|input| input.tables.contains(&table))
    }
}

/// Returns the most urgent merge if any is due. `runs` holds the runs, newest first.
pub fn pick(runs: &[Shape], limits: &Limits) -> Option<Choice> {
    let (bottom, upper) = match runs.split_last() {
        Some((last, upper)) if last.run == BOTTOM => (Some(last), upper),
        _ => (None, runs),
    };
    let ranges: usize = upper.iter().map(|run| run.ranges).sum();
    let deletes =
        ranges >= limits.range_tombstones_max || upper.iter().any(|run| run.deletes_tables);
    if upper.len() < limits.runs_max && !deletes {
        return None;
    }
    let total: u64 = upper.iter().map(|run| run.weight).sum();
    let all = |runs: &[Shape]| -> Vec<Input> {
        let numbers = |run: &Shape| run.tables.iter().map(|table| table.number).collect();
        runs.iter().map(|run| Input { run: run.run, tables: numbers(run) }).collect()
    };
    let Some(bottom) = bottom else {
        return Some(Choice { inputs: all(upper), run: BOTTOM, bottom: true });
    };
    if deletes || total * limits.bottom_ratio >= bottom.weight {
        let mut inputs = all(upper);
        let tables = || upper.iter().flat_map(|run| &run.tables);
        let ranges = || upper.iter().filter_map(|run| run.extent.as_ref());
        let from = tables().map(|t| &t.smallest).chain(ranges().map(|(from, _)| from)).min()?;
        let to = tables().map(|t| &t.largest).chain(ranges().map(|(_, to)| to)).max()?;
        let below = bottom.tables.iter().filter(|table| touches(table, from, to));
        let below = below.map(|table| table.number).collect();
        inputs.push(Input { run: BOTTOM, tables: below });
        return Some(Choice { inputs, run: BOTTOM, bottom: true });
    }
    // Selects the newest runs, as long as the next run is at most twice as large as the runs before
    // it together.
    let mut weight = 0;
    let similar = upper.iter().take_while(|run| {
        let fits = weight == 0 || run.weight <= 2 * weight;
        weight += run.weight;
        fits
    });
    let count = similar.count().max(2).min(upper.len());
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
            let number = run * 10 + i as u64;
            let (seed, ts, ts_max) = (number, None, 0);
            TableMeta { number, seed, ts, bytes: 1, smallest, largest, ts_max }
        };
        let tables = ranges.iter().enumerate().map(table).collect();
        Shape { run, tables, weight, ..Shape::default() }
    }

    fn inputs(runs: &[(u64, &[u64])]) -> Vec<Input> {
        runs.iter().map(|&(run, tables)| Input { run, tables: tables.to_vec() }).collect()
    }

    #[test]
    fn a_range_tombstone_over_whole_tables_is_merged_into_the_bottom_at_once() {
        let bottom = run(0, 100, &["a-c", "d-f", "x-z"]);
        let key = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let extent = Some((key("d"), key("g")));
        let ranges = Shape { run: 5, ranges: 1, extent, deletes_tables: true, ..Shape::default() };
        let choice = pick(&[ranges, bottom], &LIMITS).unwrap();
        let inputs = inputs(&[(5, &[]), (0, &[1])]);
        assert_eq!(choice, Choice { inputs, run: BOTTOM, bottom: true });
    }

    #[test]
    fn few_runs_are_not_merged() {
        let runs = [run(2, 10, &["a-z"]), run(1, 10, &["a-z"]), run(0, 10, &["a-z"])];
        assert_eq!(pick(&runs, &LIMITS), None);
    }

    #[test]
    fn the_first_bottom_run_is_merged_from_all_runs() {
        let runs = [run(3, 10, &["a-z"]), run(2, 10, &["a-z"]), run(1, 10, &["a-z"])];
        let choice = pick(&runs, &LIMITS).unwrap();
        let inputs = inputs(&[(3, &[30]), (2, &[20]), (1, &[10])]);
        assert_eq!(choice, Choice { inputs, run: BOTTOM, bottom: true });
    }

    #[test]
    fn heavy_runs_are_merged_with_the_bottom_tables_that_they_overlap() {
        let bottom = run(0, 100, &["a-c", "d-f", "x-z"]);
        let runs = [run(3, 10, &["b-e"]), run(2, 10, &["b-b"]), run(1, 10, &["b-b"]), bottom];
        let choice = pick(&runs, &LIMITS).unwrap();
        let inputs = inputs(&[(3, &[30]), (2, &[20]), (1, &[10]), (0, &[0, 1])]);
        assert_eq!(choice, Choice { inputs, run: BOTTOM, bottom: true });
    }

    #[test]
    fn light_runs_of_similar_size_are_merged_with_each_other() {
        let bottom = run(0, 1000, &["a-z"]);
        let runs = [run(4, 10, &["a-z"]), run(3, 10, &["a-z"]), run(1, 90, &["a-z"]), bottom];
        let choice = pick(&runs, &LIMITS).unwrap();
        let inputs = inputs(&[(4, &[40]), (3, &[30])]);
        assert_eq!(choice, Choice { inputs, run: 4, bottom: false });
    }
}
