//! A Bloom filter over the user keys of one partition of a table: about 10 bits a key, 6 probes,
//! 1% false positives.
//!
//! Content: the bit array, then the number of probes u8. Probe `i` of hash `h` is bit
//! `(h + i × (h >> 32 | h << 32)) mod bits`.

const BITS_PER_KEY: usize = 10;
const PROBES: u8 = 6;

/// The content of a filter block for keys of these hashes.
pub fn build(hashes: &[u64]) -> Vec<u8> {
    let bytes = (hashes.len() * BITS_PER_KEY).div_ceil(8).max(8);
    let mut out = vec![0; bytes + 1];
    out[bytes] = PROBES;
    for &hash in hashes {
        for bit in probes(hash, bytes, PROBES) {
            out[bit / 8] |= 1 << (bit % 8);
        }
    }
    out
}

/// Whether a key of this hash may be in the partition. Anything that is no filter says yes.
pub fn may_contain(filter: &[u8], hash: u64) -> bool {
    match filter.split_last() {
        Some((&count, bits)) if !bits.is_empty() => {
            probes(hash, bits.len(), count).all(|bit| bits[bit / 8] & (1 << (bit % 8)) != 0)
        }
        _ => true,
    }
}

fn probes(hash: u64, bytes: usize, count: u8) -> impl Iterator<Item = usize> {
    let bits = bytes as u64 * 8;
    let step = hash.rotate_left(32);
    (0..u64::from(count)).map(move |i| (hash.wrapping_add(i.wrapping_mul(step)) % bits) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::key_hash;

    #[test]
    fn no_false_negatives_and_few_false_positives() {
        let hashes: Vec<u64> = (0..10_000u32).map(|i| key_hash(&i.to_le_bytes())).collect();
        let filter = build(&hashes);
        assert!(hashes.iter().all(|&hash| may_contain(&filter, hash)));
        let others = (10_000..20_000u32).map(|i| key_hash(&i.to_le_bytes()));
        let false_positives = others.filter(|&hash| may_contain(&filter, hash)).count();
        assert!(false_positives < 200, "{false_positives} of 10,000");
    }
}
