//! Compaction: the choice of the tables to merge is a pure function ([`pick`]); `run` merges the
//! tables.

pub mod pick;
pub(crate) mod run;
