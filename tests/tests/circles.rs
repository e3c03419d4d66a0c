//! No circle between the files of a crate: a file that imports another one, directly or through
//! others, is not imported by it.
//!
//! `pub use` in a `mod.rs` is no import: such a file shows the parts of its folder to the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The source folders of the crates.
const CRATES: [&str; 5] = ["engine/src", "net/src", "node/src", "tests/src", "benches/engines/src"];

/// The path of a module in its crate; empty for the root.
type Module = Vec<String>;

/// The code of a file, without comments and unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_facade(path: &Path) -> bool {
    ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| path.ends_with(name))
}

/// The modules of a crate, with their files.
fn modules(dir: &str) -> BTreeMap<Module, PathBuf> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dir);
    let (mut found, mut dirs) = (BTreeMap::new(), vec![base.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(&base).unwrap().with_extension("");
                let names = file.iter().map(|name| name.to_string_lossy().into_owned());
                let mut module: Module = names.collect();
                if is_facade(&path) {
                    module.pop();
                }
                // The root of a library and that of a binary count as one.
                found.entry(module).or_insert(path);
            }
        }
    }
    found
}

/// The paths in a `use` tree such as `a::{b, c::d}`.
fn expand(tree: &str) -> Vec<String> {
    let Some((before, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inside = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for c in inside.chars().chain([',']) {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(expand).map(|path| format!("{}{path}", before.trim())).collect()
}

/// The paths that a file names: those of its `use` items, and those in its code that begin with
/// `crate::`, `super::` or the name of a part of its folder.
fn named_paths(path: &Path, parts: &BTreeSet<String>) -> Vec<String> {
    let (mut named, mut other) = (Vec::new(), String::new());
    for item in code(path).split_inclusive(';') {
        let is_use = |line: &str| {
            let line = line.trim_start();
            let visible = line.starts_with("pub") && line.contains(" use ");
            (line.starts_with("use ") || visible).then_some(visible)
        };
        let at = item.lines().position(|line| is_use(line).is_some());
        let Some(at) = at else {
            other.push_str(item);
            continue;
        };
        let lines: Vec<&str> = item.lines().collect();
        other.push_str(&lines[..at].join("\n"));
        let text = lines[at..].join(" ");
        let (_, tree) = text.split_once("use ").unwrap_or_default();
        if !(is_facade(path) && is_use(&text) == Some(true)) {
            named.extend(expand(tree.trim_end_matches(';')));
        }
    }
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    for word in other.split(|c: char| !is_name(c) && c != ':') {
        let first = word.split("::").next().unwrap_or_default();
        let is_part = parts.contains(first) && word.contains("::");
        if word.starts_with("crate::") || word.starts_with("super::") || is_part {
            named.push(word.to_owned());
        }
    }
    named
}

/// The module that a path leads to from a module; `None` for a path out of the crate.
fn target(known: &BTreeMap<Module, PathBuf>, from: &Module, path: &str) -> Option<Module> {
    let mut names: Vec<&str> = path.split("::").collect();
    let mut module: Module = match names[0] {
        "crate" => Vec::new(),
        "self" | "super" => from.clone(),
        part => {
            let inside = [&from[..], &[part.to_owned()]].concat();
            known.contains_key(&inside).then(|| from.clone())?
        }
    };
    while names.first() == Some(&"super") {
        module.pop();
        names.remove(0);
    }
    let skipped = usize::from(matches!(names.first(), Some(&"crate" | &"self")));
    for name in &names[skipped..] {
        module.push((*name).to_owned());
        if !known.contains_key(&module) {
            module.pop();
            break;
        }
    }
    (module != *from).then_some(module)
}

/// The imports of each module.
fn imports(dir: &str) -> BTreeMap<Module, BTreeSet<Module>> {
    let known = modules(dir);
    let imports = |(module, path): (&Module, &PathBuf)| {
        let parts = known.keys().filter(|part| {
            is_facade(path) && part.len() == module.len() + 1 && part.starts_with(module)
        });
        let parts = parts.filter_map(|part| part.last().cloned()).collect();
        let paths = named_paths(path, &parts);
        let found = paths.iter().filter_map(|path| target(&known, module, path));
        (module.clone(), found.collect())
    };
    known.iter().map(imports).collect()
}

/// A circle of imports that contains a module, if there is one.
fn circle(all: &BTreeMap<Module, BTreeSet<Module>>, start: &Module) -> Option<Vec<String>> {
    let mut before: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut open = vec![start];
    while let Some(module) = open.pop() {
        for next in all.get(module).into_iter().flatten() {
            if next == start {
                let mut path = vec![module.join("::")];
                let mut at = module;
                while let Some(earlier) = before.get(at) {
                    path.push(earlier.join("::"));
                    at = earlier;
                }
                path.reverse();
                return Some(path);
            }
            if !before.contains_key(next) {
                before.insert(next, module);
                open.push(next);
            }
        }
    }
    None
}

#[test]
fn files_of_a_crate_form_no_circle() {
    let mut circles = Vec::new();
    for dir in CRATES {
        let all = imports(dir);
        assert!(all.values().map(BTreeSet::len).sum::<usize>() > 3, "{dir} has imports");
        let found = all.keys().filter_map(|module| circle(&all, module));
        circles.extend(found.map(|path| format!("{dir}: {}", path.join(" → "))));
    }
    assert!(circles.is_empty(), "files import each other:\n{}", circles.join("\n"));
}

#[test]
fn trees_of_imports_are_expanded() {
    let paths = expand("crate::a::{self, b::{C, D}, e as f}");
    assert_eq!(paths, ["crate::a::self", "crate::a::b::C", "crate::a::b::D", "crate::a::e"]);
}
