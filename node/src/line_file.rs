//! A line of text on the disk, followed by its CRC in hex; replaced by rename.

use bedstone_engine::{Disk, Error, Result};

/// The line; `None` when there is no such file.
///
/// # Errors
/// The disk's, and damage.
pub fn read(disk: &dyn Disk, name: &str) -> Result<Option<String>> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io("open", name))?,
    };
    let read = || {
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(0, &mut bytes)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(Error::io("read", name))?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.rsplit_once(' ').map(|(line, _)| line.to_owned());
    let whole = line.filter(|line| framed(line).as_bytes() == bytes);
    let damaged =
        || Error::corrupt(name, 0, "its line", "a line and its checksum", text.trim_end());
    whole.map(Some).ok_or_else(damaged)
}

/// Writes it, durably.
///
/// # Errors
/// The disk's.
pub fn write(disk: &dyn Disk, name: &str, line: &str) -> Result<()> {
    let next = format!("{name}.new");
    let write = || {
        let mut file = disk.create(&next)?;
        file.append(framed(line).as_bytes())?;
        file.sync()?;
        disk.rename(&next, name)?;
        disk.sync_dir("")
    };
    write().map_err(Error::io("write", name))
}

/// The bytes of the file.
pub fn framed(line: &str) -> String {
    format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes()))
}
