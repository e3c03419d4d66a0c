//! Client connections, byte by byte, as a stranger or a broken client may use them.

use bedstone_tests::cluster::{Cluster, eventually};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

fn connect(cluster: &Cluster, node: usize) -> TcpStream {
    let stream = TcpStream::connect(cluster.resp(node)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// Sends bytes and reads until the server closes the connection.
fn exchange(mut stream: TcpStream, bytes: &[u8], ends: bool) -> String {
    stream.write_all(bytes).expect("is sent");
    if ends {
        stream.shutdown(Shutdown::Write).expect("is half closed");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server closes the connection");
    answer
}

#[test]
fn a_client_that_sends_no_more_receives_its_replies() {
    let cluster = Cluster::start();
    for node in 1..=3 {
        let requests = b"SET half 1\r\nGET half\r\nINCR half\r\nGET half\r\n";
        let answer = exchange(connect(&cluster, node), requests, true);
        assert_eq!(answer, "+OK\r\n$1\r\n1\r\n:2\r\n$1\r\n2\r\n");
        let unfinished = exchange(connect(&cluster, node), b"PING\r\n*2\r\n$3\r\nGE", true);
        assert_eq!(unfinished, "+PONG\r\n", "an unfinished request gets no reply");
    }
}

#[test]
fn a_node_that_ends_answers_what_it_has_accepted() {
    let cluster = Cluster::start();
    let leader = cluster.leader();
    let mut stream = connect(&cluster, leader);
    let requests = "INCR counter\r\n".repeat(2000);
    stream.write_all(requests.as_bytes()).expect("is sent");
    // The first reply shows that the node reads the requests.
    let mut first = [0; 4];
    stream.read_exact(&mut first).expect("a reply");
    cluster.signal(leader, Signal::TERM);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the server closes the connection");
    let replies = format!("{}{rest}", String::from_utf8_lossy(&first));
    let numbers: Vec<u64> =
        replies.lines().filter_map(|line| line.strip_prefix(':')?.parse().ok()).collect();
    assert_eq!(numbers.len(), replies.lines().count(), "every reply is a result: {replies:.300}");
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "no accepted request is lost or done twice");
}

/// The lines of an answer.
fn lines(cluster: &Cluster, requests: &str) -> Vec<String> {
    let answer = exchange(connect(cluster, 1), requests.as_bytes(), true);
    answer.split_terminator("\r\n").map(str::to_owned).collect()
}

#[test]
fn requests_after_a_refused_one_are_refused_too() {
    let cluster = Cluster::start();
    let transaction = lines(
        &cluster,
        "SET balance 1\r\nMULTI\r\nINCR balance\r\nMULTI\r\nEXEC\r\nGET balance\r\n\
         MULTI\r\nINCR balance\r\nDISCARD\r\nGET balance\r\nEXEC\r\nDISCARD\r\n",
    );
    let begins = |line: &str, words: &str| assert!(line.starts_with(words), "{line}");
    begins(&transaction[1], "-ERR MULTI: transactions are not offered");
    begins(&transaction[2], "-ERR INCR was not executed: it belongs to a transaction");
    begins(&transaction[3], "-ERR MULTI calls can not be nested");
    begins(&transaction[4], "-EXECABORT Transaction discarded");
    assert_eq!(transaction[5..7], ["$1", "1"], "the balance has not changed");
    assert_eq!(transaction[9..12], ["+OK", "$1", "1"], "DISCARD ends the refusal");
    begins(&transaction[12], "-ERR EXEC without MULTI");
    begins(&transaction[13], "-ERR DISCARD without MULTI");
    let database = lines(
        &cluster,
        "SELECT 1\r\nSET balance 2\r\nPING\r\nGET balance\r\nSELECT 0\r\nGET balance\r\n\
         SELECT x\r\nDEL balance\r\nRESET\r\nGET balance\r\n",
    );
    begins(&database[0], "-ERR DB index is out of range");
    begins(&database[1], "-ERR SET was not executed: SELECT of another database");
    assert_eq!(database[2], "+PONG");
    begins(&database[3], "-ERR GET was not executed");
    assert_eq!(database[4..7], ["+OK", "$1", "1"]);
    begins(&database[8], "-ERR DEL was not executed");
    assert_eq!(database[9..12], ["+RESET", "$1", "1"]);
}

#[test]
fn bad_arguments_are_errors_that_name_the_command() {
    let cluster = Cluster::start();
    for (request, error) in [
        ("WAIT abc 0", "-ERR value is not an integer or out of range"),
        ("WAIT 1 -1", "-ERR timeout is negative"),
        ("FLUSHDB", "-ERR FLUSHDB is off"),
        ("FLUSHALL", "-ERR FLUSHALL is off"),
        ("FLUSHDB NOW", "-ERR syntax error"),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command"),
        ("CLIENT SETINFO LIB-NAME", "-ERR unknown subcommand 'SETINFO'"),
        ("CLIENT SETNAME \"a b\"", "-ERR Client names cannot contain spaces"),
        ("HELLO 3 SETNAME \"a\\nid=7\"", "-ERR Client names cannot contain spaces"),
    ] {
        let answer = lines(&cluster, &format!("{request}\r\n"));
        assert!(answer[0].starts_with(error), "{request}: {}", answer[0]);
    }
}

#[test]
fn the_resp_port_does_not_execute_the_body_of_an_http_request() {
    let cluster = Cluster::start();
    let post = "POST / HTTP/1.1\r\nHost: x\r\n\r\nSET hacked 1\r\n";
    let get = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET hacked 1\r\n";
    for request in [post, get] {
        let answer = exchange(connect(&cluster, 1), request.as_bytes(), false);
        assert!(answer.contains("speaks RESP, not HTTP"), "{answer}");
        assert!(!answer.contains("OK"), "{answer}");
    }
    assert_eq!(lines(&cluster, "GET hacked\r\n"), ["$-1"]);
}

#[test]
fn the_http_port_refuses_foreign_pages() {
    let cluster = Cluster::start();
    let post = |headers: &str| {
        let stream = TcpStream::connect(cluster.http(1)).expect("connects");
        let body = "{\"learners\": [3]}";
        let request = format!(
            "POST /shards/1/members HTTP/1.1\r\n{headers}Content-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        exchange(stream, request.as_bytes(), false)
    };
    let foreign = post("Host: attacker.example\r\n");
    assert!(foreign.starts_with("HTTP/1.1 403") && foreign.contains("`http_hosts`"), "{foreign}");
    let http = cluster.http(1);
    let foreign = post(&format!("Host: {http}\r\nOrigin: http://attacker.example\r\n"));
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    let status = cluster.status(1).expect("answers");
    assert_eq!(status["shards"][0]["learners"].as_array().map(Vec::len), Some(0));
}

/// The time until the reply to a request, and the reply.
fn timed(
    connection: &mut redis::Connection,
    request: &[&str],
) -> (Duration, redis::RedisResult<redis::Value>) {
    let begun = std::time::Instant::now();
    let mut command = redis::cmd(request[0]);
    command.arg(&request[1..]);
    let reply = command.query(connection);
    (begun.elapsed(), reply)
}

/// Before, such a pattern stopped the shard for a minute, and a long page was refused for ever.
#[test]
fn patterns_and_pages_are_bounded() {
    let cluster = Cluster::start();
    let follower = cluster.leader() % 3 + 1;
    let client = redis::Client::open(format!("redis://{}", cluster.resp(follower))).expect("opens");
    let mut connection = client.get_connection().expect("connects");
    let long = "x".repeat(16_000);
    for i in 0..400 {
        redis::cmd("SET").arg(format!("{long}{i}")).arg(i).exec(&mut connection).expect("is set");
    }
    let (many, class) = ("*x".repeat(400), format!("*[{}]z", "x".repeat(900)));
    for (request, error) in [
        (["KEYS", &long[..1025]], "TOOLARGE"),
        (["KEYS", &format!("{many}z")], "TOOLARGE"),
        (["KEYS", &class], "TOOLARGE"),
    ] {
        let (took, reply) = timed(&mut connection, &request);
        let found = reply.expect_err("is refused");
        assert_eq!(found.code(), Some(error), "{found}");
        assert!(took < Duration::from_secs(2), "the answer took {took:?}");
    }
    // Each page of SCAN fits a frame between nodes, and the pages together have every key.
    let (mut cursor, mut keys, mut pages) = (0, 0, 0);
    loop {
        let mut scan = redis::cmd("SCAN");
        let scan = scan.arg(cursor).arg("COUNT").arg(400);
        let (next, page): (u64, Vec<String>) = scan.query(&mut connection).expect("a page");
        keys += page.len();
        pages += 1;
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(keys, 400);
    assert!(pages > 2, "{pages} pages");
}

#[test]
fn a_cluster_client_learns_the_other_live_nodes() {
    let mut cluster = Cluster::start();
    let ports = |cluster: &Cluster| {
        let answer = exchange(connect(cluster, 1), b"CLUSTER SLOTS\r\n", true);
        let port = |line: &str| line.strip_prefix(':')?.parse::<u16>().ok();
        answer.split("\r\n").filter_map(port).skip(2).collect::<Vec<u16>>()
    };
    let port = |cluster: &Cluster, node| {
        let address = cluster.resp(node);
        address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).expect("a port")
    };
    let all: Vec<u16> = (1..=3).map(|node| port(&cluster, node)).collect();
    eventually("all nodes are named", || (ports(&cluster) == all).then_some(()));
    cluster.kill(3);
    eventually("a dead node is not named", || (ports(&cluster) == all[..2]).then_some(()));
    let nodes = lines(&cluster, "CLUSTER NODES\r\n");
    assert!(nodes[1].contains("myself,master"), "{nodes:?}");
    assert!(nodes[1].contains(" slave "), "{nodes:?}");
    let shards = exchange(connect(&cluster, 1), b"CLUSTER SHARDS\r\n", true);
    assert!(shards.contains("replica") && shards.contains("master"), "{shards}");
}

#[test]
fn numbers_deadlines_and_sizes_are_exact() {
    let cluster = Cluster::start();
    let client = redis::Client::open(format!("redis://{}", cluster.resp(1))).expect("opens");
    let mut connection = client.get_connection().expect("connects");
    let mut ask = |request: &[&str]| -> Result<String, String> {
        let mut command = redis::cmd(request[0]);
        let reply = command.arg(&request[1..]).query::<redis::Value>(&mut connection);
        let text = |value| redis::from_redis_value::<String>(value).expect("a text");
        reply.map(text).map_err(|error| error.to_string())
    };
    ask(&["SET", "big", "9007199254740993"]).expect("is set");
    assert_eq!(ask(&["INCRBYFLOAT", "big", "0"]).as_deref(), Ok("9007199254740993"));
    ask(&["SET", "tenth", "0.1"]).expect("is set");
    assert_eq!(ask(&["INCRBYFLOAT", "tenth", "0.2"]).as_deref(), Ok("0.3"));
    let infinite = ask(&["INCRBYFLOAT", "tenth", "+inf"]).expect_err("is refused");
    assert!(infinite.contains("NaN or Infinity"), "{infinite}");
    // The last moment that fits 63 bits is a deadline; the next one is not.
    let last = i64::MAX.to_string();
    ask(&["SET", "far", "1", "PXAT", &last]).expect("is set");
    assert_eq!(ask(&["PEXPIRETIME", "far"]), Ok(last.clone()));
    assert_eq!(ask(&["PEXPIREAT", "big", "9000000000000000000"]).as_deref(), Ok("1"));
    assert_eq!(ask(&["PERSIST", "big"]).as_deref(), Ok("1"));
    for request in [
        ["SET", "far", "2", "PX", &last],
        ["SET", "far", "2", "EXAT", &last],
        ["GETEX", "far", "EX", &last, ""],
    ] {
        let request: Vec<&str> = request.into_iter().filter(|word| !word.is_empty()).collect();
        assert!(ask(&request).is_err_and(|error| error.contains("invalid expire")), "{request:?}");
    }
    // SET, APPEND and SETRANGE have one limit.
    let longest = (1 << 20) - 9;
    let value = "v".repeat(longest);
    ask(&["SET", "long", &value]).expect("is set");
    assert!(ask(&["SET", "long", &format!("{value}v")]).is_err_and(|e| e.contains("TOOLARGE")));
    assert!(ask(&["APPEND", "long", "v"]).is_err_and(|e| e.contains("TOOLARGE")));
    let end = longest.to_string();
    assert!(ask(&["SETRANGE", "long", &end, "v"]).is_err_and(|e| e.contains("TOOLARGE")));
    let place = (longest - 1).to_string();
    assert_eq!(ask(&["SETRANGE", "long", &place, "w"]), Ok(longest.to_string()));
    assert_eq!(ask(&["STRLEN", "long"]), Ok(longest.to_string()));
}

#[test]
fn a_connection_that_never_completes_a_request_is_closed() {
    let cluster = Cluster::start();
    let mut stream = connect(&cluster, 1);
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(b"PING\r\n*2\r\n$3\r\nGET\r\n$100\r\nab").expect("is sent");
    let mut pong = [0; 7];
    stream.read_exact(&mut pong).expect("the complete request is answered");
    let mut slow = stream.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        // A byte now and then does not keep the connection open.
        while slow.write_all(b"c").is_ok() {
            std::thread::sleep(Duration::from_secs(5));
        }
    });
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("the request was not complete after 30 s"), "{answer}");
}

/// Before, RANDOMKEY always answered the first of keys that share a prefix.
#[test]
fn randomkey_draws_from_keys_that_share_a_prefix() {
    let cluster = Cluster::start();
    let client = redis::Client::open(format!("redis://{}", cluster.resp(1))).expect("opens");
    let mut connection = client.get_connection().expect("connects");
    let mut draw = |count| -> std::collections::BTreeMap<String, u64> {
        let mut found = std::collections::BTreeMap::new();
        for _ in 0..count {
            let key: Option<String> =
                redis::cmd("RANDOMKEY").query(&mut connection).expect("a reply");
            *found.entry(key.unwrap_or_default()).or_default() += 1;
        }
        found
    };
    assert_eq!(draw(1).into_keys().collect::<Vec<_>>(), [""], "there is no key");
    let mut other = client.get_connection().expect("connects");
    for i in 0..200 {
        redis::cmd("SET").arg(format!("some:prefix:{i:03}")).arg(i).exec(&mut other).expect("set");
    }
    let found = draw(300);
    assert!(found.len() > 100, "{} keys of 200 in 300 draws", found.len());
    assert!(found.keys().all(|key| key.starts_with("some:prefix:")));
    let most = found.values().max().copied().unwrap_or_default();
    assert!(most < 20, "one key was drawn {most} times of 300");
}
