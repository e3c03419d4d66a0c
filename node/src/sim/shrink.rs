//! Makes a failing plan smaller.
