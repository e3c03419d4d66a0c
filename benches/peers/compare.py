#!/usr/bin/env python3
"""Compares Bedstone, etcd (three nodes each) and Redis with `appendfsync always` (one node), interleaved
in one run. The figures are medians over the rounds. CPU is user and system time of all server processes.

    apt-get install etcd-server redis-server redis-tools protobuf-compiler libprotobuf-dev
    cargo build --release && (cd benches/peers && cargo build --release)
    benches/peers/compare.py [--rounds 5] [--seconds 5] [--clients 64] [--json]

Everything runs on loopback and in a temporary directory below the current one.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEDSTONE = ROOT / "target/release/bedstone"
ETCD_LOAD = ROOT / "benches/peers/target/release/etcd-load"
BASE = 19400
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pids):
    """Seconds of user and system time that the processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def wait_for(what, probe, seconds=60):
    for _ in range(seconds * 10):
        try:
            if probe():
                return
        except (OSError, subprocess.CalledProcessError):
            pass
        time.sleep(0.1)
    raise SystemExit(f"{what} did not become ready within {seconds} s")


class Bedstone:
    name = "bedstone ×3"

    def __init__(self, data):
        self.out = open(data / "bedstone.out", "w+")
        command = [BEDSTONE, "dev", "--data", data / "bedstone", "--port-base", str(BASE)]
        self.dev = subprocess.Popen(command, stdout=self.out, stderr=subprocess.DEVNULL)
        read = lambda: Path(self.out.name).read_text()
        wait_for("bedstone", lambda: "\nready\n" in read())
        self.pids = re.findall(r"^node \d+ pid (\d+)", read(), re.M)
        self.addrs = ",".join(f"127.0.0.1:{BASE + 10 * i}" for i in (1, 2, 3))

    def load(self, ops, clients, pipeline, seconds, keys):
        command = [BEDSTONE, "bench", "--json", "--resp", self.addrs, "--ops", ops]
        command += ["--clients", clients, "--pipeline", pipeline, "--duration", f"{seconds}s"]
        command += ["--keys", keys, "--value-size", 256]
        return json.loads(subprocess.run(map(str, command), capture_output=True, check=True).stdout)

    def stop(self):
        self.dev.send_signal(signal.SIGTERM)
        self.dev.wait()


class Redis(Bedstone):
    name = "redis always ×1"

    def __init__(self, data):
        port = BASE + 90
        (data / "redis").mkdir()
        command = ["redis-server", "--port", port, "--appendonly", "yes", "--appendfsync", "always"]
        command += ["--save", "", "--dir", data / "redis"]
        self.dev = subprocess.Popen(map(str, command), stdout=subprocess.DEVNULL)
        ping = ["redis-cli", "-p", str(port), "ping"]
        wait_for("redis", lambda: b"PONG" in subprocess.check_output(ping, stderr=subprocess.DEVNULL))
        self.pids = [self.dev.pid]
        self.addrs = f"127.0.0.1:{port}"


class Etcd:
    name = "etcd ×3"

    def __init__(self, data):
        peers = [f"http://127.0.0.1:{BASE + 101 + 10 * i}" for i in (0, 1, 2)]
        clients = [f"http://127.0.0.1:{BASE + 100 + 10 * i}" for i in (0, 1, 2)]
        cluster = ",".join(f"n{i}={peer}" for i, peer in enumerate(peers))
        self.nodes = []
        for i in (0, 1, 2):
            command = ["etcd", "--name", f"n{i}", "--data-dir", data / f"etcd{i}"]
            command += ["--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i]]
            command += ["--listen-client-urls", clients[i], "--advertise-client-urls", clients[i]]
            command += ["--initial-cluster", cluster, "--quota-backend-bytes", str(8 << 30)]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self.nodes.append(subprocess.Popen(command, **quiet))
        self.pids = [node.pid for node in self.nodes]
        self.addrs = ",".join(clients)
        health = ["curl", "-sf", clients[0] + "/health"]
        wait_for("etcd", lambda: b"true" in subprocess.check_output(health))

    def load(self, ops, clients, pipeline, seconds, keys):
        if pipeline != 1:
            return None
        command = [ETCD_LOAD, self.addrs, ops, clients, seconds, 256, keys]
        return json.loads(subprocess.run(map(str, command), capture_output=True, check=True).stdout)

    def stop(self):
        for node in self.nodes:
            node.send_signal(signal.SIGTERM)
        for node in self.nodes:
            node.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    loads = [("put", 64, 1), ("get", 64, 1), ("put", 64, 16), ("put", 1, 1)]
    data = Path(tempfile.mkdtemp(dir="."))
    stores = []
    results = {}
    try:
        for kind in (Etcd, Bedstone, Redis):
            stores.append(kind(data))
        for _ in range(args.rounds):
            for ops, clients, pipeline in loads:
                for store in stores:
                    before = cpu(store.pids)
                    result = store.load(ops, clients, pipeline, args.seconds, 10_000_000)
                    if result is None:
                        continue
                    result["cpu"] = (cpu(store.pids) - before) / result["operations"] * 100_000
                    results.setdefault((ops, clients, pipeline, store.name), []).append(result)
    finally:
        for store in stores:
            store.stop()
        shutil.rmtree(data)
    rows = []
    for (ops, clients, pipeline, name), found in results.items():
        median = lambda field: statistics.median(result[field] for result in found)
        rows.append({
            "load": f"{ops}, {clients} clients, pipeline {pipeline}", "store": name,
            "per_second": round(median("per_second")), "p50_ms": round(median("p50_ms"), 2),
            "p99_ms": round(median("p99_ms"), 2), "cpu_s_per_100k": round(median("cpu"), 2),
            "errors": sum(result["errors"] for result in found),
        })
    rows.sort(key=lambda row: row["load"])
    if args.json:
        print(json.dumps(rows))
        return
    print("| load | store | ops/s | p50 / p99 ms | server CPU-s per 100k | errors |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print("| {load} | {store} | {per_second:,} | {p50_ms} / {p99_ms} | {cpu_s_per_100k} | {errors} |"
              .format(**row))


main()
