//! Ranges of keys that were deleted as a whole.
//!
//! A range tombstone hides every older version of the keys in its range. Range tombstones are few
//! compared with keys. The range tombstones of a memtable or a run are therefore one small map in
//! memory, and the manifest stores the range tombstones of a run (`docs/decisions/0008`). The
//! ranges are cut into pieces that do not overlap, so a key needs one lookup.

use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A deletion of the keys from `from` (inclusive) to `to` (exclusive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeTombstone {
    /// The first key.
    pub from: Bytes,
    /// The exclusive end key.
    pub to: Bytes,
    /// The timestamp of the deletion: versions before `ts` are hidden, versions at `ts` are not.
    pub ts: u64,
}

/// Deleted ranges, as disjoint pieces. Each piece has a first key, an end key and the timestamps of
/// its deletions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    pieces: BTreeMap<Bytes, Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    to: Bytes,
    /// The timestamps of the deletions, ascending.
    deleted: SmallVec<[u64; 1]>,
}

impl Piece {
    fn at(&self, ts: u64) -> Option<u64> {
        let count = self.deleted.partition_point(|&deleted| deleted <= ts);
        count.checked_sub(1).map(|last| self.deleted[last])
    }
}

impl Ranges {
    /// Adds a deletion. An empty range deletes nothing.
    pub fn insert(&mut self, RangeTombstone { from, to, ts }: RangeTombstone) {
        if from >= to {
            return;
        }
        self.cut(&from);
        self.cut(&to);
        let mut at = from;
        while at < to {
            let inside = (Bound::Included(&at), Bound::Excluded(&to));
            let next = self.pieces.range_mut::<Bytes, _>(inside).next();
            let gap_end = match next {
                Some((start, piece)) if *start == at => {
                    if let Err(place) = piece.deleted.binary_search(&ts) {
                        piece.deleted.insert(place, ts);
                    }
                    at = piece.to.clone();
                    continue;
                }
                Some((start, _)) => start.clone(),
                None => to.clone(),
            };
            let piece = Piece { to: gap_end.clone(), deleted: SmallVec::from_slice(&[ts]) };
            self.pieces.insert(std::mem::replace(&mut at, gap_end), piece);
        }
    }

    /// Splits the piece that has `key` inside, if any, at `key`.
    fn cut(&mut self, key: &Bytes) {
        let before = self.pieces.range_mut::<Bytes, _>((Bound::Unbounded, Bound::Excluded(key)));
        let Some((_, piece)) = before.into_iter().next_back().filter(|(_, p)| p.to > key) else {
            return;
        };
        let rest = piece.clone();
        piece.to = key.clone();
        self.pieces.insert(key.clone(), rest);
    }

    /// The newest deletion of `key` at or before `ts`.
    pub fn covering(&self, key: &[u8], ts: u64) -> Option<u64> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let (_, piece) = self.pieces.range::<[u8], _>(upto).next_back()?;
        if key < &piece.to[..] { piece.at(ts) } else { None }
    }

    /// The timestamp before which no version of the keys from `smallest` to `largest`, both
    /// inclusive, is visible at `ts`; `None` when some of these keys were not deleted.
    pub fn covering_all(&self, smallest: &[u8], largest: &[u8], ts: u64) -> Option<u64> {
        let mut oldest = self.covering(smallest, ts)?;
        let inside = (Bound::Excluded(smallest), Bound::Included(largest));
        let first = self.pieces.range::<[u8], _>((Bound::Unbounded, Bound::Included(smallest)));
        let mut end = &first.into_iter().next_back()?.1.to;
        if smallest < largest {
            for (from, piece) in self.pieces.range::<[u8], _>(inside) {
                if from != end {
                    return None;
                }
                oldest = oldest.min(piece.at(ts)?);
                end = &piece.to;
            }
        }
        (largest < &end[..]).then_some(oldest)
    }

    /// Whether a deletion at or before `ts` overlaps the keys from `smallest` to `largest`, both
    /// inclusive.
    pub fn touches(&self, smallest: &[u8], largest: &[u8], ts: u64) -> bool {
        let upto = (Bound::Unbounded, Bound::Included(largest));
        let mut before = self.pieces.range::<[u8], _>(upto).rev();
        before.by_ref().take_while(|(_, p)| smallest < &p.to[..]).any(|(_, p)| p.at(ts).is_some())
    }

    /// Adds the deletions of `other`.
    pub fn absorb(&mut self, other: &Ranges) {
        other.iter().for_each(|tombstone| self.insert(tombstone));
    }

    /// Drops each deletion that a newer deletion at or before the horizon covers. If `gone` reports
    /// that a piece hides nothing any more, the function drops all its deletions at or before the
    /// horizon.
    pub fn settle(&mut self, horizon: u64, gone: impl Fn(&Bytes, &Bytes) -> bool) {
        self.pieces.retain(|from, piece| {
            let settled = piece.deleted.partition_point(|&ts| ts <= horizon);
            let keep = usize::from(settled > 0 && !gone(from, &piece.to));
            piece.deleted.drain(..settled - keep.min(settled));
            !piece.deleted.is_empty()
        });
    }

    /// The oldest deletion of all.
    pub fn oldest(&self) -> Option<u64> {
        self.pieces.values().filter_map(|piece| piece.deleted.first().copied()).min()
    }

    /// The first key of all, and the end of the last range.
    pub fn extent(&self) -> Option<(&Bytes, &Bytes)> {
        let (first, _) = self.pieces.first_key_value()?;
        let (_, last) = self.pieces.last_key_value()?;
        Some((first, &last.to))
    }

    /// Iterates over every deletion of every piece.
    pub fn iter(&self) -> impl Iterator<Item = RangeTombstone> {
        self.pieces.iter().flat_map(|(from, piece)| {
            let (from, to) = (from.clone(), piece.to.clone());
            let one = move |&ts: &u64| RangeTombstone { from: from.clone(), to: to.clone(), ts };
            piece.deleted.iter().map(one)
        })
    }

    /// Whether nothing was deleted.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The number of pieces.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }
}

impl FromIterator<RangeTombstone> for Ranges {
    fn from_iter<T: IntoIterator<Item = RangeTombstone>>(tombstones: T) -> Self {
        let mut ranges = Ranges::default();
        tombstones.into_iter().for_each(|tombstone| ranges.insert(tombstone));
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u8) -> Bytes {
        Bytes::copy_from_slice(&[number])
    }

    proptest! {
        /// The reference is a list that is searched from end to end.
        #[test]
        fn range_pieces_match_a_linear_list(
            list in prop::collection::vec((0u8..20, 0u8..20, 1u64..30), 0..12),
            horizon in 0u64..30,
        ) {
            let all = list.iter().map(|&(from, to, ts)| {
                RangeTombstone { from: key(from), to: key(to), ts }
            });
            let mut ranges: Ranges = all.collect();
            let newest = |at: u8, ts: u64| {
                let covers = |r: &&(u8, u8, u64)| r.0 <= at && at < r.1 && r.2 <= ts;
                list.iter().filter(covers).map(|r| r.2).max()
            };
            for at in 0..21u8 {
                for ts in 0..31 {
                    prop_assert_eq!(ranges.covering(&[at], ts), newest(at, ts));
                }
            }
            for (from, to) in (0..20u8).flat_map(|from| (from..20).map(move |to| (from, to))) {
                // Keys between two of one byte count too: `from` and one more byte.
                let found = ranges.covering_all(&[from], &[to], horizon);
                let each: Option<Vec<u64>> = (from..=to).map(|at| newest(at, horizon)).collect();
                prop_assert_eq!(found, each.and_then(|each| each.into_iter().min()));
            }
            ranges.settle(horizon, |_, _| false);
            for at in 0..21u8 {
                for ts in horizon..31 {
                    prop_assert_eq!(ranges.covering(&[at], ts), newest(at, ts));
                }
            }
            ranges.settle(horizon, |_, _| true);
            prop_assert!(ranges.oldest().is_none_or(|oldest| oldest > horizon));
        }
    }
}
