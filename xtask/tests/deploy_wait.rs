//! `--wait`: a promotion that is followed until it runs, with what the person is told who waits.

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

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Child;
use std::time::Duration;

use environments::{Environments, Operator};
use serde_json::{Value, json};

/// Staging runs v0.2.0 and goes on with it, whatever is pinned.
fn stage() -> (Environments, Operator) {
    let stage = Environments::new();
    let operator = stage.operator("Ann", &stage.path());
    for version in ["v0.1.0", "v0.2.0"] {
        let said = operator.ends(0, &["promote", "staging", version, "--wait", "--yes"]);
        assert!(said.contains("staging runs and is ready after"), "{said}");
    }
    stage.service("staging").set_frozen(true);
    (stage, operator)
}

/// Its words on stderr up to the line that has these.
fn until(child: &mut Child, words: &str) -> BufReader<std::process::ChildStderr> {
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.lines().last().unwrap_or_default().contains(words) {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{words} is missing in: {said}");
    }
    lines
}

#[test]
fn the_gap_is_measured_and_the_data_compared() {
    let (stage, operator) = stage();
    let staging = stage.service("staging");
    let mut child = operator.xtask(&["promote", "staging", "v0.3.0", "--wait", "--yes"]).spawn().unwrap();
    let mut lines = until(&mut child, "staging: v0.2.0 still runs");
    staging.set_silent(true);
    while !{
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0);
        line.contains("staging: nothing answers")
    } {}
    std::thread::sleep(Duration::from_millis(1500));
    staging.set_frozen(false);
    staging.set("ledger", json!({ "id": "ledger-of-staging", "sequence": 9 }));
    staging.set_silent(false);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("done: infra commit ") && said.contains("staging runs and is ready after "),
        "{said}"
    );
    let gap = said.split("nobody was served for ").nth(1).unwrap().split(" s at most").next().unwrap();
    let gap: f64 = gap.parse().unwrap();
    assert!(gap >= 1.5, "{said}");
    assert!(
        said.contains("data: schema 1, ledger ledger-of-staging, sequence 9; before: schema 1, the same ledger, sequence 7"),
        "{said}"
    );
}

#[test]
fn another_promotion_ends_the_wait() {
    let (stage, operator) = stage();
    let other = stage.operator("Bob", &stage.path());
    let mut child = operator.xtask(&["promote", "staging", "v0.3.0", "--wait", "--yes"]).spawn().unwrap();
    let mut lines = until(&mut child, "staging: v0.2.0 still runs");
    other.ends(0, &["promote", "staging", "v0.1.0", "--because", "v0.3.0 is slow", "--yes"]);
    let mut said = String::new();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4), "{said}");
    let commit = stage.head();
    assert!(
        said.contains(&format!("v0.3.0 in staging is superseded by v0.1.0 (infra commit {commit} by Bob")),
        "{said}"
    );
}

#[test]
fn when_the_time_is_over_the_screen_is_shown_and_the_same_command_goes_on() {
    let (stage, operator) = stage();
    let staging = stage.service("staging");
    let args = ["promote", "staging", "v0.3.0", "--wait", "--timeout", "2s", "--yes"];
    let said = operator.ends(1, &args);
    assert!(said.contains("\nstaging v0.3.0 rolling out: pinned "), "{said}");
    assert!(said.contains("  runs     v0.2.0 of commit "), "{said}");
    assert!(said.contains("error: v0.3.0 is pinned, but staging does not run it after 2s"), "{said}");
    let before = stage.head();
    let json: Value =
        serde_json::from_slice(&operator.run(&[&args[..], &["--json"]].concat()).stdout).unwrap();
    assert_eq!(
        (&json["state"], &json["situation"]["state"]),
        (&json!("failed"), &json!("rolling-out")),
        "{json}"
    );

    staging.set_frozen(false);
    let said = operator.ends(0, &args);
    assert!(said.contains("staging already pins v0.3.0: nothing to do"), "{said}");
    assert!(
        said.contains("staging runs and is ready after ") && said.contains("; no gap was seen"),
        "{said}"
    );
    assert_eq!(stage.head(), before);
}

#[test]
fn another_ledger_is_no_success() {
    let (stage, operator) = stage();
    let staging = stage.service("staging");
    let mut child = operator.xtask(&["promote", "staging", "v0.3.0", "--wait", "--yes"]).spawn().unwrap();
    let mut lines = until(&mut child, "staging: v0.2.0 still runs");
    staging.set("ledger", json!({ "id": "ledger-of-nobody", "sequence": 0 }));
    staging.set_frozen(false);
    let mut said = String::new();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
    assert!(
        said.contains(
            "v0.3.0 runs in staging, but the ledger is ledger-of-nobody, and was ledger-of-staging before"
        ),
        "{said}"
    );
}
