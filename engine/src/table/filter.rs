//! A binary fuse filter over the user keys of one partition of a table: 8-bit fingerprints, about
//! 11 bits a key, 0.4% false positives (Graf and Lemire, "Binary Fuse Filters", 2022).
//!
//! Content: seed u64, segment length u32, segment length less one u32, length of all segments but
//! the last two u32, then the fingerprints, a byte each. Empty content admits every key.

use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};

const HEAD_BYTES: usize = BinaryFuse8::DESCRIPTOR_LEN;

/// The content of a filter block for keys of these hashes.
pub fn build(mut hashes: Vec<u64>) -> Vec<u8> {
    hashes.sort_unstable();
    hashes.dedup();
    // The build fails only if a thousand seeds fail. Empty content, which admits every key, is then
    // the correct filter.
    let Ok(filter) = BinaryFuse8::try_from(&hashes[..]) else { return Vec::new() };
    let mut out = vec![0; HEAD_BYTES];
    filter.dma_copy_descriptor_to(&mut out);
    out.extend_from_slice(filter.dma_fingerprints());
    out
}

/// Whether a key of this hash may be in the partition. True for content that is not a valid filter.
pub fn may_contain(filter: &[u8], hash: u64) -> bool {
    let Some((head, fingerprints)) = filter.split_first_chunk() else { return true };
    !is_sound(head, fingerprints.len())
        || BinaryFuse8Ref::from_dma(head, fingerprints).contains(&hash)
}

/// Whether every position that a hash can select lies within this number of fingerprints.
fn is_sound(head: &[u8; HEAD_BYTES], fingerprints: usize) -> bool {
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (segment, mask, first) = (number(8), number(12), number(16));
    let reached = u64::from(first) + 2 * u64::from(segment);
    segment.is_power_of_two()
        && mask == segment - 1
        && first > 0
        && first & mask == 0
        && reached <= (fingerprints as u64).min(u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::key_hash;
    use proptest::prelude::*;

    fn hashes(numbers: std::ops::Range<u32>) -> Vec<u64> {
        numbers.map(|i| key_hash(&i.to_le_bytes())).collect()
    }

    #[test]
    fn no_false_negatives_and_few_false_positives() {
        for count in (0..100).chain([1_000, 3_600, 10_000]) {
            let present = hashes(0..count);
            let filter = build(present.clone());
            assert!(present.iter().all(|&hash| may_contain(&filter, hash)), "{count} keys");
            let others = hashes(20_000..30_000);
            let wrong = others.iter().filter(|&&hash| may_contain(&filter, hash)).count();
            assert!(count < 10 || wrong < 100, "{count} keys: {wrong} of 10,000");
        }
    }

    #[test]
    fn duplicate_hashes_are_counted_once() {
        let filter = build(vec![7, 8, 7, 7]);
        assert!(!filter.is_empty() && may_contain(&filter, 7) && may_contain(&filter, 8));
    }

    proptest! {
        #[test]
        fn forged_content_causes_no_panic(content: Vec<u8>, head: [u32; 3], hash: u64) {
            may_contain(&content, hash);
            let mut forged = 1u64.to_le_bytes().to_vec();
            for number in [head[0] % 64, (head[0] % 64).wrapping_sub(1), head[2] % 256] {
                forged.extend(number.to_le_bytes());
            }
            forged.extend(content);
            may_contain(&forged, hash);
        }
    }
}
