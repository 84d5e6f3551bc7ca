//! What reaches a terminal or a pipe: nothing that a terminal would obey, and JSON whole or not without an error.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/layout.rs"]
mod layout;
#[path = "tools/project.rs"]
mod project;

use std::fs;

use layout::Layout;
use project::{Project, failed};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Red, a title, a bell, a screen cleared by one character of Unicode, and a line that is written over.
const EVIL: &str = "a\u{1b}[31mb\u{1b}]0;title\u{7}c\u{9b}2Jd\re";

/// Runs it whatever comes of it; gives all that it said.
fn said(project: &Project, args: &[&str]) -> String {
    let output = project.xtask(args).output().unwrap();
    [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
}

fn obeyed(text: &str) -> Vec<char> {
    text.chars().filter(|c| c.is_control() && *c != '\n').collect()
}

/// A docker-archive of one layer, with one file of this name.
fn archive(project: &Project, name: &str, cut: bool) {
    let tar = |files: &[(&str, &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let layer = tar(&[(name, b"x")]);
    let diff_id: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({ "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] } });
    let manifest = json!([{ "Config": "config", "RepoTags": [], "Layers": ["layer"] }]);
    let [config, manifest] = [config, manifest].map(|document| document.to_string().into_bytes());
    let mut whole =
        tar(&[("config", &config), ("manifest.json", &manifest), ("layer", &layer), (name, b"x")]);
    if cut {
        whole.truncate(whole.len() - 1536);
    }
    fs::write(project.path("target/evil.tar"), whole).unwrap();
}

#[test]
fn what_others_wrote_is_shown_and_not_obeyed() {
    let project = Project::built();
    let pushed = project.json(&["image", "push", "--tag", "edge", "--json"]);
    let layout = Layout::of(&project);
    let evil = layout.altered(pushed["digest"].as_str().unwrap(), |config| {
        config["config"]["Labels"]["org.opencontainers.image.version"] = json!(EVIL);
        config["config"]["Labels"]["x"] = json!(format!("{EVIL}\nforged         line"));
        config["config"]["Env"] = json!([format!("E={EVIL}")]);
        config["config"]["Entrypoint"] = json!([EVIL]);
        for step in config["history"].as_array_mut().unwrap() {
            step["comment"] = json!(format!("store paths: ['{EVIL}']"));
        }
    });
    layout.tag("evil", &evil);
    layout.tag(EVIL, &evil);
    let archive_of = |cut| archive(&project, EVIL, cut);
    for (args, shows) in [
        (&["image", "inspect", "evil"][..], "version        a\u{fffd}[31mb"),
        (&["image", "diff", "edge", "evil"], "label version"),
        (&["image", "inspect", "v9.9.9"], "has no image v9.9.9"),
        (&["image", "inspect", "--archive", "target/evil.tar"], "/a\u{fffd}[31mb"),
    ] {
        archive_of(false);
        let said = said(&project, args);
        assert!(said.contains(shows) && said.contains("a\u{fffd}[31mb"), "{args:?}: {said:?}");
        assert_eq!(obeyed(&said), [], "{args:?}: {said:?}");
        assert!(!said.lines().any(|line| line.starts_with("forged")), "{said}");
    }
    archive_of(true);
    let said = said(&project, &["image", "inspect", "--archive", "target/evil.tar"]);
    assert!(said.contains("is cut short") && obeyed(&said).is_empty(), "{said:?}");
    // A program gets what is there.
    let shown = project.ok(&["image", "inspect", "evil", "--json"]);
    assert_eq!(obeyed(&shown), [], "{shown:?}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["labels"]["version"], EVIL);
}

#[test]
fn json_that_cannot_be_written_is_an_error() {
    let project = Project::built();
    let digest = project.json(&["image", "push", "--json"])["digest"].clone();
    let digest = digest.as_str().unwrap();
    for args in [
        &["image", "push"][..],
        &["image", "retag", digest, "edge"],
        &["image", "inspect", "edge"],
        &["image", "diff", "edge", digest],
    ] {
        let args = [args, &["--json"]].concat();
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = project.xtask(&args).stdout(full).output().unwrap();
        let said = failed(1, &args, &output);
        assert!(said.contains("writing to stdout") && said.contains("No space left"), "{said}");
        // A reader that has enough goes away.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert!(project.xtask(&args).stdout(writer).status().unwrap().success(), "{args:?}");
    }
    let shown: Value = project.json(&["image", "inspect", "edge", "--json"]);
    assert_eq!(shown["digest"], digest);
}
