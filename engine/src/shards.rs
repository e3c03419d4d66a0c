//! Operations on whole shards: drop, checkpoint, install and split. After a power loss at any time,
//! each operation is either complete or has no effect.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{Index, LogId, ShardId};
use crate::lsm::bounds::Bounds;
use crate::lsm::directories::{DROPPED, Directories, remove_tree};
use crate::lsm::manifest;
use crate::lsm::{LogValues, Tree, TreeDir};
use crate::wal::Record;
use bytes::Bytes;
use std::sync::Arc;

impl Engine {
    /// Opens every shard, and finishes the operations that a crash interrupted.
    pub(crate) fn open_shards(&self) -> Result<()> {
        let found = Directories::read(self.disk())?;
        for dir in &found.stray {
            // The log records that the shard was flushed, so its tree was complete before. The
            // directory is then damaged and not the result of an interrupted creation.
            let known = found.live.contains_key(&dir.shard)
                || found.dropped.iter().any(|dropped| dropped.shard == dir.shard);
            if !known && self.log().base(dir.shard).index != Index(0) {
                let path = format!("{}/CURRENT", dir.path());
                return Err(Error::corrupt(path, 0, "CURRENT", "a file", "none"));
            }
            remove_tree(self.disk(), &dir.path())?;
        }
        for dir in found.live.values() {
            self.open_tree(dir)?;
        }
        // The commits below may free log segments, so the trees above must already hold the
        // segments that contain their values.
        for dir in &found.dropped {
            self.finish_drop(dir)?;
        }
        Ok(())
    }

    fn finish_drop(&self, dir: &TreeDir) -> Result<()> {
        if self.log().shards().contains(&dir.shard) {
            self.log().commit(&[Record::Forget { shard: dir.shard }])?;
        }
        remove_tree(self.disk(), &dir.path())
    }

    /// Removes a shard from this disk: its tree, its log entries, and its hard state. Readers that
    /// hold a view of the shard may continue.
    ///
    /// # Errors
    /// When the disk fails. The shard is then either removed or complete.
    pub fn drop_shard(&self, shard: ShardId) -> Result<()> {
        let Some(tree) = self.tree(shard) else { return Ok(()) };
        tree.close();
        let path = format!("{}/{DROPPED}", tree.dir());
        let mut file = self.disk().create(&path).map_err(Error::io("create", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        self.disk().sync_dir(tree.dir()).map_err(Error::io("sync", tree.dir()))?;
        self.forget_tree(shard);
        let name = tree.dir().trim_start_matches("shards/");
        let dir = TreeDir::parse(name).expect("the directory name of a tree is valid");
        self.finish_drop(&dir)
    }

    /// Copies a shard into directory `dir` of this disk. The directory must not exist. The shard is
    /// flushed first, its files are linked, and its values in the log are written to files beside
    /// the linked files. Returns the last log entry that the copy contains. The copy can be moved
    /// and then installed by [`Engine::install_shard`].
    ///
    /// # Errors
    /// [`Error::Damaged`] when a part of the shard cannot be read; [`Error::Io`].
    pub fn checkpoint_shard(&self, shard: ShardId, dir: &str) -> Result<LogId> {
        let tree = self.open_shard(shard)?;
        tree.flush_all()?;
        let parent = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
        let at = tree.copy_to(dir, None, None, LogValues::Moved)?;
        self.disk().sync_dir(parent).map_err(Error::io("sync", parent))?;
        Ok(at)
    }

    /// Creates a separate store in directory `dir` that contains one shard of this store.
    pub(crate) fn checkpoint(&self, shard: ShardId, dir: &str) -> Result<()> {
        let disk = self.disk();
        if !disk.list(dir).map_err(Error::io("list", dir))?.is_empty() {
            let source = std::io::ErrorKind::AlreadyExists.into();
            return Err(Error::io("create", dir)(source));
        }
        let shards = format!("{dir}/shards");
        let (parent, _) = dir.rsplit_once('/').unwrap_or(("", dir));
        disk.make_dir(&shards).map_err(Error::io("create", &shards))?;
        self.checkpoint_shard(shard, &format!("{shards}/{shard}"))?;
        // The superblock makes the directory a store, so the superblock is written last.
        self.superblock().write(disk, dir)?;
        disk.sync_dir(parent).map_err(Error::io("sync", parent))?;
        disk.sync_dir("").map_err(Error::io("sync", "."))
    }

    /// Replaces a shard by the checkpoint in directory `from` of this disk, as the state after log
    /// entry `at`. The log of the shard continues after `at`. The files are linked. Returns the new
    /// tree of the shard; the previous tree is closed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the directory contains no complete checkpoint. The shard is then
    /// unchanged.
    pub fn install_shard(&self, shard: ShardId, from: &str, at: LogId) -> Result<Arc<Tree>> {
        let Some(whole) = manifest::read_whole(self.disk(), from)? else {
            return Err(Error::corrupt(from, 0, "a checkpoint", "CURRENT", "none"));
        };
        let source = self.open_elsewhere(shard, from)?;
        let bounds = Some(whole.state.bounds);
        self.replace_shard(shard, at, |dir| {
            source.copy_to(dir, bounds, Some(at), LogValues::Moved).map(|_| ())
        })
    }

    /// Moves the keys of a shard from `at` on to shard `new`, whose log begins after `start`. Files
    /// are linked; later compactions remove the keys outside the bounds of each shard. The caller
    /// that applies log entries calls this at one log entry. After an interruption the split must
    /// be repeated; the repeated split creates `new` again from the start.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a part of the shard cannot be read; [`Error::Io`].
    pub fn split_shard(
        &self,
        shard: ShardId,
        at: &[u8],
        new: ShardId,
        start: LogId,
    ) -> Result<Arc<Tree>> {
        let tree = self.open_shard(shard)?;
        let Bounds { from, to } = tree.bounds();
        let at = Bytes::copy_from_slice(at);
        if to.as_ref() == Some(&at) {
            return self.open_shard(new); // the split is already complete
        }
        tree.flush_all()?;
        let upper = Some(Bounds { from: at.clone(), to });
        let made = self.replace_shard(new, start, |dir| {
            tree.copy_to(dir, upper, Some(start), LogValues::Shared).map(|_| ())
        })?;
        tree.restrict(Bounds { from, to: Some(at) })?;
        Ok(made)
    }

    /// Creates the next generation of a shard's directory with `make`, and replaces the current
    /// generation by it.
    fn replace_shard(
        &self,
        shard: ShardId,
        at: LogId,
        make: impl FnOnce(&str) -> Result<()>,
    ) -> Result<Arc<Tree>> {
        let old = Directories::read(self.disk())?.live.get(&shard).copied();
        let generation = old.map_or(0, |old| old.generation + 1);
        let dir = TreeDir { shard, generation };
        let path = dir.path();
        // Removes the remains of an interrupted attempt.
        remove_tree(self.disk(), &path)?;
        self.disk().make_dir(&path).map_err(Error::io("create", &path))?;
        self.disk().sync_dir("shards").map_err(Error::io("sync", "shards"))?;
        make(&path)?;
        if let Some(tree) = self.tree(shard) {
            tree.close();
        }
        self.forget_tree(shard);
        if self.log().bounds(shard).1.index < at.index || self.log().base(shard).index > at.index {
            self.log().commit(&[Record::Reset { shard, at }])?;
        }
        let tree = self.open_tree(&dir)?;
        if let Some(old) = old {
            remove_tree(self.disk(), &old.path())?;
        }
        Ok(tree)
    }
}
