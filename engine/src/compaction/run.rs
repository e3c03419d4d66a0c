//! Writes a stream of versions into tables of bounded size, and moves values into value files.

use crate::disk::Disk;
use crate::error::Result;
use crate::key::{Cursor, Value, Version};
use crate::limits::{Codec, Limits};
use crate::table::{TableMeta, TableWriter};
use crate::values::file::ValueWriter;
use crate::values::{Holder, Source, Sources};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// The destination, the names and the sizes of the outputs.
pub(crate) struct Output<'a> {
    pub disk: &'a dyn Disk,
    pub limits: &'a Limits,
    pub codec: Codec,
    /// A table is finished at this size.
    pub table_bytes: u64,
    /// A table ends between the system space and the user space.
    pub separate_spaces: bool,
    pub sources: &'a Sources,
    /// Values in these log segments and value files move to new value files.
    pub collection_targets: &'a BTreeSet<Source>,
    /// Whether a newer version in another run hides this version from every reader. Such a version
    /// is dropped, so its value need not move.
    pub hidden: &'a dyn Fn(&Version) -> Result<bool>,
    /// The path of the table with a given number.
    pub path: &'a dyn Fn(u64) -> String,
    /// The next file number.
    pub number: &'a mut dyn FnMut() -> u64,
}

/// Writes every version that the cursor returns.
pub(crate) fn write_tables(mut cursor: impl Cursor, out: Output<'_>) -> Result<Vec<TableMeta>> {
    let mut done = Vec::new();
    let mut writer: Option<TableWriter> = None;
    let mut moves = Moves { file: None, held: BTreeMap::new() };
    let value_bytes_max = 16 * out.table_bytes.min(u64::MAX / 16);
    while let Some(mut version) = cursor.next()? {
        let ends = |w: &TableWriter| {
            let full = w.bytes() >= out.table_bytes || w.value_bytes() >= value_bytes_max;
            w.ends_before(&version.key, full, out.separate_spaces)
        };
        if writer.as_ref().is_some_and(ends) {
            done.extend(writer.take().map(TableWriter::finish).transpose()?);
        }
        let moves_away =
            matches!(&version.value, Value::At(p) if out.collection_targets.contains(&p.source));
        if moves_away && (out.hidden)(&version)? {
            continue;
        }
        if let Value::At(pointer) = &mut version.value
            && moves_away
        {
            let value = moves.hold(pointer.source, out.sources)?.read(&version.key, pointer)?;
            if moves.file.as_ref().is_some_and(|f| f.bytes() >= out.limits.value_file_bytes) {
                moves.finish_file()?;
            }
            let file = match &mut moves.file {
                Some(file) => file,
                None => {
                    let number = (out.number)();
                    let path = out.sources.path(number);
                    moves.file.insert(ValueWriter::create(out.disk, path, number)?)
                }
            };
            *pointer = file.add(&version.key, &value, pointer.crc)?;
        }
        let writer = match &mut writer {
            Some(writer) => writer,
            None => {
                let number = (out.number)();
                let path = (out.path)(number);
                writer.insert(TableWriter::create(out.disk, path, number, out.limits, out.codec)?)
            }
        };
        writer.add(&version)?;
    }
    moves.finish_file()?;
    done.extend(writer.map(TableWriter::finish).transpose()?);
    Ok(done)
}

/// The state of the values that move: the open value file and the held sources.
struct Moves {
    file: Option<ValueWriter>,
    held: BTreeMap<Source, Holder>,
}

impl Moves {
    fn hold(&mut self, source: Source, sources: &Sources) -> Result<&Holder> {
        match self.held.entry(source) {
            Entry::Occupied(held) => Ok(held.into_mut()),
            Entry::Vacant(free) => {
                let holder = free.insert(sources.hold(source)?);
                if let Holder::Log(segment) = holder {
                    // Reads in key order are random reads in a segment, and the segment's pages are
                    // not cached.
                    segment.prefetch();
                }
                Ok(holder)
            }
        }
    }

    fn finish_file(&mut self) -> Result<()> {
        self.file.take().map_or(Ok(()), ValueWriter::finish)
    }
}
