//! Whether the disk may lack what it said it had: the machine went down since, and the disk is not
//! trusted to keep what it was told to sync.
//!
//! The file `BOOT` names the boot of the machine in which all shards were last known to have kept
//! their promises. An unreadable or a missing one is a reason to doubt.

use crate::line_file;
use bedstone_engine::{Disk, Result};
use std::sync::Arc;

const FILE: &str = "BOOT";

/// See the module.
pub struct Doubt {
    disk: Arc<dyn Disk>,
    boot: String,
    is_open: bool,
}

impl Doubt {
    /// What is to be thought of a disk in this boot of the machine.
    pub fn new(disk: Arc<dyn Disk>, boot: &str) -> Doubt {
        let last = line_file::read(&*disk, FILE).ok().flatten();
        let is_open = last.as_deref() != Some(boot);
        Doubt { disk, boot: boot.to_owned(), is_open }
    }

    /// Whether there is a doubt.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// All shards have all that they promised.
    ///
    /// # Errors
    /// The disk's; the doubt is open still.
    pub fn settle(&mut self) -> Result<()> {
        line_file::write(&*self.disk, FILE, &self.boot)?;
        self.is_open = false;
        Ok(())
    }
}
