#!/usr/bin/env python3
"""Measures how long a client of a surviving node waits when the leader ends.

    benches/costs/failover.py BEDSTONE [TIMES]

For each of SIGKILL, SIGSTOP and SIGTERM, TIMES times (20 by default): a new cluster of three nodes on loopback, a client
of a follower that sends one SET after the other, and the signal to the leader. Prints the median and the longest of the
longest waits, and the requests that ended with an error, as Markdown.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

PORT_BASE = 9300
SIGNALS = [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM]
# A client observes the cluster for this long after the signal, in seconds.
AFTER = 3


class Client(threading.Thread):
    """Sends one SET after the other until it is stopped."""

    def __init__(self, port):
        super().__init__()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.stopped = threading.Event()
        self.longest, self.errors = 0.0, 0

    def run(self):
        replies = self.socket.makefile("rb")
        while not self.stopped.is_set():
            begun = time.monotonic()
            self.socket.sendall(b"SET key value\r\n")
            self.errors += replies.readline().startswith(b"-")
            self.longest = max(self.longest, time.monotonic() - begun)


def leader(base):
    while True:
        leaders = set()
        for node in (1, 2, 3):
            with urllib.request.urlopen(f"http://127.0.0.1:{base + 10 * node + 1}/status") as page:
                leaders.add(json.load(page)["shards"][0]["leader"])
        if len(leaders) == 1 and leaders != {0}:
            return leaders.pop()
        time.sleep(0.1)


def once(binary, base, kind):
    """The longest wait in seconds, and the errors."""
    with tempfile.TemporaryDirectory() as data:
        dev = subprocess.Popen([binary, "dev", "--port-base", str(base), "--data", data],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        pids = {}
        try:
            for line in dev.stdout:
                words = line.split()
                if words == ["ready"]:
                    break
                pids[int(words[1])] = int(words[3])
            leads = leader(base)
            client = Client(base + 10 * (leads % 3 + 1))
            client.start()
            time.sleep(1)
            os.kill(pids[leads], kind)
            time.sleep(AFTER)
            client.stopped.set()
            client.join()
            return client.longest, client.errors
        finally:
            for pid in pids.values():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            dev.terminate()
            dev.wait()


def main():
    binary, times = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
    print("| signal to the leader | median, ms | longest, ms | errors in all |")
    print("|---|--:|--:|--:|")
    for kind in SIGNALS:
        waits, errors = [], 0
        for at in range(times):
            wait, failed = once(binary, PORT_BASE + 40 * (at % 2), kind)
            waits.append(wait * 1e3)
            errors += failed
        print(f"| {kind.name} | {statistics.median(waits):,.0f} | {max(waits):,.0f} | {errors} |", flush=True)


main()
