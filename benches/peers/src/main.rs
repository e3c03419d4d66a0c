//! Closed-loop puts or gets on etcd over gRPC, with one connection per client, spread over the
//! members: `etcd-load ADDR,ADDR,ADDR put|get CLIENTS SECONDS VALUE_BYTES KEYS`. Prints one JSON
//! document with the fields of `bedstone bench --json`.

use etcd_client::Client;
use hdrhistogram::Histogram;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let [_, addrs, ops, clients, seconds, value_bytes, keys] = &args[..] else {
        return Err("usage: etcd-load ADDR,… put|get CLIENTS SECONDS VALUE_BYTES KEYS".into());
    };
    let addrs: Vec<String> = addrs.split(',').map(str::to_owned).collect();
    let (clients, keys): (usize, u64) = (clients.parse()?, keys.parse()?);
    let value = "v".repeat(value_bytes.parse()?);
    let put = ops == "put";
    let mut connected = Vec::new();
    for i in 0..clients {
        connected.push(Client::connect([&addrs[i % addrs.len()]], None).await?);
    }
    let (next, done) = (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(0u64)));
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds.parse()?);
    let local = tokio::task::LocalSet::new();
    let mut tasks = Vec::new();
    for client in connected {
        let (next, done, value) = (next.clone(), done.clone(), value.clone());
        tasks.push(local.spawn_local(async move {
            let mut client = client.kv_client();
            let mut latencies = Histogram::<u64>::new_with_max(60_000_000, 3).unwrap();
            let mut errors = 0u64;
            while Instant::now() < end {
                let number = next.get();
                next.set(number + 1);
                let key = format!("key:{:012}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys);
                let begun = Instant::now();
                let failed = match put {
                    true => client.put(key, value.as_str(), None).await.is_err(),
                    false => client.get(key, None).await.is_err(),
                };
                errors += u64::from(failed);
                latencies.saturating_record(begun.elapsed().as_micros() as u64);
                done.set(done.get() + 1);
            }
            (latencies, errors)
        }));
    }
    let mut all = Histogram::<u64>::new_with_max(60_000_000, 3)?;
    let mut errors = 0;
    local
        .run_until(async {
            for task in tasks {
                let (latencies, failed) = task.await?;
                all.add(latencies)?;
                errors += failed;
            }
            Ok::<(), Failure>(())
        })
        .await?;
    let seconds = begun.elapsed().as_secs_f64();
    let millis = |q: f64| all.value_at_quantile(q) as f64 / 1000.0;
    println!(
        "{{\"operations\": {}, \"errors\": {errors}, \"seconds\": {seconds}, \"per_second\": {}, \
         \"p50_ms\": {}, \"p99_ms\": {}}}",
        done.get(),
        (done.get() - errors) as f64 / seconds,
        millis(0.5),
        millis(0.99),
    );
    Ok(())
}
