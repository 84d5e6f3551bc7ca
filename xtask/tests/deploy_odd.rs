//! What people, bots and broken services may leave behind, and what a promotion or a rollback makes of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/environments.rs"]
mod environments;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;

use std::fs;
use std::path::Path;

use environments::{Environments, Operator, path};
use project::run;
use serde_json::{Value, json};

const WHO: [&str; 6] =
    ["-c", "user.name=Hand", "-c", "user.email=hand@example.com", "-c", "commit.gpgsign=false"];

/// Staging and production run v0.3.0, after v0.2.0.
fn stage() -> (Environments, Operator) {
    let stage = Environments::new();
    let operator = stage.operator("somebody", &stage.path());
    for version in ["v0.2.0", "v0.3.0"] {
        for environment in ["staging", "production"] {
            operator.ends(0, &["promote", environment, version, "--yes"]);
        }
    }
    (stage, operator)
}

/// Somebody works in a clone of the infra repository.
fn by_hand(stage: &Environments, work: impl Fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    run("git", &["clone", "--quiet", &stage.path(), "."], folder.path());
    work(folder.path());
}

fn git(folder: &Path, args: &[&str]) -> String {
    run("git", &[&WHO[..], args].concat(), folder)
}

fn pin_by_hand(stage: &Environments, work: &Path, to: &str, message: &str) {
    let file = work.join(path("production"));
    let from = stage.pin("main", "production");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace(&from.tag.unwrap(), to).replace(&from.digest.unwrap(), &stage.image(to).digest);
    fs::write(&file, text).unwrap();
    git(work, &["commit", "--quiet", "--all", "--message", message]);
}

#[test]
fn a_commit_may_say_what_it_likes_of_an_image_that_the_registry_has() {
    let (stage, operator) = stage();
    by_hand(&stage, |work| {
        let digest = &stage.image("v0.4.0").digest;
        let lie = format!("by hand\n\nPin-Digest: {digest}\nPin-Schema: 1\nPin-Oldest-Binary: 1\n");
        pin_by_hand(&stage, work, "v0.4.0", &lie);
        git(work, &["push", "--quiet", "origin", "main"]);
    });
    stage.service("production").set_silent(true);
    let said = operator.ends(3, &["rollback", "--yes"]);
    assert!(said.contains("the schema of the data file is between 1 and 2"), "{said}");
}

#[test]
fn a_merge_the_wrong_way_round_hides_no_pin() {
    let (stage, operator) = stage();
    by_hand(&stage, |work| {
        fs::write(work.join("NOTES"), "mine\n").unwrap();
        git(work, &["add", "NOTES"]);
        git(work, &["commit", "--quiet", "--message", "notes"]);
        operator.ends(0, &["rollback", "--yes"]);
        git(work, &["pull", "--quiet", "--no-rebase", "--no-edit"]);
        git(work, &["push", "--quiet", "origin", "main"]);
    });
    let again = operator.ends(0, &["rollback", "--yes"]);
    assert!(again.contains("already pins v0.2.0: nothing to do"), "{again}");
    let named = operator.ends(0, &["promote", "production", "v0.3.0", "--dry-run"]);
    assert!(named.contains("take care: v0.3.0 was rolled back from here"), "{named}");
}

#[test]
fn a_history_that_begins_with_a_pin_is_not_the_whole_one() {
    let (stage, operator) = stage();
    by_hand(&stage, |work| {
        git(work, &["checkout", "--quiet", "--orphan", "squashed"]);
        git(work, &["commit", "--quiet", "--message", "all in one"]);
        git(work, &["push", "--quiet", "--force", "origin", "squashed:main"]);
    });
    stage.service("production").set_silent(true);
    let pass = ["--override", "after", "--because", "x", "--yes"];
    let said = operator.ends(3, &[&["promote", "production", "v0.2.0"], &pass[..]].concat());
    assert!(said.contains("the schema of the data file is unknown"), "{said}");
}

#[test]
fn a_service_writes_no_trailers_and_makes_nothing_panic() {
    let (stage, operator) = stage();
    let production = stage.service("production");
    production.set("ledger", json!({ "id": "L\nPin-Schema: 1\nPin-Oldest-Binary: 1", "sequence": 7 }));
    let said = operator.ends(0, &["rollback", "--dry-run"]);
    assert!(said.contains("not the answer of dojo: a name in it is too long, or no text"), "{said}");
    production.set("ledger", json!({ "id": "ledger-of-production", "sequence": 7 }));
    let most = u32::MAX;
    production.set("schema", json!({ "binary": most, "file": most, "file_oldest_binary": 1 }));
    let said = operator.ends(0, &["rollback", "--dry-run"]);
    assert!(said.contains(&format!("schema {most}")), "{said}");

    let file = operator.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&file).unwrap().replace("after: staging", "after: staging, soak: 2h");
    fs::write(&file, text).unwrap();
    operator.ends(0, &["promote", "staging", "v0.2.0", "--yes"]);
    stage.service("staging").set("uptime_seconds", json!(1_u64 << 63));
    let said = operator.ends(1, &["promote", "production", "--yes"]);
    assert!(said.contains("staging does not say for how long it has run it"), "{said}");
}

/// The repository has several services: `v0.2.0` is a tag of another one, and `dojo-v0.2.0` is ours.
#[test]
fn a_service_among_others_is_pinned_by_its_own_tags() {
    let stage = Environments::new();
    let operator = stage.operator("somebody", &stage.path());
    let file = operator.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("tag_prefix: dojo-\n{text}")).unwrap();
    let origin = |args: &[&str]| git(&stage.origin(), args);
    for version in ["v0.1.0", "v0.2.0"] {
        origin(&[
            "-c",
            "tag.gpgsign=false",
            "tag",
            "--annotate",
            "-m",
            "ours",
            &format!("dojo-{version}"),
            version,
        ]);
        origin(&["-c", "tag.gpgsign=false", "tag", "--force", version, "master"]);
        for environment in ["staging", "production"] {
            operator.ends(0, &["promote", environment, version, "--yes"]);
            let pin = stage.pin("main", environment);
            let says = (pin.git_ref, pin.tag);
            assert_eq!(says, (Some(format!("dojo-{version}")), Some(version.to_owned())), "{environment}");
        }
    }
    let message = stage.infra.git(&["log", "-1", "--format=%B", "main"]);
    assert!(message.starts_with("dojo: production v0.1.0 -> v0.2.0\n"), "{message}");
    assert!(message.contains("Brings v0.2.0:") && message.contains("\nPin-To: v0.2.0\n"), "{message}");
    // The tag v0.3.0 is there, and is another service's.
    let said = operator.ends(3, &["promote", "staging", "v0.3.0", "--yes"]);
    assert!(said.contains("the project's remote has no dojo-v0.3.0\n"), "{said}");
    let said = operator.ends(0, &["rollback", "--yes"]);
    assert!(said.contains("ref     dojo-v0.2.0 -> dojo-v0.1.0\n"), "{said}");
    assert_eq!(stage.pinned(), ["v0.2.0", "v0.1.0"]);
    let last = stage.head();
    stage.infra.git(&["update-ref", "refs/heads/rollback", &last]);
    stage.reset(&stage.infra.git(&["rev-parse", "main^"]));
    let said = operator.ends(0, &["promote", "verify", "--head", "refs/heads/rollback"]);
    assert!(said.contains("production: roll back v0.2.0 -> v0.1.0: every gate is met"), "{said}");
    // Moved: it is seen under its own name.
    origin(&["-c", "tag.gpgsign=false", "tag", "--force", "dojo-v0.1.0", "master"]);
    let said = operator.ends(3, &["rollback", "--yes"]);
    assert!(said.contains("git's dojo-v0.1.0 is commit "), "{said}");
}

#[test]
fn a_commits_image_that_was_released_since_goes_on_by_its_version() {
    let (stage, operator) = stage();
    operator.ends(0, &["promote", "staging", &stage.image("v0.2.0").sha_tag(), "--yes"]);
    operator.ends(0, &["promote", "production", "--yes"]);
    assert_eq!(stage.pinned(), [stage.image("v0.2.0").sha_tag(), "v0.2.0".to_owned()]);
}

#[test]
fn a_restore_of_one_id_is_not_asked_for_with_two_images() {
    let (_stage, operator) = stage();
    let restore = |to: &str| {
        let pass = ["--override", "restore", "--because", "it is there"];
        let output = operator.run(
            &[&["rollback", "--to", to, "--restore", "ledger-schema1-seq4", "--yes"], &pass[..]].concat(),
        );
        output.status.code().unwrap()
    };
    assert_eq!(restore("v0.2.0"), 0);
    let args = ["rollback", "--to", "v0.3.0", "--restore", "ledger-schema1-seq4", "--yes"];
    let said = operator.ends(3, &args);
    assert!(said.contains("and an id is applied once"), "{said}");
}

#[test]
fn what_is_no_text_holds_and_whoever_asks_for_json_gets_it() {
    let (stage, operator) = stage();
    by_hand(&stage, |work| {
        fs::write(work.join("dojo/production/HOLD"), b"\xff\xfe").unwrap();
        git(work, &["add", "--all"]);
        git(work, &["commit", "--quiet", "--message", "hold"]);
        git(work, &["push", "--quiet", "origin", "main"]);
    });
    assert!(operator.ends(3, &["rollback", "--yes"]).contains("production is held: "));
    let output = operator.run(&["hold", "production", "why", "--yes", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((answer["state"].as_str(), output.status.code()), (Some("refused"), Some(3)), "{answer}");
    operator.ends(0, &["unhold", "production", "--yes"]);
    operator.ends(0, &["rollback", "--yes"]);
}
