//! The ways of a release, to its end: by pull request, from a series' branch, as a candidate, by two people at once, with
//! a run that never began, and waited for. Against real git, a real registry and GitHub's stand-in.

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

use std::process::Stdio;
use std::time::Duration;

use project::run;
use serde_json::{Value, json};
use stage::ended;
use steps::{commit, ends, publish, push, scene, tags, through};

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

    let said = ends(&stage.release(&["v0.2.1", "--yes"]), 3);
    assert!(
        said.contains("v0.2.1 is cut from release/0.2") && said.contains("git switch release/0.2"),
        "{said}"
    );
    stage.project.run("git", &["switch", "--quiet", "release/0.2"]);
    through(&stage, "v0.2.1");
    assert_eq!(stage.tag("latest"), newest);
    assert_ne!(stage.tag("v0.2.1"), newest);
    assert_eq!(stage.remote.git(&["rev-parse", "v0.2.1^{commit}"]), stage.head("release/0.2"));
    assert_eq!(stage.repository.releases().len(), 3);

    // A run that was overtaken left `latest` behind; the next one brings it to the newest.
    ends(&stage.play(stage.developer(&["image", "retag", "v0.2.0", "latest"])), 0);
    assert_ne!(stage.tag("latest"), newest);
    ends(&stage.publish("v0.2.1"), 0);
    assert_eq!(stage.tag("latest"), newest);
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

/// `v5.0.0` and `other-v9.9.9` are tags of other services in the same repository.
#[test]
fn a_service_among_others_has_tags_and_branches_of_its_own() {
    let Some(stage) = scene() else { return };
    let file = stage.project.path("deploy/pipeline.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("tag_prefix: dojo-\n{text}")).unwrap();
    stage.project.commit("Call the tags dojo-v…");
    push(&stage, "master");
    for other in ["v5.0.0", "other-v9.9.9"] {
        stage.git(&["-c", "tag.gpgsign=false", "tag", "--annotate", "-m", "another's", other]);
        stage.git(&["push", "--quiet", "origin", other]);
    }
    stage.protect();
    let release = || stage.release(&["v0.2.0", "--yes"]);
    ends(&release(), 1);
    let pulls = stage.repository.pulls();
    assert_eq!(pulls[0]["title"], "release: dojo-v0.2.0");
    assert_eq!(stage.remote.git(&["branch", "--list", "prepare/*"]).trim(), "prepare/dojo-v0.2.0");
    stage.repository.merge(pulls[0]["number"].as_u64().unwrap(), "squash");
    stage.play_ci();
    stage.git(&["pull", "--quiet", "--rebase", "origin", "master"]);
    let said = ends(&release(), 1);
    assert!(said.contains("push the annotated tag dojo-v0.2.0 on "), "{said}");
    assert_eq!(tags(&stage), "dojo-v0.2.0\nother-v9.9.9\nv5.0.0");
    publish(&stage, "dojo-v0.2.0");
    ends(&release(), 0);
    let releases = stage.repository.releases();
    assert!(releases.len() == 1 && releases[0].tag == "dojo-v0.2.0" && !releases[0].draft, "{releases:?}");
    assert!(releases[0].assets.contains_key("dojo-v0.2.0.digest.txt"), "{:?}", releases[0].assets.keys());
    assert!(stage.tag("v0.2.0").is_some() && stage.tag("v0.2.0") == stage.tag("latest"));
    assert_eq!(stage.tag("dojo-v0.2.0"), None, "an image's tags have no prefix");
    let message = stage.remote.git(&["tag", "--list", "--format=%(contents)", "dojo-v0.2.0"]);
    assert!(message.starts_with("Release dojo-v0.2.0\n\n### Added\n"), "{message}");
    let said = ends(&stage.publish("v5.0.0"), 2);
    assert!(
        said.contains("nothing is published for refs/tags/v5.0.0") && said.contains("tags dojo-vX.Y.Z"),
        "{said}"
    );
    let next =
        stage.release(&["--bump", "patch", "--dry-run", "--override", "changes", "--because", "a try"]);
    assert!(ends(&next, 0).contains("release v0.2.1 from master"));

    // A hotfix; the branch release/0.2 would be another's.
    stage.git(&["fetch", "--quiet", "--tags", "origin"]);
    let fix = ["switch", "--quiet", "--create", "release/dojo-0.2", "dojo-v0.2.0"];
    stage.project.run("git", &fix);
    commit(&stage, "Fix a thing");
    push(&stage, "release/dojo-0.2");
    stage.git(&["push", "--quiet", "origin", "master~1:refs/heads/release/0.2"]);
    let release = || stage.release(&["--bump", "patch", "--yes"]);
    let said = ends(&release(), 1);
    assert!(said.contains("pushed ") && said.contains("to release/dojo-0.2"), "{said}");
    stage.leave_to_test(&stage.head("release/0.2"));
    stage.play_ci();
    ends(&stage.release(&["v0.2.1", "--yes"]), 1);
    publish(&stage, "dojo-v0.2.1");
    ends(&stage.release(&["v0.2.1", "--yes"]), 0);
    assert_eq!(stage.remote.git(&["rev-parse", "dojo-v0.2.1^{commit}"]), stage.head("release/dojo-0.2"));
    assert_eq!(stage.repository.violations(), [""; 0]);
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
