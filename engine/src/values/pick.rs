//! The choice of the sources to collect. A pure function from sizes to a choice.
//!
//! Garbage is tolerated up to a share of the live bytes. A larger share moves fewer values and uses
//! more space. Above the share the sources with the smallest live share are collected first, since
//! they free the most space for each byte moved. Among equal sources the oldest is first.

use super::Source;
use crate::limits::Limits;
use std::collections::BTreeSet;

/// A source with its total and live bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The source.
    pub source: Source,
    /// Bytes on disk.
    pub total: u64,
    /// Bytes of the source that tables point to.
    pub live: u64,
}

impl Usage {
    fn garbage(&self) -> u64 {
        self.total.saturating_sub(self.live)
    }
}

/// Returns the sources to collect now.
pub fn pick(usages: &[Usage], limits: &Limits) -> BTreeSet<Source> {
    let live: u64 = usages.iter().map(|usage| usage.live).sum();
    let mut garbage: u64 = usages.iter().map(Usage::garbage).sum();
    let tolerated = live * limits.garbage_percent / 100 + limits.garbage_bytes;
    let mut sparse: Vec<&Usage> = usages.iter().filter(|usage| usage.garbage() > 0).collect();
    sparse.sort_by(|a, b| {
        let share = |usage: &Usage| u128::from(usage.live) << 32;
        let (a_share, b_share) = (share(a) / u128::from(a.total), share(b) / u128::from(b.total));
        a_share.cmp(&b_share).then(a.source.cmp(&b.source))
    });
    let (mut targets, mut moved) = (BTreeSet::new(), 0);
    for usage in sparse {
        if garbage <= tolerated || (moved + usage.live > limits.collect_bytes && moved > 0) {
            break;
        }
        garbage -= usage.garbage();
        moved += usage.live;
        targets.insert(usage.source);
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { garbage_percent: 50, garbage_bytes: 0, collect_bytes: 100, ..Limits::TINY };

    fn usage(sequence: u64, live: u64) -> Usage {
        Usage { source: Source::Log(sequence), total: 100, live }
    }

    #[test]
    fn garbage_below_the_limit_is_not_collected() {
        assert!(pick(&[usage(1, 70), usage(2, 70)], &LIMITS).is_empty());
    }

    #[test]
    fn the_sparsest_source_is_collected_first_and_no_more_than_needed() {
        let found = pick(&[usage(1, 65), usage(2, 30), usage(3, 65)], &LIMITS);
        assert_eq!(found, BTreeSet::from([Source::Log(2)]));
    }

    #[test]
    fn one_round_moves_a_bounded_amount() {
        let usages: Vec<Usage> = (0..10).map(|i| usage(i, 40)).collect();
        assert_eq!(pick(&usages, &LIMITS).len(), 2);
    }
}
