//! Writing a stream of versions into tables of bounded size.

use crate::disk::Disk;
use crate::error::Result;
use crate::limits::Limits;
use crate::lsm::key::Cursor;
use crate::table::{TableMeta, TableWriter};

/// Writes everything the cursor gives. A table is cut only between user keys, so that tables of a
/// level stay disjoint. `next` names the path and number of each new table.
pub(crate) fn write_tables(
    disk: &dyn Disk,
    limits: &Limits,
    mut cursor: impl Cursor,
    mut next: impl FnMut() -> (String, u64),
) -> Result<Vec<TableMeta>> {
    let mut done = Vec::new();
    let mut writer: Option<TableWriter> = None;
    while let Some(version) = cursor.next()? {
        let full = |w: &TableWriter| w.bytes() >= limits.table_bytes && *w.largest() != version.key;
        if writer.as_ref().is_some_and(full) {
            done.extend(writer.take().map(TableWriter::finish).transpose()?);
        }
        let writer = match &mut writer {
            Some(writer) => writer,
            None => {
                let (path, number) = next();
                writer.insert(TableWriter::create(disk, path, number, limits)?)
            }
        };
        writer.add(&version)?;
    }
    done.extend(writer.map(TableWriter::finish).transpose()?);
    Ok(done)
}
