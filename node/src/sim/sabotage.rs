//! Nodes that are wrong on purpose, at the seams between the product's code and the simulated
//! world: the checks must find each. No plan of a seed has any.

use crate::raft::PeerId;
use crate::shard::system;
use crate::wire::{Transfer, kind};
use bedstone_engine::wal::Record;
use bedstone_net::Frame;

/// What every node does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Writes are told to be durable when they are only about to be.
    TellsTooSoon,
    /// Terms and votes are not written.
    LosesVotes,
    /// Snapshots lack the table of sessions.
    ForgetsSessions,
    /// Snapshots lack the members.
    ForgetsMembers,
    /// What is forwarded to a leader arrives twice.
    ForwardsTwice,
    /// Each life numbers its questions like the one before.
    LivesAlike,
    /// The clock is not looked at again after a read by lease.
    TrustsOldClock,
    /// Snapshots are sent as fast as they are taken.
    SendsAtOnce,
    /// A disk that hangs is waited for.
    WaitsForDisks,
    /// A disk that may lie is believed after the power went.
    TrustsDisks,
}

impl Sabotage {
    /// Of what is to be written: what is, and what waits.
    pub(super) fn records(
        sabotage: Option<Sabotage>,
        mut records: Vec<Record>,
        waiting: &mut Vec<Record>,
    ) -> Vec<Record> {
        match sabotage {
            Some(Sabotage::TellsTooSoon) => std::mem::swap(&mut records, waiting),
            Some(Sabotage::LosesVotes) => {
                records.retain(|record| !matches!(record, Record::HardState { .. }));
            }
            _ => {}
        }
        records
    }

    /// What becomes of a frame that leaves for a peer.
    pub(super) fn frames(
        sabotage: Option<Sabotage>,
        to: PeerId,
        frame: Frame,
    ) -> Vec<(PeerId, Frame)> {
        let lost = match sabotage {
            Some(Sabotage::ForwardsTwice) if frame.kind == kind::FORWARD => {
                return vec![(to, frame.clone()), (to, frame)];
            }
            Some(Sabotage::ForgetsSessions) => system::SESSION,
            Some(Sabotage::ForgetsMembers) => system::MEMBERS,
            _ => return vec![(to, frame)],
        };
        let Some(Transfer::Chunk { id, number, mut pairs }) =
            Transfer::decode(frame.kind, frame.body.clone())
        else {
            return vec![(to, frame)];
        };
        pairs.retain(|(key, _)| !key.starts_with(lost));
        let (kind, body) = Transfer::Chunk { id, number, pairs }.encode();
        vec![(to, Frame { kind, body, ..frame })]
    }
}
