//! Offline verification: everything on a disk is read and checked, nothing is changed.

use crate::disk::Disk;
use crate::engine::Superblock;
use crate::error::{Error, Result};
use crate::lsm::manifest;
use crate::table::{BlockCache, Table};
use crate::wal::recovery::{Verdict, chain, lost_header, read_heads, scan};
use crate::wal::segment::slot_path;
use std::sync::Arc;

/// What a check found.
#[derive(Debug, Default)]
pub struct Finding {
    /// Whose data it is.
    pub owner: String,
    /// Log segments in use.
    pub segments: usize,
    /// Sound commit blocks.
    pub blocks: usize,
    /// Tables.
    pub tables: usize,
    /// Versions in them.
    pub versions: u64,
    /// The last write was cut short; it was never acknowledged.
    pub torn: bool,
    /// What is damaged.
    pub damage: Vec<Error>,
}

/// Checks a disk that no process uses.
///
/// # Errors
/// When the disk cannot be read at all, or belongs to a newer version.
pub fn check_disk<D: Disk + Clone + 'static>(disk: &D) -> Result<Finding> {
    let mut finding = Finding::default();
    let superblock = Superblock::read(disk)?;
    let Some(superblock) = superblock else {
        let dir = disk.describe();
        return Err(Error::corrupt(dir, 0, "a data directory", "SUPER.0 and SUPER.1", "neither"));
    };
    finding.owner = superblock.owner;
    check_log(disk, superblock.store, superblock.segment_bytes, &mut finding)?;
    for name in disk.list("shards").map_err(Error::io("list", "shards"))? {
        check_tree(disk, &format!("shards/{name}"), &mut finding);
    }
    Ok(finding)
}

fn check_log(
    disk: &dyn Disk,
    store: u128,
    segment_bytes: u64,
    finding: &mut Finding,
) -> Result<()> {
    let heads = match read_heads(disk, store, segment_bytes) {
        Ok(heads) => heads,
        Err(error) if error.is_corrupt() => {
            finding.damage.push(error);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let used = chain(disk, &heads, segment_bytes)?;
    let newest = used.last().map_or(0, |(_, header)| header.sequence);
    if let Some(slot) = lost_header(disk, &heads, store, newest)? {
        let (what, found) = ("the segment header", "an unreadable page");
        finding.damage.push(Error::corrupt(slot_path(slot), 0, what, newest + 1, found));
    }
    finding.segments = used.len();
    for (i, (head, header)) in used.iter().enumerate() {
        let image = head.load(disk)?;
        let scan = scan(&image, header, used.get(i + 1).map(|(_, next)| next));
        finding.blocks += scan.blocks.len();
        finding.torn |= scan.verdict == Verdict::TornTail;
        if scan.verdict == Verdict::DamagedDurable {
            let offset = scan.end - header.sequence * segment_bytes;
            let path = slot_path(image.number);
            let (what, expected) = ("a commit block", "a sound block");
            finding.damage.push(Error::corrupt(path, offset, what, expected, "other bytes"));
        }
    }
    Ok(())
}

fn check_tree<D: Disk + Clone + 'static>(disk: &D, dir: &str, finding: &mut Finding) {
    let whole = match manifest::read_whole(disk, dir) {
        Ok(Some(whole)) => whole,
        Ok(None) => return,
        Err(error) => return finding.damage.push(error),
    };
    let cache = Arc::new(BlockCache::new(1 << 20));
    for (_, meta) in whole.added {
        let path = format!("{dir}/{:06}.sst", meta.number);
        finding.tables += 1;
        let checked = Table::open(Arc::new(disk.clone()), path, meta, cache.clone())
            .and_then(|table| Arc::new(table).verify());
        match checked {
            Ok(versions) => finding.versions += versions,
            Err(error) => finding.damage.push(error),
        }
    }
}
