//! Transcripts of the Raft core in every situation that the protocol knows: see
//! `scripts/raft/README.md`. `BEDSTONE_WRITE_GOLDEN=1` writes what is found; read it before you
//! commit it.

use bedstone_tests::raft_script::transcript;
use std::fs;

#[test]
fn replicas_do_what_the_transcripts_say() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/raft");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let mut wrong = Vec::new();
    for path in &paths {
        let script = fs::read_to_string(path).unwrap();
        let found = transcript(&script);
        if std::env::var_os("BEDSTONE_WRITE_GOLDEN").is_some() {
            fs::write(path, &found).unwrap();
        } else if let Some((line, (said, found))) =
            script.lines().zip(found.lines()).enumerate().find(|(_, (said, found))| said != found)
        {
            let name = path.display();
            wrong.push(format!("{name}:{}\n  script: {said}\n  found:  {found}", line + 1));
        } else if script.lines().count() != found.lines().count() {
            wrong.push(format!("{}: ends elsewhere", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(paths.len() >= 20, "{} scripts", paths.len());
}
