//! Who takes part in a group, and how that changes (thesis §4.3: joint consensus).
//!
//! A change takes effect at a replica when it learns that the change is committed. That is safe by
//! three rules, each kept where it is named:
//!
//! 1. A leader refuses a change until the one before is effective and an entry of its own term is
//!    committed (`Raft::change`).
//! 2. The commit index that came with entries is made durable with them (`Raft::effects`), so a
//!    replica that restarts knows every change before the last one in its log.
//! 3. Nobody campaigns before every change that it knows to be committed is effective
//!    (`Raft::advance_conf` runs wherever the commit index moves).

use super::PeerId;
use super::peer_set::PeerSet;
use bytes::{Buf, BufMut, Bytes};

/// The members of a group. While `outgoing` is not empty a change is half done: it takes a majority
/// of `voters` and one of `outgoing` to elect and to commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// Who votes.
    pub voters: PeerSet,
    /// Who voted before the change that is under way.
    pub outgoing: PeerSet,
    /// Who gets the log and does not vote.
    pub learners: PeerSet,
    /// Who becomes a learner once it votes no more.
    pub learners_next: PeerSet,
    /// Voters that keep the log without its commands: they vote and acknowledge, but cannot lead.
    pub witnesses: PeerSet,
    /// The leader ends the change by itself once it is half done.
    pub auto_leave: bool,
}

/// One member's part of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A voter, new or a learner before.
    AddVoter(PeerId),
    /// A learner, new or a voter before.
    AddLearner(PeerId),
    /// A new voter without the commands.
    AddWitness(PeerId),
    /// No member any more.
    Remove(PeerId),
}

impl MemberChange {
    /// Whose part it is.
    pub fn peer(self) -> PeerId {
        match self {
            MemberChange::AddVoter(peer)
            | MemberChange::AddLearner(peer)
            | MemberChange::AddWitness(peer)
            | MemberChange::Remove(peer) => peer,
        }
    }
}

/// What a change entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Steps that are done together. A single step of one voter needs no joint configuration.
    Steps {
        /// The steps, in order.
        steps: Vec<MemberChange>,
        /// Enter a joint configuration even for one step, and stay in it until told to leave.
        explicit: bool,
    },
    /// Ends a change that is half done.
    Leave,
}

/// Why a configuration cannot change so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChange {
    /// A change is half done: it must be left first.
    #[error("the change before is half done")]
    AlreadyJoint,
    /// No change is half done.
    #[error("no change is half done")]
    NotJoint,
    /// Nobody would be left who votes.
    #[error("no voter would be left")]
    NoVoters,
    /// Witnesses alone would be a majority: an entry could be committed whose commands no disk has.
    #[error("witnesses alone would be a majority, and no disk might have what is committed")]
    TooManyWitnesses,
    /// A witness lacks the commands, so it can only be removed; a member cannot become one.
    #[error("node {0}: a witness can only be removed, and a member cannot become one")]
    Witness(PeerId),
    /// 0 names nobody.
    #[error("0 names no node")]
    Zero,
    /// The change has no steps.
    #[error("nothing to change")]
    Nothing,
}

/// What the votes of some voters say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A majority said yes.
    Won,
    /// A majority can no longer say yes.
    Lost,
    /// Neither.
    Pending,
}

impl Conf {
    /// Of voters alone.
    pub fn of(voters: impl IntoIterator<Item = PeerId>) -> Conf {
        Conf { voters: voters.into_iter().collect(), ..Conf::default() }
    }

    /// Whether a change is half done.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether a peer votes.
    pub fn is_voter(&self, peer: PeerId) -> bool {
        self.voters.contains(&peer) || self.outgoing.contains(&peer)
    }

    /// Whether a peer may lead.
    pub fn is_electable(&self, peer: PeerId) -> bool {
        self.is_voter(peer) && !self.witnesses.contains(&peer)
    }

    /// How many voters are witnesses.
    pub fn voting_witnesses(&self) -> usize {
        self.witnesses.iter().filter(|peer| self.voters.contains(peer)).count()
    }

    /// Whether a peer is alone to decide everything.
    pub fn is_sole_voter(&self, peer: PeerId) -> bool {
        self.voters.len() == 1 && self.voters.contains(&peer) && !self.is_joint()
    }

    /// Every member.
    pub fn members(&self) -> PeerSet {
        let sets = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        sets.into_iter().flatten().copied().collect()
    }

    /// What the voters say, as far as they have: yes, no, or nothing yet.
    pub fn vote_result(&self, said: impl Fn(PeerId) -> Option<bool>) -> VoteResult {
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

    /// The greatest value that a majority has reached, of each set of voters.
    pub fn quorum_value(&self, value: impl Fn(PeerId) -> u64) -> u64 {
        let of = |voters: &PeerSet| {
            let mut small = [0; 8];
            let mut large = Vec::new();
            let values = match small.get_mut(..voters.len()) {
                Some(values) => values,
                None => {
                    large.resize(voters.len(), 0);
                    &mut large[..]
                }
            };
            values.iter_mut().zip(voters).for_each(|(slot, &voter)| *slot = value(voter));
            values.sort_unstable();
            values.get((voters.len().max(1) - 1) / 2).copied().unwrap_or(0)
        };
        match self.is_joint() {
            false => of(&self.voters),
            true => of(&self.voters).min(of(&self.outgoing)),
        }
    }

    /// This configuration after a change.
    ///
    /// # Errors
    /// [`InvalidChange`]: the change is none, and this configuration stays.
    pub fn apply(&self, change: &Change) -> Result<Conf, InvalidChange> {
        let (steps, explicit) = match change {
            Change::Leave if self.is_joint() => return Ok(self.left()),
            Change::Leave => return Err(InvalidChange::NotJoint),
            Change::Steps { .. } if self.is_joint() => return Err(InvalidChange::AlreadyJoint),
            Change::Steps { steps, .. } if steps.is_empty() => return Err(InvalidChange::Nothing),
            Change::Steps { steps, explicit } => (steps, *explicit),
        };
        let mut conf = self.clone();
        conf.outgoing = conf.voters.clone();
        for step in steps {
            conf.take(*step)?;
        }
        if conf.voters.is_empty() {
            return Err(InvalidChange::NoVoters);
        }
        if conf.voting_witnesses() > conf.voters.len() / 2 {
            return Err(InvalidChange::TooManyWitnesses);
        }
        // Any two majorities of sets that differ in one voter overlap: no need to be joint.
        if explicit || conf.voters.differences(&conf.outgoing) > 1 {
            conf.auto_leave = !explicit;
            return Ok(conf);
        }
        Ok(conf.left())
    }

    fn take(&mut self, step: MemberChange) -> Result<(), InvalidChange> {
        match step {
            MemberChange::AddVoter(0)
            | MemberChange::AddLearner(0)
            | MemberChange::AddWitness(0)
            | MemberChange::Remove(0) => {
                return Err(InvalidChange::Zero);
            }
            MemberChange::AddVoter(peer) | MemberChange::AddLearner(peer)
                if self.witnesses.contains(&peer) =>
            {
                return Err(InvalidChange::Witness(peer));
            }
            MemberChange::AddWitness(peer) if self.members().contains(&peer) => {
                return Err(InvalidChange::Witness(peer));
            }
            MemberChange::AddVoter(peer) => {
                self.learners.remove(peer);
                self.learners_next.remove(peer);
                self.voters.insert(peer);
            }
            MemberChange::AddLearner(peer) => {
                self.voters.remove(peer);
                match self.outgoing.contains(&peer) {
                    true => self.learners_next.insert(peer),
                    false => self.learners.insert(peer),
                };
            }
            MemberChange::AddWitness(peer) => {
                self.voters.insert(peer);
                self.witnesses.insert(peer);
            }
            MemberChange::Remove(peer) => {
                self.voters.remove(peer);
                self.learners.remove(peer);
                self.learners_next.remove(peer);
            }
        }
        Ok(())
    }

    /// Without the voters of before.
    fn left(&self) -> Conf {
        let mut conf = self.clone();
        conf.outgoing = PeerSet::default();
        conf.auto_leave = false;
        let next = std::mem::take(&mut conf.learners_next);
        conf.learners.extend(next);
        conf.witnesses.retain(|peer| conf.voters.contains(&peer));
        conf
    }

    /// Takes an entry of a change; whether it had an effect. What cannot be read or is impossible
    /// has none, at any replica.
    pub fn apply_entry_data(&mut self, data: &[u8]) -> bool {
        let next = Change::decode(data).and_then(|change| self.apply(&change).ok());
        let taken = next.is_some();
        if let Some(next) = next {
            *self = next;
        }
        taken
    }

    /// Appends its bytes: flags u8, then five sets, each a count u16 and ids u64,
    /// ascending, little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(self.auto_leave));
        for set in self.sets() {
            out.put_u16_le(set.len() as u16);
            set.iter().for_each(|&peer| out.put_u64_le(peer));
        }
    }

    fn sets(&self) -> [&PeerSet; 5] {
        [&self.voters, &self.outgoing, &self.learners, &self.learners_next, &self.witnesses]
    }

    /// From its bytes; `None` when they are no configuration.
    pub fn decode(mut from: &[u8]) -> Option<Conf> {
        let auto_leave = take_flag(&mut from)?;
        let mut sets: [PeerSet; 5] = Default::default();
        for set in &mut sets {
            let count = from.try_get_u16_le().ok()?;
            let peers = (0..count).map(|_| from.try_get_u64_le().ok());
            // One configuration has one form: ascending, each once.
            *set = PeerSet::from_ascending(peers.collect::<Option<_>>()?)?;
        }
        let [voters, outgoing, learners, learners_next, witnesses] = sets;
        let conf = Conf { voters, outgoing, learners, learners_next, witnesses, auto_leave };
        from.is_empty().then_some(conf)
    }
}

impl Change {
    /// One step, without a joint configuration where it needs none.
    pub fn one(step: MemberChange) -> Change {
        Change::Steps { steps: vec![step], explicit: false }
    }

    /// The data of its entry: version u8 (1), explicit u8, then each step's kind u8 and id u64,
    /// little-endian. Without steps it says to leave.
    pub fn encode(&self) -> Bytes {
        let (steps, explicit) = match self {
            Change::Leave => (&[][..], false),
            Change::Steps { steps, explicit } => (&steps[..], *explicit),
        };
        let mut out = Vec::with_capacity(2 + 9 * steps.len());
        out.put_u8(1);
        out.put_u8(u8::from(explicit));
        for step in steps {
            let (kind, peer) = match *step {
                MemberChange::AddVoter(peer) => (1, peer),
                MemberChange::AddLearner(peer) => (2, peer),
                MemberChange::AddWitness(peer) => (3, peer),
                MemberChange::Remove(peer) => (4, peer),
            };
            out.put_u8(kind);
            out.put_u64_le(peer);
        }
        out.into()
    }

    /// From an entry's data; `None` when it is no change.
    pub fn decode(mut from: &[u8]) -> Option<Change> {
        if from.try_get_u8().ok()? != 1 {
            return None;
        }
        let explicit = take_flag(&mut from)?;
        let mut steps = Vec::new();
        while let Ok(kind) = from.try_get_u8() {
            let peer = from.try_get_u64_le().ok()?;
            steps.push(match kind {
                1 => MemberChange::AddVoter(peer),
                2 => MemberChange::AddLearner(peer),
                3 => MemberChange::AddWitness(peer),
                4 => MemberChange::Remove(peer),
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

fn take_flag(from: &mut &[u8]) -> Option<bool> {
    match from.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    const PEERS: PeerId = 6;

    fn step() -> impl Strategy<Value = MemberChange> {
        (0..4, 1..=PEERS).prop_map(|(kind, peer)| match kind {
            0 => MemberChange::AddVoter(peer),
            1 => MemberChange::AddLearner(peer),
            2 => MemberChange::AddWitness(peer),
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

    fn has(set: u64, peer: PeerId) -> bool {
        (set >> (peer - 1)) & 1 == 1
    }

    fn decides(conf: &Conf, set: u64) -> bool {
        conf.vote_result(|peer| has(set, peer).then_some(true)) == VoteResult::Won
    }

    proptest! {
        /// What keeps two leaders apart: whoever decides before a change and whoever decides after
        /// it have somebody in common, who votes in both.
        #[test]
        fn those_who_decide_before_and_after_a_change_overlap(
            voters in btree_set(1..=PEERS, 1..5),
            changes in vec(change(), 1..6),
        ) {
            let mut conf = Conf::of(voters);
            for change in changes {
                let Ok(next) = conf.apply(&change) else { continue };
                let before: Vec<u64> = sets().filter(|&set| decides(&conf, set)).collect();
                let after: Vec<u64> = sets().filter(|&set| decides(&next, set)).collect();
                prop_assert!(!after.is_empty(), "nobody decides in {:?}", next);
                for before in before {
                    let overlap = after.iter().all(|after| before & after != 0);
                    prop_assert!(overlap, "{:?} then {:?}", conf, next);
                }
                // Of each majority one has the commands, and nobody is two things.
                let witnesses = |peer| next.witnesses.contains(&peer).then_some(true);
                prop_assert!(next.vote_result(witnesses) != VoteResult::Won);
                prop_assert!(!next.learners.iter().any(|peer| next.is_voter(*peer)));
                prop_assert!(next.learners_next.iter().all(|p| next.outgoing.contains(p)));
                prop_assert_eq!(next.is_joint(), !next.outgoing.is_empty());
                conf = next;
            }
        }

        /// What decodes has the one form it is encoded in.
        #[test]
        fn a_configuration_has_one_form(sets in vec(vec(1..4u64, 0..3), 5)) {
            let mut bytes = vec![0];
            for set in &sets {
                bytes.put_u16_le(set.len() as u16);
                set.iter().for_each(|&peer| bytes.put_u64_le(peer));
            }
            let ascending = sets.iter().all(|set| set.is_sorted_by(|a, b| a < b));
            let conf = Conf::decode(&bytes);
            prop_assert_eq!(conf.is_some(), ascending);
            if let Some(conf) = conf {
                let mut again = Vec::new();
                conf.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }

        /// `reached` and `outcome` beside counting.
        #[test]
        fn majorities_are_counted(
            voters in btree_set(1..=PEERS, 1..6),
            outgoing in btree_set(1..=PEERS, 0..6),
            values in vec(0..9u64, PEERS as usize),
            said in 0..1u64 << PEERS,
            yes in 0..1u64 << PEERS,
        ) {
            let conf = Conf {
                voters: voters.into_iter().collect(),
                outgoing: outgoing.into_iter().collect(),
                ..Conf::default()
            };
            let value = |peer: PeerId| values[peer as usize - 1];
            let reached = conf.quorum_value(value);
            let at_least = |least: u64| {
                let have = |&set: &u64| (1..=PEERS).all(|p| has(set, p) == (value(p) >= least));
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
        fn bytes_come_back(change in change(), voters in btree_set(any::<u64>(), 0..5)) {
            prop_assert_eq!(Change::decode(&change.encode()), Some(change.clone()));
            let conf = Conf::of(voters);
            let conf = conf.apply(&change).unwrap_or(conf);
            let mut bytes = Vec::new();
            conf.encode(&mut bytes);
            prop_assert_eq!(Conf::decode(&bytes), Some(conf));
        }

        #[test]
        fn any_bytes_decode_or_not(bytes in vec(any::<u8>(), 0..60)) {
            if let Some(change) = Change::decode(&bytes) {
                prop_assert_eq!(&change.encode()[..], &bytes[..]);
            }
            let _ = Conf::decode(&bytes);
        }
    }
}
