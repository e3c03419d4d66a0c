//! A node whose log holds entries that a later build wrote. The node applies none of them, keeps
//! everything, answers weak reads, and says which version is needed.

use bedstone_engine::disk::os::OsDisk;
use bedstone_engine::wal::{HardState, Record};
use bedstone_engine::{Engine, LogId, Options, ShardId};
use bedstone_node::raft::EntryKind;
use bedstone_tests::cluster::{binary, eventually, http_get, port_base};
use bytes::Bytes;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

const SHARD: ShardId = ShardId(1);
/// The version of the entry: a later build than any of these tests.
const VERSION: u16 = 4711;

/// A running node of its own cluster; killed when dropped.
struct Node {
    child: Child,
    base: u16,
}

impl Node {
    fn start(data: &Path, base: u16) -> Node {
        let at = |port| format!("127.0.0.1:{}", base + port);
        let child = Command::new(binary())
            .args(["start", "--resp", &at(0), "--http", &at(1), "--peer", &at(2), "--disk"])
            .arg(data)
            .env("BEDSTONE_LOG", "off")
            .spawn()
            .expect("bedstone start starts");
        Node { child, base }
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        http_get(&format!("127.0.0.1:{}", self.base + 1), path)
    }

    fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.base));
        client.expect("an address").get_connection().expect("the node accepts clients")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open(data: &Path) -> Engine {
    let disk = OsDisk::open(data).expect("the disk opens");
    let owner = "node 1 of cluster bedstone".to_owned();
    Engine::open(Arc::new(disk), Options { owner, ..Options::default() }).expect("opens")
}

/// Appends a committed entry, as a later build would have.
fn append(data: &Path, kind: EntryKind, content: &[u8]) -> LogId {
    let engine = open(data);
    let hard = engine.log().hard_state(SHARD);
    let (_, last) = engine.log().bounds(SHARD);
    let id = LogId { term: hard.term, index: last.index + 1 };
    let entry = Record::entries(SHARD, id, [(kind, Bytes::copy_from_slice(content))]);
    let state = HardState { commit: id.index, ..hard };
    let records = [entry.expect("a short entry"), Record::HardState { shard: SHARD, state }];
    engine.log().commit(&records).expect("the disk works");
    id
}

/// The node stops before the entry, and keeps it.
fn node_waits_for_an_upgrade(kind: EntryKind, content: &[u8], needs: u16) {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, base) = (dir.path().join("data"), port_base());
    let node = Node::start(&data, base);
    eventually("ready", || matches!(node.get("/readyz"), Some((200, _))).then_some(()));
    redis::cmd("SET").arg("a").arg(1).exec(&mut node.connection()).expect("is written");
    drop(node);
    let id = append(&data, kind, content);

    for life in 0..2 {
        let node = Node::start(&data, base);
        let text = eventually("the node names the version", || {
            let (code, text) = node.get("/readyz")?;
            (code == 503 && text.contains("upgrade this node")).then_some(text)
        });
        assert!(text.contains(&format!("version {needs}")), "{text}");
        let (_, status) = node.get("/status").expect("answers");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        let shard = &status["shards"][0];
        assert_eq!(shard["needs_version"], needs, "{shard}");
        assert_eq!(shard["applied"], id.index.0 - 1, "{shard}");
        assert_eq!(shard["damaged"], false, "{shard}");
        let mut connection = node.connection();
        let weak = redis::cmd("KV.GET").arg("a").arg("WEAK").query::<u64>(&mut connection);
        assert_eq!(weak.expect("a weak read"), 1);
        if life == 0 {
            let write = redis::cmd("SET").arg("a").arg(2).exec(&mut connection);
            let error = write.expect_err("not applied").to_string();
            assert!(error.contains("UNAVAILABLE"), "{error}");
        }
    }
    let checked = Command::new(binary()).arg("check").arg(&data).output().expect("runs");
    assert!(checked.status.success(), "a newer entry is not damage: {checked:?}");
    let engine = open(&data);
    let kept = engine.log().entries(SHARD, id.index, id.index + 1, 1).expect("sound");
    assert_eq!((&kept[0].data[..], kept[0].kind, kept[0].id), (content, kind, id));
}

#[test]
fn commands_of_a_newer_version_wait_for_an_upgrade() {
    let content = [&VERSION.to_le_bytes()[..], b"a form that no build of today knows"].concat();
    node_waits_for_an_upgrade(EntryKind::COMMANDS, &content, VERSION);
}

#[test]
fn a_newer_change_of_the_members_waits_for_an_upgrade() {
    node_waits_for_an_upgrade(EntryKind::CHANGE, &VERSION.to_le_bytes(), VERSION);
}

#[test]
fn an_entry_of_an_unknown_kind_waits_for_an_upgrade() {
    node_waits_for_an_upgrade(EntryKind(77), &VERSION.to_le_bytes(), VERSION);
    node_waits_for_an_upgrade(EntryKind(77), b"", bedstone_node::raft::ENTRY_VERSION + 1);
}
