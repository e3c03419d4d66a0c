//! Whole shards as files: dropping one, copying one to a checkpoint, putting one in place,
//! splitting one. Each is done or not done, whenever the power goes.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{LogId, ShardId};
use crate::lsm::directories::{DROPPED, Directories, remove_tree};
use crate::lsm::manifest;
use crate::lsm::version::Bounds;
use crate::lsm::{LogValues, Tree, TreeDir};
use crate::wal::Record;
use bytes::Bytes;
use std::sync::Arc;

impl Engine {
    /// Finishes what a crash interrupted, and opens every shard.
    pub(crate) fn open_shards(&self) -> Result<()> {
        let found = Directories::read(self.disk())?;
        for dir in &found.stray {
            // Of a shard that the log knows to be flushed, the tree was whole once.
            let known = found.live.contains_key(&dir.shard)
                || found.dropped.iter().any(|dropped| dropped.shard == dir.shard);
            if !known && self.log().base(dir.shard).index > 0 {
                let path = format!("{}/CURRENT", dir.path());
                return Err(Error::corrupt(path, 0, "CURRENT", "a file", "none"));
            }
            remove_tree(self.disk(), &dir.path())?;
        }
        for dir in found.live.values() {
            self.open_tree(dir)?;
        }
        // The log lets go of segments now, so who has values in them must hold them by now.
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

    /// Removes a shard from this disk: its tree, its log entries, its hard state. Readers that hold
    /// a view of it may go on.
    ///
    /// # Errors
    /// When the disk fails; the shard is gone or there, never half.
    pub fn drop_shard(&self, shard: ShardId) -> Result<()> {
        let Some(tree) = self.tree(shard) else { return Ok(()) };
        tree.close();
        let path = format!("{}/{DROPPED}", tree.dir());
        let mut file = self.disk().create(&path).map_err(Error::io("create", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        self.disk().sync_dir(tree.dir()).map_err(Error::io("sync", tree.dir()))?;
        self.forget_tree(shard);
        let name = tree.dir().trim_start_matches("shards/");
        let dir = TreeDir::parse(name).expect("a tree is in a directory of its name");
        self.finish_drop(&dir)
    }

    /// Copies a shard into directory `dir` of this disk, which must not be there: flushed up to
    /// now, its files linked, the values that it has in the log written beside them. What the copy
    /// covers. It can be moved, and taken in by [`Engine::install_shard`].
    ///
    /// # Errors
    /// [`Error::Damaged`] when something of the shard cannot be read; [`Error::Io`].
    pub fn checkpoint_shard(&self, shard: ShardId, dir: &str) -> Result<LogId> {
        let tree = self.open_shard(shard)?;
        tree.flush_all()?;
        let parent = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
        let at = tree.copy_to(dir, None, None, LogValues::Moved)?;
        self.disk().sync_dir(parent).map_err(Error::io("sync", parent))?;
        Ok(at)
    }

    /// A store of its own in directory `dir`, with one shard of this one.
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
        // With a superblock it is a store, so that comes last.
        self.superblock().write(disk, dir)?;
        disk.sync_dir(parent).map_err(Error::io("sync", parent))?;
        disk.sync_dir("").map_err(Error::io("sync", "."))
    }

    /// Puts a checkpoint in directory `from` of this disk in a shard's place, as the state after
    /// log entry `at`; the log of the shard then goes on from there. The files are linked. Gives
    /// the shard's new tree; a former one is closed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is no whole checkpoint; the shard is as before then.
    pub fn install_shard(&self, shard: ShardId, from: &str, at: LogId) -> Result<Arc<Tree>> {
        let Some(whole) = manifest::read_whole(self.disk(), from)? else {
            return Err(Error::corrupt(from, 0, "a checkpoint", "CURRENT", "none"));
        };
        let source = self.open_elsewhere(shard, from)?;
        let bounds = Some(whole.standing.bounds);
        self.replace_shard(shard, at, |dir| {
            source.copy_to(dir, bounds, Some(at), LogValues::Moved).map(|_| ())
        })
    }

    /// Gives what a shard holds from key `at` on to shard `new`, whose log begins after `start`.
    /// Files are linked; foreign keys leave them with later compactions. Called by who applies, at
    /// one log entry. When it is interrupted it is done again: a shard `new` that it had made by
    /// then is made anew.
    ///
    /// # Errors
    /// [`Error::Damaged`] when something of the shard cannot be read; [`Error::Io`].
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
            return self.open_shard(new); // done before
        }
        tree.flush_all()?;
        let upper = Some(Bounds { from: at.clone(), to });
        let made = self.replace_shard(new, start, |dir| {
            tree.copy_to(dir, upper, Some(start), LogValues::Shared).map(|_| ())
        })?;
        tree.restrict(Bounds { from, to: Some(at) })?;
        Ok(made)
    }

    /// Makes the next generation of a shard's directory and changes over to it.
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
        // What an interrupted attempt left.
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
