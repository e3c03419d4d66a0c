//! Clients and their observations. Each client sends one request at a time, to any node. The
//! history of each key records the requests and their answers.

use super::history::{Action, Operation as Done, is_linearizable};
use super::outcome::Failure;
use super::plan::{Plan, SECOND};
use super::rng::Rng;
use crate::machine::argument::Key;
use crate::machine::command::{Command, Read, Write};
use crate::machine::options::{ExpireOptions, Expiry, RangeBounds, SetOptions};
use crate::machine::system::stored_key;
use crate::machine::value::Stored;
use crate::request::mailbox::{ClientRequest, Mailbox};
use crate::sim::replicas::HostId;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// After this time a client considers an answer lost. It is longer than any deadline of a node.
pub(super) const ANSWER_TIME: u64 = 12 * SECOND;

/// A request under way.
#[derive(Clone, Debug)]
enum RequestKind {
    /// An action on a register.
    Register { key: u64, action: Action },
    /// An addition to a counter.
    Add { key: u64 },
    /// An addition to a counter as a request of the client's session. The client repeats the
    /// request until a node answers it.
    Once { key: u64 },
    /// The opening of a session.
    Open,
    /// Load that no history records.
    Noise,
}

struct Waiting {
    asked: RequestKind,
    begun: u64,
    slot: u64,
    node: HostId,
}

struct Client {
    rng: Rng,
    mailbox: Arc<Mailbox>,
    node: HostId,
    slot: u64,
    waiting: Option<Waiting>,
    /// The client's session and the number of the last request in it.
    session: Option<(u64, u64)>,
    /// The last session request, while it has no answer: its counter, and when the client first
    /// sent it.
    again: Option<(u64, u64)>,
}

/// Additions to one counter.
#[derive(Default)]
struct Counter {
    /// The answered additions: when each began and ended, and the sum in the answer.
    sums: Vec<(u64, u64, i64)>,
    /// Additions with an unknown outcome.
    unknown: u64,
}

pub(super) struct Clients {
    clients: Vec<Client>,
    nodes: u64,
    keys: u64,
    registers: BTreeMap<u64, Vec<Done>>,
    counters: BTreeMap<u64, Counter>,
    /// Counters to which every addition is done exactly once.
    session_counters: BTreeMap<u64, Counter>,
    next_value: u64,
    /// Orders the beginnings and ends of operations.
    moment: u64,
    pub(super) answered: u64,
    pub(super) unknown: u64,
    pub(super) refused: u64,
    pub(super) last_refusal: String,
}

impl Clients {
    pub(super) fn new(plan: &Plan) -> Clients {
        let clients = (0..plan.clients).map(|number| {
            let mut rng = Rng::new(plan.seed ^ (number << 32) ^ 0x0063_6c69);
            let node = 1 + rng.below(*plan.all().end());
            let (mailbox, slot, waiting) = (Arc::default(), 0, None);
            Client { rng, mailbox, node, slot, waiting, session: None, again: None }
        });
        Clients {
            clients: clients.collect(),
            nodes: *plan.all().end(),
            keys: plan.keys,
            registers: BTreeMap::new(),
            counters: BTreeMap::new(),
            session_counters: BTreeMap::new(),
            next_value: 0,
            moment: 0,
            answered: 0,
            unknown: 0,
            refused: 0,
            last_refusal: String::new(),
        }
    }

    pub(super) fn think(&mut self, client: usize, longest: u64) -> u64 {
        self.clients[client].rng.below(longest)
    }

    pub(super) fn is_waiting(&self, client: usize) -> bool {
        self.clients[client].waiting.is_some()
    }

    pub(super) fn are_waiting(&self) -> bool {
        self.clients.iter().any(|client| client.waiting.is_some())
    }

    /// The next request of a client, with a running node as its target.
    pub(super) fn ask(
        &mut self,
        client: usize,
        runs: impl Fn(HostId) -> bool,
    ) -> Option<(HostId, Arc<Mailbox>, ClientRequest)> {
        let of = &mut self.clients[client];
        if !runs(of.node) || of.rng.one_in(20) {
            of.node = 1 + of.rng.below(self.nodes);
        }
        if of.waiting.is_some() || !runs(of.node) {
            return None;
        }
        let key = of.again.map_or_else(|| of.rng.below(self.keys), |(key, _)| key);
        let (asked, command) = match of.rng.below(12) {
            _ if of.again.is_some() => of.once(key),
            10 | 11 if of.session.is_none() => {
                (RequestKind::Open, Command::Write(Write::SessionOpen {}))
            }
            10 | 11 => {
                of.session = of.session.map(|(session, request)| (session, request + 1));
                of.once(key)
            }
            0..3 => {
                self.next_value += 1;
                let value = self.next_value;
                (
                    RequestKind::Register { key, action: Action::Write(value) },
                    set(key, value, &mut of.rng),
                )
            }
            3..6 => (RequestKind::Register { key, action: Action::Read(None) }, get(key)),
            6 => (RequestKind::Add { key }, add(key)),
            _ => (RequestKind::Noise, noise(&mut of.rng)),
        };
        Some(self.begin(client, asked, command))
    }

    /// A write or a read of a register at the given node.
    pub(super) fn final_request(
        &mut self,
        client: usize,
        node: HostId,
        key: u64,
        write: bool,
    ) -> (HostId, Arc<Mailbox>, ClientRequest) {
        self.clients[client].node = node;
        let (asked, command) = if write {
            self.next_value += 1;
            let (value, rng) = (self.next_value, &mut self.clients[client].rng);
            (RequestKind::Register { key, action: Action::Write(value) }, set(key, value, rng))
        } else {
            (RequestKind::Register { key, action: Action::Read(None) }, get(key))
        };
        self.begin(client, asked, command)
    }

    fn begin(
        &mut self,
        client: usize,
        asked: RequestKind,
        command: Command,
    ) -> (HostId, Arc<Mailbox>, ClientRequest) {
        self.moment += 1;
        let of = &mut self.clients[client];
        of.slot += 1;
        let (slot, node) = (of.slot, of.node);
        let begun = match asked {
            RequestKind::Once { key } => of.again.get_or_insert((key, self.moment)).1,
            _ => self.moment,
        };
        of.waiting = Some(Waiting { asked, begun, slot, node });
        (of.node, of.mailbox.clone(), ClientRequest { command, resp3: false, slot })
    }

    /// Handles an answer. Returns the client that may send its next request.
    pub(super) fn answer(
        &mut self,
        mailbox: &Arc<Mailbox>,
        slot: u64,
        answer: &Bytes,
    ) -> Result<Option<usize>, Failure> {
        let Some(at) = self.clients.iter().position(|client| Arc::ptr_eq(&client.mailbox, mailbox))
        else {
            return Ok(None);
        };
        let Some(waiting) = self.clients[at].waiting.take_if(|waiting| waiting.slot == slot) else {
            return Ok(None);
        };
        self.moment += 1;
        if answer.starts_with(b"-UNKNOWN session") {
            // The shard evicted the session, or the session is older than the evicted ones.
            let of = &mut self.clients[at];
            of.session = None;
            if let Some((key, _)) = of.again.take() {
                self.session_counters.entry(key).or_default().unknown += 1;
            }
        } else if answer.starts_with(b"-UNKNOWN") {
            self.lost(&waiting);
        } else if answer.starts_with(b"-UNAVAILABLE") || answer.starts_with(b"-NOSPACE") {
            self.refused += 1;
            self.last_refusal = String::from_utf8_lossy(answer).trim_end().to_owned();
        } else if answer.starts_with(b"-") {
            let text = format!("a client received {answer:?} to {:?}", waiting.asked);
            return Err(Failure::new("answers", text));
        } else {
            self.answered += 1;
            self.settle(at, &waiting, answer)?;
        }
        Ok(Some(at))
    }

    /// A client stops waiting for `slot`, after a timeout or because its node ended. Returns
    /// whether the client still waited for `slot`.
    pub(super) fn give_up(&mut self, client: usize, slot: u64) -> bool {
        let taken = self.clients[client].waiting.take_if(|waiting| waiting.slot == slot);
        taken.inspect(|waiting| self.lost(waiting)).is_some()
    }

    pub(super) fn slot(&self, client: usize) -> u64 {
        self.clients[client].slot
    }

    /// The clients that wait for a node that ended.
    pub(super) fn waiting_for(&self, node: HostId) -> Vec<usize> {
        let waits = |client: &Client| client.waiting.as_ref().is_some_and(|w| w.node == node);
        (0..self.clients.len()).filter(|&at| waits(&self.clients[at])).collect()
    }

    fn lost(&mut self, waiting: &Waiting) {
        self.unknown += 1;
        self.last_refusal = format!("no answer to {:?}", waiting.asked);
        match waiting.asked {
            RequestKind::Register { key, action: action @ Action::Write(_) } => {
                let done = Done { action, begun: waiting.begun, ended: None };
                self.registers.entry(key).or_default().push(done);
            }
            RequestKind::Add { key } => self.counters.entry(key).or_default().unknown += 1,
            _ => {}
        }
    }

    fn settle(&mut self, client: usize, waiting: &Waiting, answer: &Bytes) -> Result<(), Failure> {
        let (begun, ended) = (waiting.begun, self.moment);
        let odd = || Failure::new("answers", format!("{:?} got {answer:?}", waiting.asked));
        match waiting.asked {
            RequestKind::Register { key, action } => {
                let action = match action {
                    Action::Read(_) => Action::Read(value_of(answer).map_err(|()| odd())?),
                    write if answer.starts_with(b"+OK") => write,
                    Action::Write(_) => return Err(odd()),
                };
                let done = Done { action, begun, ended: Some(ended) };
                self.registers.entry(key).or_default().push(done);
            }
            RequestKind::Add { key } => {
                let sum = int_of(answer).ok_or_else(odd)?;
                self.counters.entry(key).or_default().sums.push((begun, ended, sum));
            }
            RequestKind::Once { key } => {
                let sum = int_of(answer).ok_or_else(odd)?;
                self.clients[client].again = None;
                self.session_counters.entry(key).or_default().sums.push((begun, ended, sum));
            }
            RequestKind::Open => {
                let session = int_of(answer).ok_or_else(odd)? as u64;
                self.clients[client].session = Some((session, 0));
            }
            RequestKind::Noise => {}
        }
        Ok(())
    }

    /// Checks whether the observed histories are possible.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (key, history) in &self.registers {
            if !is_linearizable(history) {
                let mut history = history.clone();
                history.sort_by_key(|done| done.begun);
                let lines: Vec<String> = history.iter().map(|done| format!("{done:?}")).collect();
                let text = format!("the history of register {key}:\n{}", lines.join("\n"));
                return Err(Failure::new("linearizability", text));
            }
        }
        self.counters.iter().try_for_each(|(key, counter)| counter.check(*key, 0))?;
        self.session_counters.iter().try_for_each(|(key, counter)| {
            let asked = self.clients.iter().filter_map(|client| client.again);
            counter.check(*key, asked.filter(|(of, _)| of == key).count() as u64)
        })
    }
}

impl Client {
    /// The last request of the session, sent for the first time or again.
    fn once(&self, key: u64) -> (RequestKind, Command) {
        let (session, request) = self.session.unwrap_or_default();
        let add = Write::IncrBy { key: key_of('o', key), delta: 1 };
        (RequestKind::Once { key }, Command::Write(add.once(session, request)))
    }
}

impl Counter {
    /// Checks that every addition was done at most once, in an order that fits the times. Up to
    /// `asked` additions more may have been done, which have no answer yet.
    fn check(&self, key: u64, asked: u64) -> Result<(), Failure> {
        let fail = |text: String| Err(Failure::new("exactly-once", text));
        let mut sums = self.sums.clone();
        sums.sort_by_key(|&(.., sum)| sum);
        if sums.windows(2).any(|pair| pair[0].2 == pair[1].2) {
            return fail(format!("counter {key}: two additions returned the same sum: {sums:?}"));
        }
        // A sum that no answer contains belongs to an addition with an unknown outcome.
        let greatest = sums.last().map_or(0, |&(.., sum)| sum as u64);
        if greatest > sums.len() as u64 + self.unknown + asked {
            return fail(format!("counter {key} is {greatest}, {} were answered", sums.len()));
        }
        let mut latest_begin = 0;
        for &(begun, ended, sum) in &sums {
            if ended < latest_begin {
                return fail(format!("counter {key}: the sum {sum} came after a greater one"));
            }
            latest_begin = begun.max(latest_begin);
        }
        Ok(())
    }
}

fn key_of(kind: char, key: u64) -> Key {
    Key(stored_key(format!("{kind}{key}").as_bytes()))
}

fn set(key: u64, value: u64, rng: &mut Rng) -> Command {
    // One value in four is long enough to be stored apart from its key.
    let pad = if rng.one_in(4) { 200 + rng.below(400) } else { rng.below(20) };
    let text = format!("{value}:{}", "x".repeat(pad as usize));
    let stored = Stored::plain(text.into()).encode();
    let (options, expiry) = (SetOptions::default(), Expiry::None);
    Command::Write(Write::Set { key: key_of('r', key), stored, options, expiry })
}

fn get(key: u64) -> Command {
    Command::Read(Read::Get { key: key_of('r', key) })
}

fn add(key: u64) -> Command {
    Command::Write(Write::IncrBy { key: key_of('c', key), delta: 1 })
}

fn noise(rng: &mut Rng) -> Command {
    let key = key_of('n', rng.below(40));
    match rng.below(12) {
        0 => Command::Write(Write::Delete { keys: [key].into_iter().collect() }),
        1 => Command::Write(Write::Append { key, tail: "more".into() }),
        2 => {
            let (options, expiry) = (ExpireOptions::default(), Expiry::In(rng.below(3000)));
            Command::Write(Write::Expire { key, options, expiry })
        }
        3 => Command::Read(Read::Get { key }),
        4 => {
            let (start, end) = (Key(stored_key(b"n")), Key(stored_key(b"o")));
            let bounds = RangeBounds::default();
            Command::Read(Read::Range { start, end, limit: 10, bounds })
        }
        _ => {
            let value = vec![b'a' + rng.below(26) as u8; rng.below(700) as usize];
            let expiry = if rng.one_in(4) { Expiry::In(1 + rng.below(3000)) } else { Expiry::None };
            let stored = Stored::plain(value.into()).encode();
            Command::Write(Write::Set { key, stored, options: SetOptions::default(), expiry })
        }
    }
}

/// The number in an answer.
fn int_of(answer: &Bytes) -> Option<i64> {
    std::str::from_utf8(answer).ok()?.strip_prefix(':')?.trim_end().parse().ok()
}

/// The number in a register's value.
fn value_of(answer: &Bytes) -> Result<Option<u64>, ()> {
    let text = std::str::from_utf8(answer).map_err(drop)?;
    if text.starts_with("$-1") {
        return Ok(None);
    }
    let (_, value) = text.split_once("\r\n").ok_or(())?;
    let (value, _) = value.split_once(':').ok_or(())?;
    value.parse().map(Some).map_err(drop)
}
