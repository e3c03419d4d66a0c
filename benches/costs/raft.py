#!/usr/bin/env python3
"""Counts the instructions per committed entry of 128 bytes, of three Raft cores together.

    benches/costs/raft.py            prints a Markdown table
    benches/costs/raft.py --check    also fails when a count is above its limit

Needs valgrind. A count is the difference between a run of N batches and a run of 2 N batches. Counts depend on
the compiler and the C library, and the limits leave room for both. The load of the machine has no effect.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "target" / "release" / "bedstone-raft-costs"
# Entries in a batch, batches, limit.
BATCHES = [(1, 2000, 6_000), (64, 200, 350), (1024, 20, 250)]


def instructions(batch, batches):
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", PROGRAM,
         str(batch), str(batches)],
        check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def main():
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "bedstone-benches", "--bins"],
                   check=True, cwd=ROOT)
    print("| entries in a batch | instructions an entry | limit |")
    print("|--:|--:|--:|")
    over = False
    for batch, batches, limit in BATCHES:
        some, twice = instructions(batch, batches), instructions(batch, 2 * batches)
        each = (twice - some) / (batch * batches)
        print(f"| {batch:,} | {each:,.0f} | {limit:,} |")
        over |= each > limit
    if over and "--check" in sys.argv:
        sys.exit("a committed entry takes more instructions than the limit in the table")


main()
