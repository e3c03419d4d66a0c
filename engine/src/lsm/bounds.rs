//! The bounds of a tree: the keys that belong to a shard.

use crate::error::Result;
use crate::key::{Cursor, Version, is_system, space};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::ops::Bound;

/// A range of keys: its start and its end.
pub(crate) type Span = (Bound<Bytes>, Bound<Bytes>);

/// The range of user keys that belong to a tree. The keys of the system space always belong to the
/// tree. After a split, the tables of the tree may hold user keys outside the bounds until the
/// tables are rewritten. Readers never see these keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first user key.
    pub from: Bytes,
    /// The exclusive end key; `None` for no end.
    pub to: Option<Bytes>,
}

impl Bounds {
    /// Whether a key belongs to the tree.
    pub fn contains(&self, key: &[u8]) -> bool {
        is_system(key) || self.from <= key && self.is_before_end(key)
    }

    /// Whether any key between two keys, both inclusive, belongs to the tree.
    pub fn meet(&self, smallest: &[u8], largest: &[u8]) -> bool {
        is_system(smallest) || self.from <= largest && self.is_before_end(smallest)
    }

    /// Whether all keys between two keys, both inclusive, belong to the tree.
    pub fn contain(&self, smallest: &[u8], largest: &[u8]) -> bool {
        let spaces = is_system(smallest) && !is_system(largest) && self.separate_spaces();
        self.contains(smallest) && self.contains(largest) && !spaces
    }

    /// Whether user keys below the bounds lie between the system keys and the user keys of the
    /// tree. A table must then not hold keys of both spaces, because the range of the table would
    /// contain foreign keys.
    pub fn separate_spaces(&self) -> bool {
        self.from > [space::USER][..]
    }

    fn is_before_end(&self, key: &[u8]) -> bool {
        self.to.as_ref().is_none_or(|to| key < &to[..])
    }

    /// The parts of a range that belong to the tree, ascending.
    pub(crate) fn clip(&self, (from, to): Span) -> SmallVec<[Span; 2]> {
        let end = self.to.clone().map_or(Bound::Unbounded, Bound::Excluded);
        if !self.separate_spaces() {
            return smallvec![(from, earlier_end(to, end))];
        }
        let system_end = Bound::Excluded(Bytes::from_static(&[space::USER]));
        let system = (from.clone(), earlier_end(to.clone(), system_end));
        smallvec![system, (later_start(from, &self.from), earlier_end(to, end))]
    }
}

/// The end bound that comes first.
fn earlier_end(a: Bound<Bytes>, b: Bound<Bytes>) -> Bound<Bytes> {
    // An inclusive end comes after an exclusive end at the same key.
    let order = |bound: &Bound<Bytes>| match bound {
        Bound::Unbounded => None,
        Bound::Included(key) => Some((key.clone(), true)),
        Bound::Excluded(key) => Some((key.clone(), false)),
    };
    match (order(&a), order(&b)) {
        (None, _) => b,
        (_, None) => a,
        (Some(first), Some(second)) if first <= second => a,
        _ => b,
    }
}

/// A start bound that does not come before `first`.
fn later_start(start: Bound<Bytes>, first: &Bytes) -> Bound<Bytes> {
    match start {
        Bound::Included(key) if key >= first => Bound::Included(key),
        Bound::Excluded(key) if key >= first => Bound::Excluded(key),
        _ => Bound::Included(first.clone()),
    }
}

/// A forward cursor over the versions that belong to a tree.
pub(crate) struct Within<C> {
    /// The cursor over all versions.
    pub cursor: C,
    /// The bounds of the tree.
    pub bounds: Bounds,
}

impl<C: Cursor> Cursor for Within<C> {
    fn next(&mut self) -> Result<Option<Version>> {
        while let Some(version) = self.cursor.next()? {
            if self.bounds.contains(&version.key) {
                return Ok(Some(version));
            }
            if !self.bounds.is_before_end(&version.key) {
                break;
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ops::RangeBounds;

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0u8..4, 0..3).prop_map(Bytes::from)
    }

    fn bound() -> impl Strategy<Value = Bound<Bytes>> {
        prop_oneof![
            Just(Bound::Unbounded),
            key().prop_map(Bound::Included),
            key().prop_map(Bound::Excluded),
        ]
    }

    /// Bounds as splits make them: their keys are user keys.
    fn bounds() -> impl Strategy<Value = Bounds> {
        let user = |key: Bytes| Bytes::from([&[space::USER], &key[..]].concat());
        (prop::option::of(key()), prop::option::of(key())).prop_map(move |(from, to)| Bounds {
            from: from.map_or(Bytes::new(), user),
            to: to.map(user),
        })
    }

    fn all_keys() -> impl Iterator<Item = Bytes> {
        let one = (0u8..4).map(|a| vec![a]);
        let two = (0u8..4).flat_map(|a| (0u8..4).map(move |b| vec![a, b]));
        std::iter::once(vec![]).chain(one).chain(two).map(Bytes::from)
    }

    proptest! {
        /// The parts of a range hold exactly the keys of the range that belong to the tree, and
        /// each key once, in order.
        #[test]
        fn parts_of_a_range_hold_the_keys_of_the_tree(
            bounds in bounds(),
            range in (bound(), bound()),
        ) {
            let mut expected: Vec<Bytes> = all_keys()
                .filter(|key| range.contains(key) && bounds.contains(key))
                .collect();
            expected.sort();
            let mut found = Vec::new();
            for part in bounds.clip(range) {
                let mut keys: Vec<Bytes> = all_keys().filter(|key| part.contains(key)).collect();
                keys.sort();
                found.extend(keys);
            }
            prop_assert_eq!(found, expected);
        }

        /// The relations between bounds and a range of keys follow from the single keys.
        #[test]
        fn relations_follow_from_single_keys(bounds in bounds(), a in key(), b in key()) {
            let (smallest, largest) = if a <= b { (a, b) } else { (b, a) };
            let keys = || all_keys().filter(|key| *key >= smallest && *key <= largest);
            if bounds.contain(&smallest, &largest) {
                prop_assert!(keys().all(|key| bounds.contains(&key)));
            }
            if keys().any(|key| bounds.contains(&key)) {
                prop_assert!(bounds.meet(&smallest, &largest));
            }
        }
    }
}
