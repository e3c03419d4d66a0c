//! For each bug of `planted/raft.rs`, makes a copy of the Raft core and of the world that tests it,
//! and plants the bug in the copy. The product has no switch for these bugs. See
//! `tests/planted_raft.rs`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

include!("planted/raft.rs");

fn main() {
    let core = PathBuf::from("../node/src/raft");
    let world = PathBuf::from("src/raft_world");
    for path in [&core, &world, &PathBuf::from("planted")] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut list = String::new();
    let mut modules = String::new();
    for (number, bug) in RAFT_BUGS.iter().enumerate() {
        let name = format!("bug_{number}");
        let dir = out.join(&name);
        let mut planted = 0;
        copy(&core, &dir.join("raft"), |file, text| {
            if file != bug.file {
                return text;
            }
            planted += text.matches(bug.sound).count();
            text.replacen(bug.sound, bug.broken, 1)
        });
        assert_eq!(planted, 1, "`{}`: its `sound` text must occur once in {}", bug.name, bug.file);
        copy(&world, &dir.join("world"), |_, text| {
            let text = text.replace("bedstone_node::raft", &format!("crate::{name}::raft"));
            text.replace("crate::rng", "bedstone_tests::rng")
        });
        let path = |part: &str| dir.join(part).join("mod.rs");
        let (raft, world) = (path("raft"), path("world"));
        let _ = writeln!(
            modules,
            "mod {name} {{ #[path = {raft:?}] pub mod raft; #[path = {world:?}] pub mod world; }}"
        );
        let _ = writeln!(
            list,
            "    ({:?}, &{:?}, |seed| drop({name}::world::run(seed))),",
            bug.name, bug.caught_by
        );
    }
    let list = format!("{modules}\nconst BUGS: &[(&str, &[&str], fn(u64))] = &[\n{list}];\n");
    write(&out.join("planted_raft.rs"), &list);
}

/// Copies the source files of a directory, each as `change` returns it.
fn copy(from: &Path, to: &Path, mut change: impl FnMut(&str, String) -> String) {
    fs::create_dir_all(to).expect("a directory for the copy");
    for entry in fs::read_dir(from).expect("the sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let text = fs::read_to_string(&path).expect("a source file");
        // The unit tests of the core are left out, because they would find the bug without a
        // simulation.
        let text = text.split("\n#[cfg(test)]").next().unwrap_or_default().to_owned();
        write(&to.join(name), &change(name, text));
    }
}

/// Writes a file only if its content differs, so that an unchanged copy is not built again.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text).expect("room for the copy");
    }
}
