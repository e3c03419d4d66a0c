//! The state that the HTTP handlers share, and the form of their JSON answers.

use super::shared::Shared;
use crate::metrics::Metrics;
use crate::request::admin::{AdminReply, AdminRequest};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bedstone_engine::ShardId;
use bedstone_net::Endpoint;
use std::sync::Arc;

/// Submits a request to the worker.
pub type Operate = Arc<dyn Fn(ShardId, AdminRequest, AdminReply) + Send + Sync>;

/// The state that the handlers use.
#[derive(Clone)]
pub struct State {
    /// The state that the client connections share.
    pub shared: Arc<Shared>,
    /// The metrics of the node.
    pub metrics: Arc<Metrics>,
    /// The network endpoint of the node, for round-trip times.
    pub endpoint: Arc<Endpoint>,
    /// Submits a request to the worker.
    pub operate: Operate,
}

pub(super) fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
