//! Table files: immutable, sorted, checksummed block by block.

pub mod cache;
pub mod filter;
pub mod format;
pub mod reader;
pub mod writer;

pub use cache::BlockCache;
pub use reader::Table;
pub use writer::{TableMeta, TableWriter};
