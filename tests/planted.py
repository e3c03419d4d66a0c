#!/usr/bin/env python3
"""Plants one bug after another in a copy of the engine, and expects a test to fail for each.

    tests/planted.py [NAME ...]

Exits 1 when a bug is not caught. Takes about a minute for each bug. The gate does not run it.
"""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "planted"
CRASH = ["engine_model", "power_failure_loses_no"]
DISK = ["engine_model", "options_do_not_change"]
MISSING = ["missing", "damaged_entries_are_intact"]

# Name, the test that must fail, and the edits: file, text of the source, text that replaces it.
BUGS = [
    ("commit-not-synced", CRASH, [(
        "wal/mod.rs",
        'region.sync(offset, len).map_err(Error::io("sync", segment.path()))?;', "")]),
    ("table-not-synced-before-the-manifest", CRASH, [(
        "table/writer.rs", 'self.file.sync().map_err(Error::io("sync", &self.path))?;', "")]),
    ("value-file-not-synced", CRASH, [(
        "values/file.rs", 'self.file.sync().map_err(Error::io("sync", &self.path))', "Ok(())")]),
    ("directory-not-synced-before-the-manifest", CRASH, [(
        "lsm/jobs.rs", 'self.disk.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;', "")]),
    ("recycled-bytes-accepted", ["crash_engine", "log_of_many"], [
        ("wal/format.rs", "own_lsn != lsn || count", "count"),
        ("wal/format.rs", "self.salt as u32 ^ (self.salt >> 32) as u32", "0"),
        ("wal/scan.rs", ".filter(|block| !follows || block.previous_crc == last_crc)", "")]),
    ("doubt-forgotten-when-the-log-goes-on", MISSING, [(
        "wal/index.rs", "records.push(Record::PossibleLoss { shard, segment, commit, entries, state });",
        "let _ = (segment, commit, entries, state);")]),
    ("uncommitted-entries-trusted-after-a-loss", MISSING, [(
        "wal/index.rs", "self.truncate(self.sound_end());", "")]),
    ("lost-vote-forgotten-with-a-reset", ["missing", "a_reset"], [(
        "wal/index.rs", "log.reset(*at);\n                log.resolve_loss(true, false);",
        "log.reset(*at);\n                log.resolve_loss(true, true);")]),
    ("damaged-block-taken-for-the-end", MISSING, [(
        "wal/scan.rs", "if verdict != Verdict::DamagedDurable {", "if true {")]),
    ("segment-freed-too-early", DISK, [(
        "wal/segment.rs", "Arc::strong_count(segment) == 1", "Arc::strong_count(segment) > 0")]),
    # The pause makes the race window long enough. With the lock the pause has no effect.
    ("memtable-frozen-while-an-entry-is-applied", ["db_threads", "a_flush"], [
        ("lsm/mod.rs", "pub fn freeze(&self) {\n        let _applying = self.applying.lock();",
         "pub fn freeze(&self) {"),
        ("lsm/mod.rs", "let active = self.view.read().active.clone();",
         "let active = self.view.read().active.clone();"
         "std::thread::sleep(std::time::Duration::from_millis(2));")]),
    ("tombstone-dropped-too-early", DISK, [(
        "lsm/merge.rs", "version.value == Value::Tombstone && self.bottom",
        "version.value == Value::Tombstone")]),
    ("range-tombstone-dropped-too-early", DISK, [(
        "lsm/jobs.rs", "ranges.settle(horizon.ts, done);",
        "let _ = done; ranges.settle(horizon.ts, |_, _| true);")]),
    ("expired-value-leaves-no-tombstone", DISK, [(
        "lsm/merge.rs", "(version.value, version.expires) = (Value::Tombstone, NEVER);",
        "let _ = (&mut version, NEVER); continue;")]),
    ("history-ignored", DISK, [(
        "lsm/jobs.rs", "view.ts.min(self.horizon.load(Ordering::Acquire))", "view.ts")]),
    ("entry-checksum-not-checked", ["engine_model", "a_flip"], [(
        "wal/format.rs", "(entry_crc(shard, index, kind, &data) == crc).then_some",
        "(entry_crc(shard, index, kind, &data) == crc || true).then_some")]),
    ("shard-dropped-without-a-mark", ["shards", "dropped"], [(
        "shards.rs", 'file.sync().map_err(Error::io("sync", &path))?;',
        'file.sync().map_err(Error::io("sync", &path))?; self.disk().remove(&path).unwrap();')]),
]


def main():
    names = sys.argv[1:]
    COPY.mkdir(parents=True, exist_ok=True)
    tree = COPY / "tree"
    missed = []
    for name, test, edits in BUGS:
        if names and name not in names:
            continue
        shutil.rmtree(tree, ignore_errors=True)
        ignore = shutil.ignore_patterns("target", ".git")
        shutil.copytree(ROOT, tree, ignore=ignore)
        for file, old, new in edits:
            path = tree / "engine" / "src" / file
            text = path.read_text()
            if text.count(old) != 1:
                sys.exit(f"{name}: {file} has `{old}` {text.count(old)} times, not once")
            path.write_text(text.replace(old, new))
        command = ["cargo", "test", "--quiet", "--release", "-p", "bedstone-tests", "--test", *test]
        environment = dict(os.environ, CARGO_TARGET_DIR=str(COPY / "build"), RUST_BACKTRACE="0")
        built = subprocess.run([*command, "--no-run"], cwd=tree, env=environment, capture_output=True)
        if built.returncode != 0:
            sys.exit(f"{name} does not compile:\n{built.stderr.decode()[-2000:]}")
        run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        caught = run.returncode != 0
        print(f"{'caught' if caught else 'MISSED'}  {name}", flush=True)
        missed += [] if caught else [name]
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
