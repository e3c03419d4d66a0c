//! Checks whether the history of a register is linearizable (Herlihy and Wing 1990). The search is
//! that of Wing and Gong 1993 with the memory of Lowe 2017.
//!
//! Each write has its own value, so a read identifies the write that it saw.

use std::collections::HashSet;

/// An action on a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes a value that no other action writes.
    Write(u64),
    /// Reads a value; `None` when the register had no value yet.
    Read(Option<u64>),
}

/// One operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The action.
    pub action: Action,
    /// When the operation began.
    pub begun: u64,
    /// When the operation ended; `None` when it is unknown whether and when the operation took
    /// effect.
    pub ended: Option<u64>,
}

/// Whether the operations on one register, which is empty at first, have an order that fits both
/// their times and their values. Reads without an end prove nothing and are left out.
pub fn is_linearizable(operations: &[Operation]) -> bool {
    let seen: HashSet<u64> = operations
        .iter()
        .filter_map(|op| match (op.action, op.ended) {
            (Action::Read(value), Some(_)) => value,
            _ => None,
        })
        .collect();
    // A write without an end that no read saw can be ordered last, so the search leaves it out.
    let mut relevant: Vec<Operation> = operations
        .iter()
        .copied()
        .filter(|op| match (op.action, op.ended) {
            (_, Some(_)) => true,
            (Action::Write(value), None) => seen.contains(&value),
            (Action::Read(_), None) => false,
        })
        .collect();
    relevant.sort_by_key(|op| op.begun);
    Search::new(relevant).run()
}

struct Search {
    operations: Vec<Operation>,
    done: Vec<bool>,
    visited: HashSet<(Vec<u64>, Option<u64>)>,
}

impl Search {
    fn new(operations: Vec<Operation>) -> Self {
        let done = vec![false; operations.len()];
        Self { operations, done, visited: HashSet::new() }
    }

    /// Depth-first search with an explicit stack. Each stack frame is a chosen operation and the
    /// value before it.
    fn run(&mut self) -> bool {
        let mut value = None;
        let mut stack: Vec<(usize, Option<u64>)> = Vec::new();
        let mut from = 0;
        loop {
            if self.complete() {
                return true;
            }
            match self.next(from, value) {
                Some(at) => {
                    let before = value;
                    self.done[at] = true;
                    if let Action::Write(new) = self.operations[at].action {
                        value = Some(new);
                    }
                    if self.visited.insert((self.pack(), value)) {
                        stack.push((at, before));
                        from = 0;
                    } else {
                        self.done[at] = false;
                        value = before;
                        from = at + 1;
                    }
                }
                None => {
                    let Some((at, before)) = stack.pop() else { return false };
                    self.done[at] = false;
                    value = before;
                    from = at + 1;
                }
            }
        }
    }

    /// Whether every operation that certainly happened is in the order.
    fn complete(&self) -> bool {
        let mut rest = self.operations.iter().zip(&self.done);
        rest.all(|(op, done)| *done || op.ended.is_none())
    }

    /// The next operation, from place `from` on, that may come now: its value fits, and no
    /// operation outside the order ended before it began.
    fn next(&self, from: usize, value: Option<u64>) -> Option<usize> {
        let mut earliest_end = u64::MAX;
        for (at, op) in self.operations.iter().enumerate() {
            if self.done[at] {
                continue;
            }
            if op.begun > earliest_end {
                return None;
            }
            earliest_end = earliest_end.min(op.ended.unwrap_or(u64::MAX));
            let fits = match op.action {
                Action::Write(_) => true,
                Action::Read(seen) => seen == value,
            };
            if at >= from && fits {
                return Some(at);
            }
        }
        None
    }

    /// The bits of `done`, 64 in an integer. The integers of a finished prefix are left out.
    fn pack(&self) -> Vec<u64> {
        let first = self.done.iter().position(|done| !done).unwrap_or(self.done.len());
        let word = |bits: &[bool]| bits.iter().fold(0, |word, &bit| word << 1 | u64::from(bit));
        let tail = self.done[first..].iter().rposition(|&done| done).map_or(0, |at| at + 1);
        let mut words = vec![first as u64];
        words.extend(self.done[first..first + tail].chunks(64).map(word));
        words.push(tail as u64);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(action: Action, begun: u64, ended: u64) -> Operation {
        Operation { action, begun, ended: (ended > 0).then_some(ended) }
    }

    #[test]
    fn a_linearizable_history_is_accepted() {
        use Action::{Read, Write};
        let history = [
            op(Write(1), 1, 10),
            op(Read(None), 2, 3),
            op(Read(Some(1)), 4, 5),
            op(Write(2), 6, 0),
            op(Read(Some(1)), 11, 12),
            op(Read(Some(2)), 13, 14),
        ];
        assert!(is_linearizable(&history));
    }

    #[test]
    fn a_planted_stale_read_is_caught() {
        use Action::{Read, Write};
        let history = [op(Write(1), 1, 2), op(Write(2), 3, 4), op(Read(Some(1)), 5, 6)];
        assert!(!is_linearizable(&history));
        // The search also finds a stale read between two reads, when the write itself never ended.
        let history = [
            op(Write(1), 1, 2),
            op(Write(2), 3, 0),
            op(Read(Some(2)), 5, 6),
            op(Read(Some(1)), 7, 8),
        ];
        assert!(!is_linearizable(&history));
    }

    #[test]
    fn a_planted_lost_write_is_caught() {
        use Action::{Read, Write};
        let history = [op(Write(1), 1, 2), op(Read(None), 3, 4)];
        assert!(!is_linearizable(&history));
    }
}
