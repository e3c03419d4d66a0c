//! A table of arbitrary blocks under sound checksums: reading never panics and never takes more
//! memory than the file has bytes.
//!
//! Input: the first byte chooses raw bytes, or blocks (length u8 × 4 each) that are sealed here.
#![no_main]

use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::table::format::{Footer, Handle, trailer};
use bedstone_engine::table::{BlockCache, Table, TableMeta};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, mut rest)) = input.split_first() else { return };
    let mut file = Vec::new();
    if mode % 2 == 0 {
        file.extend_from_slice(rest);
    } else {
        let mut top = Handle { offset: 0, len: 0 };
        while let Some((&len, tail)) = rest.split_first() {
            let (content, tail) = tail.split_at(tail.len().min(usize::from(len) * 4));
            top = Handle { offset: file.len() as u64, len: content.len() as u32 };
            let sealed = trailer(1, top.offset, content);
            file.extend_from_slice(content);
            file.extend_from_slice(&sealed);
            rest = tail;
        }
        let footer = Footer { number: 1, top, entries: 0, tombstones: 0, ts_max: 0 };
        file.extend_from_slice(&footer.encode());
    }
    let disk = MemoryDisk::new();
    disk.place("t", &file);
    let (smallest, largest) = (Bytes::new(), Bytes::from_static(&[255; 8]));
    let meta = TableMeta { number: 1, bytes: file.len() as u64, smallest, largest, ts_max: 0 };
    let cache = Arc::new(BlockCache::new(1 << 16));
    let Ok(table) = Table::open(Arc::new(disk), "t".into(), meta, cache) else { return };
    let table = Arc::new(table);
    let _ = table.get(b"key", u64::MAX);
    let _ = table.verify();
});
