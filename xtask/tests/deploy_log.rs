//! `log`: what a person reads of an environment's past, whoever changed it and how.

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
use std::path::Path;

use environments::{Environments, Operator, path};
use project::run;
use serde_json::{Value, json};

fn by_hand(stage: &Environments, work: impl Fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    run("git", &["clone", "--quiet", &stage.path(), "."], folder.path());
    work(folder.path());
}

fn git(folder: &Path, args: &[&str]) -> String {
    let who = ["-c", "user.name=Hand", "-c", "user.email=hand@example.com", "-c", "commit.gpgsign=false"];
    run("git", &[&who[..], args].concat(), folder)
}

fn told(operator: &Operator, args: &[&str]) -> Value {
    let output = operator.run(&[&["log", "production", "--json"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Verb, from and to of each change.
fn moves(told: &Value) -> Vec<[String; 3]> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let changes = told["changes"].as_array().unwrap().iter();
    changes.map(|change| ["verb", "from", "to"].map(|key| text(&change[key]))).collect()
}

fn edit(work: &Path, from: &str, to: &str, message: &str) {
    let file = work.join(path("production"));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&file, text.replace(from, to)).unwrap();
    git(work, &["commit", "--quiet", "--all", "--message", message]);
    git(work, &["push", "--quiet", "origin", "HEAD:main"]);
}

#[test]
fn a_night_is_told_as_it_was() {
    let stage = Environments::new();
    let [ada, bob] = ["Ada", "Bob"].map(|name| stage.operator(name, &stage.path()));
    for version in ["v0.2.0", "v0.3.0"] {
        ada.ends(0, &["promote", "staging", version, "--yes"]);
    }
    let early = ["--override", "after", "--because", "no time", "--yes"];
    ada.ends(0, &[&["promote", "production", "v0.2.0"], &early[..]].concat());
    ada.ends(0, &["promote", "production", "--yes"]);
    bob.ends(0, &["rollback", "--because", "it lost a cent", "--yes"]);
    bob.ends(0, &["hold", "production", "until it is mended", "--yes"]);
    ada.ends(0, &["unhold", "production", "--yes"]);
    let restore = ["--to", "v0.2.0", "--restore", "ledger-schema1-seq4", "--override", "restore"];
    bob.ends(0, &[&["rollback"], &restore[..], &["--because", "it is there", "--yes"]].concat());

    let said = ada.ends(0, &["log", "production"]);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("WHEN "), "{said}");
    let told = [
        ["Bob", "rollback", "v0.2.0", "v0.2.0", "passed restore: it is there; restores ledger-schema1-seq4"],
        ["Ada", "unhold", "-", "-", ""],
        ["Bob", "hold", "-", "-", "until it is mended"],
        ["Bob", "rollback", "v0.3.0", "v0.2.0", "it lost a cent; leaves v0.3.0 as bad"],
        ["Ada", "promote", "v0.2.0", "v0.3.0", "bad: rolled back by "],
        ["Ada", "promote", "nothing", "v0.2.0", "passed after: no time"],
        ["Test", "by hand", "-", "nothing", "start"],
    ];
    assert_eq!(lines.len(), told.len() + 1, "{said}");
    for (line, told) in lines[1..].iter().zip(told) {
        let words: Vec<_> = line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        assert_eq!(words[2..6], told[..4], "{said}");
        let why = words.get(7).copied().unwrap_or_default();
        assert!(why.starts_with(told[4]) && why.is_empty() == told[4].is_empty(), "{said}");
    }
    let head = stage.head();
    assert!(lines[1].contains(&head[..12]), "{said}");

    let said = ada.ends(0, &["log", "production", "-n", "2"]);
    assert!(said.ends_with("and 5 more: -n 7 shows all\n") && said.lines().count() == 4, "{said}");
    let json = self::told(&ada, &["-n", "1"]);
    assert_eq!((&json["more"], json["changes"].as_array().unwrap().len()), (&json!(6), 1), "{json}");
    assert_eq!(json["changes"][0]["who"], "Bob <test@example.com>", "{json}");
    assert_eq!(json["changes"][0]["commit"], head, "{json}");
    assert_eq!(json["changes"][0]["pin"]["digest"], stage.image("v0.2.0").digest, "{json}");
}

#[test]
fn what_people_and_buttons_leave_is_told_too() {
    let stage = Environments::new();
    let operator = stage.operator("Ada", &stage.path());
    for environment in ["staging", "production"] {
        operator.ends(0, &["promote", environment, "v0.2.0", "--yes"]);
    }
    by_hand(&stage, |work| {
        edit(work, "newTag: v0.2.0", "newTag: latest", "quick fix");
        edit(work, "newTag:", "newTag: [", "oops");
        git(work, &["rm", "--quiet", &path("production")]);
        git(work, &["commit", "--quiet", "--message", "clean up"]);
        // One commit for both environments: what it says of one is not said of the other.
        git(work, &["checkout", "--quiet", "HEAD~3", "--", &path("production")]);
        let file = work.join(path("staging"));
        let [old, new] = ["v0.2.0", "v0.3.0"].map(|name| stage.image(name).digest.clone());
        let text = fs::read_to_string(&file).unwrap().replace("v0.2.0", "v0.3.0").replace(&old, &new);
        fs::write(&file, text).unwrap();
        let message = format!(
            "both\n\nBecause: of staging\n\nPin-Verb: promote\nPin-Environment: staging\nPin-Digest: {new}\nPin-By: Eve <e@f>"
        );
        git(work, &["commit", "--quiet", "--all", "--message", &message]);
        git(work, &["push", "--quiet", "origin", "HEAD:main"]);
    });
    let all = told(&operator, &[]);
    let expected = [
        ["by hand", "gone", "v0.2.0"],
        ["by hand", "unreadable", "gone"],
        ["by hand", "latest", "unreadable"],
        ["by hand", "v0.2.0", "latest"],
        ["promote", "nothing", "v0.2.0"],
        ["by hand", "-", "nothing"],
    ];
    assert_eq!(moves(&all), expected.map(|words| words.map(str::to_owned)), "{all}");
    let newest = &all["changes"][0];
    assert_eq!((&newest["who"], &newest["because"]), (&json!("Hand"), &json!("both")), "{all}");

    // What leaves the reason as it was is no hold of its own.
    operator.ends(0, &["hold", "production", "audit", "--yes"]);
    by_hand(&stage, |work| {
        git(work, &["update-index", "--chmod=+x", "dojo/production/HOLD"]);
        git(work, &["commit", "--quiet", "--message", "x bit"]);
        git(work, &["push", "--quiet", "origin", "HEAD:main"]);
    });
    operator.ends(0, &["unhold", "production", "--yes"]);
    let moves = moves(&told(&operator, &["-n", "3"]));
    assert_eq!(moves.iter().map(|words| &words[0]).collect::<Vec<_>>(), ["unhold", "hold", "by hand"]);

    // A merge by GitHub's button says nothing itself; what it brought does.
    by_hand(&stage, |work| {
        git(work, &["checkout", "--quiet", "-b", "topic"]);
        let before = stage.head();
        operator.ends(
            0,
            &[
                "rollback",
                "--to",
                "v0.2.0",
                "--restore",
                "x-schema1-seq1",
                "--override",
                "restore",
                "--because",
                "why not",
                "--yes",
            ],
        );
        let made = stage.head();
        stage.reset(&before);
        git(work, &["fetch", "--quiet", &stage.path(), &made]);
        git(work, &["checkout", "--quiet", "main"]);
        fs::write(work.join("NOTES"), "x\n").unwrap();
        git(work, &["add", "NOTES"]);
        git(work, &["commit", "--quiet", "--message", "notes"]);
        git(work, &["merge", "--quiet", "--no-ff", "--message", "Merge pull request #7 from x/pin", &made]);
        git(work, &["push", "--quiet", "origin", "HEAD:main"]);
    });
    let all = told(&operator, &["-n", "1"]);
    let newest = &all["changes"][0];
    assert_eq!(
        (&newest["verb"], &newest["restore"]),
        (&json!("rollback"), &json!("x-schema1-seq1")),
        "{all}"
    );
    assert_eq!(newest["overrides"], json!([{ "gate": "restore", "because": "why not" }]), "{all}");
}

#[test]
fn an_environment_that_nobody_made_yet_has_no_past() {
    let stage = Environments::new();
    let operator = stage.operator("Ada", &stage.path());
    let file = operator.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&file).unwrap().replace("dojo/production/", "dojo/elsewhere/");
    fs::write(&file, text).unwrap();
    let said = operator.ends(0, &["log", "production"]);
    assert_eq!(said, "no commit has made dojo/elsewhere/kustomization.yaml yet\n");
    operator.ends(2, &["log", "prod"]);
}
