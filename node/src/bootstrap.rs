//! Who the members of the shards here were when the data here began: those configured, or nobody
//! where a node joins others. The configuration says so at the first start, and is not asked again:
//! from then on members change by what the group commits, and a changed configuration must not.
//!
//! The file `BOOTSTRAP` has a format version and the members' ids. A shard keeps its members among
//! its keys as well, and those count; but not before its first tables are on the disk.

use crate::line_file;
use crate::raft::{Conf, PeerId};
use bedstone_engine::{Disk, Error, Result};

const FILE: &str = "BOOTSTRAP";
const VERSION: u32 = 1;

/// The first members: these, if this is the first start.
///
/// # Errors
/// The disk's, damage, and a format of the future.
pub fn members(disk: &dyn Disk, first: Conf) -> Result<Conf> {
    let Some(line) = line_file::read(disk, FILE)? else {
        let ids = first.voters.iter().map(PeerId::to_string);
        let line = [VERSION.to_string()].into_iter().chain(ids).collect::<Vec<_>>().join(" ");
        line_file::write(disk, FILE, &line)?;
        return Ok(first);
    };
    let mut words = line.split(' ');
    let version = words.next().and_then(|word| word.parse().ok());
    let ids: Option<Vec<PeerId>> = words.map(|word| word.parse().ok()).collect();
    match (version, ids) {
        (Some(VERSION), Some(ids)) => Ok(Conf::of(ids)),
        (Some(found), _) if found > VERSION => {
            Err(Error::NewerFormat { file: FILE.to_owned(), found, supported: VERSION })
        }
        _ => Err(Error::corrupt(FILE, 0, "its line", "a format version and node ids", &line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bedstone_engine::disk::memory::MemoryDisk;

    #[test]
    fn the_first_start_says_who_the_members_are() {
        let disk = MemoryDisk::new();
        let (three, four) = (Conf::of([1, 2, 3]), Conf::of([1, 2, 3, 4]));
        assert_eq!(members(&disk, three.clone()).unwrap(), three);
        assert_eq!(members(&disk, four).unwrap(), three, "a changed configuration changes none");
        let disk = disk.power_loss(1);
        assert_eq!(members(&disk, Conf::of([9])).unwrap(), three, "it is durable");
        let disk = MemoryDisk::new();
        assert_eq!(members(&disk, Conf::default()).unwrap(), Conf::default());
        assert_eq!(members(&disk, three).unwrap(), Conf::default(), "who joins began as nobody");
    }

    #[test]
    fn damage_and_other_versions_are_named() {
        let disk = MemoryDisk::new();
        line_file::write(&disk, FILE, "2 1 2 3").unwrap();
        let error = members(&disk, Conf::of([1])).unwrap_err().to_string();
        assert!(error.contains("BOOTSTRAP") && error.contains("version 2"), "{error}");
        let mut file = disk.create(FILE).unwrap();
        file.append(b"1 1 2 7 00000000\n").unwrap();
        let error = members(&disk, Conf::of([1])).unwrap_err().to_string();
        assert!(error.contains("BOOTSTRAP") && error.contains("checksum"), "{error}");
    }
}
