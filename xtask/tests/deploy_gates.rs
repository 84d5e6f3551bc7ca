//! What stands in the way of a promotion or a rollback, as the person sees it who gave the command, and what the infra
//! repository keeps of it.

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

use environments::{Environments, Operator, path};
use project::run;
use serde_json::{Value, json};

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

fn edit_pipeline(operator: &Operator, from: &str, to: &str) {
    let file = operator.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

fn message(stage: &Environments) -> String {
    stage.infra.git(&["log", "-1", "--format=%B", "main"])
}

/// The command is refused so, and the infra repository stays as it was.
fn refused(stage: &Environments, operator: &Operator, code: i32, args: &[&str], words: &[&str]) -> String {
    let before = stage.head();
    let said = operator.ends(code, &[args, &["--yes"]].concat());
    for word in words {
        assert!(said.contains(word), "{args:?}: {word} is missing in: {said}");
    }
    assert_eq!(stage.head(), before, "{args:?} changed something");
    said
}

#[test]
fn a_hold_stops_promotions_and_rollbacks_until_it_is_over_or_passed() {
    let (stage, operator) = stage();
    let said = operator.ends(0, &["hold", "production", "the books are audited", "--yes"]);
    assert!(said.contains("hold production: the books are audited") && said.contains("done: infra commit"));
    assert_eq!(message(&stage).lines().next().unwrap(), "dojo: hold production");
    assert_eq!(stage.infra.git(&["show", "main:dojo/production/HOLD"]), "the books are audited");
    assert!(operator.ends(0, &["status"]).contains("\nproduction: held: the books are audited\n"));
    let again = operator.ends(0, &["hold", "production", "the books are audited", "--yes"]);
    assert!(again.contains("nothing to do"), "{again}");

    operator.ends(0, &["promote", "staging", "v0.2.0", "--yes"]);
    let held = "production is held: the books are audited";
    refused(&stage, &operator, 3, &["rollback"], &[held, "cargo xtask unhold production", "--override hold"]);
    refused(&stage, &operator, 3, &["promote", "production", "v0.2.0"], &[held]);
    let args =
        ["promote", "production", "v0.2.0", "--override", "hold", "--because", "they found it", "--yes"];
    let said = operator.ends(0, &args);
    assert!(said.contains("passed  hold: they found it"), "{said}");
    assert!(message(&stage).ends_with("Override: hold because they found it"), "{}", message(&stage));
    assert_eq!(stage.pinned()[1], "v0.2.0");

    operator.ends(0, &["unhold", "production", "--yes"]);
    assert!(operator.ends(0, &["unhold", "production", "--yes"]).contains("not held: nothing to do"));
    operator.ends(0, &["rollback", "--to", "v0.3.0", "--because", "it lost a cent", "--yes"]);
    assert!(message(&stage).contains("\nBecause: it lost a cent\n"), "{}", message(&stage));
    operator.ends(2, &["hold", "production", " ", "--yes"]);
    operator.ends(2, &["hold", "qa", "why", "--yes"]);
}

#[test]
fn an_image_soaks_by_the_services_own_account() {
    let (stage, operator) = stage();
    edit_pipeline(&operator, "after: staging", "after: staging, soak: 2h");
    operator.ends(0, &["promote", "staging", "v0.2.0", "--yes"]);
    let staging = stage.service("staging");
    staging.set("uptime_seconds", json!(750));
    let words = [
        "staging has run it for 12m 30s, and production asks for 2h",
        "in 1h 47m it is enough",
        "--override soak",
    ];
    refused(&stage, &operator, 3, &["promote", "production"], &words);
    staging.set("uptime_seconds", json!(7200));
    staging.set_ready(false);
    refused(&stage, &operator, 3, &["promote", "production"], &["staging runs it but is not ready"]);
    staging.set_silent(true);
    refused(
        &stage,
        &operator,
        1,
        &["promote", "production"],
        &["whether it runs is unknown", "HTTP status 503"],
    );
    staging.set_silent(false);
    staging.set_ready(true);
    let said = operator.ends(0, &["promote", "production", "--yes"]);
    assert!(
        said.contains("promote production: v0.3.0 -> v0.2.0") && said.contains("runs it, for 2h"),
        "{said}"
    );
}

#[test]
fn the_data_files_schema_is_asked_remembered_or_told_but_never_guessed() {
    let (stage, operator) = stage();
    operator.ends(0, &["promote", "staging", "v0.4.0", "--yes"]);
    let said = operator.ends(0, &["promote", "production", "v0.4.0", "--yes"]);
    assert!(said.contains("schema  2, migrations to run: 0002_step.sql"), "{said}");
    let message = message(&stage);
    for trailer in [
        "Migrations that will run: 0002_step.sql",
        "Pin-Schema: 2",
        "Pin-Oldest-Binary: 2",
        "Pin-Seen: schema 1, oldest binary 1, ledger ledger-of-production, sequence 7",
        &format!("Pin-Commit: {}", stage.image("v0.4.0").commit),
    ] {
        assert!(message.contains(trailer), "{trailer} is missing in {message}");
    }
    let words = ["production's data file has schema 2, and v0.3.0 knows schema 1: it would need a downgrade"];
    refused(&stage, &operator, 3, &["rollback"], &words);

    stage.service("production").set_silent(true);
    let words = [
        "the schema of the data file is between 1 and 2",
        "dojo migrate --plan",
        "--file-schema N",
        "newest safe version: v0.4.0, which is pinned now; fix forward",
    ];
    refused(&stage, &operator, 3, &["rollback"], &words);
    refused(&stage, &operator, 3, &["rollback", "--file-schema", "2"], &["would need a downgrade"]);
    refused(
        &stage,
        &operator,
        3,
        &["rollback", "--file-schema", "0"],
        &["a file does not go back without a restore"],
    );
    let said = operator.ends(0, &["rollback", "--file-schema", "1", "--yes"]);
    assert!(said.contains("take care: an image with schema 2 was pinned here"), "{said}");
    let message = stage.infra.git(&["log", "-1", "--format=%B", "main"]);
    assert!(message.contains("Pin-File-Schema: 1, told by the operator") && !message.contains("Pin-Seen"));
    // v0.4.0 opens all that it can be.
    let args = ["rollback", "--to", "v0.4.0", "--yes"];
    assert!(operator.ends(0, &args).contains("v0.4.0 opens all that it can be: between 1 and 2"));
}

#[test]
fn with_the_registry_down_a_rollback_goes_on_by_what_is_remembered_and_a_promotion_does_not() {
    let (stage, operator) = stage();
    operator.ends(0, &["promote", "staging", "v0.2.0", "--yes"]);
    let registry = format!("oci:{}", stage.project.path("registry").display());
    edit_pipeline(&operator, &registry, "127.0.0.1:1/blogle/dojo");
    refused(&stage, &operator, 1, &["promote", "production", "v0.2.0"], &["127.0.0.1:1"]);
    let said = operator.ends(0, &["rollback", "--yes"]);
    assert!(
        said.contains("take care: the registry does not answer (") && said.contains("v0.2.0 ran here before"),
        "{said}"
    );
    assert_eq!(stage.pin("main", "production"), stage.pin("main", "staging"));
    // What no commit describes, nobody knows.
    edit_by_hand(&stage, "staging", &|text| {
        text.replace("v0.2.0", "v0.1.0").replace(&stage.image("v0.2.0").digest, &stage.image("v0.1.0").digest)
    });
    refused(&stage, &operator, 1, &["rollback", "staging", "--to", "v0.1.0"], &["127.0.0.1:1"]);
}

/// Somebody edits an environment's file by hand.
fn edit_by_hand(stage: &Environments, environment: &str, change: &dyn Fn(&str) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path();
    run("git", &["clone", "--quiet", &stage.path(), "."], work);
    let file = work.join(path(environment));
    fs::write(&file, change(&fs::read_to_string(&file).unwrap())).unwrap();
    let who = ["-c", "user.name=Hand", "-c", "user.email=hand@example.com", "-c", "commit.gpgsign=false"];
    run("git", &[&who[..], &["commit", "--quiet", "--all", "--message", "by hand"]].concat(), work);
    run("git", &["push", "--quiet", "origin", "main"], work);
}

#[test]
fn a_tag_that_was_moved_is_seen_and_one_that_is_gone_stops_everything() {
    let (stage, operator) = stage();
    let (origin, moved) = (stage.origin(), stage.image("v0.1.0").commit.clone());
    operator.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    run("git", &["update-ref", "refs/tags/v0.2.0", &moved], &origin);
    let words =
        [format!("git's v0.2.0 is commit {moved}, but the image was built from"), "--override tag".into()];
    let words = words.each_ref().map(String::as_str);
    refused(&stage, &operator, 3, &["promote", "staging", "v0.2.0"], &words);
    refused(&stage, &operator, 3, &["rollback"], &words);
    let args = ["rollback", "--override", "tag", "--because", "the same tree", "--yes"];
    operator.ends(0, &args);
    assert!(message(&stage).contains("Override: tag because the same tree"));
    run("git", &["tag", "--delete", "v0.3.0"], &origin);
    let args = ["rollback", "--to", "v0.3.0", "--override", "tag", "--because", "x"];
    let said = refused(&stage, &operator, 3, &args, &["the project's remote has no v0.3.0"]);
    assert!(!said.contains("--override tag --because \"…\""), "{said}");
}

#[test]
fn all_reasons_are_told_at_once_and_numbered_and_json_has_them_too() {
    let (stage, operator) = stage();
    operator.ends(0, &["hold", "production", "audit", "--yes"]);
    let args = ["promote", "production", "edge"];
    let words = [
        "(1) production is held",
        "(2) production accepts release",
        "(3) staging does not run it first",
        "(4) production's data",
    ];
    stage.service("production").set_file_schema(3);
    refused(&stage, &operator, 3, &args, &words);
    let output = operator.run(&[&args[..], &["--json", "--yes"]].concat());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["state"], "refused");
    assert!(answer["error"].as_str().unwrap().contains("(4) production's data"), "{answer}");
    operator.ends(2, &["promote", "production", "v0.3.0", "--override", "hold"]);
    operator.ends(2, &["promote", "production", "v0.3.0", "--override", "schema", "--because", "x"]);
}

#[test]
fn an_environment_that_follows_edge_is_left_alone_while_it_is_held_or_was_rolled_back() {
    let (stage, operator) = stage();
    operator.ends(0, &["promote", "staging", "v0.4.0", "--yes"]);
    let follow = ["promote", "staging", "edge", "--follow", "--yes", "--json"];
    operator.ends(2, &follow);
    edit_pipeline(&operator, "accepts: [edge, sha, release]", "accepts: [edge, sha, release], follow: edge");
    let state = || {
        let output = operator.run(&follow);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["state"].as_str().unwrap().to_owned()
    };
    operator.ends(0, &["hold", "staging", "a demonstration", "--yes"]);
    assert_eq!(state(), "left alone");
    operator.ends(0, &["unhold", "staging", "--yes"]);
    assert_eq!(state(), "done");
    let edge = stage.image("edge");
    assert_eq!(stage.pin("main", "staging").git_ref.as_ref(), Some(&edge.commit));
    assert_eq!(state(), "nothing to do");
    operator.ends(0, &["rollback", "staging", "--yes"]);
    assert_eq!(state(), "left alone");
    assert_eq!(stage.pinned()[0], "v0.4.0");
    // A person may, and is told.
    let said = operator.ends(0, &["promote", "staging", "edge", "--yes"]);
    assert!(said.contains("take care") && said.contains("was rolled back from here"), "{said}");
}

#[test]
fn a_restore_is_written_beside_the_pin_once_and_ends_with_the_next_change() {
    let (stage, operator) = stage();
    let production = stage.service("production");
    let backup = |id: &str, schema: u32| json!({ "id": id, "schema": schema, "sequence": 4, "made_at": "2026-01-02T02:14:00Z" });
    production.set("backups", json!([backup("ledger-schema1-seq4", 1)]));
    let restore = ["rollback", "--restore", "ledger-schema1-seq4"];
    let said = operator.ends(0, &[&restore[..], &["--dry-run"]].concat());
    assert!(
        said.contains("data that is lost: sequences 5 to 7, written since 2026-01-02T02:14:00Z"),
        "{said}"
    );
    refused(
        &stage,
        &operator,
        3,
        &["rollback", "--restore", "ledger-schema1-seq3"],
        &[
            "production does not list a backup ledger-schema1-seq3",
            "ledger-schema1-seq4",
            "--override restore",
        ],
    );
    refused(&stage, &operator, 2, &["rollback", "--restore", "../x"], &["is no backup's id"]);
    operator.ends(0, &[&restore[..], &["--yes"]].concat());
    let env = || stage.infra.git(&["show", "main:dojo/production/restore.env"]);
    assert!(env().ends_with("DOJO_RESTORE=ledger-schema1-seq4"), "{}", env());
    assert_eq!(stage.pinned()[1], "v0.2.0");
    assert!(operator.ends(0, &[&restore[..], &["--yes"]].concat()).contains("nothing to do"));
    let pending = "production was told to restore ledger-schema1-seq4, and has not said that it did";
    refused(&stage, &operator, 3, &["rollback", "--to", "v0.3.0"], &[pending]);
    production.set("restored", json!({ "id": "ledger-schema1-seq4", "at": "2026-01-03T00:00:00Z" }));
    operator.ends(0, &["rollback", "--to", "v0.3.0", "--yes"]);
    assert!(env().ends_with("DOJO_RESTORE="), "{}", env());
    refused(&stage, &operator, 3, &restore, &["an id is applied once", "copy the backup under another name"]);
}

#[test]
fn ci_promotes_each_commit_of_the_branch_where_edge_is_followed() {
    let (stage, operator) = stage();
    edit_pipeline(&operator, "accepts: [edge, sha, release]", "accepts: [edge, sha, release], follow: edge");
    // As if it were committed so.
    operator.checkout.run("git", &["update-index", "--assume-unchanged", "deploy/pipeline.yaml"]);
    let publish = ["ci", "publish", "--git-ref", "refs/heads/master", "--builder", "cargo"];
    operator.ends(0, &["hold", "staging", "a demonstration", "--yes"]);
    let said = operator.ends(0, &publish);
    assert!(said.contains("staging: left alone") && stage.pinned()[0] == "v0.3.0", "{said}");
    operator.ends(0, &["unhold", "staging", "--yes"]);
    let said = operator.ends(0, &publish);
    assert!(said.contains("staging: done"), "{said}");
    assert_eq!(stage.pinned(), [stage.image("edge").sha_tag(), "v0.3.0".to_owned()]);

    operator.ends(0, &["promote", "staging", "v0.4.0", "--yes"]);
    stage.hook("echo 'error: GH013: not today' >&2; exit 1");
    let said = operator.ends(3, &publish);
    let told = "the image is published, but staging does not follow: ";
    assert!(said.contains(told) && said.contains("GH013: not today"), "{said}");
    assert!(said.contains("by hand: cargo xtask promote staging edge"), "{said}");
}

#[test]
fn the_same_rollback_again_goes_no_further_back() {
    let (stage, operator) = stage();
    operator.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    operator.ends(0, &["promote", "production", "v0.1.0", "--yes"]);
    operator.ends(0, &["rollback", "--yes"]);
    assert_eq!(stage.pinned()[1], "v0.3.0");
    let restore = [
        "rollback",
        "--restore",
        "ledger-schema1-seq4",
        "--override",
        "restore",
        "--because",
        "it is there",
        "--yes",
    ];
    operator.ends(0, &restore);
    for again in [&restore[..], &["rollback", "--yes"]] {
        assert!(operator.ends(0, again).contains("already pins v0.3.0: nothing to do"));
    }
    // What somebody changes beside the pin is no step back either.
    edit_by_hand(&stage, "production", &|text| format!("# reviewed\n{text}"));
    assert!(operator.ends(0, &["rollback", "--yes"]).contains("already pins v0.3.0"));

    // A tag without its digest is left as bad all the same.
    edit_by_hand(&stage, "staging", &|text| {
        let lines = text
            .lines()
            .filter(|line| !line.contains("digest:"))
            .map(|line| line.replace("v0.1.0", "v0.2.0"));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    });
    operator.ends(0, &["rollback", "staging", "--yes"]);
    assert!(
        message(&stage).contains(&format!("Pin-Bad: {}", stage.image("v0.2.0").digest)),
        "{}",
        message(&stage)
    );
    assert!(operator.ends(0, &["rollback", "staging", "--yes"]).contains("nothing to do"));
}

#[test]
fn an_image_that_is_pinned_by_digest_alone_counts() {
    let (stage, operator) = stage();
    edit_by_hand(&stage, "production", &|text| {
        let text = text.replace(&stage.image("v0.3.0").digest, &stage.image("v0.4.0").digest);
        text.lines().filter(|line| !line.contains("newTag:")).collect::<Vec<_>>().join("\n") + "\n"
    });
    stage.service("production").set_silent(true);
    refused(&stage, &operator, 3, &["rollback"], &["the schema of the data file is between 1 and 2"]);
}

#[test]
fn a_broken_kustomization_can_be_held_and_a_hold_is_not_replaced() {
    let (stage, operator) = stage();
    edit_by_hand(&stage, "production", &|text| format!("{text}---\nkind: Other\n"));
    refused(&stage, &operator, 3, &["promote", "production", "v0.2.0"], &["kustomization.yaml"]);
    operator.ends(0, &["hold", "production", "broken, do not touch", "--yes"]);
    let words = ["production is held already: broken, do not touch", "cargo xtask unhold production"];
    refused(&stage, &operator, 3, &["hold", "production", "mine"], &words);
}

#[test]
fn a_rollback_goes_on_without_the_projects_remote_and_what_was_rolled_back_comes_again_by_name_alone() {
    let (stage, operator) = stage();
    let (origin, away) = (stage.origin(), stage.origin().with_extension("away"));
    fs::rename(&origin, &away).unwrap();
    refused(&stage, &operator, 1, &["promote", "production", "v0.2.0"], &["refs/tags/v0.2.0"]);
    let said = operator.ends(0, &["rollback", "--yes"]);
    assert!(said.contains("warning: the project's remote does not answer"), "{said}");
    fs::rename(&away, &origin).unwrap();
    let words = ["v0.3.0 was rolled back from here", "name it: cargo xtask promote production v0.3.0"];
    refused(&stage, &operator, 3, &["promote", "production"], &words);
    let said = operator.ends(0, &["promote", "production", "v0.3.0", "--yes"]);
    assert!(said.contains("take care: v0.3.0 was rolled back from here"), "{said}");
}
