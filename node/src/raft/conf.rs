//! The members of a group and their changes (thesis §4.3: joint consensus).
//!
//! A change takes effect at a replica when the replica learns that the change is committed. Three
//! rules make this safe. Each rule names the code that enforces it:
//!
//! 1. A leader refuses a change until the previous change is effective and an entry of the leader's
//!    own term is committed (`Raft::change`).
//! 2. The commit index that arrives with entries becomes durable with these entries
//!    (`Raft::effects`). A restarted replica therefore knows every change before the last one in
//!    its log.
//! 3. No replica campaigns before every change that it knows to be committed is effective
//!    (`Raft::advance_conf` runs wherever the commit index moves).

use super::ReplicaId;
use super::home::{Homes, Member};
use super::peer_set::PeerSet;
use bedstone_net::NodeId;
use bytes::{Buf, BufMut, Bytes};

/// The members of a group. The configuration is joint, and a change is half done, while `outgoing`
/// is not empty: elections and commits then need a majority of `voters` and a majority of
/// `outgoing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// The replicas that vote.
    pub voters: PeerSet,
    /// The replicas that voted before the change that is under way.
    pub outgoing: PeerSet,
    /// The replicas that receive the log and do not vote.
    pub learners: PeerSet,
    /// The outgoing voters that become learners when the change ends.
    pub learners_next: PeerSet,
    /// Voters that keep the log without its commands. A witness votes and acknowledges, but cannot
    /// lead.
    pub witnesses: PeerSet,
    /// The place of each member.
    pub homes: Homes,
    /// The leader ends the change without a further request once the change is half done.
    pub auto_leave: bool,
}

/// The change of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// The replica becomes a voter. The replica is new or was a learner. A member keeps its home.
    AddVoter(Member),
    /// The replica becomes a learner. The replica is new or was a voter.
    AddLearner(Member),
    /// The replica becomes a voter without the commands. The replica is new.
    AddWitness(Member),
    /// The peer is no longer a member.
    Remove(ReplicaId),
}

impl MemberChange {
    /// The member that changes.
    pub fn peer(self) -> ReplicaId {
        match self {
            MemberChange::Remove(peer) => peer,
            _ => self.added().map_or(ReplicaId(0), |member| member.id),
        }
    }

    /// The member that the change adds, or whose role it changes.
    fn added(self) -> Option<Member> {
        match self {
            MemberChange::AddVoter(member)
            | MemberChange::AddLearner(member)
            | MemberChange::AddWitness(member) => Some(member),
            MemberChange::Remove(_) => None,
        }
    }
}

/// The content of a change entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Steps that take effect together. A single step that changes one voter needs no joint
    /// configuration.
    Steps {
        /// The steps, in order.
        steps: Vec<MemberChange>,
        /// Enters a joint configuration even for one step. Only [`Change::Leave`] ends that
        /// configuration.
        explicit: bool,
    },
    /// Ends a change that is half done.
    Leave,
}

/// The version of encoded changes and configurations, see [`newer_version`](super::newer_version).
const VERSION: u16 = 1;

/// The reason why a change is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChange {
    /// A change is half done and must end first.
    #[error("the previous change is half done: end that change first")]
    AlreadyJoint,
    /// No change is half done.
    #[error("no change is half done: there is none to end")]
    NotJoint,
    /// No voter would be left.
    #[error("no voter would be left")]
    NoVoters,
    /// Witnesses alone would be a majority: an entry could be committed although no disk has its
    /// commands.
    #[error("witnesses alone would be a majority, and no disk might have the committed commands")]
    TooManyWitnesses,
    /// A witness lacks the commands, so a witness can only be removed. A member cannot become a
    /// witness.
    #[error("replica {0}: a witness can only be removed, and a member cannot become a witness")]
    Witness(ReplicaId),
    /// 0 is not the id of a replica.
    #[error("0 is not the id of a replica")]
    Zero,
    /// The change has no steps.
    #[error("the change has no steps")]
    Nothing,
}

/// The result of the votes that have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A majority granted its votes.
    Won,
    /// A majority can no longer grant its votes.
    Lost,
    /// The votes decide neither way yet.
    Pending,
}

impl Conf {
    /// A configuration with these voters and no other members. The id of each voter is the number
    /// of its node.
    pub fn of(voters: impl IntoIterator<Item = ReplicaId>) -> Conf {
        Conf::of_members(voters.into_iter().map(Member::from))
    }

    /// A configuration with these members as voters.
    pub fn of_members(voters: impl IntoIterator<Item = Member>) -> Conf {
        let homes: Homes = voters.into_iter().collect();
        Conf { voters: homes.iter().map(|member| member.id).collect(), homes, ..Conf::default() }
    }

    /// The number of the node of a member.
    pub fn node_of(&self, peer: ReplicaId) -> Option<NodeId> {
        self.homes.get(peer).map(|home| home.node)
    }

    /// The members on a node.
    pub fn on_node(&self, node: NodeId) -> impl Iterator<Item = ReplicaId> {
        self.homes.iter().filter(move |member| member.home.node == node).map(|member| member.id)
    }

    /// Whether a change is half done.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether a peer votes.
    pub fn is_voter(&self, peer: ReplicaId) -> bool {
        self.voters.contains(&peer) || self.outgoing.contains(&peer)
    }

    /// Whether a peer may lead.
    pub fn is_electable(&self, peer: ReplicaId) -> bool {
        self.is_voter(peer) && !self.witnesses.contains(&peer)
    }

    /// The number of voters that are witnesses.
    pub fn voting_witnesses(&self) -> usize {
        self.witnesses.iter().filter(|peer| self.voters.contains(peer)).count()
    }

    /// Whether a peer is the only voter and no change is half done.
    pub fn is_sole_voter(&self, peer: ReplicaId) -> bool {
        self.voters.len() == 1 && self.voters.contains(&peer) && !self.is_joint()
    }

    /// All members.
    pub fn members(&self) -> PeerSet {
        let sets = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        sets.into_iter().flatten().copied().collect()
    }

    /// The result of the votes that have arrived. `said` returns a voter's vote, or `None` before
    /// the vote arrives.
    pub fn vote_result(&self, said: impl Fn(ReplicaId) -> Option<bool>) -> VoteResult {
        let of = |voters: &PeerSet| {
            let count = |word| voters.iter().filter(|&&voter| said(voter) == Some(word)).count();
            let majority = voters.len() / 2 + 1;
            match (count(true), count(false)) {
                (yes, _) if yes >= majority => VoteResult::Won,
                (_, no) if no > voters.len() - majority => VoteResult::Lost,
                _ => VoteResult::Pending,
            }
        };
        match (of(&self.voters), self.is_joint()) {
            (incoming, false) => incoming,
            (incoming, true) => match (incoming, of(&self.outgoing)) {
                (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
                (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
                _ => VoteResult::Pending,
            },
        }
    }

    /// The greatest value that a majority of each set of voters has reached.
    pub fn quorum_value<T: Copy + Default + Ord>(&self, value: impl Fn(ReplicaId) -> T) -> T {
        let of = |voters: &PeerSet| {
            let mut small = [T::default(); 8];
            let mut large = Vec::new();
            let values = match small.get_mut(..voters.len()) {
                Some(values) => values,
                None => {
                    large.resize(voters.len(), T::default());
                    &mut large[..]
                }
            };
            values.iter_mut().zip(voters).for_each(|(slot, &voter)| *slot = value(voter));
            values.sort_unstable();
            values.get((voters.len().max(1) - 1) / 2).copied().unwrap_or_default()
        };
        if !self.is_joint() { of(&self.voters) } else { of(&self.voters).min(of(&self.outgoing)) }
    }

    /// This configuration after a change.
    ///
    /// # Errors
    /// [`InvalidChange`]: the change is invalid, and this configuration stays.
    pub fn apply(&self, change: &Change) -> Result<Conf, InvalidChange> {
        let (steps, explicit) = match change {
            Change::Leave if self.is_joint() => return Ok(self.without_outgoing()),
            Change::Leave => return Err(InvalidChange::NotJoint),
            Change::Steps { .. } if self.is_joint() => return Err(InvalidChange::AlreadyJoint),
            Change::Steps { steps, .. } if steps.is_empty() => return Err(InvalidChange::Nothing),
            Change::Steps { steps, explicit } => (steps, *explicit),
        };
        let mut conf = self.clone();
        conf.outgoing = conf.voters.clone();
        for step in steps {
            conf.apply_step(*step)?;
        }
        let added: Vec<Member> = steps.iter().filter_map(|step| step.added()).collect();
        let members = conf.members();
        conf.homes = self.homes.with(&added, |peer| members.contains(&peer));
        if conf.voters.is_empty() {
            return Err(InvalidChange::NoVoters);
        }
        if conf.voting_witnesses() > conf.voters.len() / 2 {
            return Err(InvalidChange::TooManyWitnesses);
        }
        // Any two majorities of sets that differ in one voter overlap, so no joint configuration is
        // needed.
        if explicit || conf.voters.differences(&conf.outgoing) > 1 {
            conf.auto_leave = !explicit;
            return Ok(conf);
        }
        Ok(conf.without_outgoing())
    }

    fn apply_step(&mut self, step: MemberChange) -> Result<(), InvalidChange> {
        let peer = step.peer();
        if peer == ReplicaId(0) {
            return Err(InvalidChange::Zero);
        }
        match step {
            MemberChange::AddVoter(_) | MemberChange::AddLearner(_)
                if self.witnesses.contains(&peer) =>
            {
                return Err(InvalidChange::Witness(peer));
            }
            MemberChange::AddWitness(_) if self.members().contains(&peer) => {
                return Err(InvalidChange::Witness(peer));
            }
            MemberChange::AddVoter(_) => {
                self.learners.remove(peer);
                self.learners_next.remove(peer);
                self.voters.insert(peer);
            }
            MemberChange::AddLearner(_) => {
                self.voters.remove(peer);
                if self.outgoing.contains(&peer) {
                    self.learners_next.insert(peer)
                } else {
                    self.learners.insert(peer)
                };
            }
            MemberChange::AddWitness(_) => {
                self.voters.insert(peer);
                self.witnesses.insert(peer);
            }
            MemberChange::Remove(_) => {
                self.voters.remove(peer);
                self.learners.remove(peer);
                self.learners_next.remove(peer);
            }
        }
        Ok(())
    }

    /// This configuration without the outgoing voters.
    fn without_outgoing(&self) -> Conf {
        let mut conf = self.clone();
        conf.outgoing = PeerSet::default();
        conf.auto_leave = false;
        let next = std::mem::take(&mut conf.learners_next);
        conf.learners.extend(next);
        conf.witnesses.retain(|peer| conf.voters.contains(&peer));
        let members = conf.members();
        conf.homes = self.homes.with(&[], |peer| members.contains(&peer));
        conf
    }

    /// Applies the data of a change entry. Returns whether the change had an effect. Data that does
    /// not decode and an invalid change have no effect, at any replica.
    pub fn apply_entry_data(&mut self, data: &[u8]) -> bool {
        let next = Change::decode(data).and_then(|change| self.apply(&change).ok());
        let taken = next.is_some();
        if let Some(next) = next {
            *self = next;
        }
        taken
    }

    /// Appends the encoded configuration: version u16 (1), flags u8, then five sets, each a count
    /// u16 and ids u64, ascending, then the home of each member, ascending, little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(VERSION);
        out.put_u8(u8::from(self.auto_leave));
        for set in self.sets() {
            out.put_u16_le(set.len() as u16);
            set.iter().for_each(|&peer| out.put_u64_le(peer.0));
        }
        self.homes.iter().for_each(|member| member.encode(out));
    }

    fn sets(&self) -> [&PeerSet; 5] {
        [&self.voters, &self.outgoing, &self.learners, &self.learners_next, &self.witnesses]
    }

    /// Decodes a configuration. Returns `None` when the bytes are not a configuration.
    pub fn decode(mut from: &[u8]) -> Option<Conf> {
        if from.try_get_u16_le().ok()? != VERSION {
            return None;
        }
        let auto_leave = decode_flag(&mut from)?;
        let mut sets: [PeerSet; 5] = Default::default();
        for set in &mut sets {
            let count = from.try_get_u16_le().ok()?;
            let peers = (0..count).map(|_| from.try_get_u64_le().ok().map(ReplicaId));
            // A configuration has exactly one encoding: ids ascend, each once.
            *set = PeerSet::from_ascending(peers.collect::<Option<_>>()?)?;
        }
        let mut homes = Vec::new();
        while !from.is_empty() {
            homes.push(Member::decode(&mut from)?);
        }
        let homes = Homes::from_ascending(homes)?;
        let [voters, outgoing, learners, learners_next, witnesses] = sets;
        let conf = Conf { voters, outgoing, learners, learners_next, witnesses, homes, auto_leave };
        let members = conf.members();
        let homed = conf.homes.iter().map(|member| member.id);
        members.iter().copied().eq(homed).then_some(conf)
    }
}

impl Change {
    /// A change of one step that enters a joint configuration only if the step needs one.
    pub fn one(step: MemberChange) -> Change {
        Change::Steps { steps: vec![step], explicit: false }
    }

    /// Encodes the data of the change entry: version u16 (1), explicit u8, then each step's kind u8
    /// and member, or the id u64 of a removed one, little-endian. An encoding without steps is
    /// [`Change::Leave`].
    pub fn encode(&self) -> Bytes {
        let (steps, explicit) = match self {
            Change::Leave => (&[][..], false),
            Change::Steps { steps, explicit } => (&steps[..], *explicit),
        };
        let mut out = Vec::with_capacity(3 + (1 + Member::BYTES) * steps.len());
        out.put_u16_le(VERSION);
        out.put_u8(u8::from(explicit));
        for step in steps {
            let kind = match step {
                MemberChange::AddVoter(_) => 1,
                MemberChange::AddLearner(_) => 2,
                MemberChange::AddWitness(_) => 3,
                MemberChange::Remove(_) => 4,
            };
            out.put_u8(kind);
            match step.added() {
                Some(member) => member.encode(&mut out),
                None => out.put_u64_le(step.peer().0),
            }
        }
        out.into()
    }

    /// Decodes the data of an entry. Returns `None` when the data is not a change.
    pub fn decode(mut from: &[u8]) -> Option<Change> {
        if from.try_get_u16_le().ok()? != VERSION {
            return None;
        }
        let explicit = decode_flag(&mut from)?;
        let mut steps = Vec::new();
        while let Ok(kind) = from.try_get_u8() {
            steps.push(match kind {
                1 => MemberChange::AddVoter(Member::decode(&mut from)?),
                2 => MemberChange::AddLearner(Member::decode(&mut from)?),
                3 => MemberChange::AddWitness(Member::decode(&mut from)?),
                4 => MemberChange::Remove(ReplicaId(from.try_get_u64_le().ok()?)),
                _ => return None,
            });
        }
        match (steps.is_empty(), explicit) {
            (true, true) => None,
            (true, false) => Some(Change::Leave),
            (false, _) => Some(Change::Steps { steps, explicit }),
        }
    }
}

fn decode_flag(from: &mut &[u8]) -> Option<bool> {
    match from.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::home::Home;
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    const PEERS: u64 = 6;

    fn peer() -> impl Strategy<Value = ReplicaId> {
        (1..=PEERS).prop_map(ReplicaId)
    }

    fn step() -> impl Strategy<Value = MemberChange> {
        (0..4, peer()).prop_map(|(kind, peer)| match kind {
            0 => MemberChange::AddVoter(peer.into()),
            1 => MemberChange::AddLearner(peer.into()),
            2 => MemberChange::AddWitness(peer.into()),
            _ => MemberChange::Remove(peer),
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        let steps = (vec(step(), 1..5), any::<bool>());
        let steps = steps.prop_map(|(steps, explicit)| Change::Steps { steps, explicit });
        prop_oneof![2 => steps, 1 => Just(Change::Leave)]
    }

    /// Every set of peers, as bits.
    fn sets() -> impl Iterator<Item = u64> {
        0..1 << PEERS
    }

    fn has(set: u64, peer: ReplicaId) -> bool {
        (set >> (peer.0 - 1)) & 1 == 1
    }

    fn decides(conf: &Conf, set: u64) -> bool {
        conf.vote_result(|peer| has(set, peer).then_some(true)) == VoteResult::Won
    }

    proptest! {
        /// No two leaders can be elected across a change: every deciding set of voters before the
        /// change and every deciding set after it share a voter, which votes in both.
        #[test]
        fn quorums_before_and_after_a_change_overlap(
            voters in btree_set(peer(), 1..5),
            changes in vec(change(), 1..6),
        ) {
            let mut conf = Conf::of(voters);
            for change in changes {
                let Ok(next) = conf.apply(&change) else { continue };
                let before: Vec<u64> = sets().filter(|&set| decides(&conf, set)).collect();
                let after: Vec<u64> = sets().filter(|&set| decides(&next, set)).collect();
                prop_assert!(!after.is_empty(), "no set of voters decides in {:?}", next);
                for before in before {
                    let overlap = after.iter().all(|after| before & after != 0);
                    prop_assert!(overlap, "{:?} then {:?}", conf, next);
                }
                // Each majority has a member with the commands, and no peer has two roles.
                let witnesses = |peer| next.witnesses.contains(&peer).then_some(true);
                prop_assert!(next.vote_result(witnesses) != VoteResult::Won);
                prop_assert!(!next.learners.iter().any(|peer| next.is_voter(*peer)));
                prop_assert!(next.learners_next.iter().all(|p| next.outgoing.contains(p)));
                prop_assert_eq!(next.is_joint(), !next.outgoing.is_empty());
                let homed: PeerSet = next.homes.iter().map(|member| member.id).collect();
                prop_assert_eq!(homed, next.members());
                conf = next;
            }
        }

        /// Bytes that decode are the only encoding of the decoded configuration.
        #[test]
        fn a_configuration_has_one_encoding(sets in vec(vec(1..4u64, 0..3), 5)) {
            let mut bytes = vec![1, 0, 0];
            let mut members = std::collections::BTreeSet::new();
            for set in &sets {
                bytes.put_u16_le(set.len() as u16);
                set.iter().for_each(|&peer| bytes.put_u64_le(peer));
            }
            // A witness is a voter too, so the other sets name all members.
            members.extend(sets[..4].iter().flatten().copied());
            members.iter().for_each(|&peer| Member::from(ReplicaId(peer)).encode(&mut bytes));
            let ascending = sets.iter().all(|set| set.is_sorted_by(|a, b| a < b));
            let conf = Conf::decode(&bytes);
            prop_assert_eq!(conf.is_some(), ascending);
            if let Some(conf) = conf {
                let mut again = Vec::new();
                conf.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }

        /// `quorum_value` and `vote_result` agree with a count over all sets of peers.
        #[test]
        fn vote_result_and_quorum_value_agree_with_counting(
            voters in btree_set(peer(), 1..6),
            outgoing in btree_set(peer(), 0..6),
            values in vec(0..9u64, PEERS as usize),
            said in 0..1u64 << PEERS,
            yes in 0..1u64 << PEERS,
        ) {
            let conf = Conf {
                voters: voters.into_iter().collect(),
                outgoing: outgoing.into_iter().collect(),
                ..Conf::default()
            };
            let value = |peer: ReplicaId| values[peer.0 as usize - 1];
            let reached = conf.quorum_value(value);
            let at_least = |least: u64| {
                let counts = |set, peer| has(set, peer) == (value(peer) >= least);
                let have = |&set: &u64| (1..=PEERS).all(|peer| counts(set, ReplicaId(peer)));
                sets().find(have).is_some_and(|set| decides(&conf, set))
            };
            prop_assert!(at_least(reached));
            prop_assert!(!at_least(reached + 1));
            let outcome = conf.vote_result(|peer| has(said, peer).then_some(has(yes, peer)));
            let (sure, possible) = (decides(&conf, said & yes), decides(&conf, !said | yes));
            prop_assert_eq!(outcome == VoteResult::Won, sure);
            prop_assert_eq!(outcome == VoteResult::Lost, !possible);
        }

        #[test]
        fn changes_and_configurations_round_trip(
            change in change(),
            voters in btree_set(any::<u64>(), 0..5),
            (node, disk) in any::<(u64, u128)>(),
        ) {
            prop_assert_eq!(Change::decode(&change.encode()), Some(change.clone()));
            let home = Home { node: NodeId(node), disk };
            let ids = voters.into_iter().map(ReplicaId);
            let conf = Conf::of_members(ids.map(|id| Member { id, home }));
            let conf = conf.apply(&change).unwrap_or(conf);
            let mut bytes = Vec::new();
            conf.encode(&mut bytes);
            prop_assert_eq!(Conf::decode(&bytes), Some(conf));
        }

        #[test]
        fn decoding_of_any_bytes_does_not_panic(bytes in vec(any::<u8>(), 0..60)) {
            if let Some(change) = Change::decode(&bytes) {
                prop_assert_eq!(&change.encode()[..], &bytes[..]);
            }
            let _ = Conf::decode(&bytes);
        }
    }
}
