//! The command line from the user's side: an error message names the fault and the next step, and
//! the exit status is 1 for a failure and 2 for a wrong command line or configuration.

#![expect(clippy::disallowed_methods, reason = "tests wait by the clock")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_bedstone");

fn bedstone(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().expect("bedstone runs")
}

/// Runs `start` until the process ends by itself. Returns the exit status and the text of standard
/// error.
fn start_fails(args: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(BINARY)
        .arg("start")
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .expect("bedstone runs");
    let begun = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begun.elapsed() > Duration::from_secs(60) {
            let _ = child.kill();
            panic!("`start` still runs after 60 s, but must fail: {args:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut text = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
    (child.wait().expect("ended").code(), text)
}

/// Three free addresses on loopback.
fn ports() -> [String; 3] {
    let listeners: [TcpListener; 3] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").to_string())
}

fn node_args<'a>(disk: &'a str, ports: &'a [String; 3]) -> Vec<&'a str> {
    let [resp, http, peer] = ports;
    vec!["--disk", disk, "--resp", resp, "--http", http, "--peer", peer, "--segment-mib", "16"]
}

/// A node that runs until it is dropped.
struct Running(Child);

impl Running {
    fn start(args: &[&str], http: &str) -> Running {
        let child = Command::new(BINARY)
            .arg("start")
            .args(args)
            .stderr(Stdio::null())
            .spawn()
            .expect("bedstone runs");
        let running = Running(child);
        let begun = Instant::now();
        let ready = || {
            let status = bedstone(&["status", "--json", "--http", http]).stdout;
            let status: serde_json::Value = serde_json::from_slice(&status).unwrap_or_default();
            status["ready"] == true
        };
        while !ready() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the node starts");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn exit_status_of_help_version_and_wrong_usage() {
    assert_eq!(bedstone(&["--version"]).status.code(), Some(0));
    let plain = ["start", "dev", "status", "bench", "check", "simulate", "log", "shard"];
    for command in plain.into_iter().chain(["log dump", "shard members", "shard lead"]) {
        let words: Vec<&str> = ["help"].into_iter().chain(command.split(' ')).collect();
        let help = bedstone(&words);
        assert_eq!(help.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&help.stdout).contains("Example"), "{command}");
    }
    assert_eq!(bedstone(&["strat"]).status.code(), Some(2));
    assert_eq!(bedstone(&["bench", "--duration", "soon"]).status.code(), Some(2));
    assert_eq!(bedstone(&["status", "--http", "127.0.0.1:1"]).status.code(), Some(1));
}

#[test]
fn a_scenario_has_its_own_faults_and_no_others() {
    let run = bedstone(&["simulate", "--scenario", "power", "--seed", "5", "--seeds", "6"]);
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_eq!(run.status.code(), Some(0), "{said}");
    let (_, rows) = said.split_once("faults by row: ").expect("the faults by row");
    let rows: Vec<&str> = rows.trim_end().split(' ').step_by(2).collect();
    assert!(!rows.is_empty() && rows.iter().all(|row| ["5:", "6:", "26:"].contains(row)), "{said}");
    let wrong = bedstone(&["simulate", "--scenario", "wind"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(2) && said.contains("[possible values: calm, "), "{said}");
}

#[test]
fn invalid_member_changes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ports = ports();
    let _node = Running::start(&node_args(path(dir.path()), &ports), &ports[1]);
    let shard = |args: &[&str]| {
        let output =
            bedstone(&[&["shard"], args, &["--http", &ports[1], "--timeout", "5"]].concat());
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), text.concat())
    };
    let said = |code, text: &str| (Some(code), format!("{text}\n"));
    let alone = "shard 1: voters 1; node 1 leads";
    assert_eq!(shard(&["members"]), said(0, alone));
    assert_eq!(shard(&["members", "--voter", "1"]), said(0, alone), "node 1 is a voter already");
    assert_eq!(shard(&["lead", "--to", "1"]), said(0, alone));
    let none = "bedstone: no voter would be left";
    assert_eq!(shard(&["members", "--remove", "1"]), said(1, none));
    let unknown = "bedstone: node 9 is none of this cluster: its configuration names [1]";
    assert_eq!(shard(&["members", "--learner", "9"]), said(1, unknown));
    let cannot = "bedstone: node 7 cannot lead: it is no voter, or a witness";
    assert_eq!(shard(&["lead", "--to", "7"]), said(1, cannot));
    let missing = format!("bedstone: http://{} has no shard 2", ports[1]);
    assert_eq!(shard(&["members", "--shard", "2"]), said(1, &missing));
    assert_eq!(shard(&["members", "--voter", "x"]).0, Some(2));
    assert_eq!(shard(&["lead"]).0, Some(2));
    assert_eq!(shard(&["members"]), said(0, alone), "no change was made");
}

#[test]
fn a_wrong_config_key_is_named_with_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "clutser = 'x'\n").unwrap();
    let (code, text) = start_fails(&["--config", path(&file)]);
    assert_eq!(code, Some(1));
    assert!(text.contains("`clutser`") && text.contains("`cluster`"), "{text}");
    let (code, text) = start_fails(&["--node", "4", "--member", "1=a:1,b:2,c:3"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("does not name this node"), "{text}");
}

#[test]
fn a_flag_overrides_the_environment_which_overrides_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "write_mode = 'file'\n").unwrap();
    let run = |variable: Option<&str>, flag: Option<&str>| {
        let mut command = Command::new(BINARY);
        command.args(["start", "--config", path(&file)]);
        if let Some(value) = variable {
            command.env("BEDSTONE_WRITE_MODE", value);
        }
        if let Some(value) = flag {
            command.args(["--write-mode", value]);
        }
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(run(None, None).contains("`file`"));
    assert!(run(Some("variable"), None).contains("`variable`"));
    assert!(run(Some("variable"), Some("flag")).contains("`flag`"));
}

#[test]
fn data_of_another_node_or_a_newer_format_or_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, ports) = (path(dir.path()), ports());
    let args = node_args(disk, &ports);
    let running = Running::start(&args, &ports[1]);
    // A second start with this directory and other ports fails: the lock is held.
    let others = self::ports();
    let (code, text) = start_fails(&node_args(disk, &others));
    assert_eq!(code, Some(1));
    assert!(text.contains("in use by another process"), "{text}");
    // A second start with these ports and another directory fails: the first port is in use.
    let other = tempfile::tempdir().unwrap();
    let (code, text) = start_fails(&node_args(path(other.path()), &ports));
    assert_eq!(code, Some(1));
    assert!(text.contains(&ports[0]) && text.contains("in use"), "{text}");
    let check = bedstone(&["check", disk]);
    assert_eq!(check.status.code(), Some(1), "the data of a running node is not checked");
    drop(running);

    let (code, text) = start_fails(&[&args[..], &["--node", "2"]].concat());
    assert_eq!(code, Some(1));
    assert!(text.contains("node 1 of cluster") && text.contains("node 2 of cluster"), "{text}");

    let check = bedstone(&["check", disk, "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(0), "{found}");
    let dump = bedstone(&["log", "dump", disk]);
    assert!(String::from_utf8_lossy(&dump.stdout).contains("hard_state"));
    assert_eq!(dump.status.code(), Some(0));

    // The log of an earlier build, whose checksums cover its version.
    for file in fs::read_dir(dir.path().join("log")).unwrap().map(|file| file.unwrap().path()) {
        let mut bytes = fs::read(&file).unwrap();
        if bytes.starts_with(b"BWAL") {
            let mut checksum = crc32fast::Hasher::new_with_initial(4);
            checksum.update(&bytes[16..80]);
            bytes[4..8].copy_from_slice(&4u32.to_le_bytes());
            bytes[8..12].copy_from_slice(&checksum.finalize().to_le_bytes());
            fs::write(&file, bytes).unwrap();
        }
    }
    let (code, text) = start_fails(&args);
    assert_eq!(code, Some(1));
    assert!(text.contains("version 4") && text.contains("copy the data out"), "{text}");

    for copy in ["SUPER.0", "SUPER.1"] {
        let mut bytes = fs::read(dir.path().join(copy)).unwrap();
        bytes[4] = 9;
        fs::write(dir.path().join(copy), bytes).unwrap();
    }
    let (code, text) = start_fails(&args);
    assert_eq!(code, Some(1));
    assert!(text.contains("format version 9") && text.contains("newer bedstone"), "{text}");
}

#[test]
fn check_names_damage_by_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, ports) = (path(dir.path()), ports());
    let args = node_args(disk, &ports);
    let node = Running::start(&args, &ports[1]);
    // The second write proves that the first write was durable.
    assert_eq!(ask(&ports[0], &["SET key needle"]), ["+OK", "+OK"]);
    assert_eq!(ask(&ports[0], &["SET key other"]), ["+OK", "+OK"]);
    drop(node);
    let slot = dir.path().join("log/slot-00000.seg");
    let mut bytes = fs::read(&slot).unwrap();
    let at = bytes.windows(6).position(|window| window == b"needle").expect("the logged value");
    bytes[at] ^= 1;
    fs::write(&slot, bytes).unwrap();
    let block = at / 4096 * 4096;
    let place = format!("slot-00000.seg at byte {}", block + 64);
    let check = bedstone(&["check", disk]);
    let text = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{text}");
    assert!(text.contains(&place), "{text}");
    let (code, text) = start_fails(&args);
    assert_eq!(code, Some(1));
    assert!(text.contains(&place) && text.contains("shard 1 has lost"), "{text}");
}

#[test]
fn a_damaged_bootstrap_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, ports) = (path(dir.path()), ports());
    let args = node_args(disk, &ports);
    drop(Running::start(&args, &ports[1]));
    let file = dir.path().join("BOOTSTRAP");
    fs::write(&file, "1 1 00000000\n").unwrap();
    let check = bedstone(&["check", disk]);
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.code() == Some(1) && text.contains("BOOTSTRAP"), "{text}");
    let (code, text) = start_fails(&args);
    assert_eq!(code, Some(1));
    assert!(text.contains("BOOTSTRAP") && text.contains("remove the file"), "{text}");
    fs::remove_file(file).unwrap();
    drop(Running::start(&args, &ports[1]));
}

#[test]
fn a_full_disk_at_start_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ports = ports();
    let script = "mount -t tmpfs -o size=20m none \"$1\" && shift && exec \"$@\"";
    let args = node_args(path(dir.path()), &ports);
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh", path(dir.path()), BINARY])
        .arg("start")
        .args(args)
        .output()
        .expect("the program `unshare` of util-linux");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("bytes free") && text.contains("free space"), "{text}");
}

/// Sends inline commands to a client port. Returns the lines of the answers.
fn ask(resp: &str, commands: &[&str]) -> Vec<String> {
    let mut stream = std::net::TcpStream::connect(resp).expect("the node listens");
    let text: String = commands.iter().map(|command| format!("{command}\r\n")).collect();
    stream.write_all(format!("{text}QUIT\r\n").as_bytes()).expect("the node reads");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("the node answers, then closes");
    answers.lines().map(str::to_owned).collect()
}

#[test]
fn a_nearly_full_disk_refuses_growing_writes_and_accepts_others() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, ports) = (path(dir.path()), ports());
    let args = node_args(disk, &ports);
    let running = Running::start(&args, &ports[1]);
    assert_eq!(ask(&ports[0], &["SET a 1", "SET b 2"]), ["+OK", "+OK", "+OK"]);
    drop(running);
    // The reserve exceeds the free space of every disk.
    let running =
        Running::start(&[&args[..], &["--reserve-mib", "1073741824"]].concat(), &ports[1]);
    let answers =
        ask(&ports[0], &["SET c 3", "APPEND a x", "GET a", "DEL a", "GET a", "EXPIRE b 9"]);
    assert!(
        answers[0].starts_with("-NOSPACE ") && answers[0].contains("bytes free"),
        "{answers:?}"
    );
    assert!(answers[1].starts_with("-NOSPACE "), "{answers:?}");
    assert_eq!(answers[2..], ["$1", "1", ":1", "$-1", ":1", "+OK"]);
    drop(running);
    let _running = Running::start(&args, &ports[1]);
    assert_eq!(ask(&ports[0], &["SET c 3", "GET c"]), ["+OK", "$1", "3", "+OK"]);
}
