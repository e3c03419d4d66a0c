//! The same input through our Raft core and through two others from the registry: `raft` (the one
//! of TiKV, called raft-rs here) and `noraft`. Whoever reads the paper differently from all others
//! is probably wrong.
//!
//! [`cluster`] runs one schedule of proposals and faults through whole clusters; [`single`] asks
//! one replica in one state one question. Both compare only what Raft itself decides.
//!
//! The implementations are known to differ as follows, and where they do, the tests compare what is
//! left, as said at that place. Each difference has its name there.
//!
//! * `no-answer`: who refuses a vote may say so or be silent. noraft is always silent, raft-rs when
//!   the request is of an earlier term or while it hears a leader; ours always answers, except a
//!   vote of a later term while it hears its leader.
//! * `repeated-vote`: asked again by the leader that it voted for and now hears, raft-rs grants the
//!   vote again. Ours refuses: the answer would be of no use to a candidate that already leads.
//! * `pre-vote-in-term`: raft-rs grants a pre-vote for its own term if its vote is still free or
//!   was for that peer. Ours wants a later term, as the vote that would follow could not succeed.
//! * `below-commit`: an append that begins before the commit index is acknowledged by raft-rs up to
//!   the commit index without a look at its entries. Ours takes the entries, unless it has released
//!   its log there, and does as raft-rs then.
//! * `heartbeat-beyond-log`: raft-rs panics when a heartbeat's commit index is beyond its log; ours
//!   takes what it has. No leader sends it, so no test does.
//! * `no-lease`: noraft has no pre-vote, no heartbeat apart from appends, and votes while it hears
//!   a leader. It is not asked.
//! * `vote-for-leader`: noraft takes a leader's append for a vote for it.
//! * `whole-log`: noraft acknowledges its whole log, not only what the append proved to agree; a
//!   leader then finds out. An append that it has already, and more, it takes nothing from, not
//!   even the commit index.
//! * `early-truncation`: noraft drops entries that do not agree when the entry before an append is
//!   found to differ; ours and raft-rs when another entry takes their place.
//!
//! raft-rs has defects that these tests do not reach, as they would show nothing about ours: a
//! stale read index on a context that is used again, a panic when a leader that removed itself
//! commits, and a follower that stays in `Probe` though it has caught up (tikv/raft-rs#560).

pub mod cluster;
pub mod noraft;
pub mod ours;
pub mod raft_rs;
pub mod single;
