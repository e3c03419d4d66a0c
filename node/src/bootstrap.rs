//! Who the members of the shards here were when the data here began: those configured, or nobody
//! where a node joins others. The configuration says so until a shard has something here, and is
//! not asked again: from then on members change by what the group commits, and a changed
//! configuration must not.
//!
//! The file `BOOTSTRAP` has a format version and the members' ids. It is read only where a shard
//! does not say so itself: it keeps its members among its keys, once its first tables are written.

use crate::line_file;
use crate::raft::{Conf, PeerId};
use bedstone_engine::{Disk, Error, Result};

const FILE: &str = "BOOTSTRAP";
const VERSION: u32 = 1;

/// What the disk says; `None` when it says nothing.
///
/// # Errors
/// The disk's, damage, and a format of the future.
pub fn read(disk: &dyn Disk) -> Result<Option<Conf>> {
    line_file::read(disk, FILE)?.map(|line| decode(&line)).transpose()
}

/// From now on these are the first members.
///
/// # Errors
/// The disk's.
pub fn write(disk: &dyn Disk, first: &Conf) -> Result<()> {
    let line = encode(first);
    match line_file::read(disk, FILE).ok().flatten() {
        Some(known) if known == line => Ok(()),
        _ => line_file::write(disk, FILE, &line),
    }
}

/// The line of the file.
pub fn encode(first: &Conf) -> String {
    let ids = first.voters.iter().map(PeerId::to_string);
    [VERSION.to_string()].into_iter().chain(ids).collect::<Vec<_>>().join(" ")
}

fn decode(line: &str) -> Result<Conf> {
    let mut words = line.split(' ');
    let version = words.next().and_then(|word| word.parse().ok());
    let ids: Option<Vec<PeerId>> = words.map(|word| word.parse().ok()).collect();
    match (version, ids) {
        (Some(VERSION), Some(ids)) => Ok(Conf::of(ids)),
        (Some(found), _) if found > VERSION => {
            Err(Error::NewerFormat { file: FILE.to_owned(), found, supported: VERSION })
        }
        _ => Err(Error::corrupt(FILE, 0, "its line", "a format version and node ids", line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bedstone_engine::disk::memory::MemoryDisk;

    #[test]
    fn the_first_members_are_durable_and_can_be_replaced() {
        let disk = MemoryDisk::new();
        let (three, four) = (Conf::of([1, 2, 3]), Conf::of([1, 2, 3, 4]));
        assert_eq!(read(&disk).unwrap(), None);
        for conf in [four, three, Conf::default()] {
            write(&disk, &conf).unwrap();
            assert_eq!(read(&disk.power_loss(1)).unwrap(), Some(conf));
        }
    }

    #[test]
    fn damage_and_other_versions_are_named() {
        let disk = MemoryDisk::new();
        line_file::write(&disk, FILE, "2 1 2 3").unwrap();
        let error = read(&disk).unwrap_err().to_string();
        assert!(error.contains("BOOTSTRAP") && error.contains("version 2"), "{error}");
        let mut file = disk.create(FILE).unwrap();
        file.append(b"1 1 2 7 00000000\n").unwrap();
        let error = read(&disk).unwrap_err().to_string();
        assert!(error.contains("BOOTSTRAP") && error.contains("checksum"), "{error}");
        write(&disk, &Conf::of([1])).unwrap();
        assert_eq!(read(&disk).unwrap(), Some(Conf::of([1])));
    }
}
