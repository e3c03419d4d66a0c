//! The first members of this node's shards: the members when the node's data began. The first
//! members are the configured members, or none if the node joins an existing cluster. The
//! configuration determines the first members until a shard has data on this node. From then on
//! only committed configuration changes change the members, and a changed configuration file has no
//! effect on them.
//!
//! The file `BOOTSTRAP` contains a format version and the ids of the first members. The node needs
//! the file only for a shard whose data does not contain the members. A shard stores its members
//! among its keys, and the tree contains them once the first tables are written.

use crate::line_file;
use crate::raft::{Conf, ReplicaId};
use anyhow::bail;
use bedstone_engine::{Disk, Error, Result};

const FILE: &str = "BOOTSTRAP";
const VERSION: u32 = 1;

/// The data of a shard that the disk contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardData {
    /// No data.
    Empty,
    /// Data without the members.
    MembersUnknown,
    /// Data with the members.
    MembersKnown,
}

/// The first members of the shards whose data does not contain the members: `configured`, or the
/// members in the file if one of these shards already has data.
///
/// # Errors
/// The disk fails. The file is needed and is damaged or has a newer format. The configuration names
/// `node` as the only voter, and the file names more than one voter: the node would begin alone.
pub fn first_members(
    disk: &dyn Disk,
    configured: Conf,
    node: ReplicaId,
    shard_data: &[ShardData],
) -> anyhow::Result<Conf> {
    if shard_data.iter().all(|shard_data| *shard_data == ShardData::MembersKnown) {
        return Ok(configured);
    }
    let known = read(disk);
    if shard_data.contains(&ShardData::MembersUnknown) {
        if let Some(known) = known.map_err(with_next_step)? {
            return Ok(known);
        }
    } else if let Ok(Some(known)) = known
        && known.voters.len() > 1
        && configured.is_sole_voter(node)
    {
        bail!(
            "this node was started as one of nodes {:?}, and `members` names this node alone, so \
             it would start a cluster of its own. Name all nodes in `members`, or use an empty \
             disk",
            known.voters.to_vec()
        );
    }
    write(disk, &configured)?;
    Ok(configured)
}

fn with_next_step(error: Error) -> anyhow::Error {
    let damaged = matches!(error, Error::Corrupt { .. });
    let error = anyhow::Error::from(error);
    if damaged {
        error.context(
            "the first members are unknown: if `members` in the configuration still names exactly \
         the first members, remove the file; otherwise start with an empty disk",
        )
    } else {
        error
    }
}

/// Reads the first members from the file; `None` when the file does not exist.
///
/// # Errors
/// The disk fails, or the file is damaged or has a newer format.
pub fn read(disk: &dyn Disk) -> Result<Option<Conf>> {
    line_file::read(disk, FILE)?.map(|line| decode(&line)).transpose()
}

/// Writes the first members to the file, unless the file already names them.
fn write(disk: &dyn Disk, first: &Conf) -> Result<()> {
    let line = encode(first);
    match line_file::read(disk, FILE).ok().flatten() {
        Some(known) if known == line => Ok(()),
        _ => line_file::write(disk, FILE, &line),
    }
}

/// The line of the file: a format version, then the ids of the voters.
pub fn encode(first: &Conf) -> String {
    let ids = first.voters.iter().map(ReplicaId::to_string);
    [VERSION.to_string()].into_iter().chain(ids).collect::<Vec<_>>().join(" ")
}

fn decode(line: &str) -> Result<Conf> {
    let mut words = line.split(' ');
    let version = words.next().and_then(|word| word.parse().ok());
    let ids: Option<Vec<ReplicaId>> = words.map(|word| word.parse().ok()).collect();
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
    fn first_members_are_fixed_once_a_shard_has_data() {
        use ShardData::{Empty, MembersKnown, MembersUnknown};
        let (three, four) =
            (Conf::of([1, 2, 3].map(ReplicaId)), Conf::of([1, 2, 3, 4].map(ReplicaId)));
        let disk = MemoryDisk::new();
        let first = |disk: &MemoryDisk, conf: &Conf, shard_data: &[ShardData]| {
            first_members(disk, conf.clone(), ReplicaId(1), shard_data)
        };
        assert_eq!(first(&disk, &four, &[Empty]).unwrap(), four);
        assert_eq!(first(&disk, &three, &[Empty]).unwrap(), three, "no data, so it changes");
        assert_eq!(
            first(&disk, &four, &[MembersUnknown]).unwrap(),
            three,
            "the configuration has no effect"
        );
        assert_eq!(
            first(&disk, &four, &[MembersKnown, MembersUnknown]).unwrap(),
            three,
            "one shard needs it"
        );
        assert_eq!(
            first(&disk, &four, &[MembersKnown]).unwrap(),
            four,
            "its own data names members"
        );
        let disk = disk.power_loss(1);
        assert_eq!(
            first(&disk, &Conf::of([9].map(ReplicaId)), &[MembersUnknown]).unwrap(),
            three,
            "it is durable"
        );
        let why = first(&disk, &Conf::of([1].map(ReplicaId)), &[Empty]).unwrap_err().to_string();
        assert!(why.contains("one of nodes [1, 2, 3]") && why.contains("alone"), "{why}");
        let disk = MemoryDisk::new();
        assert_eq!(first(&disk, &Conf::default(), &[Empty]).unwrap(), Conf::default());
        assert_eq!(
            first(&disk, &three, &[MembersUnknown]).unwrap(),
            Conf::default(),
            "a joining node has no members"
        );
        let disk = MemoryDisk::new();
        assert_eq!(first(&disk, &three, &[MembersUnknown]).unwrap(), three, "the file was removed");
    }

    #[test]
    fn a_damaged_file_fails_only_if_a_shard_needs_it() {
        let disk = MemoryDisk::new();
        disk.create(FILE).unwrap().append(b"1 1 2 7 00000000\n").unwrap();
        let first = |shard_data| {
            first_members(&disk, Conf::of([1, 2].map(ReplicaId)), ReplicaId(1), &[shard_data])
        };
        let why = format!("{:#}", first(ShardData::MembersUnknown).unwrap_err());
        assert!(why.contains("remove the file") && why.contains("BOOTSTRAP"), "{why}");
        assert_eq!(first(ShardData::MembersKnown).unwrap(), Conf::of([1, 2].map(ReplicaId)));
        assert_eq!(first(ShardData::Empty).unwrap(), Conf::of([1, 2].map(ReplicaId)));
        assert_eq!(
            read(&disk).unwrap(),
            Some(Conf::of([1, 2].map(ReplicaId))),
            "it is written again"
        );
    }

    #[test]
    fn errors_name_the_damage_or_the_version() {
        let disk = MemoryDisk::new();
        line_file::write(&disk, FILE, "2 1 2 3").unwrap();
        let error = read(&disk).unwrap_err().to_string();
        assert!(error.contains("BOOTSTRAP") && error.contains("version 2"), "{error}");
        let mut file = disk.create(FILE).unwrap();
        file.append(b"1 1 2 7 00000000\n").unwrap();
        let error = read(&disk).unwrap_err().to_string();
        assert!(error.contains("BOOTSTRAP") && error.contains("checksum"), "{error}");
    }
}
