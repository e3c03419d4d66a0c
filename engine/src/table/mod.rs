//! Table files: immutable, sorted, checksummed block by block.

mod back;
pub mod cache;
pub mod filter;
pub mod format;
pub mod reader;
pub mod writer;

pub use back::TableCursorBack;
pub use cache::BlockCache;
pub use reader::{Table, TableCursor};
pub use writer::{TableMeta, TableWriter};
