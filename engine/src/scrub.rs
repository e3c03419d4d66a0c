//! Reading everything again, a little at a time, so that damage is found before it is needed.
//!
//! Tables are read past the cache, with the values that they point to, wherever those lie. Who
//! calls decides the rate: so many bytes a step.

use crate::ShardId;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lsm::key::{Cursor, Value};
use crate::table::{Table, TableCursor};
use std::collections::VecDeque;
use std::sync::Arc;

/// A walk over all tables of a disk, round after round.
#[derive(Default)]
pub struct Scrub {
    /// Tables of this round that are still to be read. Named, not held: held files take room.
    waiting: VecDeque<(ShardId, u64)>,
    current: Option<(Arc<Table>, TableCursor)>,
    rounds: u64,
}

/// What a step did.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Bytes read, about.
    pub bytes: u64,
    /// Damage found, named by shard and keys.
    pub damage: Vec<Error>,
}

impl Scrub {
    /// Reads on for about so many bytes, at most to the end of a round.
    ///
    /// # Errors
    /// When the system refuses to read; damage is no error but a finding.
    pub fn step(&mut self, engine: &Engine, bytes: u64) -> Result<Scrubbed> {
        let mut done = Scrubbed::default();
        let round = self.rounds;
        while done.bytes < bytes && (self.rounds == round || self.current.is_some()) {
            let outcome = match &mut self.current {
                Some((table, cursor)) => read_some(table, cursor, bytes, &mut done),
                None => match self.next_table(engine) {
                    Some(table) => table.cursor(&[]).map(|cursor| {
                        self.current = Some((table, cursor.past_cache()));
                        false
                    }),
                    None => break,
                },
            };
            match outcome {
                Ok(false) => {}
                Ok(true) => self.current = None,
                Err(error) if error.is_damage() => {
                    done.damage.push(error);
                    self.current = None;
                }
                Err(error) => {
                    self.current = None;
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    /// Rounds whose last table was begun.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    fn next_table(&mut self, engine: &Engine) -> Option<Arc<Table>> {
        if self.waiting.is_empty() {
            let tables = |(shard, tree): (ShardId, Arc<crate::Tree>)| {
                tree.table_numbers().into_iter().map(move |number| (shard, number))
            };
            self.waiting = engine.trees().into_iter().flat_map(tables).collect();
        }
        while let Some((shard, number)) = self.waiting.pop_front() {
            self.rounds += u64::from(self.waiting.is_empty());
            // One that a merge replaced meanwhile needs no reading.
            if let Some(table) = engine.tree(shard).and_then(|tree| tree.table(number)) {
                return Some(table);
            }
        }
        None
    }
}

/// Reads on in a table; whether it is at its end.
fn read_some(
    table: &Arc<Table>,
    cursor: &mut TableCursor,
    bytes: u64,
    done: &mut Scrubbed,
) -> Result<bool> {
    while done.bytes < bytes {
        let Some(version) = cursor.next()? else {
            table.verify_index()?;
            return Ok(true);
        };
        done.bytes += version.key.len() as u64 + 16;
        match &version.value {
            Value::At(pointer) => {
                done.bytes += u64::from(pointer.len);
                table.read_value(&version.key, pointer)?;
            }
            Value::Inline(value) => done.bytes += value.len() as u64,
            Value::Tombstone => {}
        }
    }
    Ok(false)
}
