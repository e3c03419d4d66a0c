//! The configuration of a node. A flag overrides the environment, which overrides the file, which
//! overrides the default.

use crate::limits::Limits;
use anyhow::{Context, Result, anyhow, bail};
use bedstone_engine::WriteMode;
use bedstone_net::NodeId;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Keys of the file. Each key is also a flag `--key-name` and a variable `BEDSTONE_KEY_NAME`.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Settings {
    /// Id of this node: 1 or more [default: 1]. Never reuse the id of a removed node.
    #[arg(long, env = "BEDSTONE_NODE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// Name of the cluster: 1 to 40 lower-case letters, digits and hyphens [default: bedstone].
    #[arg(long, env = "BEDSTONE_CLUSTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Data directory [default: bedstone-data]. This version accepts one directory.
    #[arg(long = "disk", env = "BEDSTONE_DISK", value_name = "DIR", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Vec<PathBuf>>,
    /// Address for clients (TCP, RESP) [default: 127.0.0.1:7410].
    #[arg(long, env = "BEDSTONE_RESP", value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resp: Option<SocketAddr>,
    /// Address for operators: status and metrics (TCP, HTTP) [default: 127.0.0.1:7411].
    #[arg(long, env = "BEDSTONE_HTTP", value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// Further host names under which operators reach the `http` address [default: none]. A request
    /// with another name in its `Host` header is refused, because a foreign page may have sent it.
    /// IP addresses, `localhost` and the names in `members` are always accepted.
    #[arg(long, env = "BEDSTONE_HTTP_HOSTS", value_name = "NAME", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_hosts: Option<Vec<String>>,
    /// Address for the other nodes (UDP, QUIC) [default: 127.0.0.1:7412].
    #[arg(long, env = "BEDSTONE_PEER", value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// Every node of the cluster, this node included, as `id=peer,resp,http` [default: this node
    /// alone]. Repeat the flag for each node; the variable separates nodes by spaces.
    #[arg(
        long = "member",
        env = "BEDSTONE_MEMBERS",
        value_name = "ID=ADDR,ADDR,ADDR",
        value_delimiter = ' '
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// File with the certificates to trust (PEM). Required with more than one member.
    #[arg(long, env = "BEDSTONE_CA", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// File with the certificate of this node (PEM). Required with more than one member.
    #[arg(long, env = "BEDSTONE_CERT", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// File with the private key of this node (PEM). Required with more than one member.
    #[arg(long, env = "BEDSTONE_KEY", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Write mode of the log: auto, direct, pwrite or mapped [default: auto].
    #[arg(long, env = "BEDSTONE_WRITE_MODE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_mode: Option<String>,
    /// Size of the block cache in MiB [default: 256].
    #[arg(long, env = "BEDSTONE_CACHE_MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_mib: Option<u64>,
    /// Size of a memtable in MiB, 1 to 4096 [default: 32].
    #[arg(long, env = "BEDSTONE_MEMTABLE_MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memtable_mib: Option<u64>,
    /// Size of a log segment in MiB, 16 to 1024 [default: 32]. The first start of a data directory
    /// fixes the size.
    #[arg(long, env = "BEDSTONE_SEGMENT_MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_mib: Option<u64>,
    /// Free disk space in MiB below which the node refuses writes with NOSPACE [default: 512].
    /// Deletes and compaction continue in this space.
    #[arg(long, env = "BEDSTONE_RESERVE_MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve_mib: Option<u64>,
    /// Most MiB of snapshots per second that this node sends to other nodes [default: 100].
    #[arg(long, env = "BEDSTONE_SNAPSHOT_MIB_PER_SECOND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_mib_per_second: Option<u64>,
    /// Accept FLUSHALL and FLUSHDB, which delete every key [default: false].
    #[arg(long, env = "BEDSTONE_ALLOW_FLUSH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_flush: Option<bool>,
    /// Leaders answer reads alone, by a lease. The value is the greatest difference in rate between
    /// the clocks of any two nodes, in millionths: 1 to 200000, the same on all nodes [default: no
    /// lease]. Without a lease, each read needs an answer of a majority.
    #[arg(long, env = "BEDSTONE_LEASE_DRIFT_PPM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_drift_ppm: Option<u32>,
    /// Followers answer reads themselves [default: false]. A follower queries the leader for the
    /// index that the read needs, instead of forwarding the read. The leader has less work, and
    /// long answers do not pass through the leader.
    #[arg(long, env = "BEDSTONE_FOLLOWER_READS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follower_reads: Option<bool>,
    /// The disk may lose synced data at a power loss [default: false]. After each boot of the
    /// machine, the node first queries all other nodes for its own votes and acknowledgements, and
    /// takes part only then.
    #[arg(long, env = "BEDSTONE_SUSPECT_DISK_AFTER_REBOOT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect_disk_after_reboot: Option<bool>,
    /// At its first start, this node is no member of a shard, and waits until `bedstone shard
    /// members` adds it [default: false]. Use it only for a node id that the cluster has never had,
    /// and remove the setting after the first start.
    #[arg(long, env = "BEDSTONE_JOIN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<bool>,
}

/// Range of `lease_drift_ppm`. A quartz clock drifts by about 100 ppm; above the upper bound, a
/// lease is too short to be useful.
const LEASE_DRIFT: std::ops::RangeInclusive<u32> = 1..=200_000;

/// Every key of the file. An error for an unknown key names the nearest of these keys.
const KEYS: [&str; 22] = [
    "node",
    "cluster",
    "disk",
    "resp",
    "http",
    "http_hosts",
    "peer",
    "members",
    "ca",
    "cert",
    "key",
    "write_mode",
    "cache_mib",
    "memtable_mib",
    "segment_mib",
    "reserve_mib",
    "snapshot_mib_per_second",
    "allow_flush",
    "lease_drift_ppm",
    "follower_reads",
    "suspect_disk_after_reboot",
    "join",
];

/// Keys of earlier versions, each with the key that replaced it.
const RENAMED: [(&str, &str); 2] =
    [("write_door", "write_mode"), ("disk_may_lie", "suspect_disk_after_reboot")];

impl Settings {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file is unreadable or malformed. For an unknown key, the error names the nearest known
    /// key.
    pub fn read(path: &Path) -> Result<Settings> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the config file {}", path.display()))?;
        let mut settings = Self::parse(&text).with_context(|| format!("in {}", path.display()))?;
        // A path in the file is relative to the directory of the file.
        let base = path.parent().unwrap_or(Path::new("."));
        let rebase = |path: &mut PathBuf| *path = base.join(&*path);
        settings.disk.iter_mut().flatten().for_each(rebase);
        for path in [&mut settings.ca, &mut settings.cert, &mut settings.key] {
            path.iter_mut().for_each(rebase);
        }
        Ok(settings)
    }

    fn parse(text: &str) -> Result<Settings> {
        let table: toml::Table = toml::from_str(text)?;
        for key in table.keys() {
            if KEYS.contains(&key.as_str()) {
                continue;
            }
            if let Some((old, new)) = RENAMED.iter().find(|(old, _)| old == key) {
                bail!("the key `{old}` is now called `{new}`: rename it");
            }
            let nearest = KEYS.iter().min_by_key(|known| strsim::damerau_levenshtein(known, key));
            bail!("unknown key `{key}`: did you mean `{}`?", nearest.unwrap_or(&"node"));
        }
        Ok(table.try_into()?)
    }

    /// Refuses environment variables of earlier versions, which no code would read.
    ///
    /// # Errors
    /// A variable of an earlier version is set. The error names the variable and its present name.
    pub fn refuse_renamed_variables(is_set: impl Fn(&str) -> bool) -> Result<()> {
        let variable = |key: &str| format!("BEDSTONE_{}", key.to_ascii_uppercase());
        for (old, new) in RENAMED.map(|(old, new)| (variable(old), variable(new))) {
            if is_set(&old) {
                bail!("the variable {old} is now called {new}: rename it");
            }
        }
        Ok(())
    }

    /// These settings. A setting that is absent here comes from `other`.
    pub fn or(self, other: Settings) -> Settings {
        Settings {
            node: self.node.or(other.node),
            cluster: self.cluster.or(other.cluster),
            disk: self.disk.or(other.disk),
            resp: self.resp.or(other.resp),
            http: self.http.or(other.http),
            http_hosts: self.http_hosts.or(other.http_hosts),
            peer: self.peer.or(other.peer),
            members: self.members.or(other.members),
            ca: self.ca.or(other.ca),
            cert: self.cert.or(other.cert),
            key: self.key.or(other.key),
            write_mode: self.write_mode.or(other.write_mode),
            cache_mib: self.cache_mib.or(other.cache_mib),
            memtable_mib: self.memtable_mib.or(other.memtable_mib),
            segment_mib: self.segment_mib.or(other.segment_mib),
            reserve_mib: self.reserve_mib.or(other.reserve_mib),
            snapshot_mib_per_second: self.snapshot_mib_per_second.or(other.snapshot_mib_per_second),
            allow_flush: self.allow_flush.or(other.allow_flush),
            lease_drift_ppm: self.lease_drift_ppm.or(other.lease_drift_ppm),
            follower_reads: self.follower_reads.or(other.follower_reads),
            suspect_disk_after_reboot: self
                .suspect_disk_after_reboot
                .or(other.suspect_disk_after_reboot),
            join: self.join.or(other.join),
        }
    }
}

/// A node of the cluster, as in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Id of the node.
    pub node: NodeId,
    /// Peer address, `host:port`.
    pub peer: String,
    /// Client address, `host:port`.
    pub resp: String,
    /// HTTP address, `host:port`.
    pub http: String,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={},{},{}", self.node, self.peer, self.resp, self.http)
    }
}

impl std::str::FromStr for Member {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Member> {
        let parse = || {
            let (node, addrs) = text.split_once('=')?;
            let mut addrs = addrs.split(',').map(str::trim);
            let member = Member {
                node: node.trim().parse().ok().filter(|&node| node > NodeId(0))?,
                peer: addrs.next()?.to_owned(),
                resp: addrs.next()?.to_owned(),
                http: addrs.next()?.to_owned(),
            };
            let sound = |addr: &String| {
                addr.rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            };
            let all = [&member.peer, &member.resp, &member.http].into_iter().all(sound);
            (addrs.next().is_none() && all).then_some(member)
        };
        parse().ok_or_else(|| {
            anyhow!(
                "member `{text}` is not of the form id=peer,resp,http, \
                 for example 1=10.0.0.1:7412,10.0.0.1:7410,10.0.0.1:7411"
            )
        })
    }
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Id of this node.
    pub node: NodeId,
    /// Name of the cluster.
    pub cluster: String,
    /// Data directory.
    pub disk: PathBuf,
    /// Client address.
    pub resp: SocketAddr,
    /// HTTP address.
    pub http: SocketAddr,
    /// Host names under which operators reach the HTTP address, besides those of the members.
    pub http_hosts: Vec<String>,
    /// Peer address.
    pub peer: SocketAddr,
    /// Every node of the cluster, this node included.
    pub members: Vec<Member>,
    /// Files with the trusted certificates, the certificate and the key of this node. Required with
    /// more than one member.
    pub tls: Option<[PathBuf; 3]>,
    /// Write mode of the log.
    pub write_mode: WriteMode,
    /// Size of the block cache in bytes.
    pub cache_bytes: u64,
    /// Size of a memtable in bytes.
    pub memtable_bytes: usize,
    /// Size of a log segment in bytes.
    pub segment_bytes: u64,
    /// Free disk space in bytes below which the node refuses writes.
    pub reserve_bytes: u64,
    /// Most bytes of snapshots that the node sends per second.
    pub snapshot_bytes_per_second: u64,
    /// Whether the node accepts FLUSHALL and FLUSHDB.
    pub allow_flush: bool,
    /// Greatest difference in rate between the clocks of two nodes, in millionths. `None` when
    /// leaders do not answer reads by lease.
    pub lease_drift_ppm: Option<u32>,
    /// Whether followers answer reads themselves.
    pub follower_reads: bool,
    /// Whether the disk may lose synced data at a power loss.
    pub suspect_disk_after_reboot: bool,
    /// Whether the node is no member of a shard at its first start.
    pub join: bool,
    /// Number of shards. The value is 1, and that shard has all keys. Only measurements of the cost
    /// of a shard set other values.
    pub shards: u64,
}

impl Settings {
    /// Fills in the defaults and checks that the settings are valid together.
    ///
    /// # Errors
    /// A setting is invalid. The error names the key and the valid values.
    pub fn check(self) -> Result<Config> {
        let node = NodeId(self.node.unwrap_or(1));
        if node == NodeId(0) {
            bail!("`node` is 0: ids begin at 1");
        }
        let cluster = self.cluster.unwrap_or_else(|| "bedstone".to_owned());
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if cluster.is_empty() || cluster.len() > 40 || !cluster.chars().all(label) {
            bail!("`cluster` is `{cluster}`: use 1 to 40 lower-case letters, digits and hyphens");
        }
        let disks = self.disk.unwrap_or_else(|| vec!["bedstone-data".into()]);
        let [disk] = <[PathBuf; 1]>::try_from(disks)
            .map_err(|disks| anyhow!("`disk` names {} directories: give one", disks.len()))?;
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let resp = self.resp.unwrap_or(local(7410));
        let http = self.http.unwrap_or(local(7411));
        let peer = self.peer.unwrap_or(local(7412));
        let members = self.members.unwrap_or_default();
        let mut members =
            members.iter().map(|text| text.parse()).collect::<Result<Vec<Member>>>()?;
        if members.is_empty() {
            let (peer, resp, http) = (peer.to_string(), resp.to_string(), http.to_string());
            members.push(Member { node, peer, resp, http });
        }
        members.sort_by_key(|member| member.node);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].node == pair[1].node) {
            bail!("`members` names node {} twice", pair[0].node);
        }
        if !members.iter().any(|member| member.node == node) {
            bail!("`members` does not name this node, {node}");
        }
        if self.join == Some(true) && members.len() == 1 {
            bail!("`join` needs others: name all nodes of the cluster in `members`");
        }
        let tls = match (self.ca, self.cert, self.key) {
            (Some(ca), Some(cert), Some(key)) => Some([ca, cert, key]),
            (None, None, None) if members.len() == 1 => None,
            _ => bail!("nodes authenticate each other by TLS: set `ca`, `cert` and `key`"),
        };
        let write_mode = self.write_mode.unwrap_or_else(|| "auto".to_owned());
        let write_mode = write_mode.parse().map_err(|why| anyhow!("`write_mode`: {why}"))?;
        let mib =
            |key: &str, value: Option<u64>, default: u64, range: std::ops::RangeInclusive<u64>| {
                let value = value.unwrap_or(default);
                if !range.contains(&value) {
                    bail!("`{key}` is {value}: give {} to {}", range.start(), range.end());
                }
                Ok(value << 20)
            };
        if let Some(drift) = self.lease_drift_ppm.filter(|drift| !LEASE_DRIFT.contains(drift)) {
            let (least, most) = (LEASE_DRIFT.start(), LEASE_DRIFT.end());
            bail!("`lease_drift_ppm` is {drift}: give {least} to {most}, or leave it out");
        }
        Ok(Config {
            node,
            cluster,
            disk,
            resp,
            http,
            http_hosts: self.http_hosts.unwrap_or_default(),
            peer,
            members,
            tls,
            write_mode,
            cache_bytes: mib("cache_mib", self.cache_mib, 256, 1..=1 << 20)?,
            memtable_bytes: mib("memtable_mib", self.memtable_mib, 32, 1..=4096)? as usize,
            segment_bytes: mib("segment_mib", self.segment_mib, 32, 16..=1024)?,
            reserve_bytes: mib("reserve_mib", self.reserve_mib, 512, 0..=1 << 30)?,
            snapshot_bytes_per_second: mib(
                "snapshot_mib_per_second",
                self.snapshot_mib_per_second,
                Limits::DEFAULT.snapshot_bytes_per_second >> 20,
                1..=1 << 20,
            )?,
            allow_flush: self.allow_flush.unwrap_or(false),
            lease_drift_ppm: self.lease_drift_ppm,
            follower_reads: self.follower_reads.unwrap_or(false),
            suspect_disk_after_reboot: self.suspect_disk_after_reboot.unwrap_or(false),
            join: self.join.unwrap_or(false),
            shards: 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = Settings::parse("clutser = 'x'").unwrap_err().to_string();
        assert!(error.contains("`clutser`") && error.contains("`cluster`"), "{error}");
    }

    #[test]
    fn a_renamed_key_is_refused_with_its_new_name() {
        for (old, new) in RENAMED {
            let error = Settings::parse(&format!("{old} = true")).unwrap_err().to_string();
            assert!(error.contains(old) && error.contains(new), "{error}");
            assert!(KEYS.contains(&new), "{new} is a key");
        }
        let is_set = |name: &str| name == "BEDSTONE_WRITE_DOOR";
        let error = Settings::refuse_renamed_variables(is_set).unwrap_err().to_string();
        assert!(error.contains("BEDSTONE_WRITE_MODE"), "{error}");
        assert!(Settings::refuse_renamed_variables(|_| false).is_ok());
    }

    #[test]
    fn every_setting_is_a_known_key() {
        let settings = toml::Table::try_from(Settings {
            node: Some(1),
            cluster: Some(String::new()),
            disk: Some(vec![]),
            resp: "1.1.1.1:1".parse().ok(),
            http: "1.1.1.1:1".parse().ok(),
            http_hosts: Some(vec![]),
            peer: "1.1.1.1:1".parse().ok(),
            members: Some(vec![]),
            ca: Some("".into()),
            cert: Some("".into()),
            key: Some("".into()),
            write_mode: Some(String::new()),
            cache_mib: Some(1),
            memtable_mib: Some(1),
            segment_mib: Some(1),
            reserve_mib: Some(1),
            snapshot_mib_per_second: Some(1),
            allow_flush: Some(true),
            lease_drift_ppm: Some(500),
            follower_reads: Some(true),
            suspect_disk_after_reboot: Some(true),
            join: Some(true),
        });
        let mut names: Vec<_> = settings.unwrap().keys().cloned().collect();
        let mut keys = KEYS.map(str::to_owned).to_vec();
        names.sort();
        keys.sort();
        assert_eq!(names, keys);
    }

    #[test]
    fn contradictory_settings_are_refused() {
        let check = |text: &str| Settings::parse(text).unwrap().check().unwrap_err().to_string();
        assert!(check("node = 0").contains("ids begin at 1"));
        assert!(check("cluster = 'A'").contains("lower-case"));
        assert!(check("members = ['2=a:1,b:2,c:3']").contains("does not name this node"));
        assert!(check("members = ['x']").contains("id=peer,resp,http"));
        assert!(check("join = true").contains("needs others"));
        assert!(check("write_mode = 'side'").contains("none of auto"));
        assert!(check("ca = 'x'").contains("`cert`"));
        assert!(check("segment_mib = 1").contains("16 to 1024"));
    }
}
