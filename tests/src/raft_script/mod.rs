//! Scripts that drive Raft replicas by hand and read as transcripts. `tests/scripts/raft/README.md`
//! lists the commands. The effects of a command follow it.

mod text;

use crate::raft_trace::Trace;
use crate::raft_world::disk::{Disk, Job, Tree};
use bedstone_engine::wal::{Entry, EntryKind, HardState};
use bedstone_engine::{Index, LogId, Term};
use bedstone_node::raft::conf::MemberChange;
use bedstone_node::raft::{
    Body, Change, Conf, Config, Lease, Message, Raft, Read, ReplicaId, Role, Vote, Write,
};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use text::{body_name, body_text, conf_text, entry_text, place, role_name, vote_text};

/// The number of ticks within which a replica that may campaign does so.
const TICKS_MAX: usize = 100;
/// The number of rounds after which no message or write may be left.
const ROUNDS_MAX: usize = 200;

/// Runs a script. Lines that begin with `> ` are commands, and lines that begin with `#` are
/// comments. All other lines are the output of an earlier run and are ignored. Returns the script
/// with the output of this run.
///
/// # Panics
/// When a command is not valid. The message names the command.
pub fn transcript(script: &str) -> String {
    both(script).0
}

/// The [`Trace`] of a script's replicas.
pub fn trace(script: &str) -> String {
    both(script).1
}

fn both(script: &str) -> (String, String) {
    let config = Config { quiesce_after: None, ..Config::default() };
    let mut group = Group { config, ..Group::default() };
    let mut out = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let _ = writeln!(out, "{line}");
            group.command(command);
            out.push_str(&std::mem::take(&mut group.out));
        } else if line.is_empty() || line.starts_with('#') {
            let _ = writeln!(out, "{line}");
        }
    }
    (out, group.trace.lines)
}

struct Replica {
    raft: Raft,
    disk: Disk,
    /// A copy of the disk as it was.
    copy: Option<Disk>,
    tree: Tree,
    writing: VecDeque<Job>,
    /// The role as last printed, like `commit` and `quiescent`.
    role: Role,
    commit: Index,
    quiescent: bool,
    /// Committed entries are not applied for now.
    holds: bool,
}

/// A packet in flight.
#[derive(Clone)]
enum Packet {
    Raft(Message),
    Snapshot { term: Term, tree: Tree },
}

#[derive(Default)]
struct Group {
    config: Config,
    /// The members in the first disk of each replica.
    begins_with: BTreeMap<ReplicaId, Conf>,
    /// The disks of replicas that have not started yet.
    disks: BTreeMap<ReplicaId, Disk>,
    replicas: BTreeMap<ReplicaId, Replica>,
    /// Sender, receiver and packet, in the order of sending.
    network: VecDeque<(ReplicaId, ReplicaId, Packet)>,
    trace: Trace,
    out: String,
}

macro_rules! say {
    ($group:expr, $($text:tt)*) => {{
        let _ = writeln!($group.out, $($text)*);
    }};
}

impl Group {
    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((&verb, args)) = words.split_first() else { return };
        let number = |at: usize| args.get(at).and_then(|word| word.parse::<u64>().ok());
        let id = || number(0).map_or_else(|| panic!("`{line}` names no replica"), ReplicaId);
        match verb {
            "group" => return self.make(args),
            "config" => return self.configure(args),
            "log" => return self.fill_log(id(), &args[1..]),
            "hard" => return self.set_hard(id(), &args[1..]),
            _ => self.start(),
        }
        match verb {
            "start" => {}
            "tick" => (0..number(1).unwrap_or(1)).for_each(|_| self.tick(id())),
            "campaign" => self.campaign(id()),
            "elect" => self.elect(id()),
            "propose" => {
                let data = Bytes::from(args[1..].join(" "));
                let outcome = self.raft(id()).propose(data);
                self.refused(id(), outcome.err());
            }
            "change" => {
                let change = steps(&args[1..]);
                let outcome = self.raft(id()).change(&change);
                self.refused(id(), outcome.err());
            }
            "leave" => {
                let outcome = self.raft(id()).change(&Change::Leave);
                self.refused(id(), outcome.err());
            }
            "transfer" => {
                let to = number(1).unwrap_or_else(|| panic!("`{line}` names no successor"));
                let outcome = self.raft(id()).transfer(ReplicaId(to));
                self.refused(id(), outcome.err());
            }
            "read" => {
                let outcome = self.raft(id()).read();
                self.refused(id(), outcome.err());
            }
            "clock" => {
                let time = number(1).unwrap_or_else(|| panic!("`{line}` names no time"));
                self.raft(id()).set_time(time);
            }
            "lease" => {
                let time = number(1).unwrap_or_else(|| panic!("`{line}` names no time"));
                let holds = self.raft(id()).lease_holds(time);
                let held = if holds { "holds" } else { "does not hold" };
                say!(self, "{}'s lease {held} at {time}", id());
            }
            "persist" => self.persist(id(), number(1).unwrap_or(u64::MAX)),
            "hold" => self.replica(id()).holds = true,
            "apply" => self.replica(id()).holds = false,
            "compact" => self.compact(id()),
            "crash" => self.crash(id(), number(1).unwrap_or(0)),
            "lose" => {
                let first = self.begins_with.get(&id()).cloned().unwrap_or_default();
                let told: Vec<ReplicaId> = args[1..].iter().flat_map(|word| word.parse()).collect();
                let conf = if told.is_empty() { first } else { Conf::of(told) };
                self.replica(id()).disk.lose(conf);
                self.crash(id(), 0);
            }
            "suspect" => {
                self.replica(id()).disk.forget(Index(number(1).unwrap_or(u64::MAX)));
                self.replica(id()).disk.suspect();
                self.crash(id(), 0);
            }
            "damage" => {
                self.replica(id()).disk.damage();
                self.crash(id(), 0);
            }
            "copy" => {
                let replica = self.replica(id());
                replica.copy = Some(replica.disk.clone());
            }
            "restore" => {
                let replica = self.replica(id());
                let copy = replica.copy.clone();
                replica.disk = copy.unwrap_or_else(|| panic!("`{line}`: no copy was made"));
                self.crash(id(), 0);
            }
            "spoil" => self.raft(id()).damaged(),
            "unreachable" => {
                let peer = number(1).unwrap_or_else(|| panic!("`{line}` names no peer"));
                self.raft(id()).unreachable(ReplicaId(peer));
            }
            "reachable" => {
                let peer = number(1).unwrap_or_else(|| panic!("`{line}` names no peer"));
                self.raft(id()).reachable(ReplicaId(peer));
            }
            "silent" => {
                let peer = number(1).unwrap_or_else(|| panic!("`{line}` names no peer"));
                self.raft(id()).peer_silent(ReplicaId(peer));
            }
            "deliver" => self.deliver(args, true),
            "drop" => self.deliver(args, false),
            "run" => self.run(args),
            "step" => {
                let (to, message) = forged(args);
                self.raft(to).step(message);
            }
            "sent" => self.sent(),
            "status" => self.status(args),
            "show" => self.show_log(id()),
            "progress" => self.progress(id()),
            _ => panic!("`{line}` is not a command"),
        }
        self.gather();
    }

    fn replica(&mut self, id: ReplicaId) -> &mut Replica {
        self.replicas.get_mut(&id).unwrap_or_else(|| panic!("there is no replica {id}"))
    }

    fn raft(&mut self, id: ReplicaId) -> &mut Raft {
        &mut self.replica(id).raft
    }

    fn refused(&mut self, id: ReplicaId, why: Option<impl std::fmt::Debug>) {
        if let Some(why) = why {
            say!(self, "{id} refuses: {why:?}");
        }
    }

    // Commands before the start.

    fn make(&mut self, args: &[&str]) {
        let mut conf = Conf::default();
        let mut fresh = Vec::new();
        for word in args {
            let (set, ids) = word.split_once('=').unwrap_or(("voter", word));
            for id in ids.split(',').map(|id| id.parse().expect("a replica's number")) {
                match set {
                    "voter" => conf.voters.insert(id),
                    "outgoing" => conf.outgoing.insert(id),
                    "learner" => conf.learners.insert(id),
                    "witness" => {
                        conf.voters.insert(id);
                        conf.witnesses.insert(id);
                    }
                    "new" => fresh.push(id),
                    _ => panic!("`{word}` is not a kind of replica"),
                }
            }
        }
        for id in conf.members() {
            self.disks.insert(id, Disk::new(conf.clone()));
            self.begins_with.insert(id, conf.clone());
        }
        self.disks.extend(fresh.into_iter().map(|id| (id, Disk::new(Conf::default()))));
    }

    fn configure(&mut self, args: &[&str]) {
        for word in args {
            let (name, value) = word.split_once('=').expect("name=value");
            let value: usize = value.parse().expect("a number");
            match name {
                "append_bytes" => self.config.append_bytes_max = value,
                "inflight_bytes" => self.config.inflight_bytes_max = value,
                "inflight_appends" => self.config.inflight_appends_max = value,
                "lease" => self.config.lease = Some(Lease { length: value as u64 }),
                "quiesce" => self.config.quiesce_after = Some(value as u64),
                "uncommitted_bytes" => self.config.uncommitted_bytes_max = value,
                _ => panic!("`{name}` is not a setting"),
            }
        }
    }

    /// Gives a replica a log of entries with these terms, from index 1 on.
    fn fill_log(&mut self, id: ReplicaId, terms: &[&str]) {
        let entry = |(at, term): (usize, &&str)| {
            let id = LogId { term: term.parse().expect("a term"), index: Index(at as u64 + 1) };
            Entry {
                id,
                kind: EntryKind::COMMANDS,
                data: Bytes::from(format!("{}/{}", id.term, id.index)),
            }
        };
        let entries: Vec<Entry> = terms.iter().enumerate().map(entry).collect();
        let term = entries.last().map_or(Term(0), |entry| entry.id.term);
        let hard = HardState { term, ..HardState::default() };
        let disk = self.disks.get_mut(&id).expect("a replica of the group");
        disk.take(Job::Write(Write { seq: 0, hard, entries: entries.into() }));
    }

    fn set_hard(&mut self, id: ReplicaId, args: &[&str]) {
        let disk = self.disks.get_mut(&id).expect("a replica of the group");
        for word in args {
            let (name, value) = word.split_once('=').expect("name=value");
            let value: u64 = value.parse().expect("a number");
            match name {
                "term" => disk.hard.term = Term(value),
                "vote" => disk.hard.vote = Vote::For(ReplicaId(value)),
                "commit" => disk.hard.commit = Index(value),
                _ => panic!("`{name}` is not a field of the hard state"),
            }
        }
    }

    fn start(&mut self) {
        for (id, mut disk) in std::mem::take(&mut self.disks) {
            let raft = Raft::new(self.config.clone(), disk.boot(id, id.0));
            self.trace.starts(id, &raft);
            let (tree, writing) = (disk.tree.clone(), VecDeque::new());
            let (role, commit, quiescent, holds) = (Role::Follower, 0, false, false);
            let replica = Replica {
                raft,
                disk,
                copy: None,
                tree,
                writing,
                role,
                commit: Index(commit),
                quiescent,
                holds,
            };
            self.replicas.insert(id, replica);
        }
    }

    // Inputs.

    fn tick(&mut self, id: ReplicaId) {
        self.raft(id).tick();
        self.gather();
    }

    /// Ticks a replica until it requests votes or leads. Prints when the replica does not campaign.
    fn campaign(&mut self, id: ReplicaId) {
        let asked = self.network.len();
        for _ in 0..TICKS_MAX {
            self.tick(id);
            if self.network.len() > asked || self.raft(id).is_leader() {
                return;
            }
        }
        say!(self, "{id} does not campaign");
    }

    /// Makes a replica leader, and prints only the result.
    fn elect(&mut self, id: ReplicaId) {
        let before = std::mem::take(&mut self.out);
        self.campaign(id);
        self.run(&[]);
        self.out = before;
        let term = self.raft(id).term();
        assert!(self.raft(id).is_leader(), "{id} is not elected in term {term}");
        say!(self, "{id} is leader in term {term}");
    }

    fn persist(&mut self, id: ReplicaId, count: u64) {
        for _ in 0..count {
            let replica = self.replica(id);
            let Some(job) = replica.writing.pop_front() else { return };
            let seq = match &job {
                Job::Write(write) | Job::ResetAndWrite(_, write) => Some(write.seq),
                _ => None,
            };
            replica.disk.take(job);
            if let Some(seq) = seq {
                replica.raft.persisted(seq);
                self.gather();
            }
        }
    }

    fn compact(&mut self, id: ReplicaId) {
        let replica = self.replica(id);
        let upto = replica.tree.applied;
        replica.disk.tree = replica.tree.clone();
        replica.raft.compacted(upto);
        replica.writing.push_back(Job::Release(upto));
        say!(self, "{id} releases its log up to {}", place(upto));
    }

    /// Stops a replica after this many of its pending jobs have completed, and starts it again.
    fn crash(&mut self, id: ReplicaId, kept: u64) {
        let config = self.config.clone();
        let replica = self.replica(id);
        for job in replica.writing.drain(..).take(kept as usize) {
            replica.disk.take(job);
        }
        replica.writing.clear();
        replica.raft = Raft::new(config, replica.disk.boot(id, id.0));
        replica.tree = replica.disk.tree.clone();
        replica.role = Role::Follower;
        replica.commit = replica.tree.applied.index;
        self.trace.starts(id, &self.replicas[&id].raft);
        self.network.retain(|(from, to, _)| *from != id && *to != id);
        say!(self, "{id} starts again");
    }

    /// Delivers or drops the packets that are in flight now and match all words. A word is `1>2`,
    /// `1>`, `>2`, or the name of a message.
    fn deliver(&mut self, words: &[&str], delivers: bool) {
        let fits = |(from, to, packet): &(ReplicaId, ReplicaId, Packet)| {
            words.iter().all(|word| match word.split_once('>') {
                Some((sender, receiver)) => {
                    let is = |word: &str, id: &ReplicaId| word.is_empty() || word == id.to_string();
                    is(sender, from) && is(receiver, to)
                }
                None => name(packet) == *word,
            })
        };
        let (now, later): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.network).into_iter().partition(fits);
        self.network = later;
        for (from, to, packet) in now {
            let sign = if delivers { "->" } else { "-x" };
            say!(self, "{from} {sign} {to} {}", text(&packet));
            if delivers && self.replicas.contains_key(&to) {
                self.receive(from, to, packet);
                self.gather();
            }
        }
    }

    fn receive(&mut self, from: ReplicaId, to: ReplicaId, packet: Packet) {
        match packet {
            Packet::Raft(message) => {
                let message = Message { peer: from, ..message };
                self.trace.receives(to, &self.replicas[&to].raft, &message);
                self.raft(to).step(message);
            }
            Packet::Snapshot { term, tree } => {
                let replica = self.replica(to);
                let of_leader = term == replica.raft.term() && replica.raft.leader() == Some(from);
                let at = tree.applied;
                let (applied, damaged) = (replica.tree.applied.index, replica.raft.is_damaged());
                let wanted = of_leader && (at.index > applied || damaged && at.index == applied);
                if wanted {
                    replica.tree = tree.clone();
                    replica.disk.tree = tree.clone();
                    let reset = replica.raft.snapshot_installed(from, term, at, tree.conf);
                    replica.writing.push_back(if reset {
                        Job::Reset(at)
                    } else {
                        Job::Release(at)
                    });
                    replica.commit = at.index;
                    say!(
                        self,
                        "{to} installs it{}",
                        if reset { " and resets its log" } else { "" }
                    );
                } else {
                    say!(self, "{to} does not want it");
                }
                self.raft(from).snapshot_sent(to, wanted.then_some(at.index));
            }
        }
    }

    /// Completes all writes and delivers all packets, except on links that are named as `1x2`,
    /// until no write and no packet is left.
    fn run(&mut self, words: &[&str]) {
        let cut: Vec<(ReplicaId, ReplicaId)> = words
            .iter()
            .map(|word| {
                let (from, to) = word.split_once('x').expect("a cut link, as 1x2");
                (from.parse().expect("a replica"), to.parse().expect("a replica"))
            })
            .collect();
        for _ in 0..ROUNDS_MAX {
            let ids: Vec<ReplicaId> = self.replicas.keys().copied().collect();
            ids.iter().for_each(|&id| self.persist(id, u64::MAX));
            self.network.retain(|(from, to, _)| {
                !cut.contains(&(*from, *to)) && !cut.contains(&(*to, *from))
            });
            if self.network.is_empty() && self.replicas.values().all(|r| r.writing.is_empty()) {
                return;
            }
            self.deliver(&[], true);
        }
        panic!("messages or writes are left after {ROUNDS_MAX} rounds");
    }

    // Effects.

    fn gather(&mut self) {
        let ids: Vec<ReplicaId> = self.replicas.keys().copied().collect();
        ids.into_iter().for_each(|id| self.effects(id));
    }

    fn effects(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        self.trace.looks(id, &replica.raft);
        let effects = replica.raft.effects(&replica.disk);
        self.trace.looks(id, &replica.raft);
        if effects.write.is_some() {
            self.trace.ready(id, &replica.raft);
        }
        effects.send.iter().for_each(|message| self.trace.sends(id, &replica.raft, message));
        let status = replica.raft.status();
        let role = std::mem::replace(&mut replica.role, status.role);
        if role != status.role {
            say!(self, "{id} is {} in term {}", role_name(status.role), status.term);
        }
        let quiescent = replica.raft.is_quiescent();
        if std::mem::replace(&mut replica.quiescent, quiescent) != quiescent {
            say!(self, "{id} {}", if quiescent { "quiesces" } else { "is active" });
        }
        if effects.reset_log {
            say!(self, "{id} resets its log");
        }
        if let Some(write) = effects.write {
            let entries: Vec<String> = write.entries.iter().map(entry_text).collect();
            let vote = vote_text(write.hard.vote);
            let (term, commit) = (write.hard.term, write.hard.commit);
            let entries = entries.join(" ");
            let gap = if entries.is_empty() { "" } else { ", " };
            let seq = write.seq;
            say!(self, "{id} writes #{seq}: term {term} vote {vote} commit {commit}{gap}{entries}");
            let at = self.replica(id).tree.applied;
            self.replica(id).writing.push_back(if effects.reset_log {
                Job::ResetAndWrite(at, write)
            } else {
                Job::Write(write)
            });
        }
        for message in effects.send {
            self.network.push_back((id, message.peer, Packet::Raft(message)));
        }
        for (token, read) in effects.reads {
            match read {
                Read::At(index) => say!(self, "{id} may serve read {token} at {index}"),
                Read::ByLease(index) => {
                    say!(self, "{id} may serve read {token} at {index} by its lease");
                }
                Read::Failed => say!(self, "{id} cannot serve read {token}"),
            }
        }
        if let Some(lost) = effects.lost {
            say!(self, "{id} lost {}, which it had acknowledged", place(lost));
        }
        if let Some(peer) = effects.committed_conflict {
            say!(self, "{id} finds a committed conflict with {peer}");
        }
        for to in effects.snapshots {
            let replica = self.replica(id);
            let packet = Packet::Snapshot { term: replica.raft.term(), tree: replica.tree.clone() };
            self.network.push_back((id, to, packet));
        }
        self.apply(id, effects.commit);
    }

    fn apply(&mut self, id: ReplicaId, commit: Index) {
        let replica = self.replica(id);
        if replica.holds || replica.raft.is_damaged() {
            return;
        }
        while replica.tree.applied.index < commit {
            let first = replica.tree.applied.index + 1;
            let entries = replica.raft.entries(first, usize::MAX, &replica.disk);
            assert!(!entries.is_empty(), "committed entry {first} is in the log");
            for entry in entries.iter().take_while(|entry| entry.id.index <= commit) {
                replica.tree.applied = entry.id;
                if entry.kind == EntryKind::CHANGE {
                    replica.tree.conf.apply_entry_data(&entry.data);
                }
            }
        }
        replica.raft.applied(replica.tree.applied.index);
        if commit > replica.commit {
            replica.commit = commit;
            say!(self, "{id} applies up to {commit}");
        }
    }

    // Queries.

    fn sent(&mut self) {
        for (from, to, packet) in self.network.clone() {
            say!(self, "{from} .. {to} {}", text(&packet));
        }
    }

    fn status(&mut self, args: &[&str]) {
        let wanted = |id: &ReplicaId| args.is_empty() || args.contains(&&*id.to_string());
        let mut lines = String::new();
        for (id, replica) in self.replicas.iter().filter(|(id, _)| wanted(id)) {
            let status = replica.raft.status();
            let vote = vote_text(replica.disk.hard.vote);
            let leader = status.leader.map_or("nobody".to_owned(), |leader| leader.to_string());
            let wait = replica.raft.recovery_wait().map(|wait| format!(", waits: {wait:?}"));
            let handing = status.transferring.map(|to| format!(", hands over to {to}"));
            let _ = writeln!(
                lines,
                "{id}: {} term {} leader {leader} vote {vote} commit {} last {} durable {}, {}{}{}",
                role_name(status.role),
                status.term,
                status.commit,
                place(status.last),
                status.persisted,
                conf_text(&status.conf),
                handing.unwrap_or_default(),
                wait.unwrap_or_default()
            );
        }
        self.out.push_str(&lines);
    }

    fn show_log(&mut self, id: ReplicaId) {
        let replica = self.replica(id);
        let status = replica.raft.status();
        let base = replica.raft.base().index;
        let (mut entries, mut at) = (Vec::new(), base);
        while at < status.last.index {
            entries.extend_from_slice(&replica.raft.entries(at + 1, usize::MAX, &replica.disk));
            at = entries.last().map_or(status.last.index, |entry: &Entry| entry.id.index);
        }
        let entries: Vec<String> = entries.iter().map(entry_text).collect();
        say!(self, "{id}: after {base}: {}", entries.join(" "));
    }

    fn progress(&mut self, id: ReplicaId) {
        let mut lines = String::new();
        for progress in self.raft(id).progress() {
            let (mode, matched, next) = (progress.mode(), progress.matched(), progress.next());
            let peer = progress.peer();
            let _ = writeln!(lines, "{id} of {peer}: {mode:?} matched {matched} next {next}");
        }
        self.out.push_str(&lines);
    }
}

/// Builds a message that no replica sent: `<to> <from> <name> <term>`, and fields as name=value.
fn forged(args: &[&str]) -> (ReplicaId, Message) {
    let [to, from, name, term, fields @ ..] = args else {
        panic!("step <to> <from> <name> <term>")
    };
    let number =
        |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("`{text}` is not a number"));
    let field = |name: &str| {
        let value = fields.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or("0")
    };
    let id = |text: &str| {
        let (term, index) = text.split_once('/').unwrap_or(("0", text));
        LogId { term: Term(number(term)), index: Index(number(index)) }
    };
    let entry = |text: &str| Entry {
        id: id(text),
        kind: EntryKind::COMMANDS,
        data: Bytes::from(text.to_owned()),
    };
    let granted = field("granted") == "yes";
    let committed = id(field("committed"));
    let body = match *name {
        "pre-vote" => Body::PreVote { last: id(field("last")) },
        "pre-vote-reply" => Body::PreVoteReply { granted, committed },
        "vote" => Body::Vote { last: id(field("last")), leader_transfer: false },
        "vote-reply" => Body::VoteReply { granted, committed },
        "append" => Body::Append {
            previous: id(field("after")),
            entries: field("entries").split(',').filter(|text| *text != "0").map(entry).collect(),
            commit: Index(number(field("commit"))),
        },
        "append-reply" => Body::AppendReply { matched: Index(number(field("matched"))) },
        "append-refused" => Body::AppendRefused {
            hint: id(field("hint")),
            refused: Index(number(field("refused"))),
        },
        "heartbeat" => Body::Heartbeat {
            committed,
            round: number(field("round")),
            acknowledged: id(field("acknowledged")),
        },
        "heartbeat-reply" => Body::HeartbeatReply { round: number(field("round")) },
        "timeout-now" => Body::TimeoutNow,
        _ => panic!("`{name}` is not a message"),
    };
    (
        ReplicaId(number(to)),
        Message { peer: ReplicaId(number(from)), term: Term(number(term)), body },
    )
}

fn steps(words: &[&str]) -> Change {
    let explicit = words.last() == Some(&"explicit");
    let words = &words[..words.len() - usize::from(explicit)];
    let step = |word: &&str| {
        let (sign, id) = word.split_at(1);
        let id: ReplicaId = id.parse().expect("a replica's number");
        match sign {
            "+" => MemberChange::AddVoter(id.into()),
            "~" => MemberChange::AddLearner(id.into()),
            "w" => MemberChange::AddWitness(id.into()),
            "-" => MemberChange::Remove(id),
            _ => panic!("`{word}`: +1 adds a voter, ~1 a learner, w1 a witness, -1 removes"),
        }
    };
    Change::Steps { steps: words.iter().map(step).collect(), explicit }
}

fn name(packet: &Packet) -> &'static str {
    match packet {
        Packet::Snapshot { .. } => "snapshot",
        Packet::Raft(message) => body_name(&message.body),
    }
}

fn text(packet: &Packet) -> String {
    let message = match packet {
        Packet::Snapshot { term, tree } => {
            let (at, conf) = (place(tree.applied), conf_text(&tree.conf));
            return format!("snapshot term {term} at {at}, {conf}");
        }
        Packet::Raft(message) => message,
    };
    let said = body_text(&message.body);
    format!("{} term {} {said}", name(packet), message.term).trim_end().to_owned()
}
