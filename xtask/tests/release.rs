//! `release` against real git, a real registry and GitHub's stand-in: what stands against a release, what passes it, and
//! the ways that a version takes.

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
use project::run;
use proxy::Harm;
use serde_json::{Value, json};
use stage::{CHECKS, Stage, ended};
use steps::{commit, ends, prepared, publish, push, refuses, scene, tags, through};

#[test]
fn a_commit_is_tagged_only_when_each_check_is_green() {
    let Some((stage, head)) = prepared() else { return };
    let [test, build] = CHECKS;
    let page = format!("github.com/{}/commit/{head}/checks", stage.repository.name);
    let says = |code: i32, check: &str, what: &str, url: &str| {
        let said = ends(&stage.release(&["v0.2.0", "--yes"]), code);
        assert!(said.contains(&format!("check {check} is {what}")) && said.contains(url), "{said}");
        assert_eq!(tags(&stage), "", "{said}");
    };
    says(1, test, "missing", &page);
    stage.repository.set_check(&head, test, "completed", Some("success"));
    says(1, build, "missing", &page);
    stage.repository.set_check(&head, build, "queued", None);
    let own = format!("/commit/{head}/checks/");
    says(1, build, "queued", &own);
    stage.repository.set_check(&head, build, "in_progress", None);
    says(1, build, "in_progress", &own);
    for conclusion in ["failure", "cancelled", "timed_out", "action_required", "stale", "in_another_castle"] {
        stage.repository.set_check(&head, build, "completed", Some(conclusion));
        says(3, build, conclusion, &own);
    }
    for conclusion in ["skipped", "neutral"] {
        stage.repository.set_check(&head, build, "completed", Some(conclusion));
        says(1, build, conclusion, &own);
    }
    stage.repository.set_check(&head, build, "completed", Some("success"));
    stage.repository.set_check(&head, test, "completed", Some("failure"));
    says(3, test, "failure", &own);
    stage.repository.set_check(&head, test, "completed", Some("success"));
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    assert_eq!(tags(&stage), "v0.2.0");
    assert_eq!(stage.repository.violations(), [""; 0]);
}

#[test]
fn a_red_check_is_passed_with_a_reason_that_the_tag_tells() {
    let Some((stage, head)) = prepared() else { return };
    stage.repository.set_check(&head, CHECKS[0], "completed", Some("failure"));
    stage.repository.set_check(&head, CHECKS[1], "completed", Some("success"));
    ends(&stage.release(&["v0.2.0", "--yes", "--override", "checks"]), 2);
    let because = ["v0.2.0", "--yes", "--override", "checks", "--because", "the runner is broken"];
    ends(&stage.release(&because), 1);
    let message = stage.remote.git(&["tag", "--list", "--format=%(contents)", "v0.2.0"]);
    assert!(message.contains("Override: checks because the runner is broken"), "{message}");
    assert!(message.contains("A thing to release."), "{message}");
    publish(&stage, "v0.2.0");
    ends(&stage.release(&["v0.2.0", "--yes"]), 0);
}

#[test]
fn a_commit_without_an_image_waits() {
    let Some(stage) = scene() else { return };
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    let head = stage.head("master");
    stage.turn_green(&head);
    let said = ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    assert!(said.contains(&format!("no sha-{}", &head[..12])), "{said}");
    assert_eq!(tags(&stage), "");
}

#[test]
fn a_tree_that_is_not_what_the_remote_has_is_refused() {
    let Some(stage) = scene() else { return };
    let before = stage.head("master");
    fs::write(stage.project.path("scrap"), "unfinished").unwrap();
    refuses(&stage, &["v0.2.0", "--yes"], &["scrap", "--override clean"]);
    fs::remove_file(stage.project.path("scrap")).unwrap();

    stage.project.run("git", &["switch", "--quiet", "--create", "feature"]);
    refuses(&stage, &["v0.2.0", "--yes"], &["feature", "git switch master"]);
    stage.project.run("git", &["switch", "--quiet", "master"]);

    commit(&stage, "not pushed");
    refuses(&stage, &["v0.2.0", "--yes"], &["HEAD is", "--override synced"]);
    push(&stage, "master");
    stage.project.run("git", &["reset", "--quiet", "--hard", &before]);
    refuses(&stage, &["v0.2.0", "--yes"], &["HEAD is", "git pull"]);
    assert_eq!(tags(&stage), "");
    assert!(!stage.remote.git(&["log", "--format=%s", "master"]).contains("release:"));
}

#[test]
fn a_version_is_above_the_last_and_its_tag_is_its_own() {
    let Some(stage) = scene() else { return };
    stage.git(&["tag", "-a", "-m", "v0.3.0", "v0.3.0"]);
    stage.git(&["push", "--quiet", "origin", "v0.3.0"]);
    commit(&stage, "more");
    push(&stage, "master");
    refuses(&stage, &["v0.2.0", "--yes"], &["v0.3.0 is released already", "--override newer"]);
    refuses(&stage, &["v0.3.0", "--yes"], &["a tag v0.3.0 stands on"]);
    assert_eq!(tags(&stage), "v0.3.0");
}

#[test]
fn a_dry_run_reads_and_changes_nothing() {
    let Some(_) = scene() else { return };
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let choose = move |_: &str, line: &str| {
        if !line.starts_with("GET ") && !line.starts_with("HEAD ") && !line.ends_with("/git-upload-pack") {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Harm::None
    };
    let stage = Stage::new(&Arc::new(Registry::with_password()), choose);
    let all = || (stage.remote.git(&["show-ref"]), stage.project.run("git", &["rev-parse", "HEAD"]));
    let dry = ["release", "v0.2.0", "--dry-run"];
    let look = || {
        let before = all();
        let said = ends(&stage.play(stage.reader(&dry)), 0);
        assert!(said.contains("dry run"), "{said}");
        assert_eq!((all(), writes.load(Ordering::SeqCst)), (before, 0), "{said}");
        assert_eq!(stage.project.run("git", &["status", "--porcelain"]), "");
    };
    look();
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    stage.play_ci();
    writes.store(0, Ordering::SeqCst);
    look();
    assert_eq!(tags(&stage), "");
    // And the same token is refused what it may not do.
    let said = ends(&stage.play(stage.reader(&["release", "v0.2.0", "--yes"])), 2);
    assert!(said.contains("403"), "{said}");
}

#[test]
fn a_pull_request_may_be_merged_by_any_button() {
    for how in ["merge", "squash", "rebase"] {
        let Some(stage) = scene() else { return };
        stage.protect();
        let before = stage.head("master");
        let said = ends(&stage.release(&["v0.2.0", "--yes"]), 1);
        let pulls = stage.repository.pulls();
        assert_eq!(pulls.len(), 1, "{said}");
        assert!(said.contains(pulls[0]["html_url"].as_str().unwrap()), "{said}");
        ends(&stage.release(&["v0.2.0", "--yes"]), 1);
        assert_eq!((stage.repository.pulls().len(), stage.head("master")), (1, before), "it waits");
        stage.play_ci();
        let merged = stage.repository.merge(pulls[0]["number"].as_u64().unwrap(), how);
        stage.play_ci();
        stage.git(&["pull", "--quiet", "--rebase", "origin", "master"]);
        ends(&stage.release(&["v0.2.0", "--yes"]), 1);
        let tagged = stage.remote.git(&["rev-parse", "v0.2.0^{commit}"]);
        assert_eq!(tagged, merged, "{how}: the commit that CI built");
        publish(&stage, "v0.2.0");
        ends(&stage.release(&["v0.2.0", "--yes"]), 0);
        assert_eq!(stage.repository.violations(), [""; 0]);
    }
}

#[test]
fn a_hotfix_comes_from_its_series_branch_and_leaves_latest() {
    let Some(stage) = scene() else { return };
    through(&stage, "v0.2.0");
    stage.git(&["fetch", "--quiet", "--tags", "origin"]);
    stage.project.run("git", &["switch", "--quiet", "--create", "release/0.2", "v0.2.0"]);
    commit(&stage, "Fix a thing");
    push(&stage, "release/0.2");
    stage.project.run("git", &["switch", "--quiet", "master"]);
    commit(&stage, "Add another thing");
    push(&stage, "master");
    through(&stage, "v0.3.0");
    let newest = stage.tag("latest");

    refuses(&stage, &["v0.2.1", "--yes"], &["v0.2.1 is cut from release/0.2", "git switch release/0.2"]);
    stage.project.run("git", &["switch", "--quiet", "release/0.2"]);
    through(&stage, "v0.2.1");
    assert_eq!(stage.tag("latest"), newest);
    assert_ne!(stage.tag("v0.2.1"), newest);
    assert_eq!(stage.remote.git(&["rev-parse", "v0.2.1^{commit}"]), stage.head("release/0.2"));
    assert_eq!(stage.repository.releases().len(), 3);
}

#[test]
fn a_candidate_is_a_prerelease_and_not_the_latest() {
    let Some(stage) = scene() else { return };
    through(&stage, "v0.2.0-rc.1");
    let releases = stage.repository.releases();
    assert!(releases.len() == 1 && releases[0].prerelease && !releases[0].draft, "{releases:?}");
    assert!(stage.tag("v0.2.0-rc.1").is_some());
    assert_eq!(stage.tag("latest"), None);
    commit(&stage, "Fix what the candidate showed");
    push(&stage, "master");
    through(&stage, "v0.2.0");
    assert_eq!(stage.tag("latest"), stage.tag("v0.2.0"));
}

#[test]
fn of_two_people_at_once_one_prepares_and_both_come_to_the_end() {
    let Some(stage) = scene() else { return };
    let other = tempfile::tempdir().unwrap();
    let source = stage.remote.bare().display().to_string();
    run("git", &["clone", "--quiet", &source, "."], other.path());
    let origin = stage.project.run("git", &["remote", "get-url", "origin"]);
    run("git", &["remote", "set-url", "origin", &origin], other.path());
    let both = || {
        let commands = [stage.project.folder.path(), other.path()].map(|folder| {
            let mut command = stage.developer(&["release", "v0.2.0", "--yes"]);
            command.current_dir(folder);
            command
        });
        std::thread::scope(|scope| {
            let runs = commands.map(|mut command| scope.spawn(move || command.output().unwrap()));
            runs.map(|run| run.join().unwrap())
        })
    };
    let outputs = both();
    let codes = outputs.each_ref().map(|output| ended(output.status));
    let said =
        outputs.each_ref().map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).join("\n---\n");
    assert!(
        codes.contains(&"1".into()) && codes.iter().all(|code| ["1", "4"].contains(&code.as_str())),
        "{codes:?}\n{said}"
    );
    let subjects = stage.remote.git(&["log", "--format=%s", "master"]);
    assert_eq!(subjects.matches("release: v0.2.0").count(), 1, "{subjects}\n{said}");
    stage.play_ci();
    for output in both() {
        ends(&output, 1);
    }
    assert_eq!(stage.remote.git(&["cat-file", "-t", "v0.2.0"]), "tag");
    publish(&stage, "v0.2.0");
    for output in both() {
        ends(&output, 0);
    }
}

#[test]
fn a_tags_run_that_never_began_is_started() {
    let Some(stage) = scene() else { return };
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    stage.play_ci();
    let mut long_ago = stage.developer(&["release", "v0.2.0", "--yes"]);
    long_ago.env("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z");
    ends(&stage.play(long_ago), 1);
    assert_eq!(stage.repository.asked(), ["dispatch v0.2.0"]);
    let run = stage.repository.runs()[0].clone();
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    assert_eq!(stage.repository.runs().len(), 1, "it is under way");
    ends(&stage.publish("v0.2.0"), 0);
    stage.repository.end_run(run.id, "success");
    ends(&stage.release(&["v0.2.0", "--yes"]), 0);
    assert_eq!(stage.repository.violations(), [""; 0]);
}

#[test]
fn a_tag_that_somebody_pushed_by_hand_publishes_nothing_untested() {
    let Some((stage, head)) = prepared() else { return };
    stage.repository.set_check(&head, CHECKS[0], "completed", Some("failure"));
    stage.git(&["tag", "-a", "-m", "v0.2.0", "v0.2.0", &head]);
    stage.git(&["push", "--quiet", "origin", "v0.2.0"]);
    let said = ends(&stage.publish("v0.2.0"), 3);
    assert!(said.contains("check test is failure"), "{said}");
    assert_eq!((stage.tag("v0.2.0"), stage.repository.releases().len()), (None, 0));
}

#[test]
fn whoever_waits_sees_it_through() {
    let Some(stage) = scene() else { return };
    stage.protect();
    let mut command = stage.developer(&["release", "--bump", "minor", "--wait", "--yes", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(200));
        stage.play_ci();
        for pull in stage.repository.pulls().iter().filter(|pull| pull["state"] == "open") {
            stage.repository.merge(pull["number"].as_u64().unwrap(), "squash");
        }
        for tag in tags(&stage).lines().filter(|_| stage.repository.runs().is_empty()) {
            publish(&stage, tag);
        }
    }
    let output = child.wait_with_output().unwrap();
    ends(&output, 0);
    // The first release, as the remote has no tag of a version.
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["state"], &told["plan"]["version"]), (&json!("released"), &json!("v0.1.0")), "{told}");
    assert_eq!(tags(&stage), "v0.1.0");

    let next = ends(
        &stage.release(&["--bump", "patch", "--dry-run", "--override", "changes", "--because", "a try"]),
        0,
    );
    assert!(next.contains("release v0.1.1 from master"), "{next}");
    let status = stage.release(&["status", "v0.1.0", "--json"]);
    let told: Value = serde_json::from_slice(&status.stdout).unwrap();
    let row = |what: &str| {
        told["rows"].as_array().unwrap().iter().find(|row| row["what"] == what).unwrap()["state"].clone()
    };
    let digest = stage.tag("v0.1.0").unwrap();
    assert_eq!((row("release"), row("image v0.1.0")), (json!("published"), json!(digest[7..19])), "{told}");
    assert_eq!(stage.repository.violations(), [""; 0]);
}
