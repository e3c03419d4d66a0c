//! Which tables to merge next. Pure: table shapes in, a choice out.
//!
//! Level 0 is merged into level 1 when it has too many tables; a deeper level gives up one table
//! when it has outgrown its target, the one that overlaps least below. The level most over its
//! target goes first.

use crate::limits::Limits;
use crate::lsm::version::LEVELS;
use crate::table::TableMeta;
use bytes::Bytes;

/// Tables to merge, and where the result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Numbers of the tables, newest data first.
    pub inputs: Vec<u64>,
    /// The level of the outputs.
    pub level: usize,
    /// Nothing lies below the outputs, so settled tombstones go.
    pub bottom: bool,
}

/// The most urgent merge, if any is due.
pub fn pick(levels: &[Vec<TableMeta>; LEVELS], limits: &Limits) -> Option<Choice> {
    let mut urgent = (1.0, None);
    let score = levels[0].len() as f64 / limits.level0_tables as f64;
    if score >= urgent.0 {
        urgent = (score, Some(0));
    }
    let mut target = limits.level1_bytes;
    for (number, level) in levels.iter().enumerate().take(LEVELS - 1).skip(1) {
        let bytes: u64 = level.iter().map(|table| table.bytes).sum();
        let score = bytes as f64 / target as f64;
        if score > urgent.0 {
            urgent = (score, Some(number));
        }
        target = target.saturating_mul(limits.level_ratio);
    }
    let from = urgent.1?;
    let above: Vec<&TableMeta> = match from {
        0 => levels[0].iter().collect(),
        _ => vec![levels[from].iter().min_by_key(|t| overlap(&levels[from + 1], t))?],
    };
    let smallest = above.iter().map(|table| &table.smallest).min()?;
    let largest = above.iter().map(|table| &table.largest).max()?;
    let below = levels[from + 1].iter().filter(|table| touches(table, smallest, largest));
    let inputs = above.iter().copied().chain(below).map(|table| table.number).collect();
    let deeper = levels.iter().skip(from + 2).flatten();
    let bottom = !deeper.into_iter().any(|table| touches(table, smallest, largest));
    Some(Choice { inputs, level: from + 1, bottom })
}

fn touches(table: &TableMeta, smallest: &Bytes, largest: &Bytes) -> bool {
    table.smallest <= largest && smallest <= &table.largest
}

fn overlap(below: &[TableMeta], table: &TableMeta) -> u64 {
    let touched = below.iter().filter(|other| touches(other, &table.smallest, &table.largest));
    touched.map(|other| other.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(number: u64, bytes: u64, range: &str) -> TableMeta {
        let (smallest, largest) = range.split_once('-').unwrap();
        let key = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        TableMeta { number, bytes, smallest: key(smallest), largest: key(largest), ts_max: 0 }
    }

    fn levels(given: &[(usize, TableMeta)]) -> [Vec<TableMeta>; LEVELS] {
        let mut levels: [Vec<TableMeta>; LEVELS] = Default::default();
        for (level, table) in given {
            levels[*level].push(table.clone());
        }
        levels
    }

    #[test]
    fn nothing_is_due_in_a_small_tree() {
        let shape = levels(&[(0, table(2, 10, "a-z")), (1, table(1, 10, "a-z"))]);
        assert_eq!(pick(&shape, &Limits::TINY), None);
    }

    #[test]
    fn a_full_level_0_goes_down_with_what_it_overlaps() {
        let shape = levels(&[
            (0, table(9, 10, "c-d")),
            (0, table(8, 10, "b-f")),
            (0, table(7, 10, "c-c")),
            (1, table(1, 10, "a-b")),
            (1, table(2, 10, "g-h")),
            (2, table(3, 10, "e-e")),
        ]);
        let choice = pick(&shape, &Limits::TINY).unwrap();
        assert_eq!(choice, Choice { inputs: vec![9, 8, 7, 1], level: 1, bottom: false });
    }

    #[test]
    fn an_outgrown_level_gives_up_the_table_that_overlaps_least() {
        let big = Limits::TINY.level1_bytes;
        let shape = levels(&[
            (1, table(1, big, "a-c")),
            (1, table(2, big, "d-f")),
            (2, table(3, 500, "b-b")),
            (2, table(4, 100, "e-e")),
        ]);
        let choice = pick(&shape, &Limits::TINY).unwrap();
        assert_eq!(choice, Choice { inputs: vec![2, 4], level: 2, bottom: true });
    }
}
