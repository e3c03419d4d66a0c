"""Real input: writes every package of the machine's Debian index into the cluster, and reads it back
from each node, before and after a restart of all nodes."""

import os
import signal
import subprocess
import sys
import time

import redis

bedstone, data, base = sys.argv[1], sys.argv[2], int(sys.argv[3])
text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True).stdout
packages = {}
for stanza in text.split(b"\n\n"):
    if stanza.startswith(b"Package: "):
        packages[stanza.split(b"\n", 1)[0][9:]] = stanza
assert len(packages) > 10_000, "run apt-get update first"
names = list(packages)


def node(number):
    return redis.Redis(port=base + 10 * number, socket_timeout=60)


def load():
    pipe = node(1).pipeline(transaction=False)
    for i, (name, stanza) in enumerate(packages.items()):
        pipe.set(b"package:" + name, stanza)
        if i % 500 == 499:
            pipe.execute()
    pipe.execute()


def verify():
    for number in (1, 2, 3):
        client = node(number)
        for at in range(0, len(names), 500):
            part = names[at : at + 500]
            found = client.mget([b"package:" + name for name in part])
            assert found == [packages[name] for name in part], f"node {number} differs"


def until(what, holds):
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise SystemExit(f"not reached within a minute: {what}")


def has_ended(pid):
    """Whether a process has ended and released its ports. A zombie counts as ended."""
    try:
        state = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
        # The first thread may end before other threads that still hold the ports.
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) <= 1
    except FileNotFoundError:
        return True


def answers(number):
    try:
        return node(number).get("cli1") is not None
    except redis.RedisError:
        return False


def restart():
    """Kills every node and starts it again."""
    pids = [line.split()[3] for line in open(f"{data}/out") if line.startswith("node ")]
    subprocess.run(["kill", "-9", *pids], check=True)
    for pid in pids:
        until(f"process {pid} is gone", lambda: has_ended(pid))
    nodes = [
        subprocess.Popen([bedstone, "start", "--config", f"{data}/node{i}/bedstone.toml"])
        for i in (1, 2, 3)
    ]
    for number in (1, 2, 3):
        until(f"node {number} answers", lambda: answers(number))
    return nodes


load()
verify()
nodes = restart()
try:
    verify()
finally:
    for process in nodes:
        process.send_signal(signal.SIGTERM)
    for process in nodes:
        process.wait()
print(f"{len(names)} packages, {sum(map(len, packages.values())) >> 20} MiB: identical from every "
      "node, before and after a restart of all")
