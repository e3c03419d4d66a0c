//! Runs equal input through our Raft core and through two other implementations from the registry:
//! `raft` (the crate of TiKV, called raft-rs here) and `noraft`. An implementation that differs
//! from all others has probably misread the paper.
//!
//! [`cluster`] runs one schedule of proposals and faults through whole clusters. [`single`] sends
//! one request to one replica in one state. Both compare only decisions of Raft itself.
//!
//! The implementations are known to differ in the following points. Each difference has a name.
//! Where a test meets a difference, a comment has its name, and the test compares the rest of the
//! result.
//!
//! * `no-answer`: A replica that refuses a vote may send a refusal or no reply. noraft never sends
//!   a refusal. raft-rs sends none when the request is of an earlier term or while it has a leader.
//!   Our core always replies, except to a vote of a later term while it has a leader.
//! * `repeated-vote`: A leader requests a vote again from a follower that voted for it and receives
//!   its heartbeats. raft-rs grants the vote again. Our core refuses, because the reply would be of
//!   no use to a candidate that already leads.
//! * `pre-vote-in-term`: raft-rs grants a pre-vote for its own term if its vote is free or was for
//!   that peer. Our core requires a later term, because the vote that would follow could not
//!   succeed.
//! * `below-commit`: An append begins before the commit index. raft-rs acknowledges it up to the
//!   commit index without reading its entries. Our core processes the entries; where our core has
//!   released its log, it replies like raft-rs.
//! * `heartbeat-beyond-log`: The commit index of a heartbeat is beyond the log. raft-rs panics; our
//!   core commits the entries that it has. No leader sends such a heartbeat, so no test does.
//! * `no-lease`: noraft has no pre-vote and no heartbeats apart from appends, and it grants votes
//!   while it has a leader. The tests send noraft no such requests.
//! * `vote-for-leader`: noraft records a leader's append as a vote for that leader.
//! * `whole-log`: noraft acknowledges its whole log, not only the part that the append proved to
//!   agree; the leader detects a difference later. When noraft already has the entries of an append
//!   and more, it ignores the append, including its commit index.
//! * `early-truncation`: Entries after the entry before an append may not agree. noraft removes
//!   them when that entry is found to differ; our core and raft-rs remove them when another entry
//!   replaces them.
//!
//! raft-rs has defects that these tests do not reach, because they would show nothing about our
//! core: a stale read index on a context that is used again, a panic when a leader that removed
//! itself commits, and a follower that stays in `Probe` although it has caught up
//! (tikv/raft-rs#560).

pub mod cluster;
pub mod noraft;
pub mod ours;
pub mod raft_rs;
pub mod single;
