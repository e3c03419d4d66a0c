//! A table of arbitrary blocks with correct checksums: reading never panics, and never uses more
//! memory than the file has bytes.
//!
//! Input: the first byte chooses between raw bytes and blocks (length u8 × 4 each), which are
//! sealed here.
#![no_main]

use bedstone_engine::ShardId;
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::key::Cursor;
use bedstone_engine::limits::Codec;
use bedstone_engine::table::format::{Footer, Handle, seal_block};
use bedstone_engine::table::{BlockCache, Lookup, Table, TableMeta};
use bedstone_engine::values::Sources;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::ops::Bound;
use std::sync::Arc;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, mut rest)) = input.split_first() else { return };
    let mut file = Vec::new();
    if mode % 2 == 0 {
        file.extend_from_slice(rest);
    } else {
        let mut properties = Handle { offset: 0, len: 0 };
        let mut top = properties;
        while let Some((&len, tail)) = rest.split_first() {
            let (content, tail) = tail.split_at(tail.len().min(usize::from(len) * 4));
            let codec = [Codec::None, Codec::Lz4, Codec::Zstd][usize::from(len) % 3];
            let offset = file.len() as u64;
            (properties, top) =
                (top, Handle { offset, len: seal_block(&mut file, 1, offset, content, codec) });
            rest = tail;
        }
        let footer = Footer { number: 1, top, properties };
        file.extend_from_slice(&footer.encode());
    }
    let disk = MemoryDisk::new();
    disk.place("t", &file);
    let (smallest, largest) = (Bytes::new(), Bytes::from_static(&[255; 8]));
    let (number, bytes) = (1, file.len() as u64);
    let meta = TableMeta { number, seed: 1, ts: None, bytes, smallest, largest, ts_max: 0 };
    let cache = Arc::new(BlockCache::new(1 << 16));
    let disk = Arc::new(disk);
    let sources = Sources::new(disk.clone(), ShardId(1), ".".into(), Arc::default());
    let Ok(table) = Table::open(disk, "t".into(), meta, cache, &sources) else { return };
    let table = Arc::new(table);
    let _ = table.get(&Lookup::new(b"key", u64::MAX));
    let _ = table.verify();
    let mut back = match table.cursor_back(&Bound::Included(Bytes::from_static(b"key"))) {
        Ok(back) => back,
        Err(_) => return,
    };
    while let Ok(Some(_)) = back.next() {}
});
