//! The kinds of faults that a seed draws from: all, or those of a named scenario.

use clap::ValueEnum;

/// Number of fault kinds. New kinds come at the end, so that old seeds can be drawn again.
pub const KINDS: u64 = 26;

/// A world with some kinds of faults and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// No faults.
    Calm,
    /// Nodes are killed, stopped and starved of processor time (rows 1 to 4, 22).
    Processes,
    /// Nodes lose power, also in the middle of a disk operation (rows 5 to 7, 26).
    Power,
    /// Disks fail, fill up, are slow or hang (rows 8, 14, 15).
    Disks,
    /// Data on a disk is damaged, misplaced, lost, outdated, or was never written (rows 10, 12, 13,
    /// 16, 31).
    Damage,
    /// Links are cut, frames are lost, nodes are clogged (rows 17 to 20).
    Network,
    /// Clocks jump and run at other rates, nodes are stopped (rows 4, 21).
    Clocks,
    /// Members are added and removed, leadership is transferred, while leaders are killed and links
    /// are cut (rows 2, 17, 18, 25).
    Members,
    /// Nodes change to the next version and back, while leaders are killed (rows 2, 28).
    Upgrades,
}

impl Scenario {
    /// The kinds, by their numbers in [`super::plan`].
    fn kinds(self) -> &'static [u64] {
        match self {
            Scenario::Calm => &[],
            Scenario::Processes => &[0, 1, 2, 3, 20],
            Scenario::Power => &[4, 5, 6],
            Scenario::Disks => &[7, 8, 9, 10],
            Scenario::Damage => &[18, 19, 21, 23, 25],
            Scenario::Network => &[11, 12, 13, 14, 22],
            Scenario::Clocks => &[3, 15],
            Scenario::Members => &[1, 11, 13, 16, 17],
            Scenario::Upgrades => &[1, 24],
        }
    }

    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// The kinds of faults that a seed draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// The kinds with a number below this one.
    First(u64),
    /// The kinds of a scenario.
    Of(Scenario),
}

impl Kinds {
    /// Every kind.
    pub const ALL: Kinds = Kinds::First(KINDS);

    pub(super) fn numbers(self) -> Vec<u64> {
        match self {
            Kinds::First(count) => (0..count).collect(),
            Kinds::Of(scenario) => scenario.kinds().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_fault_is_in_a_scenario() {
        let scenarios = Scenario::value_variants().iter();
        let mut kinds: Vec<u64> =
            scenarios.flat_map(|scenario| scenario.kinds()).copied().collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds, Kinds::ALL.numbers());
    }
}
