//! A cluster of real processes, each with a file system of its own. The file system is an image
//! that is mounted through a loop device, and a test can freeze it: a process that writes to a
//! frozen file system or syncs it waits in the kernel until the thaw, as on a disk that hangs.
//! Needs root, `mkfs.ext4`, `mount` and `fsfreeze`.

use crate::cluster::{Cluster, run};
use std::fs;
use std::path::{Path, PathBuf};

/// The size of an image. The image file is sparse: blocks that were never written use no space.
const IMAGE_BYTES: u64 = 2 << 30;

/// The cluster. Dropping it thaws the file systems, ends the processes and unmounts the file
/// systems.
pub struct Disks {
    /// The fields are dropped in the order of their declaration.
    thaw: Thaw,
    /// The nodes.
    pub cluster: Cluster,
    _mounts: Mounts,
}

/// Thaws all file systems when dropped: a process that waits for a frozen file system cannot be
/// killed.
struct Thaw(Vec<PathBuf>);
struct Mounts {
    dir: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Disks {
    /// Starts three nodes and waits until they are ready. The error gives the reason when the
    /// machine does not allow this.
    pub fn start() -> Result<Disks, String> {
        let why = |error: std::io::Error| error.to_string();
        let dir = tempfile::tempdir().map_err(why)?;
        let mut mounts = Mounts { dir: tempfile::tempdir().map_err(why)?, mounted: Vec::new() };
        for node in 1..=3 {
            let disk = mounts.mount(node)?;
            let home = dir.path().join(format!("node{node}"));
            fs::create_dir(&home).map_err(why)?;
            std::os::unix::fs::symlink(&disk, home.join("data")).map_err(why)?;
        }
        // Freeze and thaw must both work on this machine before a process depends on them.
        for disk in &mounts.mounted {
            freeze(disk)?;
            thaw(disk)?;
        }
        let thaw = Thaw(mounts.mounted.clone());
        Ok(Disks { thaw, cluster: Cluster::start_in(dir), _mounts: mounts })
    }

    /// Freezes the file system of a node, so that the node's disk hangs.
    pub fn freeze(&self, node: usize) {
        freeze(&self.thaw.0[node - 1]).expect("freezes");
    }

    /// Thaws the file system of a node.
    pub fn thaw(&self, node: usize) {
        thaw(&self.thaw.0[node - 1]).expect("thaws");
    }
}

fn freeze(disk: &Path) -> Result<(), String> {
    run("fsfreeze", &["--freeze", &disk.to_string_lossy()], "")
}

fn thaw(disk: &Path) -> Result<(), String> {
    run("fsfreeze", &["--unfreeze", &disk.to_string_lossy()], "")
}

impl Mounts {
    fn mount(&mut self, node: usize) -> Result<PathBuf, String> {
        let why = |error: std::io::Error| error.to_string();
        let image = self.dir.path().join(format!("disk{node}.img"));
        let disk = self.dir.path().join(format!("disk{node}"));
        fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).map_err(why)?;
        fs::create_dir(&disk).map_err(why)?;
        let (image, at) = (image.to_string_lossy(), disk.to_string_lossy());
        run("mkfs.ext4", &["-q", "-F", &image], "")?;
        run("mount", &["-o", "loop", &image, &at], "")?;
        self.mounted.push(disk.clone());
        fs::remove_dir(disk.join("lost+found")).map_err(why)?;
        Ok(disk)
    }
}

impl Drop for Thaw {
    fn drop(&mut self) {
        for disk in &self.0 {
            // Most file systems are not frozen, so thawing them fails.
            let _ = thaw(disk);
        }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for disk in &self.mounted {
            let _ = run("umount", &[&disk.to_string_lossy()], "");
        }
    }
}
