//! The directories of a disk's shards: current, dropped, or left by a crash.

use super::TreeDir;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ids::ShardId;
use std::collections::BTreeMap;

/// The file that marks the directory of a dropped shard.
pub(crate) const DROPPED: &str = "DROPPED";

/// The shard directories of a disk, by state.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    /// The current directory of each shard.
    pub live: BTreeMap<ShardId, TreeDir>,
    /// The marked directories of dropped shards.
    pub dropped: Vec<TreeDir>,
    /// Directories that a crash left: unfinished, or replaced by a later generation.
    pub stray: Vec<TreeDir>,
}

impl Directories {
    /// Lists the directories of a disk.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Directories> {
        let mut found = Directories::default();
        let names = disk.list("shards").map_err(Error::io("list", "shards"))?;
        let mut dirs: Vec<TreeDir> = names.iter().filter_map(|name| TreeDir::parse(name)).collect();
        dirs.sort();
        for dir in dirs {
            let path = dir.path();
            let files = disk.list(&path).map_err(Error::io("list", &path))?;
            if files.iter().any(|name| name == DROPPED) {
                found.dropped.push(dir);
            } else if files.iter().any(|name| name == "CURRENT") {
                found.stray.extend(found.live.insert(dir.shard, dir));
            } else {
                found.stray.push(dir);
            }
        }
        for dir in &found.dropped {
            found.stray.extend(found.live.remove(&dir.shard));
        }
        Ok(found)
    }
}

/// Removes a directory with its files. `CURRENT` is removed first, because a directory with
/// `CURRENT` counts as a live tree.
pub(crate) fn remove_tree(disk: &dyn Disk, dir: &str) -> Result<()> {
    let mut names = disk.list(dir).map_err(Error::io("list", dir))?;
    // `DROPPED` is removed last: without `DROPPED`, the files that remain after a crash would count
    // as a tree again.
    names.sort_by_key(|name| (name == DROPPED, name != "CURRENT"));
    for name in names {
        if name == DROPPED {
            disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        let path = format!("{dir}/{name}");
        disk.remove(&path).map_err(Error::io("remove", path))?;
        if name == "CURRENT" {
            disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
    }
    disk.remove_dir(dir).map_err(Error::io("remove", dir))
}
