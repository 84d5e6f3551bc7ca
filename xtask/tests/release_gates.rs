//! What stands against a release, and what passes it: against real git, a real registry and GitHub's stand-in.

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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use docker_registry::Registry;
use proxy::Harm;
use serde_json::json;
use server::Answer;
use stage::{CHECKS, Stage};
use steps::{commit, ends, prepared, publish, push, refuses, scene, tags};

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
fn a_limit_is_told_from_a_token_that_is_wrong() {
    if !stage::possible() {
        return;
    }
    let said = Arc::new(Mutex::new(None::<Answer>));
    let now = Arc::clone(&said);
    let choose = move |peer: &str, _: &str| match now.lock().unwrap().clone() {
        Some(answer) if peer == "github" => Harm::Instead(answer),
        _ => Harm::None,
    };
    let stage = Stage::new(&Arc::new(Registry::with_password()), choose);
    let answer = |status: u16, message: &str| {
        Answer::new(status)
            .header("Content-Type", "application/json")
            .body(&json!({ "message": message }).to_string())
    };
    let cases = [
        (answer(429, "too many").header("Retry-After", "7"), 1, "in 7 s"),
        (answer(403, "API rate limit exceeded"), 1, "in a while"),
        (answer(503, "Unicorn!"), 1, "run the same command again"),
        (answer(401, "Bad credentials"), 2, "the token of GITHUB_TOKEN was used"),
    ];
    for (answer, code, help) in cases {
        *said.lock().unwrap() = Some(answer);
        let told = ends(&stage.release(&["v0.2.0", "--yes"]), code);
        assert!(told.contains(help), "{told}");
        assert!(!stage.remote.git(&["log", "--format=%s", "master"]).contains("release:"), "{told}");
    }
}
