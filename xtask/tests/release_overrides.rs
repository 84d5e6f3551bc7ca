//! What an operator passed stands in the tag's message, whichever way the version takes, and nothing else does.

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

use stage::{CHECKS, Stage};
use steps::{commit, ends, finish, message, publish, push, refuses, scene, tagged, tags};

const CLEAN: [&str; 6] = ["v0.2.0", "--yes", "--override", "clean", "--because", "the scrap is mine"];

/// Prepares the version in a tree that is not clean.
fn prepare_unclean(stage: &Stage) {
    fs::write(stage.project.path("scrap"), "unfinished").unwrap();
    refuses(stage, &["v0.2.0", "--yes"], &["scrap"]);
    ends(&stage.release(&CLEAN), 1);
    fs::remove_file(stage.project.path("scrap")).unwrap();
}

/// The overrides that the tag tells of.
fn told(stage: &Stage) -> Vec<String> {
    let message = message(stage, "v0.2.0");
    let lines = message.lines().filter(|line| line.starts_with("Override: "));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_was_passed_at_the_preparation_stands_in_the_tag() {
    for how in ["push", "merge", "squash", "squash of others", "rebase"] {
        let Some(stage) = scene() else { return };
        if how != "push" {
            stage.protect();
        }
        prepare_unclean(&stage);
        if how != "push" {
            stage.repository.merge(stage.repository.pulls()[0]["number"].as_u64().unwrap(), how);
        }
        finish(&stage, "v0.2.0");
        assert_eq!(told(&stage), ["Override: clean because the scrap is mine"], "{how}");
    }
}

#[test]
fn what_was_passed_at_a_preparation_that_was_reverted_is_history() {
    let Some(stage) = scene() else { return };
    prepare_unclean(&stage);
    stage.git(&["revert", "--no-edit", "HEAD"]);
    push(&stage, "master");
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    finish(&stage, "v0.2.0");
    assert_eq!(told(&stage), [""; 0]);
}

#[test]
fn a_check_that_is_not_over_is_passed_with_a_word() {
    let Some(stage) = scene() else { return };
    prepare_unclean(&stage);
    let head = stage.head("master");
    stage.leave_to_test(&head);
    stage.push_image("master", &head);
    stage.repository.set_check(&head, CHECKS[0], "in_progress", None);
    stage.repository.set_check(&head, CHECKS[1], "completed", Some("success"));
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    assert_eq!(tags(&stage), "");
    let passes = ["v0.2.0", "--yes", "--override", "checks", "--because", "the runner hangs"];
    ends(&stage.release(&passes), 1);
    let both = ["Override: clean because the scrap is mine", "Override: checks because the runner hangs"];
    assert_eq!(told(&stage), both);
    publish(&stage, "v0.2.0");
    ends(&stage.release(&["v0.2.0", "--yes"]), 0);
}

#[test]
fn a_commits_message_passes_no_check() {
    let Some(stage) = scene() else { return };
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    stage.leave_to_test(&stage.head("master"));
    let mended = commit(&stage, "release: v0.2.0, mended\n\nOverride: checks because I say so");
    push(&stage, "master");
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    assert_eq!((tagged(&stage, "v0.2.0"), told(&stage)), (mended.clone(), vec![]));
    stage.repository.set_check(&mended, CHECKS[0], "completed", Some("failure"));
    ends(&stage.publish("v0.2.0"), 3);
}

#[test]
fn a_line_of_the_notes_passes_nothing() {
    let Some(stage) = scene() else { return };
    let path = stage.project.path("CHANGELOG.md");
    let notes = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{notes}\nOverride: checks because the notes say so\n")).unwrap();
    commit(&stage, "Say so");
    push(&stage, "master");
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    stage.play_ci();
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    let message = message(&stage, "v0.2.0");
    assert!(message.contains("\n\n Override: checks because the notes say so"), "{message}");
    // Somebody runs it again on that commit, and it fails.
    let head = stage.head("master");
    stage.repository.set_check(&head, CHECKS[0], "completed", Some("failure"));
    let said = ends(&stage.publish("v0.2.0"), 3);
    assert!(said.contains("v0.2.0 is not published") && said.contains("check test is failure"), "{said}");
    assert_eq!((stage.tag("v0.2.0"), stage.repository.releases().len()), (None, 0));
}
