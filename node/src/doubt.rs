//! Whether the disk may lack what it said it had: the machine went down since, and the disk is not
//! trusted to keep what it was told to sync.
//!
//! The file `BOOT` names the boot of the machine in which all shards were last known to have kept
//! their promises, and the CRC of that name in hex. It is replaced by rename. An unreadable or a
//! missing one is a reason to doubt.

use bedstone_engine::{Disk, Error, Result};
use std::sync::Arc;

const FILE: &str = "BOOT";
const NEXT: &str = "BOOT.new";

/// See the module.
pub struct Doubt {
    disk: Arc<dyn Disk>,
    text: String,
    is_open: bool,
}

impl Doubt {
    /// What is to be thought of a disk in this boot of the machine.
    pub fn new(disk: Arc<dyn Disk>, boot: &str) -> Doubt {
        let text = format!("{boot} {:08x}\n", crc32fast::hash(boot.as_bytes()));
        let is_open = !is_found(&*disk, text.as_bytes()).unwrap_or(false);
        Doubt { disk, text, is_open }
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
        let write = || {
            let mut file = self.disk.create(NEXT)?;
            file.append(self.text.as_bytes())?;
            file.sync()?;
            self.disk.rename(NEXT, FILE)?;
            self.disk.sync_dir("")
        };
        write().map_err(Error::io("write", FILE))?;
        self.is_open = false;
        Ok(())
    }
}

fn is_found(disk: &dyn Disk, text: &[u8]) -> std::io::Result<bool> {
    let file = disk.open(FILE)?;
    let mut found = vec![0; text.len()];
    if file.len()? != text.len() as u64 {
        return Ok(false);
    }
    file.read_at(0, &mut found)?;
    Ok(found == text)
}
