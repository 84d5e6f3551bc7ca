//! `release` after something happened to the repository, the registry or GitHub since it ran last.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/github.rs"]
mod github;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/proxy.rs"]
mod proxy;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/stage.rs"]
mod stage;
#[path = "tools/steps.rs"]
mod steps;
mod tools;

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use docker_registry::Registry;
use github::Release;
use proxy::Harm;
use serde_json::{Value, json};
use stage::{CHECKS, Stage};
use steps::{commit, ends, finish, message, prepared, push, refuses, scene, tagged, tags, through};

/// What `release status` says in a word.
fn state(stage: &Stage, version: &str) -> Value {
    let output = stage.release(&["status", version, "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    told["state"].clone()
}

fn number(pull: &Value) -> u64 {
    pull["number"].as_u64().unwrap()
}

fn write_notes(stage: &Stage, notes: &str) {
    let path = stage.project.path("CHANGELOG.md");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replace("## [Unreleased]\n", &format!("## [Unreleased]\n\n{notes}\n"))).unwrap();
}

#[test]
fn of_two_preparations_the_one_that_was_reverted_is_not_tagged() {
    let Some((stage, first)) = prepared() else { return };
    stage.turn_green(&first);
    stage.git(&["revert", "--no-edit", "HEAD"]);
    let between = commit(&stage, "Add what was missing");
    push(&stage, "master");
    let said = ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    let second = stage.head("master");
    assert!(second != between && tags(&stage).is_empty(), "{said}");
    finish(&stage, "v0.2.0");
    assert_eq!(tagged(&stage, "v0.2.0"), second);
    stage.remote.git(&["merge-base", "--is-ancestor", &between, "v0.2.0"]);
    let subjects = stage.remote.git(&["log", "--format=%s", "v0.2.0"]);
    assert_eq!(subjects.lines().filter(|subject| *subject == "release: v0.2.0").count(), 2, "{subjects}");
    let changelog = stage.remote.git(&["show", "v0.2.0:CHANGELOG.md"]);
    assert_eq!(changelog.matches("A thing to release.").count(), 1, "{changelog}");
}

#[test]
fn of_two_fixes_that_came_at_once_the_one_that_ci_tested_is_tagged() {
    let Some((stage, red)) = prepared() else { return };
    stage.repository.set_check(&red, CHECKS[0], "completed", Some("failure"));
    stage.repository.set_check(&red, CHECKS[1], "completed", Some("success"));
    refuses(&stage, &["v0.2.0", "--yes"], &[&red[..12], "check test is failure"]);
    let untested = commit(&stage, "Fix a half");
    let fixed = commit(&stage, "Fix the rest");
    stage.git(&["push", "--quiet", "origin", "master"]);
    stage.leave_to_test(&fixed);
    stage.repository.set_check(&fixed, CHECKS[0], "in_progress", None);
    let said = ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    assert!(said.contains(&fixed[..12]) && !said.contains(&untested[..12]), "{said}");
    stage.push_image("master", &fixed);
    stage.turn_green(&fixed);
    finish(&stage, "v0.2.0");
    assert_eq!(tagged(&stage, "v0.2.0"), fixed);
}

#[test]
fn a_version_that_is_under_way_comes_before_the_next() {
    let Some((stage, head)) = prepared() else { return };
    stage.turn_green(&head);
    let next = ["v0.3.0", "--yes"];
    let sayings = ["master is prepared for v0.2.0", "cargo xtask release v0.2.0", "revert the commit"];
    refuses(&stage, &next, &sayings);
    commit(&stage, "Add more");
    push(&stage, "master");
    refuses(&stage, &next, &sayings);
    stage.git(&["revert", "--no-edit", &head]);
    push(&stage, "master");
    ends(&stage.release(&next), 1);
    finish(&stage, "v0.3.0");
    assert_eq!(tags(&stage), "v0.3.0");
}

#[test]
fn a_pull_request_that_was_closed_is_proposed_anew_without_its_branch_alone() {
    let Some(stage) = scene() else { return };
    stage.protect();
    let release = ["v0.2.0", "--yes"];
    ends(&stage.release(&release), 1);
    let closed = number(&stage.repository.pulls()[0]);
    stage.repository.by_hand("PATCH", &format!("pulls/{closed}"), &json!({ "state": "closed" }));
    let remedy = "git push --delete origin prepare/v0.2.0";
    refuses(&stage, &release, &[&format!("/pull/{closed} was closed and not merged"), remedy]);
    assert_eq!(stage.repository.pulls().len(), 1);

    stage.git(&remedy.split(' ').skip(1).collect::<Vec<_>>());
    let said = ends(&stage.release(&release), 1);
    let pulls = stage.repository.pulls();
    let open: Vec<_> = pulls.iter().filter(|pull| pull["state"] == "open").collect();
    assert_eq!((pulls.len(), open.len()), (2, 1), "{said}");
    let merged = stage.repository.merge(number(open[0]), "squash");
    finish(&stage, "v0.2.0");
    assert_eq!(tagged(&stage, "v0.2.0"), merged);
}

#[test]
fn a_pull_request_whose_merge_was_reverted_is_proposed_anew() {
    for how in ["merge", "squash", "rebase"] {
        let Some(stage) = scene() else { return };
        stage.protect();
        ends(&stage.release(&["v0.2.0", "--yes"]), 1);
        let merged = stage.repository.merge(number(&stage.repository.pulls()[0]), how);
        stage.play_ci();
        stage.git(&["pull", "--quiet", "--rebase", "origin", "master"]);
        let revert = ["revert", "--no-edit", "--mainline", "1", &merged];
        let revert = revert.into_iter().filter(|arg| how == "merge" || !["--mainline", "1"].contains(arg));
        stage.git(&revert.collect::<Vec<_>>());
        // Somebody with the right to it.
        let project = stage.project.folder.path().display().to_string();
        stage.remote.git(&["fetch", "--quiet", &project, "HEAD:refs/heads/master"]);
        stage.play_ci();

        let said = ends(&stage.release(&["v0.2.0", "--yes"]), 1);
        let pulls = stage.repository.pulls();
        let open: Vec<_> = pulls.iter().filter(|pull| pull["state"] == "open").collect();
        assert_eq!((pulls.len(), open.len(), tags(&stage).as_str()), (2, 1, ""), "{how}: {said}");
        let again = stage.repository.merge(number(open[0]), how);
        finish(&stage, "v0.2.0");
        assert_eq!(tagged(&stage, "v0.2.0"), again, "{how}");
    }
}

#[test]
fn a_version_without_notes_of_its_own_has_those_of_its_candidates() {
    let Some(stage) = scene() else { return };
    through(&stage, "v0.1.0");
    write_notes(&stage, "### Added\n\n- What people waited for.");
    commit(&stage, "Add it");
    push(&stage, "master");
    through(&stage, "v0.2.0-rc.1");
    let range = "v0.1.0..master";
    let count = stage.remote.git(&["rev-list", "--count", "--no-merges", range]);
    assert_eq!(count, "2", "the change, and the candidate's own commit");
    let said = ends(&stage.release(&["v0.2.0", "--dry-run"]), 0);
    assert!(said.contains("2 commits since v0.1.0; notes drafted"), "{said}");
    through(&stage, "v0.2.0");
    let [candidate, last] = ["v0.2.0-rc.1", "v0.2.0"].map(|tag| message(&stage, tag));
    let notes = |message: &str| message.split_once("\n\n").unwrap().1.trim().to_owned();
    assert_eq!(notes(&candidate), "### Added\n\n- What people waited for.");
    assert_eq!(notes(&last), notes(&candidate));
    let releases = stage.repository.releases();
    assert!(releases[2].tag == "v0.2.0" && releases[2].body.starts_with(&notes(&last)), "{releases:?}");
    assert_eq!(stage.tag("latest"), stage.tag("v0.2.0"));
}

#[test]
fn what_was_released_stays_so_when_its_traces_are_cleaned_away() {
    let Some(stage) = scene() else { return };
    through(&stage, "v0.2.0");
    stage.git(&["fetch", "--quiet", "--tags", "origin"]);
    stage.project.run("git", &["switch", "--quiet", "--create", "release/0.2", "v0.2.0"]);
    commit(&stage, "Fix a thing");
    push(&stage, "release/0.2");
    through(&stage, "v0.2.1");
    let before = (tags(&stage), stage.repository.releases());
    let released = |version: &str| {
        let output = stage.release(&[version, "--yes", "--json"]);
        ends(&output, 0);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&told["state"], &told["plan"]["digest"]),
            (&json!("released"), &json!(stage.tag(version)))
        );
        assert_eq!(state(&stage, version), "released");
    };
    stage.remote.git(&["update-ref", "-d", "refs/heads/release/0.2"]);
    released("v0.2.1");
    stage.project.run("git", &["switch", "--quiet", "master"]);
    commit(&stage, "Add another thing");
    push(&stage, "master");
    released("v0.2.1");
    for version in ["v0.2.0", "v0.2.1"] {
        let sha = format!("sha-{}", &tagged(&stage, version)[..12]);
        let name = format!("{}/_manifests/tags/{sha}", stage.repository.name);
        fs::remove_dir_all(stage.registry.path(&format!("data/docker/registry/v2/repositories/{name}")))
            .unwrap();
        assert_eq!(stage.tag(&sha), None);
        released(version);
    }
    assert_eq!((tags(&stage), stage.repository.releases()), before);
    assert_eq!((stage.repository.asked(), stage.repository.violations()), (vec![], vec![]));
}

#[test]
fn a_draft_that_somebody_writes_is_left_to_them() {
    let Some(stage) = scene() else { return };
    let draft = json!({ "tag_name": "v0.2.0", "name": "Soon", "body": "I am at it.", "draft": true });
    let own = stage.repository.by_hand("POST", "releases", &draft)["id"].as_u64().unwrap();
    through(&stage, "v0.2.0");
    let (theirs, ours): (Vec<Release>, Vec<_>) =
        stage.repository.releases().into_iter().partition(|release| release.id == own);
    assert!(theirs.len() == 1 && theirs[0].draft && theirs[0].assets.is_empty(), "{theirs:?}");
    assert_eq!(theirs[0].body, "I am at it.");
    assert!(ours.len() == 1 && !ours[0].draft && ours[0].assets.len() == 3, "{ours:?}");
}

#[test]
fn a_file_that_was_deleted_from_a_release_is_put_back() {
    let Some(stage) = scene() else { return };
    stage.repository.unlock_releases();
    through(&stage, "v0.2.0");
    let before = stage.repository.releases();
    let shown = stage.repository.by_hand("GET", "releases/tags/v0.2.0", &Value::Null);
    let asset = shown["assets"][1]["id"].as_u64().unwrap();
    stage.repository.by_hand("DELETE", &format!("releases/assets/{asset}"), &Value::Null);
    assert_eq!(stage.repository.releases()[0].assets.len(), 2);

    let said = ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    assert_eq!(stage.repository.asked(), ["dispatch v0.2.0"], "{said}");
    ends(&stage.publish("v0.2.0"), 0);
    stage.repository.end_run(stage.repository.runs()[1].id, "success");
    ends(&stage.release(&["v0.2.0", "--yes"]), 0);
    assert_eq!(stage.repository.releases(), before);
    assert_eq!(stage.repository.violations(), [""; 0]);
}

#[test]
fn a_release_that_somebody_published_half_way_is_completed() {
    if !stage::possible() {
        return;
    }
    let uploads = AtomicUsize::new(0);
    let stage = Stage::new(&Arc::new(Registry::with_password()), move |peer, _| {
        let is_second = peer == "uploads" && uploads.fetch_add(1, Ordering::SeqCst) == 1;
        if is_second { Harm::KillBefore } else { Harm::None }
    });
    stage.repository.unlock_releases();
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    stage.play_ci();
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    let run = stage.repository.start_run("v0.2.0");
    assert!(!stage.publish("v0.2.0").status.success());
    stage.repository.end_run(run, "failure");
    let draft = stage.repository.releases().remove(0);
    assert!(draft.draft && draft.assets.len() == 1, "{draft:?}");
    stage.repository.by_hand("PATCH", &format!("releases/{}", draft.id), &json!({ "draft": false }));

    let said = ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    assert_eq!(stage.repository.asked(), [format!("rerun {run}")], "{said}");
    ends(&stage.publish("v0.2.0"), 0);
    stage.repository.end_run(run, "success");
    ends(&stage.release(&["v0.2.0", "--yes"]), 0);
    let releases = stage.repository.releases();
    assert!(
        releases.len() == 1 && releases[0].id == draft.id && releases[0].assets.len() == 3,
        "{releases:?}"
    );
}

#[test]
fn a_tag_of_ones_own_that_says_something_else_is_not_pushed() {
    let Some(stage) = scene() else { return };
    let (before, remedy) = (stage.head("master"), "git tag --delete v0.2.0");
    stage.git(&["tag", "v0.2.0"]);
    refuses(
        &stage,
        &["v0.2.0", "--yes"],
        &["was not prepared to be v0.2.0", &format!("help: only you have it: {remedy}")],
    );
    assert_eq!(stage.head("master"), before);
    stage.git(&["tag", "--delete", "v0.2.0"]);
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    stage.play_ci();
    let head = stage.head("master");
    let others: [(&[&str], &str); 3] = [
        (&["-a", "-m", "mine", "v0.2.0"], "does not say what this release is to say"),
        (&["v0.2.0"], "does not say what this release is to say"),
        (&["-a", "-m", "mine", "v0.2.0", &before], &format!("names {}, not {}", &before[..12], &head[..12])),
    ];
    for (args, saying) in others {
        stage.git(&[&["tag"], args].concat());
        let own = stage.git(&["rev-parse", "refs/tags/v0.2.0"]);
        refuses(&stage, &["v0.2.0", "--yes"], &[saying, remedy]);
        assert_eq!((tags(&stage).as_str(), stage.git(&["rev-parse", "refs/tags/v0.2.0"])), ("", own));
        stage.git(&remedy.split(' ').skip(1).collect::<Vec<_>>());
    }
    finish(&stage, "v0.2.0");
    assert_eq!(tagged(&stage, "v0.2.0"), head);
}

#[test]
fn a_run_that_fails_twice_ends_the_wait() {
    for slow in [false, true] {
        let Some((stage, head)) = prepared() else { return };
        stage.turn_green(&head);
        ends(&stage.release(&["v0.2.0", "--yes"]), 1);
        let run = stage.repository.start_run("v0.2.0");
        let other = stage.repository.start_run_of("chat.yml", "v0.2.0");
        for run in [run, other] {
            stage.repository.end_run(run, "failure");
        }
        stage.repository.be_slow(slow);
        let mut command = stage.developer(&["release", "v0.2.0", "--wait", "--yes"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            // Before it looks again, where it has to.
            std::thread::sleep(Duration::from_secs(3));
            for again in stage.repository.runs().iter().filter(|run| run.status == "queued") {
                stage.repository.end_run(again.id, "failure");
                stage.repository.be_slow(false);
            }
        }
        let said = ends(&child.wait_with_output().unwrap(), 1);
        assert!(said.contains(&format!("/actions/runs/{run}\nhelp: mend what it says")), "{said}");
        assert_eq!(stage.repository.asked(), [format!("rerun {run}")], "{said}");
        assert_eq!((stage.tag("v0.2.0"), stage.repository.releases()), (None, vec![]));
    }
}
