//! The writes under way of a replica, and its messages. A message that states something that is not
//! durable yet waits here for the write that makes it durable.

use super::message::{Body, Message};
use super::{Index, ReplicaId, Seq, Term, Tick};
use std::collections::VecDeque;

/// See the module. Invariants, which each change keeps or asserts:
///
/// - `durable_write <= last_write`: writes complete in the order of their numbers, each once.
/// - `vote_write <= last_write`.
/// - Each message in `waiting` waits for a write that is not durable. The messages leave in their
///   order, so a message also waits for the writes of the messages before it.
/// - `disk_since` is set exactly while a write is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    /// The number of the last write that was handed out.
    last_write: Seq,
    /// The number of the last write that is durable.
    durable_write: Seq,
    /// The last write that term, vote or members required.
    vote_write: Seq,
    /// Since when the disk owes a completed write: since the oldest write under way was handed out,
    /// or since the write before it completed.
    disk_since: Option<Tick>,
    /// Messages that may leave.
    ready: Vec<Message>,
    /// Messages that wait for a write, each with the number of that write.
    waiting: VecDeque<(Seq, Message)>,
}

impl Outbox {
    /// Hands out the next write. Returns its number. `for_vote` states that term, vote or members
    /// require the write.
    pub(super) fn begin_write(&mut self, for_vote: bool, now: Tick) -> Seq {
        self.last_write += 1;
        self.disk_since.get_or_insert(now);
        if for_vote {
            self.vote_write = self.last_write;
        }
        self.last_write
    }

    /// Write `seq` is durable: the messages that waited for it may leave.
    pub(super) fn complete_write(&mut self, seq: Seq, now: Tick) {
        assert!(
            seq > self.durable_write && seq <= self.last_write,
            "each write completes once, in order"
        );
        self.durable_write = seq;
        self.disk_since = (seq < self.last_write).then_some(now);
        while let Some((_, message)) = self.waiting.pop_front_if(|(after, _)| *after <= seq) {
            self.ready.push(message);
        }
    }

    /// The write after which the present state is durable; `None` when it is durable already.
    /// `unwritten` states that the next write has a part of the state.
    pub(super) fn pending_write(&self, unwritten: bool) -> Option<Seq> {
        if unwritten {
            Some(self.last_write + 1)
        } else {
            (self.last_write > self.durable_write).then_some(self.last_write)
        }
    }

    /// Like [`Self::pending_write`], for term, vote and members alone.
    pub(super) fn pending_vote(&self, unwritten: bool) -> Option<Seq> {
        let after = if unwritten { self.last_write + 1 } else { self.vote_write };
        (after > self.durable_write).then_some(after)
    }

    /// Sends a message that waits for no write.
    pub(super) fn send(&mut self, message: Message) {
        self.ready.push(message);
    }

    /// Sends messages that wait for no write.
    pub(super) fn send_all(&mut self, messages: impl Iterator<Item = Message>) {
        self.ready.extend(messages);
    }

    /// Sends a message after a write, or at once without one.
    pub(super) fn send_after(&mut self, write: Option<Seq>, message: Message) {
        match write {
            Some(seq) => {
                assert!(
                    seq > self.durable_write,
                    "a message waits for a write that is not durable"
                );
                self.waiting.push_back((seq, message));
            }
            None => self.ready.push(message),
        }
    }

    /// Drops the messages that wait for a write. No protocol depends on the arrival of a message.
    pub(super) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Extends the acknowledgement that waits last, if it waits for this write and goes to this
    /// peer in this term. An acknowledgement covers all entries before it. Returns false if there
    /// is none.
    pub(super) fn extend_acknowledgement(
        &mut self,
        write: Option<Seq>,
        to: ReplicaId,
        term: Term,
        matched: Index,
    ) -> bool {
        let Some((seq, Message { peer, term: of, body: Body::AppendReply { matched: last } })) =
            self.waiting.back_mut()
        else {
            return false;
        };
        let extends = (Some(*seq), *peer, *of) == (write, to, term);
        if extends {
            *last = matched.max(*last);
        }
        extends
    }

    /// Moves the messages that may leave to `into`, in place of its contents.
    pub(super) fn take_ready(&mut self, into: &mut Vec<Message>) {
        move_out(&mut self.ready, into);
    }

    /// For how long the disk has owed a completed write; `None` if no write is under way.
    pub(super) fn disk_owes_for(&self, now: Tick) -> Option<Tick> {
        self.disk_since.map(|since| now - since)
    }

    /// Releases the spare capacity.
    pub(super) fn shrink_to_fit(&mut self) {
        self.waiting.shrink_to_fit();
        self.ready.shrink_to_fit();
    }
}

/// Moves the contents of `from` to `into`, in place of its earlier contents. `from` gets the
/// capacity of `into`.
pub(super) fn move_out<T>(from: &mut Vec<T>, into: &mut Vec<T>) {
    into.clear();
    if !from.is_empty() {
        std::mem::swap(from, into);
    }
}
