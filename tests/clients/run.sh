#!/usr/bin/env bash
# Runs unmodified clients against every node of a cluster: tests/clients/run.sh BEDSTONE CLIENTS
# CLIENTS is a folder with the Python package `redis` in python/ and the npm package `ioredis` in
# node_modules/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bedstone=$1
clients=$(cd "$2" && pwd)
data=$(mktemp -d)
base=18400
"$bedstone" dev --data "$data" --port-base $base >"$data/out" 2>"$data/err" &
dev=$!
trap 'kill $dev 2>/dev/null; wait $dev 2>/dev/null || true; rm -rf "$data"' EXIT
for _ in $(seq 600); do
    grep -q '^ready$' "$data/out" && break
    kill -0 $dev || { cat "$data/err"; exit 1; }
    sleep 0.1
done

for node in 1 2 3; do
    port=$((base + 10 * node))
    [ "$(redis-cli -p $port set "cli$node" "v $node")" = OK ]
    [ "$(redis-cli -p $port get "cli$node")" = "v $node" ]
    [ "$(redis-cli -3 -p $port incr counter)" = "$node" ]
    redis-benchmark -p $port -t set,get -c 64 -P 16 -n 200000 -d 64 -q >"$data/bench" 2>&1
    ! grep -iE 'error|warn' "$data/bench"
    PYTHONPATH="$clients/python" python3 "$here/redis_py.py" $port
    NODE_PATH="$clients/node_modules" node "$here/ioredis.js" $port
    echo "node $node: redis-cli, redis-benchmark, redis-py, ioredis"
done

PYTHONPATH="$clients/python" python3 "$here/packages.py" "$bedstone" "$data" $base
