//! Reading everything again, a little at a time, so that damage is found before it is needed.
//!
//! Tables are read past the cache, with the values that they point to, wherever those lie; then the
//! log's entries. Who calls decides the rate: so many bytes a step.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::ShardId;
use crate::key::{Cursor, Value};
use crate::limits::BLOCK_BYTES;
use crate::lsm::Tree;
use crate::table::{Table, TableCursor};
use std::collections::VecDeque;
use std::sync::Arc;

/// A walk over all tables and log entries of a disk, round after round.
#[derive(Default)]
pub struct Scrub {
    /// What of this round is still to be read. Named, not held: held files take room.
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
    /// A shard's entries from an index on.
    Entries(ShardId, u64),
}

impl Reading {
    /// A table may have been replaced while it was read: its damage is nobody's any more.
    fn is_in_use(&self, engine: &Engine) -> bool {
        let Reading::Table(shard, table, _) = self else { return true };
        engine.tree(*shard).is_some_and(|tree| tree.table(table.meta.number).is_some())
    }
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

    /// Whether the next step begins a round.
    pub fn is_between_rounds(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    /// Rounds whose last part was begun.
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
                    // One that a merge replaced meanwhile needs no reading.
                    if let Some(table) = engine.tree(shard).and_then(|tree| tree.table(number)) {
                        let cursor = table.cursor(&[]);
                        let reading = |cursor: TableCursor| Box::new(cursor.past_cache());
                        return Some(cursor.map(|c| Reading::Table(shard, table, reading(c))));
                    }
                }
                Part::Entries(shard) => return Some(Ok(Reading::Entries(shard, 0))),
            }
        }
        None
    }
}

/// Reads on in a shard's log; whether it is at its end.
fn read_entries(
    engine: &Engine,
    shard: ShardId,
    next: &mut u64,
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
            // Released meanwhile.
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
