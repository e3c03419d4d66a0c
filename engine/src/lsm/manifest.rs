//! The manifest: a durable record of the tables of a shard and of the last log entry in the tables.
//! An edit is durable before anything depends on the change.
//!
//! `CURRENT` names the manifest: its file name, a space, the CRC of the name in hex, a newline.
//! `CURRENT` is replaced by a rename. All numbers are little-endian.
//!
//! **Manifest** `MANIFEST-<number>`: magic `BMAN`, format version u32, then records.
//!
//! **Record**: length u32, CRC u32 of the payload (seeded with the manifest's number and the
//! record's offset), payload:
//!
//! | bytes | field |
//! |---|---|
//! | 8, 8 | flushed log id: term, index |
//! | 8 | greatest timestamp flushed |
//! | 8 | the time that deadlines were last compared with |
//! | 8 | oldest timestamp at which the tables can be read exactly |
//! | 8 | next file number |
//! | | bounds: first key; then 1 and the exclusive end key, or 0 for no end |
//! | 4 | removed tables, then each: number u64 |
//! | 4 | added tables, then each as below |
//! | 4 | runs whose list of deleted ranges is replaced, then each as below |
//!
//! Added table: run u64, number u64, the file number that seeds its checksums u64, 1 and the
//! timestamp of all its versions u64 (or 0 if each version has its own timestamp), bytes u64,
//! greatest timestamp u64, then its smallest and its largest key. A key is its length u32 and its
//! bytes.
//!
//! Run with deleted ranges: run u64, count u32, then for each range its timestamp u64, its first
//! key and its exclusive end key.
//!
//! The first record holds the whole state at the time when the manifest was begun.

use crate::checksum::{crc, seed};
use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::ids::{Index, LogId, Term};
use crate::limits::{EDIT_BYTES_MAX, KEY_BYTES_MAX};
use crate::lsm::bounds::Bounds;
use crate::lsm::ranges::RangeTombstone;
use crate::table::TableMeta;
use bytes::{Buf, BufMut, Bytes};

/// First bytes of a manifest.
pub const MAGIC: [u8; 4] = *b"BMAN";
/// The version of the manifest format.
pub const VERSION: u32 = 4;
const HEADER_BYTES: usize = 8;

/// The state of a tree as a whole. Every edit repeats this state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeState {
    /// The last log entry whose effect is in the tables.
    pub flushed: LogId,
    /// The newest timestamp in the tables.
    pub ts_max: u64,
    /// Values whose deadline is at or before this time may have been dropped.
    pub now: u64,
    /// The oldest timestamp at which the tables can be read exactly.
    pub history_from: u64,
    /// The number of the next file.
    pub next_number: u64,
    /// The bounds of the keys that belong to the tree; tables may hold other keys.
    pub bounds: Bounds,
}

/// One atomic change of a tree's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The state of the tree after this edit.
    pub state: TreeState,
    /// Numbers of the removed tables.
    pub removed: Vec<u64>,
    /// Added tables, with the ids of their runs.
    pub added: Vec<(u64, TableMeta)>,
    /// Ids of runs, with all the ranges that each run deletes after this edit.
    pub deleted: Vec<(u64, Vec<RangeTombstone>)>,
}

impl Edit {
    /// Encodes the edit.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let state = &self.state;
        out.put_u64_le(state.flushed.term.0);
        out.put_u64_le(state.flushed.index.0);
        out.put_u64_le(state.ts_max);
        out.put_u64_le(state.now);
        out.put_u64_le(state.history_from);
        out.put_u64_le(state.next_number);
        put_key(&mut out, &state.bounds.from);
        out.put_u8(u8::from(state.bounds.to.is_some()));
        if let Some(to) = &state.bounds.to {
            put_key(&mut out, to);
        }
        out.put_u32_le(self.removed.len() as u32);
        self.removed.iter().for_each(|&number| out.put_u64_le(number));
        out.put_u32_le(self.added.len() as u32);
        for (run, meta) in &self.added {
            out.put_u64_le(*run);
            out.put_u64_le(meta.number);
            out.put_u64_le(meta.seed);
            out.put_u8(u8::from(meta.ts.is_some()));
            meta.ts.iter().for_each(|&ts| out.put_u64_le(ts));
            out.put_u64_le(meta.bytes);
            out.put_u64_le(meta.ts_max);
            put_key(&mut out, &meta.smallest);
            put_key(&mut out, &meta.largest);
        }
        out.put_u32_le(self.deleted.len() as u32);
        for (run, ranges) in &self.deleted {
            out.put_u64_le(*run);
            out.put_u32_le(ranges.len() as u32);
            for range in ranges {
                out.put_u64_le(range.ts);
                put_key(&mut out, &range.from);
                put_key(&mut out, &range.to);
            }
        }
        out
    }

    /// Decodes an edit; `None` when the bytes are not exactly one edit.
    pub fn decode(mut from: &[u8]) -> Option<Edit> {
        let from = &mut from;
        let term = from.try_get_u64_le().ok()?;
        let index = from.try_get_u64_le().ok()?;
        let state = TreeState {
            flushed: LogId { term: Term(term), index: Index(index) },
            ts_max: from.try_get_u64_le().ok()?,
            now: from.try_get_u64_le().ok()?,
            history_from: from.try_get_u64_le().ok()?,
            next_number: from.try_get_u64_le().ok()?,
            bounds: Bounds { from: get_key(from)?, to: get_optional(from, get_key)? },
        };
        let removed = get_list(from, |from| from.try_get_u64_le().ok())?;
        let added = get_list(from, get_table)?;
        let range = |from: &mut &[u8]| {
            let ts = from.try_get_u64_le().ok()?;
            Some(RangeTombstone { ts, from: get_key(from)?, to: get_key(from)? })
        };
        let run = |from: &mut &[u8]| Some((from.try_get_u64_le().ok()?, get_list(from, range)?));
        let deleted = get_list(from, run)?;
        from.is_empty().then_some(Edit { state, removed, added, deleted })
    }
}

fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    out.put_u32_le(key.len() as u32);
    out.put_slice(key);
}

fn get_key(from: &mut &[u8]) -> Option<Bytes> {
    let len = from.try_get_u32_le().ok()? as usize;
    (len <= KEY_BYTES_MAX.min(from.len())).then(|| from.copy_to_bytes(len))
}

/// Reads a presence byte, and the item if the byte is 1.
fn get_optional<T>(
    from: &mut &[u8],
    get: impl FnOnce(&mut &[u8]) -> Option<T>,
) -> Option<Option<T>> {
    match from.try_get_u8().ok()? {
        0 => Some(None),
        1 => get(from).map(Some),
        _ => None,
    }
}

/// Reads a count u32 and that many items. Each item has at least 8 bytes.
fn get_list<T>(from: &mut &[u8], get: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = from.try_get_u32_le().ok()? as usize;
    if count > from.len() / 8 {
        return None;
    }
    (0..count).map(|_| get(from)).collect()
}

fn get_table(from: &mut &[u8]) -> Option<(u64, TableMeta)> {
    let run = from.try_get_u64_le().ok()?;
    let meta = TableMeta {
        number: from.try_get_u64_le().ok()?,
        seed: from.try_get_u64_le().ok()?,
        ts: get_optional(from, |from| from.try_get_u64_le().ok())?,
        bytes: from.try_get_u64_le().ok()?,
        ts_max: from.try_get_u64_le().ok()?,
        smallest: get_key(from)?,
        largest: get_key(from)?,
    };
    Some((run, meta))
}

/// The result of decoding a manifest file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The edits of the sound records from the front on.
    pub edits: Vec<Edit>,
    /// The offset of the first unsound record, or of the end.
    pub end: usize,
    /// Whether a sound record follows `end`. In this case the unsound record was durable, so it is
    /// damage and not an edit that a power failure cut.
    pub damaged: bool,
}

/// Decodes a manifest file; `None` when the file is not a manifest.
///
/// An unsound record at the end is an edit that a power failure cut, and nothing depends on such an
/// edit. If damage destroyed a durable edit instead, the tables that the edit removed are missing
/// or the log begins too late. Both cases are detected.
pub fn decode_manifest(number: u64, bytes: &[u8]) -> Option<Decoded> {
    if bytes.get(..4)? != MAGIC {
        return None;
    }
    let mut found = Decoded { end: HEADER_BYTES, ..Decoded::default() };
    while let Some((edit, end)) = decode_record(number, bytes, found.end) {
        found.edits.push(edit);
        found.end = end;
    }
    let rest = found.end + 1..bytes.len();
    found.damaged = rest.into_iter().any(|at| decode_record(number, bytes, at).is_some());
    Some(found)
}

fn decode_record(number: u64, bytes: &[u8], at: usize) -> Option<(Edit, usize)> {
    let mut head = bytes.get(at..at + 8)?;
    let (len, sum) = (head.get_u32_le() as usize, head.get_u32_le());
    let end = at + 8 + len;
    let payload = bytes.get(at + 8..end).filter(|_| len <= EDIT_BYTES_MAX)?;
    if checksum(number, at as u64, payload) != sum {
        return None;
    }
    Some((Edit::decode(payload)?, end))
}

fn checksum(number: u64, at: u64, payload: &[u8]) -> u32 {
    crc(seed(number, at), &[payload])
}

/// The manifest being written.
pub(super) struct Manifest {
    dir: String,
    number: u64,
    file: Box<dyn File>,
    bytes: u64,
    /// An append or sync failed: the content of the file is unknown, so the manifest accepts no
    /// further edits.
    failed: bool,
}

impl Manifest {
    /// The edits of the current manifest of `dir`, and the number of that manifest; `None` when
    /// `dir` has no manifest yet.
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
        // A sound first record proves that the manifest has this version, so another version number
        // is damage. Without a sound first record, another version number means another version.
        let decoded = decode_manifest(number, &bytes).filter(|found| !found.edits.is_empty());
        if decoded.is_some() && found != VERSION {
            return Err(Error::corrupt(path, 4, "the manifest's version", VERSION, found));
        }
        if bytes.starts_with(&MAGIC) && found > VERSION {
            return Err(Error::NewerFormat { file: path, found, supported: VERSION });
        }
        if bytes.starts_with(&MAGIC) && found < VERSION {
            return Err(Error::OlderFormat { file: path, found, supported: VERSION });
        }
        match decoded {
            Some(found) if found.damaged => {
                let (what, expected) = ("a manifest record", "a sound record");
                Err(Error::corrupt(path, found.end as u64, what, expected, "other bytes"))
            }
            Some(found) => Ok(Some((found.edits, number))),
            None => Err(Error::corrupt(path, 0, "the manifest", "a first record", "none")),
        }
    }

    /// Begins a new manifest with the whole state in `whole`, and makes the new manifest current.
    pub(super) fn create(disk: &dyn Disk, dir: &str, number: u64, whole: &Edit) -> Result<Self> {
        let path = manifest_path(dir, number);
        let file = disk.create(&path).map_err(Error::io("create", &path))?;
        let mut header = MAGIC.to_vec();
        header.put_u32_le(VERSION);
        let bytes = header.len() as u64;
        let mut manifest = Manifest { dir: dir.to_owned(), number, file, bytes, failed: false };
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
        for (_, table) in &edit.added {
            assert!(table.smallest <= table.largest, "the keys of a table ascend");
            assert!(table.number < edit.state.next_number, "file numbers are never used twice");
            assert!(!edit.removed.contains(&table.number), "an edit adds or removes a table");
        }
        let path = manifest_path(&self.dir, self.number);
        if self.failed {
            let cause = format!("an earlier write or sync of {path} failed");
            return Err(Error::Poisoned { cause });
        }
        let payload = edit.encode();
        if payload.len() > EDIT_BYTES_MAX {
            let (found, limit) = (payload.len(), EDIT_BYTES_MAX);
            return Err(Error::TooLarge { what: "a manifest record", found, limit });
        }
        let mut record = Vec::with_capacity(payload.len() + 8);
        record.put_u32_le(payload.len() as u32);
        record.put_u32_le(checksum(self.number, self.bytes, &payload));
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

    /// Whether the manifest accepts no further edits, so that a new manifest must begin.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }
}

/// The path of a manifest.
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

/// Combines all edits of a manifest into one.
pub(super) fn fold(edits: Vec<Edit>) -> Edit {
    let mut whole = Edit::default();
    whole.state.next_number = 1;
    for edit in edits {
        whole.added.retain(|(_, meta)| !edit.removed.contains(&meta.number));
        whole.added.extend(edit.added);
        whole.deleted.retain(|(run, _)| edit.deleted.iter().all(|(other, _)| run != other));
        whole.deleted.extend(edit.deleted.into_iter().filter(|(_, ranges)| !ranges.is_empty()));
        whole.state = edit.state;
    }
    whole
}

/// All edits of the current manifest of `dir`, combined into one; `None` when `dir` has no
/// manifest.
pub(crate) fn read_whole(disk: &dyn Disk, dir: &str) -> Result<Option<Edit>> {
    Ok(Manifest::read(disk, dir)?.map(|(edits, _)| fold(edits)))
}
