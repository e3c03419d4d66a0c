//! One client connection. The connection reads requests, submits them to the worker in runs of
//! reads or of writes, and writes the replies in the order of the requests.
//!
//! A run starts when the previous run is answered, so that in a pipeline a read sees the writes
//! before the read and no write after the read.

use super::client::Client;
use super::commands::decode::Action;
use super::commands::dispatch::decide;
use super::refusal::Refusal;
use super::resp::Decoder;
use super::shared::Shared;
use crate::limits::{PIPELINE_MAX, REQUEST_TIME, UNFINISHED_REQUEST_TIME};
use crate::machine::command::{Command, Read};
use crate::machine::reply::Reply;
use crate::machine::{ReadOutcome, ReadTime};
use crate::policy::Consistency;
use crate::request::mailbox::{ClientBatch, ClientRequest, Mailbox};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes of buffer space reserved for a read of the socket.
const READ_BYTES: usize = 16 << 10;
/// Bytes of replies collected for one write to the socket, at which collecting stops.
const WRITE_BYTES: usize = 256 << 10;

/// A reply that is not written yet. Replies are kept in the order of the requests.
enum PendingReply {
    /// The shard has not replied yet. `cursor`: the reply of a scan needs a numbered cursor.
    Waiting { cursor: bool },
    /// The reply is ready to be written.
    Ready(Bytes),
}

struct Connection {
    client: Client,
    mailbox: Arc<Mailbox>,
    pending: VecDeque<PendingReply>,
    /// The slot of the first reply in `pending`.
    first: u64,
    /// The number of replies in `pending` that wait for the shard, and whether they are reads.
    waiting: usize,
    reading: bool,
    /// A decoded command that is not submitted yet: a read waits for a run of writes, a write for a
    /// run of reads.
    next: Option<Command>,
    run: Vec<ClientRequest>,
    /// The connection ends after the replies so far. A request that is not decoded is dropped.
    closing: bool,
    /// No more input is read. The requests that have arrived are answered.
    input_ended: bool,
}

/// Serves a connection until it ends.
pub async fn serve(mut stream: TcpStream, id: u64, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let drawn = id ^ crate::clock::unix_millis();
    let (name, consistency) = (Bytes::new(), Consistency::Strong);
    let refusal = Refusal::None;
    let client = Client { id, name, resp3: false, consistency, refusal, local, shared, drawn };
    let mut connection = Connection {
        client,
        mailbox: Arc::default(),
        pending: VecDeque::new(),
        first: 0,
        waiting: 0,
        reading: false,
        next: None,
        run: Vec::new(),
        closing: false,
        input_ended: false,
    };
    let mut stops = connection.client.shared.stops.clone();
    let (mut decoder, mut input, mut output) =
        (Decoder::default(), BytesMut::new(), BytesMut::new());
    // When the first byte of the request arrived that is not complete yet.
    let mut unfinished_since = None;
    loop {
        if connection.take_requests(&mut decoder, &mut input, &mut output) {
            unfinished_since = None;
        }
        connection.write_replies(&mut output);
        if !output.is_empty() {
            stream.write_all_buf(&mut output).await?;
            // `gather` stops at WRITE_BYTES, so more replies may be ready.
            continue;
        }
        if connection.is_finished() {
            return stream.shutdown().await;
        }
        let full = connection.closing
            || connection.input_ended
            || connection.next.is_some()
            || connection.pending.len() >= PIPELINE_MAX;
        let unfinished = !full && !input.is_empty();
        let since = unfinished.then(|| *unfinished_since.get_or_insert_with(Instant::now));
        let mailbox = connection.mailbox.clone();
        input.reserve(READ_BYTES);
        tokio::select! {
            biased;
            replies = mailbox.replies() => {
                replies.into_iter().for_each(|(slot, reply)| connection.on_reply(slot, reply));
            }
            read = stream.read_buf(&mut input), if !full => {
                if read? == 0 {
                    // The client sends no more, and may still read its replies.
                    connection.input_ended = true;
                }
            }
            () = unfinished_too_long(since), if since.is_some() => {
                connection.refuse_unfinished();
            }
            _ = stops.wait_for(|stops| *stops), if !connection.input_ended => {
                connection.input_ended = true;
            }
        }
    }
}

/// Waits until a request that began at `since` has been incomplete for too long.
async fn unfinished_too_long(since: Option<Instant>) {
    if let Some(since) = since {
        tokio::time::sleep_until(since + UNFINISHED_REQUEST_TIME).await;
    }
}

impl Connection {
    /// Ends a connection on which a request is not completed. Such connections would otherwise hold
    /// memory and descriptors for ever.
    fn refuse_unfinished(&mut self) {
        let seconds = UNFINISHED_REQUEST_TIME.as_secs();
        let text = format!("Protocol error: the request was not complete after {seconds} s");
        self.push_reply(Reply::err(text));
        self.closing = true;
    }

    /// Whether every reply is written and no request will follow.
    fn is_finished(&self) -> bool {
        let ends = self.closing || self.input_ended && self.next.is_none();
        ends && self.pending.is_empty()
    }

    /// Decodes requests from the buffer and submits their commands, until the buffer has no whole
    /// request, a limit is reached, or a command must wait for the current run. Returns whether a
    /// request was decoded.
    fn take_requests(
        &mut self,
        decoder: &mut Decoder,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> bool {
        let mut decoded = false;
        while !self.closing && self.pending.len() < PIPELINE_MAX && out.len() < WRITE_BYTES {
            if let Some(command) = self.next.take() {
                if self.waiting > 0 && command.is_read() != self.reading {
                    self.next = Some(command);
                    break;
                }
                self.submit(command);
                continue;
            }
            match decoder.decode(input) {
                Ok(Some(args)) if args.is_empty() => decoded = true,
                Ok(Some(args)) => {
                    decoded = true;
                    self.client.shared.counters.requests.fetch_add(1, Ordering::Relaxed);
                    let action = decide_checked(&mut self.client, args);
                    self.act(action);
                }
                Ok(None) => break,
                Err(malformed) => {
                    self.push_reply(Reply::Error(malformed.to_string()));
                    self.closing = true;
                }
            }
        }
        if !self.run.is_empty() {
            let batch = ClientBatch {
                mailbox: self.mailbox.clone(),
                requests: std::mem::take(&mut self.run),
                deadline: crate::clock::now() + REQUEST_TIME,
            };
            self.client.shared.submit(batch);
        }
        decoded
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Reply(reply) => self.push_reply(reply),
            Action::Close(reply) => {
                self.push_reply(reply);
                self.closing = true;
            }
            Action::Shard { command: Command::Read(read), consistency: Consistency::Weak }
                if self.waiting == 0 =>
            {
                let machine = self.client.shared.router.machine(&read);
                let reply = match machine.read(&read, ReadTime::Applied) {
                    Ok(ReadOutcome::Reply(reply)) => reply,
                    Ok(ReadOutcome::ExpiryDue) => Reply::err("a weak read depended on the clock"),
                    Err(error) => Reply::err(error),
                };
                let rendered = reply.render(self.client.resp3);
                let rendered = match read {
                    Read::Scan { .. } => self.number_cursor(rendered),
                    _ => rendered,
                };
                self.pending.push_back(PendingReply::Ready(rendered));
            }
            Action::Shard { command, .. } => self.next = Some(command),
        }
    }

    fn push_reply(&mut self, reply: Reply) {
        self.pending.push_back(PendingReply::Ready(reply.render(self.client.resp3)));
    }

    fn submit(&mut self, command: Command) {
        let slot = self.first + self.pending.len() as u64;
        let cursor = matches!(command, Command::Read(Read::Scan { .. }));
        self.pending.push_back(PendingReply::Waiting { cursor });
        self.waiting += 1;
        self.reading = command.is_read();
        self.run.push(ClientRequest { command, resp3: self.client.resp3, slot });
    }

    fn on_reply(&mut self, slot: u64, reply: Bytes) {
        let place = (slot - self.first) as usize;
        let Some(PendingReply::Waiting { cursor }) = self.pending.get(place) else { return };
        let reply = if *cursor { self.number_cursor(reply) } else { reply };
        self.pending[place] = PendingReply::Ready(reply);
        self.waiting -= 1;
    }

    /// Moves the ready replies at the front of `pending` to the output.
    fn write_replies(&mut self, output: &mut BytesMut) {
        while output.len() < WRITE_BYTES {
            match self.pending.front() {
                Some(PendingReply::Ready(reply)) => output.extend_from_slice(reply),
                _ => return,
            }
            self.pending.pop_front();
            self.first += 1;
        }
    }

    /// Replaces the key at which a scan stopped by a number, because clients expect cursors to be
    /// numbers.
    fn number_cursor(&self, reply: Bytes) -> Bytes {
        let mut rest = reply.clone();
        let Some(key) = take_scan_head(&mut rest) else { return reply };
        let cursor = self.client.shared.cursors.lock().put(key).to_string();
        let mut out = BytesMut::with_capacity(rest.len() + 32);
        out.extend_from_slice(format!("*2\r\n${}\r\n{cursor}\r\n", cursor.len()).as_bytes());
        out.extend_from_slice(&rest);
        out.freeze()
    }
}

/// Decides on a request, and counts the request if it is refused.
fn decide_checked(client: &mut Client, args: Vec<Bytes>) -> Action {
    let action = decide(client, args);
    if matches!(action, Action::Reply(Reply::Error(_))) {
        client.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
    }
    action
}

/// Removes the head of a rendered two-element array and its first element, a bulk string, from the
/// front of `reply`. Returns that element; `None` if the reply has another form.
fn take_scan_head(reply: &mut Bytes) -> Option<Bytes> {
    let line_end = |bytes: &[u8]| bytes.windows(2).position(|pair| pair == b"\r\n");
    if !reply.starts_with(b"*2\r\n$") {
        return None;
    }
    reply.advance(5);
    let end = line_end(reply)?;
    let len: usize = std::str::from_utf8(&reply[..end]).ok()?.parse().ok()?;
    reply.advance(end + 2);
    let key = reply.split_to(len);
    reply.advance(2);
    Some(key)
}
