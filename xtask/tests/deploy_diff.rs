//! `diff`: what a person reads before deciding on a promotion, with everything there and with parts of the world away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/environments.rs"]
mod environments;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/pin_commits.rs"]
mod pin_commits;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/rendered.rs"]
mod rendered;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;
#[path = "tools/mod.rs"]
mod tools;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use environments::{Environments, Operator};
use serde_json::{Value, json};

fn stage() -> (Environments, Operator) {
    let stage = Environments::new();
    let operator = stage.operator("somebody", &stage.http());
    (stage, operator)
}

fn told(operator: &Operator, args: &[&str]) -> Value {
    let output = operator.run(&[&["diff"], args, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The lines of a section, its first among them.
fn section(said: &str, name: &str) -> String {
    let found = said.split("\n\n").find(|section| section.starts_with(&format!("{name}:")));
    found.unwrap_or_else(|| panic!("no {name}: {said}")).trim_end().to_owned()
}

/// One more commit on the project's branch, and its image with these layers; returns the image's tag.
fn next(stage: &Environments, layers: &[(u64, u64)], edits: &[(&str, &str, &str)]) -> String {
    let project = &stage.project;
    for (name, from, to) in edits {
        let text = fs::read_to_string(project.path(name)).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        fs::write(project.path(name), text.replace(from, to)).unwrap();
    }
    let file = project.path("next");
    fs::write(&file, format!("{}.", fs::read_to_string(&file).unwrap_or_default())).unwrap();
    let commit = project.commit("what comes next");
    project.run("git", &["push", "--quiet", "origin", "master"]);
    let labels = json!({ "org.opencontainers.image.revision": commit, "org.opencontainers.image.version": "0.4.0",
        "org.opencontainers.image.source": "https://github.com/blogle/dojo",
        "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
        "dojo.schema": "2", "dojo.schema.oldest-binary": "2" });
    let archive = project.path("target/next.tar");
    docker_archive::write_labelled(&archive, layers, &labels).unwrap();
    let tag = format!("sha-{}", &commit[..12]);
    project.json(&["image", "push", "--archive", archive.to_str().unwrap(), "--tag", &tag, "--json"]);
    tag
}

#[test]
fn a_promotion_is_told_whole_and_no_gate_stands_in_the_way() {
    if !rendered::possible() {
        return;
    }
    let (stage, operator) = stage();
    for environment in ["staging", "production"] {
        operator.ends(0, &["promote", environment, "v0.2.0", "--yes"]);
    }
    let head = stage.head();
    let said = operator.ends(0, &["diff", "production", "v0.4.0"]);
    assert!(said.starts_with("production: v0.2.0 -> v0.4.0\n"), "{said}");
    assert_eq!(section(&said, "commits"), "commits: 2\n  + v0.4.0\n  + v0.3.0");
    let changelog = section(&said, "changelog");
    assert!(changelog.contains("brings v0.4.0\n    ### Added\n    - What v0.4.0 brings."), "{said}");
    assert!(changelog.contains("brings v0.3.0") && !changelog.contains("v0.2.0"), "{said}");
    assert_eq!(section(&said, "migrations"), "migrations: 0002_step.sql");
    let manifests = section(&said, "manifests");
    assert!(manifests.contains("\n  -  DOJO_MANIFESTS: v0.2.0\n  +  DOJO_MANIFESTS: v0.4.0\n"), "{said}");
    assert_eq!(section(&said, "required"), "required: the same Secrets and configuration keys");
    assert!(section(&said, "to pull").ends_with("for a node that has v0.2.0"), "{said}");
    assert_eq!(
        section(&said, "gates"),
        "gates:\n  would be refused: staging does not run it first: v0.2.0 is pinned there (--override after)"
    );

    let back = operator.ends(0, &["diff", "production", "v0.1.0"]);
    assert_eq!(section(&back, "commits"), "commits: 0\n  takes back 1:\n  - v0.2.0");
    assert!(section(&back, "changelog").contains("takes back v0.2.0"), "{back}");

    // What `promote` would take is what staging pins.
    let same = operator.ends(0, &["diff", "production"]);
    assert_eq!(same, "production pins v0.2.0 already: nothing would change\n");
    operator.ends(3, &["diff", "production", "v9.9.9"]);
    assert_eq!(stage.head(), head, "a look changes nothing");
}

#[test]
fn what_nothing_ran_before_is_told_too() {
    if !rendered::possible() {
        return;
    }
    let (_stage, operator) = stage();
    let said = operator.ends(0, &["diff", "staging", "v0.2.0"]);
    assert!(said.starts_with("staging: nothing -> v0.2.0\n"), "{said}");
    assert!(section(&said, "commits").contains("\n  + v0.2.0\n  + v0.1.0"), "{said}");
    assert_eq!(section(&said, "migrations"), "migrations: 0001_step.sql");
    assert!(section(&said, "manifests").ends_with("objects, and nothing to compare them with"), "{said}");
    let required = section(&said, "required");
    assert!(required.contains("ConfigMap dojo-staging/dojo (new)"), "{said}");
    let first = "first: kubectl -n dojo-staging create secret generic dojo --from-file=tokens=FILE";
    assert!(
        required.contains(&format!("Secret dojo-staging/dojo (new)\n    + tokens\n    {first}")),
        "{said}"
    );
    assert_eq!(section(&said, "gates"), "gates: all are met");
}

#[test]
fn what_a_pod_newly_needs_is_named_with_the_command_that_makes_it() {
    if !rendered::possible() {
        return;
    }
    let (stage, operator) = stage();
    operator.ends(0, &["promote", "staging", "edge", "--yes"]);
    let alone = next(&stage, &[(6_000, 1)], &[]);
    let said = operator.ends(0, &["diff", "staging", &alone]);
    assert_eq!(section(&said, "commits"), "commits: 1\n  + what comes next");
    assert!(section(&said, "manifests").starts_with("manifests: only the image changes\n"), "{said}");

    let base = "deploy/k8s/base";
    let edits = [
        (
            format!("{base}/deployment.yaml"),
            "                name: dojo\n",
            "                name: dojo\n            - secretRef:\n                name: mail\n",
        ),
        (
            format!("{base}/deployment.yaml"),
            "                path: tokens\n",
            "                path: tokens\n              - key: pepper\n                path: pepper\n",
        ),
        (format!("{base}/kustomization.yaml"), "DOJO_MANIFESTS=", "DOJO_TELLS="),
    ];
    let edits: Vec<_> = edits.iter().map(|(name, from, to)| (name.as_str(), *from, *to)).collect();
    let tag = next(&stage, &[(6_000, 1), (9_000, 2)], &edits);
    let said = operator.ends(0, &["diff", "staging", &tag]);
    assert!(!said.contains("only the image changes"), "{said}");
    assert_eq!(
        section(&said, "required"),
        "required:
  ConfigMap dojo-staging/dojo
    + DOJO_TELLS
    - DOJO_MANIFESTS
  Secret dojo-staging/dojo
    + pepper
    first: kubectl -n dojo-staging create secret generic dojo --from-file=pepper=FILE --from-file=tokens=FILE --dry-run=client -o yaml | kubectl -n dojo-staging apply -f -
  Secret dojo-staging/mail (new)
    + all of it; its keys are not named
    first: kubectl -n dojo-staging create secret generic mail --from-env-file=FILE"
    );
    let json = told(&operator, &["staging", &tag]);
    let pull = &json["pull"]["known"];
    let [bytes, all] = ["bytes", "bytes_in_all"].map(|key| pull[key].as_u64().unwrap());
    let images = stage.project.json(&["image", "diff", &stage.image("edge").sha_tag(), &tag, "--json"]);
    assert_eq!((json!(bytes), json!(all)), (images["bytes_to_pull"].clone(), images["bytes_in_all"].clone()));
    assert!(bytes < all && bytes > 0, "{json}");
    assert_eq!(json["commits"]["known"]["brings"], json!(["what comes next", "what comes next"]), "{json}");
}

#[test]
fn what_cannot_be_told_is_unknown_and_the_rest_is_told() {
    let (stage, operator) = stage();
    for version in ["v0.1.0", "v0.2.0"] {
        operator.ends(0, &["promote", "staging", version, "--yes"]);
    }
    stage.service("staging").set_silent(true);
    let silent = operator.ends(0, &["diff", "staging", "v0.4.0"]);
    assert!(
        section(&silent, "migrations").starts_with("migrations: unknown, at most 0002_step.sql"),
        "{silent}"
    );

    let bin = tempfile::tempdir().unwrap();
    let kubectl = bin.path().join("kubectl");
    fs::write(&kubectl, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    let args = ["diff", "staging", "v0.4.0"];
    let bare = environments::ended(0, &args, &operator.xtask(&args).env("PATH", path).output().unwrap());
    for name in ["manifests", "required"] {
        assert!(section(&bare, name).starts_with(&format!("{name}: unknown: ")), "{bare}");
    }
    assert!(section(&bare, "to pull").ends_with("for a node that has v0.2.0"), "{bare}");

    let file = operator.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let registry = text.lines().find(|line| line.starts_with("registry: ")).unwrap();
    fs::write(&file, text.replace(registry, "registry: 127.0.0.1:1/blogle/dojo")).unwrap();
    let down = operator.ends(0, &["diff", "staging", "v0.4.0"]);
    assert_eq!(section(&down, "commits"), "commits: 2\n  + v0.4.0\n  + v0.3.0");
    for name in ["migrations", "to pull", "gates"] {
        assert!(section(&down, name).starts_with(&format!("{name}: unknown: ")), "{down}");
    }
    fs::write(&file, text).unwrap();

    // The project's remote is away; this clone and the image's label tell what they can.
    fs::rename(stage.origin(), stage.origin().with_extension("away")).unwrap();
    let away = operator.ends(0, &["diff", "staging", "v0.4.0"]);
    assert_eq!(section(&away, "commits"), "commits: 2\n  + v0.4.0\n  + v0.3.0");
    assert!(section(&away, "to pull").ends_with("for a node that has v0.2.0"), "{away}");
    for name in ["changelog", "manifests", "gates"] {
        assert!(section(&away, name).starts_with(&format!("{name}: unknown: ")), "{away}");
    }
    // Without a name there is nothing to compare with.
    operator.ends(1, &["diff", "staging"]);
}
