//! The HTTP interface for operators: health, metrics, status.

use super::http_guard::{Hosts, guard};
use super::http_state::{State, json};
use super::members;
use crate::metrics::raise;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State as AxumState};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bedstone_net::NodeId;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;

/// Serves HTTP until the listener fails.
pub async fn serve(listener: TcpListener, state: State, hosts: Hosts) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/version", get(version))
        .route("/shards/{shard}/members", post(members::members))
        .route("/shards/{shard}/leader", post(members::leader))
        .route("/", get(page))
        .fallback(|| async {
            let paths = "/ /livez /readyz /metrics /status /version, and with POST \
                         /shards/{shard}/members /shards/{shard}/leader";
            (StatusCode::NOT_FOUND, format!("no such page; there are {paths}\n"))
        })
        .layer(DefaultBodyLimit::max(members::BODY_BYTES_MAX))
        .layer(from_fn_with_state(hosts, guard))
        .with_state(state);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the HTTP server stopped: restart the node to serve HTTP again");
    }
}

async fn readyz(
    AxumState(state): AxumState<State>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let status = state.shared.status.get();
    let started = status.node != 0;
    let ready = started && status.ready;
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = match (ready, started) {
        (true, _) => "ready\n".to_owned(),
        (false, true) => format!("not ready: {}\n", status.reason),
        (false, false) => "not ready: starting\n".to_owned(),
    };
    if query.contains_key("verbose") {
        for shard in &status.shards {
            let _ = writeln!(
                text,
                "shard {}: leader {}, applied {} of {}",
                shard.id, shard.leader, shard.applied, shard.commit
            );
        }
        for disk in &status.disks {
            let _ = writeln!(
                text,
                "disk {}: {}, {} bytes free",
                disk.path, disk.health, disk.free_bytes
            );
        }
    }
    (code, text).into_response()
}

async fn metrics(AxumState(state): AxumState<State>) -> Response {
    let counters = &state.shared.counters;
    raise(&state.metrics.refused, counters.refused.load(Ordering::Relaxed));
    for peer in &state.shared.nodes {
        if let Some(trip) = state.endpoint.round_trip(*peer) {
            let labels = vec![("peer", peer.to_string())];
            state.metrics.peer_rtt.get_or_create(&labels).set(trip.as_secs_f64());
        }
    }
    state.metrics.connections.set(counters.connected.load(Ordering::Relaxed) as i64);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.text()).into_response()
}

async fn status(AxumState(state): AxumState<State>) -> Response {
    json(&state.shared.status.get())
}

async fn version() -> Response {
    json(&serde_json::json!({
        "name": "bedstone",
        "version": env!("CARGO_PKG_VERSION"),
        "redis_version": crate::REDIS_VERSION,
    }))
}

async fn page(AxumState(state): AxumState<State>) -> Response {
    let status = state.shared.status.get();
    let mut rows = String::new();
    for node in &status.nodes {
        let trip = state.endpoint.round_trip(NodeId(node.id));
        let trip = trip.map_or(String::new(), |t| format!("{:.2} ms", t.as_secs_f64() * 1e3));
        let alive = if node.alive { "up" } else { "down" };
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{alive}</td><td>{}</td><td>{}</td><td>{trip}</td></tr>",
            node.id, node.resp, node.http
        );
    }
    let mut shards = String::new();
    for shard in &status.shards {
        let _ = write!(
            shards,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            shard.id, shard.leader, shard.term, shard.commit, shard.applied
        );
    }
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2>\
         <title>Bedstone node {node}</title><style>body{{font:16px sans-serif;margin:2em}}\
         table{{border-collapse:collapse;margin:1em 0}}td,th{{border:1px solid #ccc;\
         padding:.3em .8em;text-align:left}}</style>\
         <h1>Bedstone {version}</h1><p>Node {node} of cluster {cluster}, up {uptime} s</p>\
         <table><tr><th>node<th>state<th>clients<th>http<th>round trip</tr>{rows}</table>\
         <table><tr><th>shard<th>leader<th>term<th>commit<th>applied</tr>{shards}</table>\
         <p><a href=/status>status</a> <a href=/metrics>metrics</a> \
         <a href='/readyz?verbose'>ready?</a></p></html>",
        node = status.node,
        version = status.version,
        cluster = status.cluster,
        uptime = status.uptime_seconds,
    );
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}
