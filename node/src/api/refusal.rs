//! Requests that a connection refuses because it refused an earlier one. A client that ignores the
//! first error would otherwise change data that it did not mean to change.

use super::commands::decode::Action;
use crate::machine::reply::Reply;

/// The earlier refusal that still has an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// Requests are accepted.
    #[default]
    None,
    /// MULTI was refused: every request up to EXEC or DISCARD is refused.
    Transaction,
    /// SELECT was refused: every request that may read or write data is refused up to `SELECT 0`.
    Database,
}

/// The requests that a client with a refused SELECT may send.
const WITHOUT_DATABASE: [&str; 12] = [
    "select", "reset", "quit", "hello", "auth", "ping", "echo", "client", "command", "config",
    "info", "cluster",
];

/// Decides on a request if MULTI, EXEC, DISCARD or an earlier refusal decides on it. `name` is the
/// command in lower case.
///
/// # Errors
/// The error that refuses the request.
pub fn decide(refusal: &mut Refusal, name: &str) -> Result<Option<Action>, Reply> {
    let upper = || name.chars().take(64).collect::<String>().to_ascii_uppercase();
    if *refusal == Refusal::Database && !WITHOUT_DATABASE.contains(&name) {
        return Err(Reply::err(format!(
            "{} was not executed: SELECT of another database than 0 was refused on this \
             connection; send SELECT 0 first",
            upper()
        )));
    }
    let in_transaction = *refusal == Refusal::Transaction;
    match name {
        "multi" if in_transaction => Err(Reply::err("MULTI calls can not be nested")),
        "multi" => {
            *refusal = Refusal::Transaction;
            Err(Reply::err(
                "MULTI: transactions are not offered, and nothing up to EXEC or DISCARD is \
                 executed; MSET, MSETNX, RENAME and single commands are atomic",
            ))
        }
        "exec" | "discard" if !in_transaction => {
            Err(Reply::err(format!("{} without MULTI", upper())))
        }
        "exec" => {
            *refusal = Refusal::None;
            let text = "EXECABORT Transaction discarded: transactions are not offered";
            Err(Reply::Error(text.to_owned()))
        }
        "discard" => {
            *refusal = Refusal::None;
            Ok(Some(Action::Reply(Reply::OK)))
        }
        "quit" | "reset" => Ok(None),
        _ if in_transaction => Err(Reply::err(format!(
            "{} was not executed: it belongs to a transaction, and transactions are not offered; \
             send DISCARD",
            upper()
        ))),
        _ => Ok(None),
    }
}
