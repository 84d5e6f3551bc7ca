//! What `image push` neither reads nor sends, because an earlier image has it; what it sends after all; and what
//! `image retag` asks, which is as little as is safe.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/proxy.rs"]
mod proxy;
#[path = "tools/pushed.rs"]
mod pushed;
#[path = "tools/server.rs"]
mod server;
mod tools;

use std::fs;

use docker_registry::{PASSWORD, Registry, USER};
use project::Project;
use proxy::{Harm, Proxy};
use pushed::Made;
use serde_json::Value;

const NAME: &str = "team/dojo";

fn tools() -> bool {
    tools::need("docker-registry", "docker-registry")
}

fn push(project: &Project, made: &Made, repository: &str, rest: &[&str]) -> Value {
    let archive = made.path.to_str().unwrap();
    project.json(
        &[&["image", "push", "--archive", archive, "--repository", repository, "--json"], rest].concat(),
    )
}

#[test]
fn an_unchanged_layer_is_neither_read_nor_sent() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let (old, new) = (Made::new(&project, 0), Made::new(&project, 1));
    let repository = registry.repository(NAME);
    let first = push(&project, &old, &repository, &["--tag", "edge"]);
    // Its large layer is the same: nobody notices what became of it here.
    let mut bytes = fs::read(&new.path).unwrap();
    bytes[1 << 20..2 << 20].fill(0);
    fs::write(&new.path, bytes).unwrap();

    let proxy = Proxy::start(&registry.host, |_, _| Harm::None);
    let through = format!("{}/{NAME}", proxy.host);
    let second = push(&project, &new, &through, &["--tag", "edge", "--tag", &new.sha_tag()]);
    new.is_complete(&registry, NAME, second["digest"].as_str().unwrap()).unwrap();
    assert!(second["bytes_sent"].as_u64().unwrap() < 60_000, "{second}");
    assert!(
        second["bytes_skipped"].as_u64().unwrap() * 20 > first["bytes_sent"].as_u64().unwrap() * 19,
        "{second}"
    );
    let uploads = proxy.seen().iter().filter(|seen| seen.line.starts_with("POST")).count();
    assert_eq!(uploads, 2, "the changed layer and the config: {:#?}", proxy.seen());

    let before = proxy.seen().len();
    let third = push(&project, &new, &through, &["--tag", "edge"]);
    assert_eq!((&third["digest"], &third["bytes_sent"]), (&second["digest"], &Value::from(0)));
    let asked = proxy.seen().split_off(before);
    assert!(asked.iter().all(|seen| !seen.line.starts_with("POST")) && asked.len() <= 6, "{asked:#?}");
}

#[test]
fn a_retag_asks_once_for_what_it_needs() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let made = Made::small(&project, 0);
    let pushed = push(&project, &made, &registry.repository(NAME), &["--tag", "edge"]);
    let proxy = Proxy::start(&registry.host, |_, _| Harm::None);
    let retag = |tag: &str| {
        let seen = proxy.seen().len();
        let repository = format!("{}/{NAME}", proxy.host);
        project.ok(&["image", "retag", "--repository", &repository, "edge", tag]);
        assert_eq!(registry.tag(NAME, tag).as_deref(), pushed["digest"].as_str());
        let asked: Vec<_> = proxy.seen().drain(seen..).map(|seen| seen.line).collect();
        let count = |what: &str| asked.iter().filter(|line| line.contains(what)).count();
        let named = format!("/manifests/{tag}");
        [count("GET"), count("/manifests/edge"), count("/blobs/"), count(&named), count("PUT")]
    };
    assert_eq!(retag("latest"), [2, 1, 0, 2, 1]);
    // That of a version must agree with its commit, and is looked at once more: somebody else may have set it, too.
    assert_eq!(retag("v0.1.0"), [4, 1, 1, 3, 1]);
}

#[test]
fn what_is_asked_side_by_side_logs_in_once() {
    if !tools() || !tools::need("openssl", "openssl") {
        return;
    }
    let (registry, project) = (Registry::with_tokens(), Project::new());
    let (made, repository) = (Made::small(&project, 0), registry.repository(NAME));
    project.log_in(&registry.host, USER, PASSWORD);
    push(&project, &made, &repository, &["--tag", "edge"]);
    let before = registry.token_requests().len();
    project.ok(&["image", "retag", "--repository", &repository, "edge", "v0.1.0"]);
    let tokens = registry.token_requests().split_off(before);
    assert_eq!(tokens.len(), 2, "one to read and one to write: {tokens:?}");
}

#[test]
fn layers_of_another_repository_are_mounted() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let made = Made::new(&project, 0);
    push(&project, &made, &registry.repository("team/base"), &["--tag", "v0.1.0-rc.1", "--tag", "stable"]);
    let proxy = Proxy::start(&registry.host, |_, _| Harm::None);
    let from = format!("{}/team/base:stable", proxy.host);
    let pushed =
        push(&project, &made, &format!("{}/{NAME}", proxy.host), &["--tag", "edge", "--cache-from", &from]);
    made.is_complete(&registry, NAME, pushed["digest"].as_str().unwrap()).unwrap();
    let posts: Vec<_> = proxy.seen().into_iter().filter(|seen| seen.line.starts_with("POST")).collect();
    assert_eq!(posts.iter().filter(|seen| seen.line.contains("mount=sha256")).count(), 4, "{posts:#?}");
    assert!(pushed["bytes_sent"].as_u64().unwrap() < 2_000, "{pushed}");
}

#[test]
fn a_cache_that_cannot_be_reached_is_done_without() {
    let project = Project::built();
    let args = ["image", "push", "--tag", "edge", "--cache-from", "127.0.0.1:1/team/base:edge"];
    let output = project.xtask(&args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("warning: 127.0.0.1:1/team/base:edge cannot be read"), "{said}");
    project.ok(&["image", "inspect", "edge"]);
}

#[test]
fn zstd_is_a_layer_of_its_own_and_read_by_skopeo() {
    if !tools() || !tools::need("skopeo", "skopeo") {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let made = Made::new(&project, 0);
    let repository = registry.repository(NAME);
    let gzip = push(&project, &made, &repository, &["--tag", "edge"]);
    let zstd = push(&project, &made, &repository, &["--tag", "zstd", "--compression", "zstd"]);
    assert!(zstd["digest"] != gzip["digest"] && zstd["bytes_sent"].as_u64() > Some(1 << 20), "{zstd}");
    let from_zstd = ["--tag", "zstd", "--compression", "zstd", "--cache-from", "zstd"];
    let again = push(&project, &made, &repository, &from_zstd);
    assert_eq!((&again["digest"], &again["bytes_sent"]), (&zstd["digest"], &Value::from(0)));

    // It names what it inflates by the digest that it finds.
    let source = format!("docker://{repository}:zstd");
    let copy =
        ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-decompress", &source];
    project.run("skopeo", &[&copy[..], &["dir:copy"]].concat());
    for diff_id in &made.diff_ids {
        assert!(project.path("copy").join(diff_id.trim_start_matches("sha256:")).is_file(), "{diff_id}");
    }
}

#[test]
fn a_layer_that_the_registry_lost_is_sent_again() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let made = Made::new(&project, 1);
    let run = || push(&project, &made, &registry.repository(NAME), &["--tag", "edge"]);
    run();
    let edge = registry.tag(NAME, "edge").unwrap();
    let text = fs::read_to_string(registry.blob(NAME, &edge).unwrap()).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    for part in [&manifest["layers"][1], &manifest["layers"][3], &manifest["config"]] {
        registry.forget(NAME, part["digest"].as_str().unwrap());
        assert!(made.is_complete(&registry, NAME, &edge).is_err());
        run();
        made.is_complete(&registry, NAME, &edge).unwrap();
    }
    assert_eq!(registry.tag(NAME, "edge"), Some(edge));
}

#[test]
fn a_version_whose_layers_were_lost_is_made_whole_by_the_same_push() {
    let project = Project::built();
    let push =
        ["image", "push", "--repository", "oci:registry", "--tag", "v0.1.0", "--tag", "edge", "--json"];
    let first = project.json(&push);
    let digest = first["digest"].as_str().unwrap();
    let inspected = project.json(&["image", "inspect", "v0.1.0", "--json"]);
    let layer = inspected["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    fs::remove_file(project.path("registry/blobs").join(layer)).unwrap();
    let said = project.fails(3, &["image", "retag", "v0.1.0", "v0.2.0"]);
    assert!(said.contains("misses a part") && said.contains("push the image again"), "{said}");
    let again = project.json(&push);
    assert_eq!(again["digest"], digest);
    assert_ne!(again["bytes_sent"], 0);
    project.ok(&["image", "retag", "v0.1.0", "v0.2.0"]);
}
