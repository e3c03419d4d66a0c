//! A file with one line of text, followed by the CRC of the line in hex. A write replaces the file
//! by a rename.

use bedstone_engine::{Disk, Error, Result};

/// Reads the line. `None` when the file does not exist.
///
/// # Errors
/// The disk fails, or the file is damaged.
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

/// Writes the line durably.
///
/// # Errors
/// The disk fails.
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

/// The contents of the file for a line.
pub fn framed(line: &str) -> String {
    format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes()))
}
