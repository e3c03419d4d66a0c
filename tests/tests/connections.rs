//! Client connections, byte by byte, as a stranger or a broken client may use them.

use bedstone_tests::cluster::Cluster;
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
