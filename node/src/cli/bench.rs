//! `bedstone bench`: closed-loop load over RESP.

use super::output::print_line;
use crate::clock;
use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The histogram records latencies up to this value; a longer latency counts as this value.
const LATENCY_MAX_US: u64 = 60_000_000;
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, ValueEnum)]
enum Ops {
    /// SET commands.
    Put,
    /// GET commands.
    Get,
    /// Half SET, half GET commands.
    Mixed,
    /// KV.SCAN commands of up to 100 keys each.
    Scan,
}

#[derive(clap::Args)]
pub(super) struct BenchArgs {
    /// Client addresses (RESP) of one or more nodes, separated by commas. Connections are spread
    /// over the addresses.
    #[arg(long, default_value = "127.0.0.1:7410", value_delimiter = ',', value_name = "ADDR,…")]
    resp: Vec<String>,
    /// The commands to send.
    #[arg(long, value_enum, default_value = "put")]
    ops: Ops,
    /// Number of connections. Each connection sends one batch at a time and waits for the replies.
    #[arg(long, default_value_t = 64)]
    clients: u64,
    /// Commands per batch.
    #[arg(long, default_value_t = 1)]
    pipeline: u64,
    /// Size of a value in bytes.
    #[arg(long, default_value_t = 256)]
    value_size: usize,
    /// Size of the key space: the commands use at most this many distinct keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Duration of the load: 500ms, 10s, 2m. A number alone means seconds.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Print the result as one JSON document.
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: give for example 500ms, 10s or 2m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(60 * number)),
        _ => Err(wrong()),
    }
}

/// The state that all connections share.
struct Load {
    args: BenchArgs,
    value: String,
    next_key: AtomicU64,
    done: AtomicU64,
    errors: AtomicU64,
    stop: AtomicBool,
}

pub(super) fn run(args: BenchArgs) -> Result<ExitCode> {
    if args.clients == 0 || args.pipeline == 0 || args.keys == 0 {
        bail!("--clients, --pipeline and --keys must be 1 or more");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: BenchArgs) -> Result<ExitCode> {
    // The value is the digits of a multiplicative sequence, so that no two blocks of it are equal.
    let mut value = String::with_capacity(args.value_size);
    let mut state = 1u64;
    while value.len() < args.value_size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let _ = write!(value, "{:016x}", state);
    }
    value.truncate(args.value_size);
    let mut streams = Vec::new();
    for client in 0..args.clients {
        let addr = &args.resp[client as usize % args.resp.len()];
        let stream = TcpStream::connect(addr).await;
        let stream =
            stream.with_context(|| format!("cannot connect to {addr}: is the node running?"))?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let duration = args.duration;
    let load = Arc::new(Load {
        args,
        value,
        next_key: AtomicU64::new(0),
        done: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let begun = clock::now();
    let tasks: Vec<_> =
        streams.into_iter().map(|stream| tokio::spawn(client(stream, load.clone()))).collect();
    show_progress(&load, duration).await;
    load.stop.store(true, Ordering::Relaxed);
    let mut latencies = Histogram::<u64>::new_with_max(LATENCY_MAX_US, 3)?;
    let mut lost = 0;
    for task in tasks {
        match task.await? {
            Ok(own) => latencies.add(own)?,
            Err(_) => lost += 1,
        }
    }
    report(&load, begun.elapsed(), &latencies, lost);
    let failed = lost > 0 || load.errors.load(Ordering::Relaxed) > 0;
    Ok(ExitCode::from(u8::from(failed)))
}

async fn show_progress(load: &Load, duration: Duration) {
    let bar = if load.args.json { ProgressBar::hidden() } else { ProgressBar::new(100) };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
        bar.set_style(style);
    }
    let begun = clock::now();
    let mut before = 0;
    while begun.elapsed() < duration {
        let left = duration.saturating_sub(begun.elapsed());
        tokio::time::sleep(PROGRESS_EVERY.min(left)).await;
        let done = load.done.load(Ordering::Relaxed);
        let rate = (done - before) as f64 / PROGRESS_EVERY.as_secs_f64();
        before = done;
        bar.set_position((begun.elapsed().as_secs_f64() / duration.as_secs_f64() * 100.0) as u64);
        bar.set_message(format!("{rate:.0}/s, {} errors", load.errors.load(Ordering::Relaxed)));
    }
    bar.finish_and_clear();
}

async fn client(mut stream: TcpStream, load: Arc<Load>) -> Result<Histogram<u64>> {
    let mut latencies = Histogram::<u64>::new_with_max(LATENCY_MAX_US, 3)?;
    let (mut output, mut input) = (String::new(), BytesMut::with_capacity(64 << 10));
    while !load.stop.load(Ordering::Relaxed) {
        output.clear();
        for _ in 0..load.args.pipeline {
            request(&load, &mut output);
        }
        let begun = clock::now();
        stream.write_all(output.as_bytes()).await?;
        for _ in 0..load.args.pipeline {
            while !take_reply(&mut input, &load.errors)? {
                if stream.read_buf(&mut input).await? == 0 {
                    bail!("the node closed the connection");
                }
            }
            latencies.saturating_record((begun.elapsed().as_micros() as u64).max(1));
            load.done.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(latencies)
}

fn request(load: &Load, out: &mut String) {
    let number = load.next_key.fetch_add(1, Ordering::Relaxed);
    let key = number % load.args.keys;
    // The multiplication scatters the keys: consecutive requests do not use adjacent keys.
    let key = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) % load.args.keys;
    let put = match load.args.ops {
        Ops::Put => true,
        Ops::Mixed => number.is_multiple_of(2),
        Ops::Get | Ops::Scan => false,
    };
    let value = &load.value;
    // A write to a string cannot fail.
    let _ = match load.args.ops {
        Ops::Scan => write!(
            out,
            "*5\r\n$7\r\nKV.SCAN\r\n$16\r\nkey:{key:012}\r\n$1\r\n+\r\n$5\r\nLIMIT\r\n$3\r\n100\r\n"
        ),
        _ if put => write!(
            out,
            "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${}\r\n{value}\r\n",
            value.len()
        ),
        _ => write!(out, "*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n"),
    };
}

/// Removes one complete reply from the front of the buffer. Returns false when the reply is not
/// complete yet.
fn take_reply(input: &mut BytesMut, errors: &AtomicU64) -> Result<bool> {
    let Some(len) = reply_len(input)? else { return Ok(false) };
    if input[0] == b'-' {
        errors.fetch_add(1, Ordering::Relaxed);
    }
    input.advance(len);
    Ok(true)
}

fn reply_len(input: &[u8]) -> Result<Option<usize>> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let number = || -> Result<i64> { Ok(std::str::from_utf8(&input[1..end])?.parse()?) };
    let mut at = end + 2;
    match input[0] {
        b'+' | b'-' | b':' | b'_' => {}
        b'$' => at += usize::try_from(number()?).map_or(0, |len| len + 2),
        b'*' => {
            for _ in 0..number()?.max(0) {
                let Some(len) = reply_len(input.get(at..).unwrap_or_default())? else {
                    return Ok(None);
                };
                at += len;
            }
        }
        other => bail!("a reply begins with {:?}: is this a RESP port?", char::from(other)),
    }
    Ok((at <= input.len()).then_some(at))
}

fn report(load: &Load, elapsed: Duration, latencies: &Histogram<u64>, lost: u64) {
    let millis = |us: u64| us as f64 / 1000.0;
    let quantile = |q: f64| millis(latencies.value_at_quantile(q));
    let (p50, p99, p999) = (quantile(0.5), quantile(0.99), quantile(0.999));
    let max = millis(latencies.max());
    let done = load.done.load(Ordering::Relaxed);
    let errors = load.errors.load(Ordering::Relaxed);
    let rate = (done - errors) as f64 / elapsed.as_secs_f64();
    if load.args.json {
        print_line(json!({
            "operations": done, "errors": errors, "connections_lost": lost,
            "seconds": elapsed.as_secs_f64(), "per_second": rate,
            "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "max_ms": max,
        }));
        return;
    }
    print_line(format!(
        "{rate:.0} operations per second, {done} in {:.1} s",
        elapsed.as_secs_f64()
    ));
    print_line(format!("latency ms: p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2}"));
    print_line(format!("{errors} errors, {lost} connections lost"));
}
