//! The screen that a person sees at three in the morning, whole, for each state that an environment can be in.

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
use std::time::Instant;

use environments::{Environments, Operator, ended, path};
use serde_json::{Value, json};

/// Production runs v0.3.0 after v0.1.0 and v0.2.0, staging v0.4.0; all is well.
fn stage() -> (Environments, Operator) {
    let stage = Environments::new();
    let operator = stage.operator("Ann", &stage.path());
    for version in ["v0.1.0", "v0.2.0", "v0.3.0"] {
        for environment in ["staging", "production"] {
            operator.ends(0, &["promote", environment, version, "--yes"]);
        }
    }
    operator.ends(0, &["promote", "staging", "v0.4.0", "--yes"]);
    (stage, operator)
}

fn edit_pipeline(operator: &Operator, from: &str, to: &str) {
    let file = operator.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// What a run of it differs from the next in: commits, ports, folders and ages.
fn filters(operator: &Operator) -> Vec<(String, &'static str)> {
    let checkout = operator.checkout.path("").display().to_string();
    let pairs = [
        (checkout.trim_end_matches('/'), "[checkout]"),
        (r"/tmp/\.tmp\w+", "[folder]"),
        (r"sha256:[0-9a-f]{12}…", "sha256:[digest]…"),
        (r"sha256:[0-9a-f]{64}", "sha256:[digest]"),
        (r"\b[0-9a-f]{40}\b", "[commit]"),
        (r"\b[0-9a-f]{12}\b", "[commit]"),
        (r"127\.0\.0\.1:\d+", "[host]"),
        (r"\b(\d+m )?\d+s ago", "[age] ago"),
        (r"for \d+s\b", "for [age]"),
        (r"\b3m 1\ds", "3m 12s"),
    ];
    pairs.map(|(from, to)| (from.to_owned(), to)).to_vec()
}

/// The whole screen, as it is kept in `snapshots/`.
#[track_caller]
fn shows(state: &str, operator: &Operator, code: i32, args: &[&str]) {
    let args = [&["status"], args].concat();
    let output = operator.run(&args);
    let said = ended(code, &args, &output);
    let filters = filters(operator);
    let filters: Vec<_> = filters.iter().map(|(from, to)| (from.as_str(), *to)).collect();
    insta::with_settings!({ filters => filters, omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(state, said);
    });
}

#[test]
fn what_the_services_and_the_infra_repository_tell() {
    let (stage, operator) = stage();
    let production = stage.service("production");
    shows("all_well", &operator, 0, &["--check"]);
    shows("well", &operator, 0, &["production", "--check"]);

    operator.ends(0, &["hold", "production", "the books are audited", "--yes"]);
    shows("held", &operator, 0, &["production", "--check"]);
    operator.ends(0, &["unhold", "production", "--yes"]);

    production.set("ledger", json!({ "id": "ledger-of-nobody", "sequence": 7 }));
    shows("wrong_volume", &operator, 1, &["production", "--check"]);
    production.set("ledger", json!({ "id": "ledger-of-production", "sequence": 3 }));
    shows("lost_tail", &operator, 1, &["production", "--check"]);
    production.set("ledger", json!({ "id": "ledger-of-production", "sequence": 7 }));

    production.set_ready(false);
    shows("not_ready", &operator, 1, &["production", "--check"]);
    production.set_ready(true);
}
