//! RESP as clients use it: the `redis` crate in RESP2 and RESP3, and bytes that no client would
//! send.

use bedstone_tests::cluster::Cluster;
use redis::{Client, Connection, RedisResult, Value, cmd};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn connect(cluster: &Cluster, node: usize, protocol: &str) -> Connection {
    let url = format!("redis://{}/?protocol={protocol}", cluster.resp(node));
    Client::open(url).unwrap().get_connection().unwrap()
}

fn ask(connection: &mut Connection, line: &str) -> RedisResult<Value> {
    let mut words = line.split(' ');
    let mut command = cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query(connection)
}

/// The answer as text. Errors begin with `-`.
fn said(connection: &mut Connection, line: &str) -> String {
    fn show(value: Value) -> String {
        match value {
            Value::Nil => "nil".into(),
            Value::Int(number) => number.to_string(),
            Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::SimpleString(text) => text,
            Value::Okay => "OK".into(),
            Value::Array(items) => {
                format!("[{}]", items.into_iter().map(show).collect::<Vec<_>>().join(" "))
            }
            other => format!("{other:?}"),
        }
    }
    match ask(connection, line) {
        Ok(value) => show(value),
        Err(error) => format!("-{}", error.code().unwrap_or("?")),
    }
}

#[test]
fn the_redis_crate_in_resp2_and_resp3() {
    let mut cluster = Cluster::start();
    // Node 3 serves reads itself; the other nodes send reads to the leader.
    cluster.kill(3);
    cluster.add_setting(3, "follower_reads = true");
    cluster.restart(3);
    for (node, protocol) in [(1, "resp2"), (2, "resp3"), (3, "resp3")] {
        let mut c = connect(&cluster, node, protocol);
        for (line, expected) in SESSION {
            let prefixed = |text: &str| text.replace('@', &format!("n{node}:"));
            let (line, expected) = (prefixed(line), prefixed(expected));
            assert_eq!(said(&mut c, &line), expected, "{line}, node {node}, {protocol}");
        }
    }
    sessions(&cluster);
    refusals(&cluster);
    malformed(&cluster);
}

/// A request that is sent again, also to another node, runs once and gets its first answer again.
fn sessions(cluster: &Cluster) {
    let mut one = connect(cluster, 1, "resp2");
    let mut other = connect(cluster, 2, "resp3");
    let session = said(&mut one, "KV.SESSION OPEN");
    let once = |number: u64, what: &str| format!("KV.ONCE {session} {number} {what}");
    assert_eq!(said(&mut one, &once(1, "INCR once")), "1");
    assert_eq!(said(&mut other, &once(1, "INCR once")), "1");
    assert_eq!(said(&mut other, &once(2, "INCRBY once 5")), "6");
    // A request with a number that was used before is not executed: its first answer is returned.
    assert_eq!(said(&mut one, &once(2, "DEL once")), "6");
    assert_eq!(said(&mut one, &once(1, "INCR once")), "-ERR");
    assert_eq!(said(&mut one, &once(7, "SET once text NX")), "nil");
    assert_eq!(said(&mut one, &once(8, "INCR wrong:type extra")), "-ERR");
    assert_eq!(said(&mut one, &once(8, "GETDEL once")), "6");
    assert_eq!(said(&mut other, &once(8, "GETDEL once")), "6");
    assert_eq!(said(&mut one, "GET once"), "nil");
    let long = "x".repeat(5000);
    assert_eq!(said(&mut one, &once(9, &format!("SET once {long}"))), "OK");
    assert_eq!(said(&mut one, &once(10, "GETDEL once")), long);
    assert_eq!(said(&mut other, &once(10, "GETDEL once")), "-ERR");
    assert_eq!(said(&mut one, &format!("KV.SESSION CLOSE {session}")), "1");
    assert_eq!(said(&mut other, &once(10, "GETDEL once")), "-UNKNOWN");
    // Keys that the store itself uses are visible to no client.
    assert_eq!(said(&mut one, "KEYS *session*"), "[]");
    let first = said(&mut one, "KV.SESSION OPEN");
    for _ in 0..4200 {
        said(&mut one, "KV.SESSION OPEN");
    }
    let last = said(&mut one, "KV.SESSION OPEN");
    assert_eq!(said(&mut one, &format!("KV.ONCE {first} 1 INCR once")), "-UNKNOWN");
    assert_eq!(said(&mut one, &format!("KV.ONCE {last} 1 INCR once")), "1");
}

/// Commands of one client with the answers of Redis.
const SESSION: &[(&str, &str)] = &[
    ("PING", "PONG"),
    ("SET @a 1", "OK"),
    ("GET @a", "1"),
    ("SET @a 2 NX", "nil"),
    ("SET @a 2 XX GET", "1"),
    ("SETNX @a 3", "0"),
    ("GETSET @a 3", "2"),
    ("INCRBY @a 39", "42"),
    ("DECR @a", "41"),
    ("INCRBYFLOAT @a 0.5", "41.5"),
    ("INCR @a", "-ERR"),
    ("APPEND @a xyz", "7"),
    ("STRLEN @a", "7"),
    ("GETRANGE @a -3 -1", "xyz"),
    ("SETRANGE @a 8 !", "9"),
    ("GETDEL @a", "41.5xyz\0!"),
    ("GET @a", "nil"),
    ("MSET @b 1 @c 2", "OK"),
    ("MSETNX @c 3 @d 4", "0"),
    ("MGET @b @c @d", "[1 2 nil]"),
    ("EXISTS @b @c @b", "3"),
    ("TYPE @b", "string"),
    ("EXPIRE @b 100", "1"),
    ("EXPIRE @b 50 GT", "0"),
    ("TTL @b", "100"),
    ("SET @b 5 KEEPTTL", "OK"),
    ("PERSIST @b", "1"),
    ("TTL @b", "-1"),
    ("PEXPIREAT @b 1", "1"),
    ("TTL @b", "-2"),
    ("RENAME @c @e", "OK"),
    ("RENAME @c @e", "-ERR"),
    ("COPY @e @f", "1"),
    ("COPY @e @f", "0"),
    ("KV.SCAN @ @~ LIMIT 1", "[@e 2]"),
    ("KV.ONCE 999999 1 SET @once x", "-UNKNOWN"),
    ("KV.ONCE 0 1 SET @once x", "-ERR"),
    ("KV.ONCE 1 1 GET @once", "-ERR"),
    ("KV.ONCE 1 1 KV.SESSION OPEN", "-ERR"),
    ("KV.ONCE 1 1 SET @once", "-ERR"),
    ("KV.SESSION", "-ERR"),
    ("KV.SESSION CLOSE 999999", "0"),
    ("OBJECT ENCODING @e", "int"),
    ("DEL @e @f @g", "2"),
    ("CLUSTER KEYSLOT foo", "12182"),
    ("SELECT 1", "-ERR"),
    ("FLUSHALL", "-ERR"),
    ("MULTI", "-ERR"),
];

fn refusals(cluster: &Cluster) {
    let mut c = connect(cluster, 1, "resp2");
    let mut code = |key: Vec<u8>, value: Vec<u8>| {
        let result: RedisResult<()> = cmd("SET").arg(key).arg(value).query(&mut c);
        result.err().and_then(|error| error.code().map(str::to_owned))
    };
    assert_eq!(code(vec![b'k'; 16 << 10], b"v".to_vec()), None);
    assert_eq!(code(vec![b'k'; (16 << 10) + 1], b"v".to_vec()).as_deref(), Some("TOOLARGE"));
    assert_eq!(code(b"k".to_vec(), vec![0; (1 << 20) - 9]), None);
    assert_eq!(code(b"k".to_vec(), vec![0; 1 << 20]).as_deref(), Some("TOOLARGE"));
    assert_eq!(code(Vec::new(), b"an empty key is a key".to_vec()), None);
    let grown: RedisResult<()> = cmd("APPEND").arg("k").arg("123456789ab").query(&mut c);
    assert_eq!(grown.unwrap_err().code(), Some("TOOLARGE"));
}

fn malformed(cluster: &Cluster) {
    for wire in [
        &b"*1\r\n$-3\r\n"[..],
        b"*2\r\n:1\r\n",
        b"*99999999\r\n",
        b"*1\r\n$99999999999\r\n",
        b"*1\r\n$3\r\nabcdef\r\n",
        b"GET \"open\r\n",
    ] {
        let mut stream = TcpStream::connect(cluster.resp(2)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(wire).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the connection is closed");
        assert!(answer.starts_with(b"-ERR Protocol error"), "{wire:?}: {answer:?}");
    }
    // Other connections are not affected.
    assert_eq!(said(&mut connect(cluster, 2, "resp2"), "PING"), "PONG");
}

#[test]
fn operator_endpoints_report_the_fields_of_the_contract() {
    let cluster = Cluster::start();
    let leader = cluster.leader();
    for node in 1..=3 {
        assert_eq!(cluster.get(node, "/livez").unwrap().0, 200);
        assert_eq!(cluster.get(node, "/readyz?verbose").unwrap().0, 200);
        assert_eq!(cluster.get(node, "/nothing").unwrap().0, 404);
        let status = cluster.status(node).unwrap();
        assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
        assert_eq!(status["nodes"][0]["alive"], true);
        assert_eq!(status["shards"][0]["leader"], leader as u64);
        let (_, metrics) = cluster.get(node, "/metrics").unwrap();
        for name in [
            "bedstone_raft_has_leader 1",
            "bedstone_wal_fsync_duration_seconds_bucket",
            "bedstone_request_duration_seconds_bucket",
            "bedstone_requests_total{code=\"ok\"}",
            "bedstone_peer_rtt_seconds{peer=",
            "bedstone_build_info",
            "process_resident_memory_bytes",
        ] {
            assert!(metrics.contains(name), "{name}");
        }
    }
}
