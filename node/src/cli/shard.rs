//! `bedstone shard`: shows and changes the members and the leader of a shard.

use super::http;
use super::output::print_line;
use crate::api::members::{ChangeLeader, ChangeMembers};
use crate::status::{ShardStatus, Status};
use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Time between two queries of the leader.
const POLL: Duration = Duration::from_millis(50);
/// Time until the request is sent again, when the change is not done.
const RESEND_TIME: Duration = Duration::from_secs(2);

#[derive(clap::Subcommand)]
pub(super) enum ShardCommand {
    /// Show the members of a shard, or change them. All changes of one command are made together,
    /// or none is made.
    #[command(
        after_help = "Examples:\n  bedstone shard members\n  bedstone shard members --learner 4\n  \
                      bedstone shard members --voter 4 --remove 2"
    )]
    Members(MembersArgs),
    /// Transfer the leadership of a shard to another node.
    #[command(after_help = "Example:\n  bedstone shard lead --to 2")]
    Lead(LeadArgs),
}

#[derive(clap::Args)]
pub(super) struct MembersArgs {
    #[command(flatten)]
    address: ShardAddress,
    /// Nodes that become voters, separated by commas.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    voter: Vec<u64>,
    /// Nodes that become learners, which receive the log and do not vote; separated by commas.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    learner: Vec<u64>,
    /// Nodes that stop being members, separated by commas.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    remove: Vec<u64>,
    /// Make the change even if the new voters that are up and current are no majority. The shard
    /// may then accept no writes until a majority has caught up.
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
pub(super) struct LeadArgs {
    #[command(flatten)]
    address: ShardAddress,
    /// The node that becomes the leader: a voter, and not a witness.
    #[arg(long, value_name = "NODE")]
    to: u64,
}

/// The shard, and a node through which the command reaches it.
#[derive(clap::Args)]
struct ShardAddress {
    /// HTTP address of any node of the cluster.
    #[arg(long, default_value = "127.0.0.1:7411", value_name = "ADDR")]
    http: String,
    /// Id of the shard.
    #[arg(long, default_value_t = crate::router::FIRST_SHARD.0, value_name = "ID")]
    shard: u64,
    /// Seconds that the command waits for a leader and for the change to be done.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
    /// Print the result as one JSON document.
    #[arg(long)]
    json: bool,
}

/// The state of a shard, as its leader reports it.
#[derive(Serialize)]
struct Shown<'a> {
    shard: u64,
    leader: u64,
    voters: &'a [u64],
    learners: &'a [u64],
    witnesses: &'a [u64],
    changing: bool,
}

pub(super) fn run(command: &ShardCommand) -> Result<()> {
    match command {
        ShardCommand::Members(args) => members(args),
        ShardCommand::Lead(args) => lead(args),
    }
}

fn members(args: &MembersArgs) -> Result<()> {
    let MembersArgs { address, voter, learner, remove, force } = args;
    let (voters, learners) = (voter.clone(), learner.clone());
    let asked = ChangeMembers { voters, learners, remove: remove.clone(), force: *force };
    let deadline = address.deadline()?;
    if asked.is_empty() {
        let (_, shard) = address.leader(deadline)?;
        return address.show(&shard);
    }
    let done = |shard: &ShardStatus| {
        let votes = |peer: &u64| shard.voters.contains(peer);
        let learns = |peer: &u64| shard.learners.contains(peer);
        let (mut joined, mut left) = (voter.iter(), remove.iter());
        !shard.changing
            && joined.all(votes)
            && learner.iter().all(learns)
            && !left.any(|peer| votes(peer) || learns(peer))
    };
    address.request_until_done(("members", &asked), deadline, "the change is not done", done)
}

fn lead(args: &LeadArgs) -> Result<()> {
    let deadline = args.address.deadline()?;
    let (asked, why) = (ChangeLeader { to: args.to }, format!("node {} does not lead", args.to));
    args.address
        .request_until_done(("leader", &asked), deadline, &why, |shard| shard.leader == args.to)
}

impl ShardAddress {
    /// Returns the deadline of the command. Fails at once when the node at `--http` does not report
    /// the shard.
    fn deadline(&self) -> Result<Instant> {
        self.status_from(&self.http)?;
        Ok(crate::clock::now() + Duration::from_secs(self.timeout))
    }

    /// The HTTP address of the leader, and the state of the shard that the leader reports. Waits
    /// until a leader is known.
    fn leader(&self, deadline: Instant) -> Result<(String, Arc<ShardStatus>)> {
        let mut at = self.http.clone();
        loop {
            let found = self.status_from(&at).and_then(|(status, shard)| {
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
                // The leader is queried next: its own report is the most current.
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

    fn status_from(&self, http: &str) -> Result<(Status, Arc<ShardStatus>)> {
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

    /// Sends the request until the change is done. The request is sent again because a change that
    /// a leader accepted is lost if the leader fails or gives the change up.
    fn request_until_done(
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
                bail!("{why} after {seconds} s; it may finish: look at `bedstone shard members`");
            }
            if posted.is_none_or(|at| now >= at + RESEND_TIME && !shard.changing) {
                self.post(what, asked, deadline)?;
                posted = Some(crate::clock::now());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends the request to the leader. When the leader changes, sends the request to the new
    /// leader.
    fn post(&self, what: &str, asked: &impl Serialize, deadline: Instant) -> Result<()> {
        loop {
            let (http, _) = self.leader(deadline)?;
            let path = format!("/shards/{}/{what}", self.shard);
            // A repeated request does no harm: a change that is already made has no effect.
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
            print_line(serde_json::to_string(&shown)?);
        } else {
            print_line(format!(
                "shard {}: voters {}; node {} leads",
                shard.id,
                shard.members(),
                shard.leader
            ));
        }
        Ok(())
    }
}
