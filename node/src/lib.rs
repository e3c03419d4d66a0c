//! The consensus node.
