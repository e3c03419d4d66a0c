//! The refusal of requests that a foreign web page makes a browser send to the HTTP address.
//!
//! A browser sends the name in the page's address as `Host`. A page can make its own name point to
//! this node (DNS rebinding), so a `Host` with an unknown name is refused. A request that changes
//! something, and that another page sent, has the address of that page as its `Origin`.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// The host names that are accepted besides IP addresses and `localhost`, in lower case.
pub type Hosts = Arc<BTreeSet<String>>;

/// The names in `addresses`, each `host:port` or `host`.
pub fn hosts<'a>(addresses: impl Iterator<Item = &'a str>) -> Hosts {
    Arc::new(addresses.map(|address| name_of(address).to_ascii_lowercase()).collect())
}

/// Passes a request on, or refuses it.
pub async fn guard(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    match check(request.method(), request.headers(), &hosts) {
        Ok(()) => next.run(request).await,
        Err(refusal) => (StatusCode::FORBIDDEN, refusal + "\n").into_response(),
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn name_of(address: &str) -> &str {
    if let Some((name, _)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return name;
    }
    match address.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => address,
    }
}

/// Checks `Host` and, for requests that change something, `Origin`.
///
/// # Errors
/// The reason, and the next step for an operator.
fn check(method: &Method, headers: &HeaderMap, hosts: &BTreeSet<String>) -> Result<(), String> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let host = text(header::HOST).unwrap_or_default();
    let name = name_of(&host).to_ascii_lowercase();
    let is_own = name.is_empty()
        || name == "localhost"
        || name.parse::<IpAddr>().is_ok()
        || hosts.contains(&name);
    if !is_own {
        return Err(format!(
            "refused: the Host header names {name:?}, which is no name of this node; if it is one, \
             add it to `http_hosts` in the configuration"
        ));
    }
    let origin = text(header::ORIGIN).filter(|_| !method.is_safe());
    match origin.as_deref().map(|origin| origin.split_once("://")) {
        None => Ok(()),
        Some(Some((_, page))) if page.eq_ignore_ascii_case(&host) => Ok(()),
        Some(_) => Err("refused: a page of another origin sent this request".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_foreign_pages_are_refused() {
        let hosts = hosts(["db1.example.net:7411", "10.0.0.1:7411", "status.example"].into_iter());
        let check = |method, host: &str, origin: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().expect("a header"));
                }
            }
            check(&method, &headers, &hosts).is_ok()
        };
        for host in ["", "127.0.0.1:7411", "[::1]:7411", "[::1]", "10.9.9.9", "localhost:1"] {
            assert!(check(Method::GET, host, ""), "{host}");
        }
        for host in ["db1.example.net:7411", "DB1.example.net", "status.example:80"] {
            assert!(check(Method::POST, host, ""), "{host}");
        }
        for host in ["attacker.example", "attacker.example:7411", "localhost.attacker.example"] {
            assert!(!check(Method::GET, host, ""), "{host}");
        }
        let own = "127.0.0.1:7411";
        assert!(check(Method::POST, own, "http://127.0.0.1:7411"));
        assert!(!check(Method::POST, own, "http://127.0.0.1:8000"));
        assert!(!check(Method::POST, own, "https://attacker.example"));
        assert!(!check(Method::POST, own, "null"), "a sandboxed page");
        assert!(check(Method::GET, own, "https://attacker.example"), "it changes nothing");
    }
}
