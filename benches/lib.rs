//! Criterion benchmarks; see `docs/BENCHMARKS.md` for how to read them.
