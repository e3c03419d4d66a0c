//! Majorities.

/// The greatest value that a majority has reached.
///
/// `values` has one element per voter and is sorted in place.
pub fn majority_reached(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get((values.len().max(1) - 1) / 2).copied().unwrap_or(0)
}

/// Whether `count` of `voters` are a majority.
pub fn is_majority(count: usize, voters: usize) -> bool {
    count > voters / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_any_number() {
        assert_eq!(majority_reached(&mut [5]), 5);
        assert_eq!(majority_reached(&mut [5, 3]), 3);
        assert_eq!(majority_reached(&mut [1, 5, 3]), 3);
        assert_eq!(majority_reached(&mut [1, 5, 3, 4]), 3);
        assert_eq!(majority_reached(&mut [1, 5, 3, 4, 9]), 4);
        assert!(is_majority(2, 3) && !is_majority(1, 2) && !is_majority(2, 4));
    }
}
