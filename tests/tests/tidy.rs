//! What a machine can check of the code's shape.

use std::collections::BTreeSet;
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

/// Lines of a function. Most have fewer than 70.
const FUNCTION_LINES_MAX: usize = 100;

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for dir in CRATES {
        for (path, text) in sources(dir) {
            let mut begun: Option<(usize, String, usize)> = None;
            for (number, line) in text.lines().enumerate() {
                let indent = line.len() - line.trim_start().len();
                let code = line.trim_start();
                let is_function = code.starts_with("fn ")
                    || code.starts_with("pub") && code.contains("fn ")
                    || code.starts_with("async fn ");
                match &begun {
                    None if is_function && !code.ends_with(';') && !code.ends_with('}') => {
                        begun = Some((number, code.to_owned(), indent));
                    }
                    Some((first, name, at)) if indent == *at && (code == "}" || code == ";") => {
                        if number - first > FUNCTION_LINES_MAX {
                            let lines = number - first;
                            long.push(format!(
                                "{}:{}: {name} has {lines} lines",
                                path.display(),
                                first + 1
                            ));
                        }
                        begun = None;
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(
        long.is_empty(),
        "functions longer than {FUNCTION_LINES_MAX} lines:\n{}",
        long.join("\n")
    );
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
fn the_raft_core_knows_no_clock_and_no_thread() {
    for (path, text) in sources("node/src/raft") {
        // The configuration names nodes.
        let text = text.replace("bedstone_net::NodeId", "");
        for name in ["bedstone_net", "std::time", "std::thread"] {
            assert!(!text.contains(name), "{} names {name}", path.display());
        }
    }
}

/// The rooms of each crate, a folder or a file each, from top to bottom: a room imports only rooms
/// below it. `docs/ARCHITECTURE.md` draws the same order.
const FLOORS: [(&str, &[&str]); 3] = [
    (
        "engine/src",
        &[
            "db",
            "check",
            "scrub",
            "shards",
            "engine",
            "lsm",
            "compaction",
            "table",
            "key",
            "values",
            "wal",
            "disk",
            "memory",
            "limits",
            "error",
            "missing",
            "checksum",
            "ids",
        ],
    ),
    (
        "net/src",
        &["endpoint", "tls", "hello", "outbox", "window", "frame", "error", "limits", "ids"],
    ),
    (
        "node/src",
        &[
            "cli",
            "sim",
            "start",
            "config",
            "api",
            "worker",
            "cluster",
            "router",
            "replica",
            "request",
            "disk_unit",
            "wire",
            "machine",
            "bootstrap",
            "metrics",
            "status",
            "limits",
            "policy",
            "line_file",
            "clock",
            "raft",
        ],
    ),
];

/// The rooms that a source file imports from its own crate.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let first = |part: &str| part.chars().take_while(|&c| is_name(c)).collect::<String>();
        match after.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let end = group.find(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth < 0
                });
                let group = &group[..end.unwrap_or(group.len())];
                found.extend(group.split(',').map(|part| first(part.trim())));
            }
            None => drop(found.insert(first(after))),
        }
    }
    found
}

#[test]
fn rooms_import_only_rooms_below_them() {
    let mut wrong = Vec::new();
    for (dir, floors) in FLOORS {
        for (path, text) in sources(dir) {
            let relative = path.strip_prefix(root().join(dir)).unwrap();
            let room = relative.iter().next().unwrap().to_string_lossy().replace(".rs", "");
            if matches!(room.as_str(), "lib" | "main") {
                continue;
            }
            let Some(floor) = floors.iter().position(|name| *name == room) else {
                wrong.push(format!("{dir}: the room {room} has no floor: add it to FLOORS"));
                continue;
            };
            for import in imports(&text) {
                // A name that is no room stands in the crate's root.
                let Some(below) = floors.iter().position(|name| *name == import) else {
                    if import != "REDIS_VERSION" && import != room {
                        wrong.push(format!("{}: imports {import} of the root", path.display()));
                    }
                    continue;
                };
                if below < floor {
                    wrong.push(format!("{}: imports {import}, a room above", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows run up:\n{}", wrong.join("\n"));
}

/// Openings of a sentence that hide its noun.
const OPENINGS: [&str; 8] =
    ["Who ", "Whose ", "Whom ", "Whoever ", "What ", "Whatever ", "Of ", "The same "];
/// Everyday words that were once used as terms.
const TERMS: [&str; 19] = [
    "door", "doors", "vouch", "vouches", "stir", "stirs", "stirred", "doom", "dooms", "doomed",
    "doubt", "doubts", "doubted", "anew", "mend", "mends", "mended", "told", "awake",
];

/// The paragraphs of prose in a source file or a document, each with the number of its first line.
fn paragraphs(is_rust: bool, text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let (mut is_open, mut is_fenced) = (false, false);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let comment = ["///", "//!", "//"].iter().find_map(|mark| line.strip_prefix(mark));
        let prose = if is_rust { comment.unwrap_or_default().trim() } else { line };
        if prose.starts_with("```") {
            is_fenced = !is_fenced;
        }
        if prose.is_empty() || prose.starts_with("```") || is_fenced {
            is_open = false;
            continue;
        }
        let item = prose.trim_start_matches(['-', '*', '#', '|', ' ']);
        if !is_open || item.len() < prose.len() {
            found.push((number + 1, String::new()));
        }
        is_open = true;
        if let Some((_, paragraph)) = found.last_mut() {
            paragraph.push_str(item);
            paragraph.push(' ');
        }
    }
    found
}

/// Prose without its code spans.
fn without_code(prose: &str) -> String {
    prose.split('`').step_by(2).collect::<Vec<_>>().join("x")
}

/// Findings in the prose of a file.
fn prose_findings(path: &Path, text: &str) -> Vec<String> {
    let is_rust = path.extension().is_some_and(|extension| extension == "rs");
    let mut found = Vec::new();
    for (number, paragraph) in paragraphs(is_rust, text) {
        let prose = without_code(&paragraph);
        let sentences = prose.split_inclusive(['.', '!', '?']).map(str::trim_start);
        for sentence in sentences {
            for opening in OPENINGS.iter().filter(|opening| sentence.starts_with(**opening)) {
                found.push(format!("{}:{number}: begins with {opening}", path.display()));
            }
        }
        let words = prose.split(|c: char| !c.is_alphanumeric() && c != '_');
        for word in words.filter(|word| TERMS.contains(&word.to_lowercase().as_str())) {
            found.push(format!("{}:{number}: uses the word {word}", path.display()));
        }
    }
    found
}

/// Every document of the project, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for dir in ["", "docs", "docs/decisions", "tests/scripts/raft"] {
        for entry in fs::read_dir(root().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn prose_has_plain_openings_and_plain_words() {
    let dirs = CRATES.into_iter().chain([
        "node/tests",
        "tests/src",
        "tests/tests",
        "tests/planted",
        "benches",
        "fuzz/fuzz_targets",
    ]);
    let files = dirs.flat_map(sources).filter(|(path, _)| !path.ends_with("tidy.rs"));
    let found: Vec<String> =
        files.chain(documents()).flat_map(|(path, text)| prose_findings(&path, &text)).collect();
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_check_of_prose_finds_what_it_should() {
    let findings = |text: &str| prose_findings(Path::new("x.rs"), text).len();
    assert_eq!(findings("/// The last entry. What it holds\nfn f() {}"), 1);
    assert_eq!(findings("// A replica was told\n// its members."), 1);
    assert_eq!(findings("/// Whose vote it is."), 1);
    assert_eq!(findings("/// The entry of `What is told` is fine."), 0);
    assert_eq!(findings("let what = \"What?\";"), 0);
    assert_eq!(prose_findings(Path::new("x.md"), "# Title\n\n- Of three nodes").len(), 1);
    assert_eq!(prose_findings(Path::new("x.md"), "```\nWhat\n```\n").len(), 0);
}
