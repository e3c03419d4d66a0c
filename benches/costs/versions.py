#!/usr/bin/env python3
"""Compares two builds: clusters of three nodes on loopback that run the same loads in turns.

    benches/costs/versions.py BEFORE AFTER [ROUNDS]

BEFORE and AFTER are two `bedstone` binaries; the load for both comes from the `bench` of AFTER. In each round each
build gets a new cluster, which runs all loads. A cluster ends before the next begins, because an idle cluster costs
something as well. The order of the builds alternates from round to round. Prints medians of operations per second and
of the 99th percentile, and the median and the quartiles of the ratios of each round, as Markdown.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile

PORT_BASE = 9100
LOADS = [
    ("put, 64 clients", ["--ops", "put", "--clients", "64"]),
    ("put, 1 client", ["--ops", "put", "--clients", "1"]),
    ("put, 16 clients, 16 in a batch", ["--ops", "put", "--clients", "16", "--pipeline", "16"]),
    ("get, 64 clients", ["--ops", "get", "--clients", "64"]),
    ("mixed, 64 clients", ["--ops", "mixed", "--clients", "64"]),
]


@contextlib.contextmanager
def cluster(binary, base):
    with tempfile.TemporaryDirectory() as data:
        dev = subprocess.Popen([binary, "dev", "--port-base", str(base), "--data", data],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            for line in dev.stdout:
                if line.strip() == "ready":
                    break
            else:
                sys.exit(f"{binary} dev ended before it was ready")
            yield ",".join(f"127.0.0.1:{base + 10 * node}" for node in (1, 2, 3))
        finally:
            dev.terminate()
            dev.wait()


def measure(loader, resp, load):
    done = subprocess.run([loader, "bench", "--resp", resp, "--duration", "4s", "--json", *load],
                          check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)


def main():
    binaries = {"before": sys.argv[1], "after": sys.argv[2]}
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    found = [{name: [] for name in binaries} for _ in LOADS]
    for number in range(rounds):
        # The order alternates, so that the machine is not always quieter for one build.
        for name in sorted(binaries, reverse=number % 2 == 0):
            with cluster(binaries[name], PORT_BASE) as resp:
                for at, (_, load) in enumerate(LOADS):
                    found[at][name].append(measure(binaries["after"], resp, load))
    print("| load | before, 1/s | after, 1/s | ratio | quartiles | p99 before, ms | p99 after, ms |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for (title, _), runs in zip(LOADS, found):
        rate = {name: [run["per_second"] for run in runs[name]] for name in binaries}
        tail = {name: statistics.median(run["p99_ms"] for run in runs[name]) for name in binaries}
        before, after = (statistics.median(rate[name]) for name in ("before", "after"))
        ratios = [a / b for a, b in zip(rate["after"], rate["before"])]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(f"| {title} | {before:,.0f} | {after:,.0f} | {ratio:.2f} | {low:.2f}-{high:.2f} "
              f"| {tail['before']:,.1f} | {tail['after']:,.1f} |")


if __name__ == "__main__":
    main()
