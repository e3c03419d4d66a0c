#!/usr/bin/env python3
"""Compares two builds: clusters of three on loopback, in turns, under the same load.

    benches/costs/versions.py BEFORE AFTER [ROUNDS]

BEFORE and AFTER are two `bedstone` binaries; the load comes from AFTER's `bench`, for both. Prints the
median of operations per second, of the 99th percentile, and of the ratios of each round, as Markdown.
"""

import json
import statistics
import subprocess
import sys
import tempfile

PORTS = {"before": 9100, "after": 9200}
LOADS = [
    ("put, 64 clients", ["--ops", "put", "--clients", "64"]),
    ("put, 1 client", ["--ops", "put", "--clients", "1"]),
    ("put, 16 clients, 16 in a batch", ["--ops", "put", "--clients", "16", "--pipeline", "16"]),
    ("get, 64 clients", ["--ops", "get", "--clients", "64"]),
    ("mixed, 64 clients", ["--ops", "mixed", "--clients", "64"]),
]


def measure(name, binary, loader, data):
    base = PORTS[name]
    dev = subprocess.Popen([binary, "dev", "--port-base", str(base), "--data", data],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in dev.stdout:
        if line.strip() == "ready":
            break
    resp = ",".join(f"127.0.0.1:{base + 10 * node}" for node in (1, 2, 3))
    found = []
    for _, load in LOADS:
        done = subprocess.run([loader, "bench", "--resp", resp, "--duration", "4s", "--json", *load],
                              check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        found.append(json.loads(done.stdout))
    dev.terminate()
    dev.wait()
    return found


def main():
    binaries = {"before": sys.argv[1], "after": sys.argv[2]}
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    found = {name: [] for name in binaries}
    for number in range(rounds):
        # Who goes first changes, so that neither always finds the quieter machine.
        for name in sorted(binaries, reverse=number % 2 == 0):
            with tempfile.TemporaryDirectory() as data:
                found[name].append(measure(name, binaries[name], sys.argv[2], data))
    print("| load | before, 1/s | after, 1/s | ratio | p99 before, ms | p99 after, ms |")
    print("|---|--:|--:|--:|--:|--:|")
    for at, (title, _) in enumerate(LOADS):
        rate = {name: [run[at]["per_second"] for run in runs] for name, runs in found.items()}
        tail = {name: statistics.median(run[at]["p99_ms"] for run in runs)
                for name, runs in found.items()}
        ratio = statistics.median(a / b for a, b in zip(rate["after"], rate["before"]))
        before, after = (statistics.median(rate[name]) for name in ("before", "after"))
        print(f"| {title} | {before:,.0f} | {after:,.0f} | {ratio:.2f} "
              f"| {tail['before']:,.1f} | {tail['after']:,.1f} |")


if __name__ == "__main__":
    main()
