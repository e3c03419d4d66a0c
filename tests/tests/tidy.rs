//! What a machine can check of the code's shape.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LINE_CHARACTERS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file below a directory of the workspace, with its text.
fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

const CRATES: [&str; 3] = ["engine/src", "net/src", "node/src"];

#[test]
fn lines_and_files_are_short() {
    let mut long = Vec::new();
    for dir in
        CRATES.into_iter().chain(["tests/src", "tests/tests", "benches", "fuzz/fuzz_targets"])
    {
        for (path, text) in sources(dir) {
            let lines = text.lines().count();
            if lines > FILE_LINES_MAX {
                long.push(format!("{} has {lines} lines", path.display()));
            }
            for (number, line) in text.lines().enumerate() {
                let length = line.chars().count();
                if length > LINE_CHARACTERS_MAX {
                    let place = format!("{}:{}", path.display(), number + 1);
                    long.push(format!("{place} has {length} characters"));
                }
            }
        }
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

#[test]
fn unsafe_has_one_address() {
    for dir in CRATES {
        for (path, text) in sources(dir) {
            let allowed = path.ends_with("disk/mmap.rs");
            assert!(allowed || !text.contains("unsafe {"), "{}", path.display());
        }
    }
}

#[test]
fn crates_depend_downwards_only() {
    for (dir, banned) in [
        ("engine/src", &["bedstone_net", "bedstone_node"][..]),
        ("net/src", &["bedstone_engine", "bedstone_node"]),
    ] {
        for (path, text) in sources(dir) {
            for name in banned {
                assert!(!text.contains(name), "{} names {name}", path.display());
            }
        }
    }
}

#[test]
fn the_raft_core_knows_no_driver_and_no_net() {
    for (path, text) in sources("node/src/raft") {
        for name in ["crate::driver", "crate::api", "bedstone_net", "std::time", "std::thread"] {
            assert!(!text.contains(name), "{} names {name}", path.display());
        }
    }
}

/// Folders of a crate are its rooms: they may use each other, but not in a circle.
#[test]
fn rooms_of_a_crate_make_no_circle() {
    for dir in ["net/src", "node/src"] {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, text) in sources(dir) {
            let relative = path.strip_prefix(root().join(dir)).unwrap();
            let room = relative.iter().next().unwrap().to_string_lossy().replace(".rs", "");
            if matches!(room.as_str(), "lib" | "main") {
                continue;
            }
            let named = text.split("crate::").skip(1).map(|rest| {
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
            });
            let named = named.filter(|name| *name != room && !name.is_empty());
            uses.entry(room.clone()).or_default().extend(named);
        }
        for room in uses.keys() {
            let mut reached = BTreeSet::new();
            let mut next: Vec<&String> = uses[room].iter().collect();
            while let Some(used) = next.pop() {
                assert_ne!(used, room, "{dir}: {room} uses itself by way of others");
                if reached.insert(used.clone()) {
                    next.extend(uses.get(used).into_iter().flatten());
                }
            }
        }
    }
}
