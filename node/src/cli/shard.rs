//! `bedstone shard`.

use super::{http, say};
use crate::api::members::{ChangeLeader, ChangeMembers};
use crate::raft::PeerId;
use crate::status::{ShardStatus, Status};
use anyhow::{Context, Result, anyhow, bail};
use bedstone_engine::ShardId;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Between questions whether it is done.
const POLL: Duration = Duration::from_millis(50);
/// Until it is asked once more.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(clap::Subcommand)]
pub(super) enum ShardCommand {
    /// Show a shard's members, or change them: all that is asked is done together, or nothing.
    #[command(
        after_help = "Examples:\n  bedstone shard members\n  bedstone shard members --learner 4\n  \
                      bedstone shard members --voter 4 --remove 2"
    )]
    Members(MembersArgs),
    /// Have another node lead a shard.
    #[command(after_help = "Example:\n  bedstone shard lead --to 2")]
    Lead(LeadArgs),
}

#[derive(clap::Args)]
pub(super) struct MembersArgs {
    #[command(flatten)]
    of: Of,
    /// Nodes that are to vote.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    voter: Vec<PeerId>,
    /// Nodes that are to get the log and not vote.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    learner: Vec<PeerId>,
    /// Nodes that are to be no members any more.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    remove: Vec<PeerId>,
    /// Do it even where a majority of the voters could not go on at once.
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
pub(super) struct LeadArgs {
    #[command(flatten)]
    of: Of,
    /// The node that is to lead.
    #[arg(long, value_name = "NODE")]
    to: PeerId,
}

/// Which shard, and how to reach it.
#[derive(clap::Args)]
struct Of {
    /// The HTTP address of any node.
    #[arg(long, default_value = "127.0.0.1:7411", value_name = "ADDR")]
    http: String,
    /// The shard.
    #[arg(long, default_value_t = crate::router::FIRST_SHARD, value_name = "ID")]
    shard: ShardId,
    /// How many seconds it may take.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

/// What a shard's leader says of it.
#[derive(Serialize)]
struct Shown<'a> {
    shard: ShardId,
    leader: PeerId,
    voters: &'a [PeerId],
    learners: &'a [PeerId],
    witnesses: &'a [PeerId],
    changing: bool,
}

pub(super) fn run(command: &ShardCommand) -> Result<()> {
    match command {
        ShardCommand::Members(args) => members(args),
        ShardCommand::Lead(args) => lead(args),
    }
}

fn members(args: &MembersArgs) -> Result<()> {
    let MembersArgs { of, voter, learner, remove, force } = args;
    let (voters, learners) = (voter.clone(), learner.clone());
    let asked = ChangeMembers { voters, learners, remove: remove.clone(), force: *force };
    let deadline = of.begin()?;
    if asked.is_empty() {
        let (_, shard) = of.leader(deadline)?;
        return of.show(&shard);
    }
    let done = |shard: &ShardStatus| {
        let votes = |peer: &PeerId| shard.voters.contains(peer);
        let learns = |peer: &PeerId| shard.learners.contains(peer);
        let (mut joined, mut left) = (voter.iter(), remove.iter());
        !shard.changing
            && joined.all(votes)
            && learner.iter().all(learns)
            && !left.any(|peer| votes(peer) || learns(peer))
    };
    of.see_to(("members", &asked), deadline, "the change is not done", done)
}

fn lead(args: &LeadArgs) -> Result<()> {
    let deadline = args.of.begin()?;
    let (asked, why) = (ChangeLeader { to: args.to }, format!("node {} does not lead", args.to));
    args.of.see_to(("leader", &asked), deadline, &why, |shard| shard.leader == args.to)
}

impl Of {
    /// Until when it may take. A node that can say nothing of the shard is named at once.
    fn begin(&self) -> Result<Instant> {
        self.seen_at(&self.http)?;
        Ok(crate::clock::now() + Duration::from_secs(self.timeout))
    }

    /// The leader's HTTP address, and what it says of the shard; waits for one.
    fn leader(&self, deadline: Instant) -> Result<(String, Arc<ShardStatus>)> {
        let mut at = self.http.clone();
        loop {
            let found = self.seen_at(&at).and_then(|(status, shard)| {
                let leader = status.nodes.iter().find(|node| node.id == shard.leader);
                let leader = leader.with_context(|| match shard.leader {
                    0 => format!("node {} sees no leader of shard {}", status.node, shard.id),
                    leader => format!(
                        "node {leader} leads shard {}, and `members` of node {} does not name it: \
                         ask another node",
                        shard.id, status.node
                    ),
                })?;
                Ok((leader.http.clone(), status.node == leader.id, shard))
            });
            let why = match found {
                Ok((http, true, shard)) => return Ok((http, shard)),
                // The leader itself knows most.
                Ok((http, false, _)) => {
                    let why = anyhow!("the nodes do not agree on who leads: {at} names {http}");
                    at = http;
                    why
                }
                Err(error) => {
                    at.clone_from(&self.http);
                    error
                }
            };
            if crate::clock::now() >= deadline {
                return Err(why);
            }
            std::thread::sleep(POLL);
        }
    }

    fn seen_at(&self, http: &str) -> Result<(Status, Arc<ShardStatus>)> {
        let (code, body) = http::get(http, "/status", ANSWER_TIME)?;
        if code != 200 {
            bail!("http://{http}/status answers {code}: {}", body.trim());
        }
        let status: Status = serde_json::from_str(&body)
            .with_context(|| format!("http://{http} is no Bedstone node of this version"))?;
        let shard = status.shards.iter().find(|shard| shard.id == self.shard).cloned();
        let shard = shard.with_context(|| format!("http://{http} has no shard {}", self.shard))?;
        Ok((status, shard))
    }

    /// Asks until it is so. What a leader took may be lost with it, or given up.
    fn see_to(
        &self,
        (what, asked): (&str, &impl Serialize),
        deadline: Instant,
        why: &str,
        done: impl Fn(&ShardStatus) -> bool,
    ) -> Result<()> {
        let mut posted = None;
        loop {
            let (_, shard) = self.leader(deadline)?;
            if done(&shard) {
                return self.show(&shard);
            }
            let now = crate::clock::now();
            if posted.is_some() && now >= deadline {
                let seconds = self.timeout;
                bail!("{why} after {seconds} s; it may still be: look at `bedstone shard members`");
            }
            if posted.is_none_or(|at| now >= at + AGAIN && !shard.changing) {
                self.post(what, asked, deadline)?;
                posted = Some(crate::clock::now());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks the leader, whoever that comes to be.
    fn post(&self, what: &str, asked: &impl Serialize, deadline: Instant) -> Result<()> {
        loop {
            let (http, _) = self.leader(deadline)?;
            let path = format!("/shards/{}/{what}", self.shard);
            // To ask twice does no harm: what is so already stays so.
            let why = match http::post(&http, &path, asked, ANSWER_TIME) {
                Ok((202, _)) => return Ok(()),
                Ok((421 | 503, why)) => anyhow!("{}", why.trim()),
                Ok((_, why)) => bail!("{}", why.trim()),
                Err(error) => error,
            };
            if crate::clock::now() >= deadline {
                return Err(why);
            }
            std::thread::sleep(POLL);
        }
    }

    fn show(&self, shard: &ShardStatus) -> Result<()> {
        if self.json {
            let ShardStatus { id, leader, voters, learners, witnesses, changing, .. } = shard;
            let (shard, leader, changing) = (*id, *leader, *changing);
            let shown = Shown { shard, leader, voters, learners, witnesses, changing };
            say(serde_json::to_string(&shown)?);
        } else {
            say(format!(
                "shard {}: voters {}; node {} leads",
                shard.id,
                shard.members(),
                shard.leader
            ));
        }
        Ok(())
    }
}
