//! One HTTP request to a node: enough for the commands, which use no other HTTP server.

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Sends a GET request. Returns the status code and the body.
pub(super) fn get(addr: &str, path: &str, timeout: Duration) -> Result<(u16, String)> {
    ask(addr, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"), timeout)
}

/// Sends a POST request with a JSON document. Returns the status code and the body.
pub(super) fn post(
    addr: &str,
    path: &str,
    document: &impl Serialize,
    timeout: Duration,
) -> Result<(u16, String)> {
    let body = serde_json::to_string(document)?;
    let head = format!("POST {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    let kind = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    ask(addr, &format!("{head}{kind}\r\n{body}"), timeout)
}

fn ask(addr: &str, request: &str, timeout: Duration) -> Result<(u16, String)> {
    let resolved = addr
        .to_socket_addrs()
        .with_context(|| format!("`{addr}` is not an address: give host:port"))?
        .next()
        .ok_or_else(|| anyhow!("`{addr}` has no IP address: check the host name"))?;
    let mut stream = TcpStream::connect_timeout(&resolved, timeout)
        .with_context(|| format!("cannot connect to http://{addr}: is the node running?"))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("no answer from http://{addr}"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("http://{addr}: no HTTP answer"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| anyhow!("http://{addr}: no HTTP answer"))?;
    Ok((code, body.to_owned()))
}
