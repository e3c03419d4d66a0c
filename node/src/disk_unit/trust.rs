//! Whether a disk is trusted to hold every record that it reported as synced.
//!
//! With `suspect_disk_after_reboot` the disk becomes suspect when the machine boots: a disk that
//! acknowledges a sync too early loses records at a power loss. The file `BOOT` names the boot of
//! the machine in which every shard was last known to be complete. A missing or unreadable file
//! makes the disk suspect.

use crate::line_file;
use bedstone_engine::{Disk, Result};
use std::sync::Arc;

const FILE: &str = "BOOT";

/// See the module.
pub struct DiskTrust {
    disk: Arc<dyn Disk>,
    boot: String,
    is_suspect: bool,
}

impl DiskTrust {
    /// Reads the trust record of a disk in this boot of the machine.
    pub fn read(disk: Arc<dyn Disk>, boot: &str) -> DiskTrust {
        let last = line_file::read(&*disk, FILE).ok().flatten();
        let is_suspect = last.as_deref() != Some(boot);
        DiskTrust { disk, boot: boot.to_owned(), is_suspect }
    }

    /// Whether records may be lost that the disk reported as synced.
    pub fn is_suspect(&self) -> bool {
        self.is_suspect
    }

    /// Records, durably, that every shard on the disk is complete.
    ///
    /// # Errors
    /// Errors of the disk; the disk stays suspect.
    pub fn restore(&mut self) -> Result<()> {
        line_file::write(&*self.disk, FILE, &self.boot)?;
        self.is_suspect = false;
        Ok(())
    }
}
