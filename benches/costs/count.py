#!/usr/bin/env python3
"""Counts the costs of operations of the engine, and prints a Markdown table.

    benches/costs/count.py

Needs strace and valgrind. System calls are those of the calling thread. Copies are bytes that
memcpy, memmove and similar functions moved in user space, on any thread; the table shows the median
of three counts. Both numbers are differences between a run of N and a run of 2 N operations.
Allocations are those of the whole process; the table shows the least of five counts, because
background threads allocate too.
"""

import pathlib
import re
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "target" / "release" / "bedstone-costs"
COUNT = 1000
OPERATIONS = [
    ("put, synced", "put", [128, 1024, 16384]),
    ("get, warm", "get", [128, 1024, 16384]),
    ("scan step, warm", "scan", [128, 1024, 16384]),
    ("group commit, 64 records", "commit", [128, 1024]),
]
SIZED = ("write", "pwrite64", "pwritev", "pwritev2")


def run(command, **options):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **options)


def calls(operation, value, count):
    """System calls by name, and bytes written."""
    with tempfile.NamedTemporaryFile("r") as trace:
        run(["strace", "-o", trace.name, PROGRAM, operation, str(value), str(count)])
        lines = trace.read().splitlines()
    found = {}
    for line in lines:
        match = re.match(r"(\w+)\(.*= (-?\d+)", line)
        if match:
            name, result = match[1], int(match[2])
            found[name] = found.get(name, 0) + 1
            if name in SIZED:
                found["bytes"] = found.get("bytes", 0) + max(result, 0)
    return found


def copied(operation, value, count):
    with tempfile.NamedTemporaryFile() as profile:
        done = run(["valgrind", "--tool=dhat", "--mode=copy", f"--dhat-out-file={profile.name}",
                    PROGRAM, operation, str(value), str(count)])
    return int(re.search(r"Total:\s+([\d,]+) bytes", done.stderr)[1].replace(",", ""))


def main():
    run(["cargo", "build", "--release", "-p", "bedstone-benches", "--bins"], cwd=ROOT)
    print("| operation | value | allocations | bytes allocated | bytes copied | system calls "
          "| bytes written |")
    print("|---|--:|--:|--:|--:|---|--:|")
    for title, operation, values in OPERATIONS:
        for value in values:
            plain = min(
                [float(each) for each in
                 run([PROGRAM, operation, str(value), str(COUNT)]).stdout.split()]
                for _ in range(5))
            once, twice = (calls(operation, value, n) for n in (COUNT, 2 * COUNT))
            each = {name: (twice[name] - once.get(name, 0)) / COUNT for name in twice}
            copies = statistics.median(
                copied(operation, value, 2 * COUNT) - copied(operation, value, COUNT)
                for _ in range(3))
            written = each.pop("bytes", 0)
            named = [f"{number:.2f} {name}" for name, number in sorted(each.items())
                     if number > 0.005]
            print(f"| {title} | {value:,} | {plain[0]:.1f} | {plain[1]:,.0f} "
                  f"| {copies / COUNT:,.0f} | {', '.join(named) or 'none'} | {written:,.0f} |",
                  flush=True)


if __name__ == "__main__":
    main()
