//! `image build|push|inspect` in a small project, with an image layout folder as the registry.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/project.rs"]
mod project;
mod tools;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use project::{Project, run};
use serde_json::Value;

#[test]
fn the_same_commit_built_twice_is_the_same_image() {
    let project = Project::new();
    let build = || {
        project.ok(&["image", "build", "--builder", "cargo"]);
        fs::read(project.path("target/image/image.tar")).unwrap()
    };
    let first = build();
    std::thread::sleep(Duration::from_millis(1100));
    assert!(first == build(), "the archives differ");
}

#[test]
fn an_image_tells_where_it_came_from() {
    let project = Project::built();
    let commit = project.run("git", &["rev-parse", "HEAD"]);
    let time: i64 = project.run("git", &["show", "-s", "--format=%ct"]).parse().unwrap();
    let inspected = project.json(&["image", "inspect", "--json"]);
    let labels = &inspected["labels"];
    assert_eq!(labels["revision"], commit.as_str());
    assert_eq!(labels["version"], "0.1.0");
    assert_eq!(labels["source"], "https://github.com/blogle/dojo");
    assert_eq!(labels["created"], jiff::Timestamp::from_second(time).unwrap().to_string());
    assert_eq!(labels["schema"], serde_json::json!({ "current": 3, "oldest_binary": 2 }));
    assert!(project.ok(&["image", "inspect"]).contains(&format!("revision       {commit}")));
}

#[test]
fn what_is_pushed_is_read_by_skopeo() {
    if !tools::need("skopeo", "skopeo") {
        return;
    }
    let project = Project::built();
    let pushed = project.json(&["image", "push", "--json"]);
    let source = format!("oci:registry:{}", project.sha_tag());
    let seen: Value = serde_json::from_str(&project.run("skopeo", &["inspect", &source])).unwrap();
    assert_eq!(seen["Digest"], pushed["digest"]);
    assert_eq!(seen["Labels"]["dojo.schema"], "3");
    let config: Value =
        serde_json::from_str(&project.run("skopeo", &["inspect", "--config", &source])).unwrap();
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/bin/dojo"]));
    assert_eq!(config["config"]["User"], "1000:1000");
    assert_eq!(config["config"]["WorkingDir"], "/app");
    assert!(config["config"]["ExposedPorts"]["8000/tcp"].is_object());
    // It reads and verifies every layer, and what it writes is read here.
    project.run("skopeo", &["copy", &source, "docker-archive:target/copy.tar:dojo:copy"]);
    project.run("skopeo", &["copy", "oci-archive:target/image/image.tar", "oci:target/copy:one"]);
    // The same image under the tag that it has already: the same digest.
    let again = project.json(&["image", "push", "--archive", "target/copy.tar", "--json"]);
    assert_eq!(again["digest"], pushed["digest"]);
    // Compressed by another tool: it keeps that tool's digest, so it is another image to a tag that never moves.
    let index: Value =
        serde_json::from_str(&fs::read_to_string(project.path("target/copy/index.json")).unwrap()).unwrap();
    let push =
        |tag: &str| project.xtask(&["image", "push", "--archive", "target/copy", "--tag", tag, "--json"]);
    let refusal = push(&project.sha_tag()).output().unwrap();
    assert_eq!(refusal.status.code(), Some(3));
    let copied: Value = serde_json::from_slice(&push("copy").output().unwrap().stdout).unwrap();
    assert_eq!(copied["digest"], index["manifests"][0]["digest"]);
}

#[test]
fn a_second_push_sends_nothing() {
    let project = Project::built();
    let first = project.json(&["image", "push", "--json"]);
    let second = project.json(&["image", "push", "--json"]);
    assert_eq!(first["digest"], second["digest"]);
    assert!(first["bytes_sent"].as_u64().unwrap() > 0);
    assert_eq!(second["bytes_sent"], 0);
    assert_eq!(second["bytes_skipped"], first["bytes_sent"]);
}

#[test]
fn a_fixed_tag_never_moves_and_edge_does() {
    let project = Project::built();
    let first = project.json(&["image", "push", "--tag", "v0.1.0", "--tag", "edge", "--json"]);
    fs::write(project.path("dojo/src/main.rs"), "fn main() { println!(\"changed\"); }\n").unwrap();
    project.commit("change");
    project.ok(&["image", "build", "--builder", "cargo"]);

    let refusal = project.fails(3, &["image", "push", "--tag", "v0.1.0"]);
    assert!(refusal.contains(first["digest"].as_str().unwrap()), "{refusal}");
    let second = project.json(&["image", "push", "--tag", "edge", "--json"]);
    assert_ne!(first["digest"], second["digest"]);
    let digest = |tag: &str| project.json(&["image", "inspect", tag, "--json"])["digest"].clone();
    assert_eq!((digest("v0.1.0"), digest("edge")), (first["digest"].clone(), second["digest"].clone()));
    // As a further tag, too.
    assert!(project.fails(3, &["image", "push", "--tag", "edge", "--tag", "v0.1.0"]).contains("never moves"));
    let other = format!("sha-{}", "0".repeat(12));
    assert!(project.fails(3, &["image", "push", "--tag", &other]).contains(&project.sha_tag()));
}

#[test]
fn uncommitted_changes_get_no_fixed_tag() {
    let project = Project::new();
    fs::write(project.path("new.txt"), "not committed").unwrap();
    let built = project.ok(&["image", "build", "--builder", "cargo"]);
    assert!(built.contains("-dirty"), "{built}");
    for args in [&["image", "push"][..], &["image", "push", "--tag", "v0.1.0"]] {
        assert!(project.fails(3, args).contains("uncommitted changes"));
    }
    project.ok(&["image", "push", "--tag", "try"]);
    assert!(project.fails(3, &["image", "push", "--tag", "edge", "--tag", "v0.1.0"]).contains("uncommitted"));
}

#[test]
fn what_is_wrong_is_said_before_anything_is_built() {
    let project = Project::new();
    assert!(project.fails(2, &["image", "push"]).contains("cargo xtask image build"));
    assert!(project.fails(2, &["image", "inspect", "a tag"]).contains("not an image tag"));
    assert!(project.fails(3, &["image", "inspect", "edge"]).contains("has no image edge"));
    assert!(
        project.fails(2, &["image", "inspect", "edge", "--repository", "dojo"]).contains("HOST[:PORT]/NAME")
    );
    let bare = project.xtask(&["image", "build"]).env("PATH", git_only(&project)).output().unwrap();
    let said = project::failed(2, &["image", "build"], &bare);
    assert!(said.contains("nix is not on PATH") && said.contains("--builder cargo"), "{said}");
    fs::write(project.path("dojo/src/main.rs"), "fn main() { let x: u8 = true; }").unwrap();
    let said = project.fails(3, &["image", "build", "--builder", "cargo"]);
    assert!(said.contains("mismatched types"), "{said}");
    assert!(!project.path("target/image/image.tar").exists());
}

/// A PATH on which there is git and no nix.
fn git_only(project: &Project) -> std::path::PathBuf {
    let folder = project.path("target/only-git");
    fs::create_dir_all(&folder).unwrap();
    let git = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("git"))
        .find(|git| git.is_file())
        .unwrap();
    std::os::unix::fs::symlink(git, folder.join("git")).unwrap();
    folder
}

#[test]
fn eight_pushes_at_once_lose_no_tag() {
    let project = Project::built();
    let tags: BTreeSet<_> = (0..8).map(|n| format!("tag-{n}")).collect();
    for round in 0..3 {
        let tags: Vec<_> = tags.iter().map(|tag| format!("{tag}-{round}")).collect();
        let push =
            |tag| project.xtask(&["image", "push", "--tag", tag]).stdout(Stdio::null()).spawn().unwrap();
        let pushes: Vec<_> = tags.iter().map(|tag| push(tag)).collect();
        for mut push in pushes {
            assert!(push.wait().unwrap().success());
        }
        for tag in tags {
            project.ok(&["image", "inspect", &tag]);
        }
    }
    let index: Value =
        serde_json::from_str(&fs::read_to_string(project.path("registry/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 24);
}

#[test]
fn a_push_that_was_killed_is_completed_by_the_next() {
    let project = Project::built();
    let archive = large_archive(&project);
    let args = ["image", "push", "--archive", &archive, "--tag", "large"];
    let mut killed = 0;
    for milliseconds in [5, 20, 50, 100, 200, 300, 500, 800] {
        let mut push = project.xtask(&args).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        killed += usize::from(push.try_wait().unwrap().is_none());
        push.kill().unwrap();
        push.wait().unwrap();
        // Other images are there all the while.
        project.ok(&["image", "push"]);
        project.ok(&["image", "inspect", &project.sha_tag()]);
    }
    assert!(killed > 2, "only {killed} pushes were killed under way");
    project.ok(&args);
    if tools::need("skopeo", "skopeo") {
        project.run("skopeo", &["copy", "oci:registry:large", "oci:target/copy:large"]);
    }
}

/// A docker-archive with a layer that takes a while.
fn large_archive(project: &Project) -> String {
    let root = project.path("target/large");
    fs::create_dir_all(&root).unwrap();
    let mut file = fs::File::create(root.join("data")).unwrap();
    let mut state = 1_u32;
    for _ in 0..6 << 10 {
        let block: Vec<u8> = (0..1024)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        file.write_all(&block).unwrap();
    }
    drop(file);
    run("tar", &["-cf", "layer.tar", "data"], &root);
    let diff_id = run("sha256sum", &["layer.tar"], &root)[..64].to_owned();
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] } });
    fs::write(root.join("config.json"), config.to_string()).unwrap();
    let manifest = serde_json::json!([{ "Config": "config.json", "Layers": ["layer.tar"] }]);
    fs::write(root.join("manifest.json"), manifest.to_string()).unwrap();
    run("tar", &["-cf", "image.tar", "layer.tar", "config.json", "manifest.json"], &root);
    root.join("image.tar").to_str().unwrap().to_owned()
}

#[test]
fn every_help_has_examples() {
    for verb in ["build", "push", "retag", "inspect", "diff", "load"] {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["image", verb, "--help"]).output();
        let help = String::from_utf8(output.unwrap().stdout).unwrap();
        let example = format!("cargo xtask image {verb}");
        assert!(help.contains("Examples:") && help.matches(&example).count() >= 2, "{help}");
    }
}
