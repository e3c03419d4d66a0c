//! The listener for client connections.

use super::session;
use super::shared::Shared;
use crate::limits::CONNECTIONS_MAX;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tracing::{debug, warn};

/// Pause after a failed accept, for example when the process has no free file descriptor.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Accepts connections and serves each in a task. Never returns.
pub async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a client connection: trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let id = shared.counters.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let now = shared.counters.connected.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = shared.clone();
        tokio::spawn(async move {
            if now > CONNECTIONS_MAX as u64 {
                let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
            } else if let Err(error) = session::serve(stream, id, shared.clone()).await {
                debug!(%error, "a client connection ended");
            }
            shared.counters.connected.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
