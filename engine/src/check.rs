//! Offline verification: reads and checks all data on a disk, and changes nothing.

use crate::disk::Disk;
use crate::engine::Superblock;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::lsm::directories::Directories;
use crate::lsm::{TreeDir, manifest};
use crate::table::{BlockCache, Table};
use crate::values::{Holder, Sources};
use crate::wal::Segments;
use crate::wal::recovery::{open_segments, replay};
use crate::wal::scan::{SlotHead, read_heads};
use crate::wal::segment::slot_path;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The result of a check.
#[derive(Debug, Default)]
pub struct Finding {
    /// The owner of the data.
    pub owner: String,
    /// Log segments that were read for their entries.
    pub segments: usize,
    /// Sound commit blocks.
    pub blocks: usize,
    /// Tables.
    pub tables: usize,
    /// Versions in the tables.
    pub versions: u64,
    /// Value files.
    pub value_files: usize,
    /// Whether the last write was incomplete. An incomplete write was never acknowledged.
    pub torn: bool,
    /// The damage found.
    pub damage: Vec<Error>,
}

/// Checks a disk that no process uses.
///
/// # Errors
/// When the disk cannot be read at all, or has the format of another version.
pub fn check_disk<D: Disk + Clone + 'static>(disk: &D) -> Result<Finding> {
    let mut finding = Finding::default();
    let superblock = Superblock::read(disk)?;
    let Some(superblock) = superblock else {
        let dir = disk.describe();
        return Err(Error::corrupt(dir, 0, "a data directory", "SUPER.0 and SUPER.1", "neither"));
    };
    Superblock::check_copies(disk, &superblock, &mut finding.damage)?;
    finding.owner = superblock.owner;
    let heads = match read_heads(disk, superblock.store, superblock.segment_bytes) {
        Ok(heads) => heads,
        Err(error) if error.is_corrupt() => {
            finding.damage.push(error);
            return Ok(finding);
        }
        Err(error) => return Err(error),
    };
    check_log(disk, &heads, superblock.store, superblock.segment_bytes, &mut finding)?;
    let segments = Arc::new(open_segments(disk, &heads)?);
    for dir in Directories::read(disk)?.live.values() {
        check_tree(disk, dir, &segments, &mut finding)?;
    }
    Ok(finding)
}

fn check_log(
    disk: &dyn Disk,
    heads: &[SlotHead],
    store: u128,
    segment_bytes: u64,
    finding: &mut Finding,
) -> Result<()> {
    let mut padding = Vec::new();
    let replayed = replay(disk, heads, store, segment_bytes, |head, header, scan| {
        finding.segments += 1;
        finding.blocks += scan.blocks().count();
        let blocks = scan.blocks().filter(|block| !block.clean);
        let unclean =
            blocks.map(|block| block.lsn - Lsn::of_segment(header.sequence, segment_bytes));
        padding.extend((!head.clean).then_some(0).into_iter().chain(unclean).map(|offset| {
            Error::corrupt(slot_path(head.number), offset, "padding", "zeros", "other bytes")
        }));
    })?;
    finding.torn = replayed.torn;
    finding.damage.extend(padding);
    if replayed.damage.is_empty() && replayed.gaps.is_empty() {
        finding.damage.extend(replayed.missing());
    }
    let gaps = if replayed.is_whole() { Vec::new() } else { replayed.gaps };
    let damage = replayed.damage.into_iter().chain(gaps);
    finding.damage.extend(damage.filter_map(|damage| Arc::into_inner(damage.error)));
    Ok(())
}

fn check_tree<D: Disk + Clone + 'static>(
    disk: &D,
    dir: &TreeDir,
    segments: &Arc<Segments>,
    finding: &mut Finding,
) -> Result<()> {
    let (shard, dir) = (dir.shard, dir.path());
    let whole = match manifest::read_whole(disk, &dir) {
        Ok(Some(whole)) => whole,
        Ok(None) => return Ok(()),
        Err(error) => {
            finding.damage.push(error);
            return Ok(());
        }
    };
    let cache = Arc::new(BlockCache::new(1 << 20));
    let sources = Sources::new(Arc::new(disk.clone()), shard, dir.clone(), segments.clone());
    let mut files = BTreeSet::new();
    for (_, meta) in whole.added {
        let path = format!("{dir}/{:06}.sst", meta.number);
        finding.tables += 1;
        let disk = Arc::new(disk.clone());
        let checked = Table::open(disk, path, meta, cache.clone(), &sources).and_then(|table| {
            files.extend(table.properties.shares.keys().copied());
            Arc::new(table).verify()
        });
        match checked {
            Ok(versions) => finding.versions += versions,
            Err(error) => finding.damage.push(error),
        }
    }
    for source in files {
        if let Ok(Holder::File(file)) = sources.hold(source) {
            finding.value_files += 1;
            finding.damage.extend(file.verify().err());
        }
    }
    Ok(())
}
