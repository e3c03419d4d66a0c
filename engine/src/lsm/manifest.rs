//! Which tables a shard has and how far in the log they reach, durable before it is relied on.
//!
//! `CURRENT` names the manifest: its file name, a space, the CRC of the name in hex, a newline. It
//! is replaced by rename. All numbers are little-endian.
//!
//! **Manifest** `MANIFEST-<number>`: magic `BMAN`, format version u32, then records.
//!
//! **Record**: length u32, CRC u32 of the payload (seeded with the manifest's number), payload:
//!
//! | bytes | field |
//! |---|---|
//! | 8, 8 | flushed log id: term, index |
//! | 8 | greatest timestamp flushed |
//! | 8 | next file number |
//! | 4 | removed tables, then each: number u64 |
//! | 4 | added tables, then each as below |
//!
//! Added table: run u64, number u64, bytes u64, greatest timestamp u64, then its smallest and its
//! largest key as length u32 and bytes.
//!
//! The first record describes everything at the time the manifest was begun.

use crate::LogId;
use crate::checksum::{crc, seed};
use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::limits::{EDIT_BYTES_MAX, KEY_BYTES_MAX};
use crate::table::TableMeta;
use bytes::{Buf, BufMut, Bytes};

/// First bytes of a manifest.
pub const MAGIC: [u8; 4] = *b"BMAN";
/// Version of everything in this file.
pub const VERSION: u32 = 2;
const HEADER_BYTES: usize = 8;

/// One atomic change of a tree's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The last log entry whose effect is in the tables.
    pub flushed: LogId,
    /// The newest timestamp in the tables.
    pub ts_max: u64,
    /// The number that the next table takes.
    pub next_number: u64,
    /// Numbers of tables that are gone.
    pub removed: Vec<u64>,
    /// Tables that came, with the ids of their runs.
    pub added: Vec<(u64, TableMeta)>,
}

impl Edit {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64_le(self.flushed.term);
        out.put_u64_le(self.flushed.index);
        out.put_u64_le(self.ts_max);
        out.put_u64_le(self.next_number);
        out.put_u32_le(self.removed.len() as u32);
        self.removed.iter().for_each(|&number| out.put_u64_le(number));
        out.put_u32_le(self.added.len() as u32);
        for (run, meta) in &self.added {
            out.put_u64_le(*run);
            out.put_u64_le(meta.number);
            out.put_u64_le(meta.bytes);
            out.put_u64_le(meta.ts_max);
            for key in [&meta.smallest, &meta.largest] {
                out.put_u32_le(key.len() as u32);
                out.put_slice(key);
            }
        }
        out
    }

    /// Reads its bytes; `None` when they are not exactly an edit.
    pub fn decode(mut from: &[u8]) -> Option<Edit> {
        let from = &mut from;
        let term = from.try_get_u64_le().ok()?;
        let index = from.try_get_u64_le().ok()?;
        let ts_max = from.try_get_u64_le().ok()?;
        let next_number = from.try_get_u64_le().ok()?;
        let count = from.try_get_u32_le().ok()? as usize;
        if count > from.len() / 8 {
            return None;
        }
        let removed = (0..count).map(|_| from.get_u64_le()).collect();
        let count = from.try_get_u32_le().ok()? as usize;
        if count > from.len() / 40 {
            return None;
        }
        let added = (0..count).map(|_| decode_table(from)).collect::<Option<_>>()?;
        let flushed = LogId { term, index };
        from.is_empty().then_some(Edit { flushed, ts_max, next_number, removed, added })
    }
}

fn decode_table(from: &mut &[u8]) -> Option<(u64, TableMeta)> {
    let run = from.try_get_u64_le().ok()?;
    let number = from.try_get_u64_le().ok()?;
    let bytes = from.try_get_u64_le().ok()?;
    let ts_max = from.try_get_u64_le().ok()?;
    let mut key = || {
        let len = from.try_get_u32_le().ok()? as usize;
        (len <= KEY_BYTES_MAX.min(from.len())).then(|| from.copy_to_bytes(len))
    };
    let (smallest, largest) = (key()?, key()?);
    Some((run, TableMeta { number, bytes, smallest, largest, ts_max }))
}

/// The records of a manifest file: its sound prefix, and the offset at which it ends. What comes
/// after is an edit that the power cut; it was never relied on. Should it have been, the tables it
/// removed are missing or the log begins too late, and both are found.
pub fn decode_manifest(number: u64, bytes: &[u8]) -> Option<(Vec<Edit>, usize)> {
    if bytes.get(..4)? != MAGIC {
        return None;
    }
    let mut edits = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some(mut head) = bytes.get(at..at + 8) {
        let (len, sum) = (head.get_u32_le() as usize, head.get_u32_le());
        let Some(payload) = bytes.get(at + 8..at + 8 + len).filter(|_| len <= EDIT_BYTES_MAX)
        else {
            break;
        };
        let Some(edit) = Edit::decode(payload).filter(|_| checksum(number, payload) == sum) else {
            break;
        };
        edits.push(edit);
        at += 8 + len;
    }
    Some((edits, at))
}

fn checksum(number: u64, payload: &[u8]) -> u32 {
    crc(seed(number, 0), &[payload])
}

/// The manifest being written.
pub(super) struct Manifest {
    dir: String,
    number: u64,
    file: Box<dyn File>,
    bytes: u64,
    /// An append or sync failed: what the file holds is unknown, so it takes no more.
    failed: bool,
}

impl Manifest {
    /// The edits of the current manifest of `dir`, and its number; `None` when there is none yet.
    pub(super) fn read(disk: &dyn Disk, dir: &str) -> Result<Option<(Vec<Edit>, u64)>> {
        let path = format!("{dir}/CURRENT");
        let Some(text) = read_all(disk, &path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&text).into_owned();
        let Some(number) = parse_current(&text) else {
            return Err(Error::corrupt(path, 0, "CURRENT", "a manifest's name and checksum", text));
        };
        let path = manifest_path(dir, number);
        let Some(bytes) = read_all(disk, &path)? else {
            return Err(Error::corrupt(path, 0, "the manifest", "a file", "none"));
        };
        let found = bytes.get(4..8).map_or(0, |mut version| version.get_u32_le());
        if bytes.starts_with(&MAGIC) && found > VERSION {
            return Err(Error::NewerFormat { file: path, found, supported: VERSION });
        }
        if bytes.starts_with(&MAGIC) && found < VERSION {
            return Err(Error::OlderFormat { file: path, found, supported: VERSION });
        }
        match decode_manifest(number, &bytes) {
            Some((edits, _)) if !edits.is_empty() => Ok(Some((edits, number))),
            _ => Err(Error::corrupt(path, 0, "the manifest", "a first record", "none")),
        }
    }

    /// Begins a new manifest with everything in `whole`, and makes it current.
    pub(super) fn create(disk: &dyn Disk, dir: &str, number: u64, whole: &Edit) -> Result<Self> {
        let path = manifest_path(dir, number);
        let file = disk.create(&path).map_err(Error::io("create", &path))?;
        let mut manifest = Manifest { dir: dir.to_owned(), number, file, bytes: 0, failed: false };
        let mut header = MAGIC.to_vec();
        header.put_u32_le(VERSION);
        manifest.file.append(&header).map_err(Error::io("write", &path))?;
        manifest.append(whole)?;
        disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        let name = format!("MANIFEST-{number:06}");
        let text = format!("{name} {:08x}\n", crc(0, &[name.as_bytes()]));
        let (new, current) = (format!("{dir}/CURRENT.new"), format!("{dir}/CURRENT"));
        let mut file = disk.create(&new).map_err(Error::io("create", &new))?;
        file.append(text.as_bytes()).map_err(Error::io("write", &new))?;
        file.sync().map_err(Error::io("sync", &new))?;
        disk.rename(&new, &current).map_err(Error::io("rename", &new))?;
        disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        Ok(manifest)
    }

    /// Appends an edit and makes it durable.
    pub(super) fn append(&mut self, edit: &Edit) -> Result<()> {
        let path = manifest_path(&self.dir, self.number);
        if self.failed {
            let cause = format!("{path} failed before");
            return Err(Error::Poisoned { cause });
        }
        let payload = edit.encode();
        let mut record = Vec::with_capacity(payload.len() + 8);
        record.put_u32_le(payload.len() as u32);
        record.put_u32_le(checksum(self.number, &payload));
        record.put_slice(&payload);
        self.failed = true;
        self.file.append(&record).map_err(Error::io("write", &path))?;
        self.file.sync().map_err(Error::io("sync", &path))?;
        self.failed = false;
        self.bytes += record.len() as u64;
        Ok(())
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The file of a manifest.
pub(super) fn manifest_path(dir: &str, number: u64) -> String {
    format!("{dir}/MANIFEST-{number:06}")
}

fn parse_current(text: &str) -> Option<u64> {
    let (name, sum) = text.strip_suffix('\n')?.split_once(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    if sum != crc(0, &[name.as_bytes()]) {
        return None;
    }
    name.strip_prefix("MANIFEST-")?.parse().ok()
}

fn read_all(disk: &dyn Disk, path: &str) -> Result<Option<Bytes>> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path)(e)),
    };
    let len = file.len().map_err(Error::io("measure", path))?;
    let mut bytes = vec![0; len as usize];
    file.read_at(0, &mut bytes).map_err(Error::io("read", path))?;
    Ok(Some(bytes.into()))
}

/// All edits of a manifest as one.
pub(super) fn fold(edits: Vec<Edit>) -> Edit {
    let mut whole = Edit { next_number: 1, ..Edit::default() };
    for edit in edits {
        whole.added.retain(|(_, meta)| !edit.removed.contains(&meta.number));
        whole.added.extend(edit.added);
        whole.flushed = edit.flushed;
        whole.ts_max = edit.ts_max;
        whole.next_number = edit.next_number;
    }
    whole
}

/// What the current manifest of `dir` says, all edits as one; `None` when there is none.
pub(crate) fn read_whole(disk: &dyn Disk, dir: &str) -> Result<Option<Edit>> {
    Ok(Manifest::read(disk, dir)?.map(|(edits, _)| fold(edits)))
}
