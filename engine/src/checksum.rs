//! CRC-32 with a seed. The seed binds bytes to the place and time of their write. A block from an
//! earlier use of a file, or a block read from a wrong place, therefore never passes.

/// The CRC-32 of the concatenated `parts`, with the initial value `seed`.
pub fn crc(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// A seed from two numbers: the identity of a file and a place or generation in the file.
pub fn seed(identity: u64, place: u64) -> u32 {
    crc(0, &[&identity.to_le_bytes(), &place.to_le_bytes()])
}

/// The hash that filters use for a user key (XXH3, 64 bits).
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}
