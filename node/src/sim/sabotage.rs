//! Planted bugs at the boundary between the product's code and the simulated world. The checks must
//! find each bug. No plan of a seed has any.

use crate::machine::system;
use crate::sim::replicas::HostId;
use crate::wire::{Transfer, kind};
use bedstone_engine::lsm::HistoryItem;
use bedstone_engine::wal::Record;
use bedstone_net::Frame;

/// A bug that every node of a world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A write is reported durable, but reaches the disk only with the next write.
    ReportsDurableTooSoon,
    /// Terms and votes are not written.
    LosesVotes,
    /// Snapshots lack the table of sessions.
    ForgetsSessions,
    /// Snapshots lack the members.
    ForgetsMembers,
    /// A request that a follower forwards to the leader arrives twice.
    ForwardsTwice,
    /// Each incarnation of a node numbers its requests to other nodes like the previous one.
    ReusesRequestNumbers,
    /// The clock is not read again after a read by lease.
    TrustsOldClock,
    /// Snapshots are sent without a rate limit.
    SendsAtOnce,
    /// A leader waits for a disk that hangs.
    WaitsForDisks,
    /// A suspect disk is trusted after a power loss.
    TrustsDisks,
    /// Entries of versions that the build does not know are applied.
    AppliesNewerEntries,
}

impl Sabotage {
    /// Returns the records to write now, out of `records` and `waiting`; `waiting` keeps records
    /// for the next write.
    pub(super) fn records(
        sabotage: Option<Sabotage>,
        mut records: Vec<Record>,
        waiting: &mut Vec<Record>,
    ) -> Vec<Record> {
        match sabotage {
            Some(Sabotage::ReportsDurableTooSoon) => std::mem::swap(&mut records, waiting),
            Some(Sabotage::LosesVotes) => {
                records.retain(|record| !matches!(record, Record::HardState { .. }));
            }
            _ => {}
        }
        records
    }

    /// The frames that leave in place of a frame for a peer.
    pub(super) fn frames(
        sabotage: Option<Sabotage>,
        to: HostId,
        frame: Frame,
    ) -> Vec<(HostId, Frame)> {
        let lost = match sabotage {
            Some(Sabotage::ForwardsTwice) if frame.kind == kind::FORWARD => {
                return vec![(to, frame.clone()), (to, frame)];
            }
            Some(Sabotage::ForgetsSessions) => system::SESSION,
            Some(Sabotage::ForgetsMembers) => system::MEMBERS,
            _ => return vec![(to, frame)],
        };
        let Ok((address, Transfer::Chunk { id, number, mut items })) =
            Transfer::decode(frame.kind, frame.body.clone())
        else {
            return vec![(to, frame)];
        };
        items.retain(|item| match item {
            HistoryItem::Version(version) => !version.key.starts_with(lost),
            HistoryItem::Range(_) => true,
        });
        let (kind, body) = Transfer::Chunk { id, number, items }.encode(address);
        vec![(to, Frame { kind, body, ..frame })]
    }
}
