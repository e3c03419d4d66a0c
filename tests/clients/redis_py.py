"""redis-py in RESP2, RESP3 and as a cluster client, against one node."""

import sys

import redis

port = int(sys.argv[1])
for protocol in (2, 3):
    r = redis.Redis(port=port, protocol=protocol)
    assert r.ping()
    key = f"py{port}-{protocol}"
    assert r.set(key, b"\x00\xff binary")
    assert r.get(key) == b"\x00\xff binary"
    assert r.set(key, "x", nx=True) is None
    assert r.set(key, "y", get=True) == b"\x00\xff binary"
    assert r.mset({f"{key}a": 1, f"{key}b": 2}) and r.mget(f"{key}a", f"{key}c") == [b"1", None]
    assert r.incrby(f"{key}a", 41) == 42 and r.incrbyfloat(f"{key}a", 0.5) == 42.5
    assert r.append(key, "z") == 2 and r.getrange(key, 0, 0) == b"y"
    assert r.expire(key, 100) and 0 < r.ttl(key) <= 100 and r.persist(key)
    assert r.set(f"{key}t", "gone", px=30)
    while r.exists(f"{key}t"):
        pass
    assert r.get(f"{key}t") is None and r.ttl(f"{key}t") == -2
    assert sorted(r.scan_iter(match=f"{key}*", count=3)) == sorted(r.keys(f"{key}*"))
    assert r.rename(f"{key}b", f"{key}d") and r.delete(f"{key}d", f"{key}a") == 2
    with r.pipeline(transaction=False) as pipe:
        for i in range(500):
            pipe.set(f"{key}p", i)
            pipe.get(f"{key}p")
        answers = pipe.execute()
    assert answers[1::2] == [str(i).encode() for i in range(500)]
    assert r.execute_command("KV.GET", key, "WEAK") in (b"yz", None)
    items = r.execute_command("KV.SCAN", key, key + "~", "LIMIT", 10)
    assert items[0] == key.encode(), items
    assert r.info()["redis_version"] and r.dbsize() > 0 and r.client_id() > 0
    for wrong in (["MULTI"], ["NOSUCH"], ["GET"], ["SET", "k", "v", "EX", "-1"]):
        try:
            r.execute_command(*wrong)
        except redis.ResponseError as error:
            assert str(error), wrong
        else:
            raise AssertionError(wrong)

cluster = redis.RedisCluster(host="127.0.0.1", port=port)
assert cluster.set("cluster", "yes") and cluster.get("cluster") == b"yes"
assert cluster.mget_nonatomic("cluster", "other-slot") == [b"yes", None]
