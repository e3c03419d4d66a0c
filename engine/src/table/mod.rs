//! Table files: immutable, sorted, checksummed block by block.

mod back;
pub mod cache;
mod fences;
pub mod filter;
pub mod format;
pub mod reader;
pub mod writer;

pub use back::TableCursorBack;
pub use cache::BlockCache;
pub(crate) use fences::Fences;
pub use reader::{Lookup, Table, TableCursor};
pub use writer::{TableMeta, TableWriter};
