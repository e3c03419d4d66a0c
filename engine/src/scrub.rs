//! The scrub: reads all data again in small steps, so that damage is found before the data is
//! needed.
//!
//! A round reads the tables past the cache, with the values that they point to in log segments and
//! value files, and then the log entries. The caller sets the rate by the bytes of each step.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{Index, ShardId};
use crate::key::{Cursor, Value};
use crate::limits::BLOCK_BYTES;
use crate::lsm::Tree;
use crate::table::{Table, TableCursor};
use std::collections::VecDeque;
use std::sync::Arc;

/// A walk over all tables and log entries of a disk, round after round.
#[derive(Default)]
pub struct Scrub {
    /// The parts that this round has still to read. The list contains names and does not hold the
    /// files, because held files use space.
    waiting: VecDeque<Part>,
    current: Option<Reading>,
    rounds: u64,
}

enum Part {
    Table(ShardId, u64),
    Entries(ShardId),
}

enum Reading {
    Table(ShardId, Arc<Table>, Box<TableCursor>),
    /// The log entries of a shard from an index on.
    Entries(ShardId, Index),
}

impl Reading {
    /// Whether the part is still in use. A table may have been replaced while it was read; damage
    /// to a replaced table affects no shard.
    fn is_in_use(&self, engine: &Engine) -> bool {
        let Reading::Table(shard, table, _) = self else { return true };
        engine.tree(*shard).is_some_and(|tree| tree.table(table.meta.number).is_some())
    }
}

/// The result of a step.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// The approximate number of bytes read.
    pub bytes: u64,
    /// The damage found, with the shard and the affected keys or log entries.
    pub damage: Vec<Error>,
}

impl Scrub {
    /// Continues to read for about `bytes` bytes, at most to the end of the round.
    ///
    /// # Errors
    /// When the operating system refuses a read. Damage is a finding in the result and not an
    /// error.
    pub fn step(&mut self, engine: &Engine, bytes: u64) -> Result<Scrubbed> {
        let mut done = Scrubbed::default();
        let round = self.rounds;
        while done.bytes < bytes && (self.rounds == round || self.current.is_some()) {
            let outcome = match &mut self.current {
                Some(Reading::Table(_, table, cursor)) => {
                    read_some(table, cursor, bytes, &mut done)
                }
                Some(Reading::Entries(shard, next)) => {
                    read_entries(engine, *shard, next, bytes, &mut done)
                }
                None => match self.next_part(engine) {
                    Some(Ok(part)) => {
                        self.current = Some(part);
                        Ok(false)
                    }
                    Some(Err(error)) => Err(error),
                    None => break,
                },
            };
            match outcome {
                Ok(false) => {}
                Ok(true) => self.current = None,
                Err(error) if error.is_damage() => {
                    if self.current.take().is_none_or(|part| part.is_in_use(engine)) {
                        done.damage.push(error);
                    }
                }
                Err(error) => {
                    self.current = None;
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    /// Whether the next step begins a new round.
    pub fn is_between_rounds(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    /// The number of rounds whose last part was begun.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    fn next_part(&mut self, engine: &Engine) -> Option<Result<Reading>> {
        if self.waiting.is_empty() {
            let tables = |(shard, tree): (ShardId, Arc<Tree>)| {
                tree.table_numbers().into_iter().map(move |number| Part::Table(shard, number))
            };
            self.waiting = engine.trees().into_iter().flat_map(tables).collect();
            let shards = engine.log().shards().into_iter();
            self.waiting.extend(shards.map(Part::Entries));
        }
        while let Some(part) = self.waiting.pop_front() {
            self.rounds += u64::from(self.waiting.is_empty());
            match part {
                Part::Table(shard, number) => {
                    // A table that a merge has replaced since the round began is skipped.
                    if let Some(table) = engine.tree(shard).and_then(|tree| tree.table(number)) {
                        let cursor = table.cursor(&[]);
                        let reading = |cursor: TableCursor| Box::new(cursor.bypass_cache());
                        return Some(cursor.map(|c| Reading::Table(shard, table, reading(c))));
                    }
                }
                Part::Entries(shard) => return Some(Ok(Reading::Entries(shard, Index(0)))),
            }
        }
        None
    }
}

/// Continues to read the log of a shard. Returns whether the end of the log is reached.
fn read_entries(
    engine: &Engine,
    shard: ShardId,
    next: &mut Index,
    bytes: u64,
    done: &mut Scrubbed,
) -> Result<bool> {
    let (first, last) = engine.log().bounds(shard);
    *next = first.max(*next);
    while done.bytes < bytes && *next <= last.index {
        let room = usize::try_from(bytes - done.bytes).unwrap_or(usize::MAX);
        match engine.log().entries(shard, *next, last.index + 1, room) {
            Ok(entries) if entries.is_empty() => return Ok(true),
            Ok(entries) => {
                *next += entries.len() as u64;
                let read: usize = entries.iter().map(|entry| entry.data.len() + 16).sum();
                done.bytes += read as u64;
            }
            // The entries were released since the bounds were read.
            Err(Error::Compacted { upto, .. }) => *next = upto + 1,
            Err(Error::Missing { shard, missing, cause }) => {
                let ends = missing.entries.iter().filter(|range| range.contains(next));
                *next = ends.map(|range| range.end).next().unwrap_or(*next + 1);
                done.bytes += BLOCK_BYTES as u64;
                done.damage.push(Error::Missing { shard, missing, cause });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(*next > last.index)
}

/// Continues to read a table. Returns whether the end of the table is reached.
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
