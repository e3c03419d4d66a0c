//! Compaction: which tables to merge is a pure choice ([`pick`]); merging them is mechanism
//! (`run`).

pub mod pick;
pub(crate) mod run;
