//! Our Raft core compared with the crates `raft` and `noraft`, under equal schedules and requests.
//! `bedstone_tests::raft_differential` describes the method and lists the known differences.

use bedstone_tests::raft_differential::cluster::{Cluster, Outcome, Replica, Schedule, Timing};
use bedstone_tests::raft_differential::noraft::Noraft;
use bedstone_tests::raft_differential::ours::Ours;
use bedstone_tests::raft_differential::raft_rs::RaftRs;
use bedstone_tests::raft_differential::single::{self, Answer, Question, Reply, State};
use bedstone_tests::rng::Rng;
use bedstone_tests::seeds;
use std::collections::BTreeMap;

/// A replica replies as the paper states, and as the other implementations do.
#[test]
fn our_replica_replies_like_other_implementations() {
    let mut replies: BTreeMap<String, u64> = BTreeMap::new();
    let mut asked_noraft = 0;
    for seed in seeds(200_000) {
        let (state, question) = single::case(seed);
        let ours = single::ours(&state, &question);
        let agrees = |name: &str, theirs: Answer, ours: &Answer| {
            assert_eq!(*ours, theirs, "ours and {name}, seed {seed}: {state:?}, {question:?}");
        };
        agrees_with_figure_two(&state, &question, &ours, agrees);
        agrees_with_raft_rs(&state, &question, &ours, agrees);
        if let Some(theirs) = single::noraft(&state, &question) {
            asked_noraft += 1;
            agrees_with_noraft(&state, &question, &ours, theirs, agrees);
        }
        let reply = match ours.reply {
            Reply::Accepted(_) => "accepted".to_owned(),
            reply => format!("{reply:?}"),
        };
        *replies.entry(reply).or_default() += 1;
    }
    eprintln!("replies: {replies:?}, noraft was compared {asked_noraft} times");
    assert!(asked_noraft > 0 && replies.len() == 6, "a kind of reply did not occur: {replies:?}");
}

fn agrees_with_figure_two(
    state: &State,
    question: &Question,
    ours: &Answer,
    agrees: impl Fn(&str, Answer, &Answer),
) {
    // Figure 2 has no released logs: `below-commit`.
    if !matches!(question, Question::Append { previous, .. } if previous.1 < state.base) {
        // Figure 2 has no hints.
        let hint = ours.hint;
        agrees("figure 2", Answer { hint, ..single::figure_two(state, question) }, ours);
    }
}

fn agrees_with_raft_rs(
    state: &State,
    question: &Question,
    ours: &Answer,
    agrees: impl Fn(&str, Answer, &Answer),
) {
    let mut theirs = single::raft_rs(state, question);
    match question {
        // `repeated-vote`
        Question::Vote { from, term, .. } => {
            let voted_for = *term == state.term && state.vote == Some(*from);
            if state.hears_leader && voted_for {
                return;
            }
        }
        // `pre-vote-in-term`
        Question::PreVote { term, .. } if *term == state.term => return,
        // `no-answer`
        Question::PreVote { .. } => theirs.answer_term = theirs.answer_term.or(ours.answer_term),
        // `below-commit`
        Question::Append { previous, .. }
            if state.base <= previous.1 && previous.1 < state.commit =>
        {
            let accepted = |answer: &Answer| matches!(answer.reply, Reply::Accepted(_));
            assert_eq!(accepted(ours), accepted(&theirs), "{state:?}, {question:?}");
            assert_eq!((ours.term, ours.vote), (theirs.term, theirs.vote));
            return;
        }
        _ => {}
    }
    agrees("raft-rs", theirs, ours);
}

fn agrees_with_noraft(
    state: &State,
    question: &Question,
    ours: &Answer,
    theirs: Answer,
    agrees: impl Fn(&str, Answer, &Answer),
) {
    let mut ours = ours.clone();
    let mut theirs = Answer { hint: ours.hint, ..theirs };
    ours.log.drain(..(state.commit - state.base) as usize);
    if let Question::Append { previous, entries, .. } = question {
        // `vote-for-leader`
        theirs.vote = ours.vote;
        let end = previous.1 + entries.len() as u64;
        if matches!(ours.reply, Reply::Accepted(_)) && end < state.terms.len() as u64 {
            // `whole-log`: unless the append replaced later entries, noraft already had all its
            // entries.
            let had_all = ours.log.len() as u64 + state.commit == state.terms.len() as u64;
            theirs.commit = if had_all { ours.commit } else { theirs.commit };
        }
        if ours.reply == Reply::Refused {
            // `early-truncation`
            theirs.log = ours.log.clone();
        }
    }
    agrees("noraft", theirs, &ours);
}

/// A leader commits the same entries as the others, whichever acknowledgements arrive.
#[test]
fn our_leader_commits_the_same_entries_as_other_implementations() {
    let mut commits = 0;
    for seed in seeds(10_000) {
        let (nodes, state, events) = single::leadership(seed);
        let ours = single::our_commits(nodes, &state, &events);
        let what = format!("seed {seed}: {nodes} nodes, {state:?}, {events:?}");
        assert_eq!(ours, single::raft_rs_commits(nodes, &state, &events), "raft-rs, {what}");
        assert_eq!(ours, single::noraft_commits(nodes, &state, &events), "noraft, {what}");
        commits += ours.last().map_or(0, |last| last - state.commit);
    }
    eprintln!("leaders committed {commits} entries");
    assert!(commits > 0);
}

/// Without faults and with one leader, all implementations have equal commits after every step.
#[test]
fn all_implementations_commit_the_same_after_every_step_without_faults() {
    for seed in seeds(300) {
        let ours = steady::<Ours>(seed);
        assert_eq!(ours, steady::<RaftRs>(seed), "ours and raft-rs, seed {seed}");
        assert_eq!(ours, steady::<Noraft>(seed), "ours and noraft, seed {seed}");
    }
}

/// The commit index and the payloads of nodes after each step.
type Seen = Vec<Vec<(u64, Vec<u64>)>>;

/// Node 1 leads and proposes; messages of some other nodes wait for a while. Node 1 is compared
/// after every step. A node that is not held is compared after heartbeats, because only then it
/// must know the commit index.
fn steady<R: Replica>(seed: u64) -> Seen {
    let timing = Timing { election: 1000, heartbeat: 2 };
    let mut rng = Rng::new(seed);
    let nodes = 3 + 2 * rng.below(2);
    let mut cluster = Cluster::<R>::new(nodes, timing, seed);
    cluster.elect_first();
    let (mut payload, mut seen, mut held) = (0, Seen::new(), 0);
    for _ in 0..40 {
        let mut shown = vec![1];
        match rng.below(4) {
            0 | 1 => {
                for _ in 0..=rng.below(3) {
                    payload += 1;
                    cluster.propose_first(payload);
                }
            }
            2 => {
                let id = 2 + rng.below(nodes - 1);
                held ^= 1 << id;
                cluster.hold(id, (held >> id) & 1 == 1);
            }
            _ => {
                cluster.settle();
                cluster.beat(timing);
                shown.extend((2..=nodes).filter(|id| (held >> id) & 1 == 0));
            }
        }
        cluster.settle();
        seen.push(shown.into_iter().map(|id| cluster.seen(id)).collect());
    }
    let (commit, applied) = cluster.seen(1);
    assert!(commit >= 1 && applied.is_sorted(), "{}: in the order of proposals", R::NAME);
    seen
}

/// All implementations run one schedule of proposals and faults. Once the cluster is healed and
/// missing payloads are proposed again, every payload is committed, in one order on every node.
#[test]
fn all_implementations_commit_the_same_payloads_in_the_end() {
    let mut sums: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for seed in seeds(600) {
        let schedule = Schedule::new(seed);
        let mut ends = Vec::new();
        let mut run = |name, run: fn(&Schedule, u64) -> Outcome| {
            let Ok(outcome) = std::panic::catch_unwind(|| run(&schedule, seed)) else {
                panic!("{name}, BEDSTONE_CRASH_FROM={seed} BEDSTONE_CRASH_SEEDS=1: see above");
            };
            let (faulty, terms) = sums.entry(name).or_default();
            *faulty += outcome.committed_in_faults;
            *terms += outcome.terms;
            ends.push(outcome.committed);
        };
        run(Ours::NAME, Cluster::<Ours>::run);
        run(RaftRs::NAME, Cluster::<RaftRs>::run);
        run(Noraft::NAME, Cluster::<Noraft>::run);
        assert!(ends.iter().all(|end| *end == ends[0]), "seed {seed}: {ends:?}");
        assert_eq!(ends[0].len(), schedule.payloads.len(), "all is committed in the end");
    }
    eprintln!("committed before healing, and terms with a leader: {sums:?}");
    assert!(sums.values().all(|(faulty, _)| *faulty > 0), "no payload was committed during faults");
}
