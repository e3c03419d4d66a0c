//! Finds the position of a key among the last keys of neighbouring blocks or tables (fence
//! pointers: Dayan et al., "Monkey", SIGMOD 2017, section 2). Whole keys are compared only where
//! a few bytes of the keys tie.
//!
//! Neighbouring keys usually have a common prefix. A search compares that prefix once. The eight
//! bytes after the prefix of each key are stored in an array of numbers. A search in this array
//! touches a few cache lines, whereas a search through the keys themselves would miss the cache at
//! each step.

use std::cmp::Ordering;
use std::ops::Range;

/// The beginnings of ascending keys. The caller keeps the keys themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fences {
    /// The prefix common to all keys.
    shared: Box<[u8]>,
    /// The eight bytes of each key after the common prefix, padded with zeros where the key is
    /// shorter.
    heads: Box<[u64]>,
}

impl Fences {
    /// The fences of ascending keys; keys may be equal.
    pub(crate) fn new<'a>(keys: impl Iterator<Item = &'a [u8]> + Clone) -> Fences {
        let first = keys.clone().next().unwrap_or_default();
        let last = keys.clone().last().unwrap_or_default();
        let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let heads = keys.map(|key| head(key.get(shared..).unwrap_or_default())).collect();
        Fences { shared: first[..shared].into(), heads }
    }

    /// The number of keys before `key`; these keys are the first ones. `is_before(number)` is
    /// called only for keys whose stored beginning ties with that of `key`.
    pub(crate) fn partition_point(&self, key: &[u8], is_before: impl Fn(usize) -> bool) -> usize {
        let beginning = &key[..key.len().min(self.shared.len())];
        let tied = match beginning.cmp(&self.shared) {
            Ordering::Less => 0..0,
            Ordering::Greater => self.heads.len()..self.heads.len(),
            Ordering::Equal => self.tied(head(&key[self.shared.len()..])),
        };
        let (mut low, mut high) = (tied.start, tied.end);
        while low < high {
            let middle = low.midpoint(high);
            if is_before(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The keys whose head equals `head`, so that heads alone do not order them.
    fn tied(&self, head: u64) -> Range<usize> {
        let from = self.heads.partition_point(|&own| own < head);
        let count = self.heads[from..].partition_point(|&own| own == head);
        from..from + count
    }
}

/// The first eight bytes as a number that orders like the bytes. Numbers tie where the first eight
/// bytes tie; zeros replace the bytes that a short key lacks.
fn head(bytes: &[u8]) -> u64 {
    if let Some(bytes) = bytes.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Keys of few letters and many lengths, so that beginnings are shared and heads tie.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let letter = prop_oneof![Just(0), Just(1), Just(b'k'), Just(u8::MAX)];
        prop_oneof![vec(letter.clone(), 0..4), vec(letter, 0..20)]
    }

    proptest! {
        /// The result equals that of a search that compares whole keys.
        #[test]
        fn the_position_equals_that_of_a_whole_comparison(
            beginning in key(),
            mut keys in vec(key(), 0..40),
            others in vec(key(), 1..40),
        ) {
            keys.iter_mut().for_each(|key| key.splice(0..0, beginning.clone()).for_each(drop));
            keys.sort();
            let fences = Fences::new(keys.iter().map(|key| &key[..]));
            let with_beginning = others.iter().map(|key| [&beginning[..], key].concat());
            for key in with_beginning.chain(others.clone()).chain(keys.clone()) {
                let found = fences.partition_point(&key, |at| keys[at] < key);
                prop_assert_eq!(found, keys.partition_point(|own| *own < key));
                let found = fences.partition_point(&key, |at| keys[at] <= key);
                prop_assert_eq!(found, keys.partition_point(|own| *own <= key));
            }
        }
    }

    #[test]
    fn only_keys_with_tied_heads_are_compared_whole() {
        let keys: Vec<_> = (0..1000u64).map(|n| [b"user", &n.to_be_bytes()[..]].concat()).collect();
        let fences = Fences::new(keys.iter().map(|key| &key[..]));
        let asked = std::cell::Cell::new(0);
        for key in &keys {
            fences.partition_point(key, |at| {
                asked.set(asked.get() + 1);
                keys[at] < *key
            });
        }
        assert_eq!(asked.get(), keys.len());
    }
}
