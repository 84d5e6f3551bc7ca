//! The board as people see it, in Chromium, and the command that makes it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/boards.rs"]
mod boards;
#[path = "tools/browser.rs"]
mod browser;
#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/environments.rs"]
mod environments;
#[path = "tools/git_http.rs"]
mod git_http;
#[allow(dead_code, reason = "what only the command needs")]
#[path = "../src/board/page.rs"]
mod page;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;
#[path = "tools/mod.rs"]
mod tools;

use std::fs;
use std::path::{Path, PathBuf};

use browser::{is_here, is_sound, look, shows};
use environments::{Environments, Operator, ended};
use page::Page;
use serde_json::{Value, json};

/// Four minutes after the pages of [`boards`] were made.
const NOW: &str = "2026-11-23T03:16:00Z";

/// Looks at a page; DOJO_SCREENSHOTS is a folder for those pictures that the documents show: which one, and its name there.
fn seen_of(page: &Page, pictures: &[(&str, &str)]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("board.html");
    fs::write(&file, page.html().unwrap()).unwrap();
    let documents = std::env::var_os("DOJO_SCREENSHOTS").map(PathBuf::from);
    let seen = look(&file, NOW, documents.as_ref().map(|_| folder.path()));
    for (picture, name) in pictures {
        let Some(documents) = &documents else { break };
        fs::copy(folder.path().join(picture), documents.join(name)).unwrap();
    }
    seen
}

/// What is seen on a wide screen by daylight, nothing opened.
fn text(seen: &Value) -> &Value {
    &seen["views"][1]["folded"]["text"]
}

#[test]
fn a_quiet_day() {
    if !is_here() {
        return;
    }
    let seen = seen_of(&boards::full(), &[("light-1280.png", "board.png")]);
    is_sound(&seen);
    shows(text(&seen), &["blogle/dojo", "All is well", "As seen at 2026-11-23 03:12 UTC (4 min ago)"]);
    shows(
        text(&seen),
        &[
            "What runs where",
            "master",
            "9ab41c77e0d2",
            "2 commits between master and edge",
            "edge",
            "the same between edge and staging",
            "staging",
            "v0.3.0",
            "ready",
            "since 2026-11-22 01:12",
            "48e8d511c86b",
            "3 commits 1 migration between staging and production",
            "production",
            "v0.2.1",
            "What waits",
            "staging → production",
            "0007_index_by_day.sql",
            "What you can do",
            "cargo xtask promote production v0.3.0",
            "cargo xtask rollback production --to v0.2.0",
            "What happened",
            "rollback v0.2.1-rc.1 → v0.2.0",
            "Maya Okafor",
            "balances of March were off by one day",
            "by hand v0.1.0 → v0.2.0",
            "and 6 older",
        ],
    );
    let subject = "Add a day's balance to the answer of /v1/accounts";
    assert!(!text(&seen).as_str().unwrap().contains(subject));
    shows(&seen["views"][1]["unfolded"]["text"], &["3 commits", "b8877ad1e2b8", subject, "Jonas Lind"]);
    assert!(!text(&seen).as_str().unwrap().contains("This page is old"));
    assert!(!text(&seen).as_str().unwrap().contains("What is wrong"));
    assert_eq!(seen["copied"], seen["copy"]);
    assert_eq!(seen["copy"].as_str().unwrap().len(), "sha256:".len() + 64);
    // All but how long ago, and the buttons.
    shows(
        &seen["without_script"],
        &["All is well", "since 2026-11-22 01:12", "cargo xtask release", "v0.1.0"],
    );
    assert!(!seen["without_script"].as_str().unwrap().contains("ago"));
}

#[test]
fn a_bad_night() {
    if !is_here() {
        return;
    }
    let seen = seen_of(
        &boards::wrong(),
        &[("dark-1280.png", "board-night.png"), ("light-360.png", "board-phone.png")],
    );
    is_sound(&seen);
    shows(
        text(&seen),
        &[
            "Production is down",
            "Staging runs another image than is pinned, edge is unknown",
            "What is wrong",
            "production",
            "disk full, 0 of 2048 MiB free on /data",
            "since 2026-11-23 03:09 (7 min ago)",
            "kubectl --context home --namespace dojo-prod patch pvc dojo",
            "staging",
            "drift",
            "held the migration of account 17 is looked at here, until Tuesday",
            "Jonas Lind, 2026-11-22 22:12",
            "runs unknown https://dojo.example.com/version: HTTP status 503",
            "What waits",
            "edge → staging unknown ghcr.io: HTTP status 503",
        ],
    );
    assert_eq!(seen["views"][0]["title"], "production is down - blogle/dojo");
}

#[test]
fn before_anything_was_promoted() {
    if !is_here() {
        return;
    }
    let seen = seen_of(&boards::empty(), &[]);
    is_sound(&seen);
    let nothing = "Nothing has been promoted yet.";
    shows(
        text(&seen),
        &["unknown nothing is pinned there", "cargo xtask promote staging VERSION", nothing, nothing],
    );
}

#[test]
fn words_from_anybody_stay_words() {
    let html = boards::hostile().html().unwrap();
    let hidden = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{2066}\u{200f}".contains(c);
    assert!(!html.contains(hidden));
    // What would run all the same, a browser refuses.
    assert!(html.contains("content=\"default-src &#39;none&#39;; style-src &#39;sha256-"));
    if !is_here() {
        return;
    }
    let seen = seen_of(&boards::hostile(), &[]);
    is_sound(&seen);
    for view in seen["views"].as_array().unwrap() {
        assert_eq!(view["elements"], json!({ "h1": 1, "script": 1, "style": 1, "img": 0 }));
        assert!(view["title"].as_str().unwrap().starts_with("<script>document.title='owned'</script>"));
    }
    shows(text(&seen), &[boards::EVIL[0], boards::EVIL[1], boards::EVIL[2], boards::EVIL[4], "one two"]);
}

#[test]
fn the_browser_sees_what_a_page_does_wrong() {
    if !is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.html");
    let bad = "<p style='color:#888;background:#999;width:2000px'>grey</p><script>nobody()</script>\
        <img src='http://127.0.0.1:9/spy.png'>";
    fs::write(&file, bad).unwrap();
    let seen = look(&file, NOW, None);
    assert_eq!(seen["requests"][0], "http://127.0.0.1:9/spy.png");
    shows(&json!(seen["complaints"].to_string()), &["nobody is not defined"]);
    let view = &seen["views"][0];
    shows(&json!(view["objections"].to_string()), &["color-contrast", "document-title", "image-alt"]);
    assert!(view["folded"]["beyond"].as_i64().unwrap() > 1000);
}

/// Production has v0.2.0 after v0.1.0, and staging v0.4.0, which brings a migration.
fn stage() -> (Environments, Operator) {
    let stage = Environments::new();
    let operator = stage.operator("Ann", &stage.path());
    for (environment, version) in
        [("staging", "v0.1.0"), ("production", "v0.1.0"), ("staging", "v0.2.0"), ("production", "v0.2.0")]
    {
        promote(&operator, &[environment, version]);
    }
    promote(&operator, &["staging", "v0.4.0", "--because", "a <b>bold</b> try"]);
    (stage, operator)
}

/// Some time ago, so that nothing is rolling out any more.
fn promote(operator: &Operator, what: &[&str]) {
    let args = [&["promote"], what, &["--yes"]].concat();
    let output = operator.xtask(&args).env("GIT_COMMITTER_DATE", "2026-02-03T04:05:06Z").output().unwrap();
    ended(0, &args, &output);
}

/// The words of a page, as far as they can be told without a browser.
fn words(file: &Path) -> Value {
    let html = fs::read_to_string(file).unwrap();
    let body = html.split("<body>").nth(1).unwrap().split("<script>").next().unwrap();
    let text: String =
        body.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
    json!(text)
}

#[test]
fn the_command_shows_what_runs_and_what_waits() {
    let (stage, operator) = stage();
    let file = operator.checkout.path("board.html");
    let out = file.to_str().unwrap().to_owned();
    let made = ["board", "--out", &out];
    assert_eq!(operator.ends(0, &made), "");
    let (v2, v4, edge) = (stage.image("v0.2.0"), stage.image("v0.4.0"), stage.image("edge"));
    shows(&words(&file), &["All is well", &stage.head()[..12]]);
    shows(
        &words(&file),
        &[
            "What runs where",
            "master",
            &edge.commit[..12],
            "the same between master and edge",
            "edge",
            &edge.commit[..12],
            "1 commit between edge and staging",
            "staging",
            "v0.4.0",
            "ready",
            &v4.digest["sha256:".len()..][..12],
            &v4.commit[..12],
            "schema 2, sequence 7",
            "production",
            "v0.2.0",
            &v2.digest["sha256:".len()..][..12],
            "schema 1, sequence 7",
            "What waits",
            "2 commits",
            "v0.4.0",
            "v0.3.0",
            "1 migration",
            "0002_step.sql",
            "cargo xtask promote staging",
            "cargo xtask promote production v0.4.0",
            "cargo xtask rollback production --to v0.1.0",
            "What happened",
        ],
    );
    shows(&words(&file), &["promote", "v0.2.0", "v0.4.0", "Ann", "a &#60;b&#62;bold&#60;/b&#62; try"]);
    if is_here() {
        let seen = look(&file, &jiff::Timestamp::now().to_string(), None);
        is_sound(&seen);
        shows(text(&seen), &["staging", "promote v0.2.0 → v0.4.0", "2026-02-03 04:05", "a <b>bold</b> try"]);
    }
}

#[test]
fn what_is_broken_is_on_the_page_and_no_failure() {
    let (stage, operator) = stage();
    let file = operator.checkout.path("board.html");
    let out = file.to_str().unwrap().to_owned();
    operator.ends(0, &["hold", "production", "the books are audited", "--yes"]);
    stage.service("production").set_silent(true);
    stage.service("staging").set_ready(false);
    let told: Value = serde_json::from_str(&operator.ends(0, &["board", "--out", &out, "--json"])).unwrap();
    assert_eq!(told["stages"][3]["name"], "production");
    assert_eq!(told["stages"][3]["state"], "no answer");
    assert_eq!(told["stages"][3]["hold"]["why"], "the books are audited");
    shows(&words(&file), &["production does not answer, staging is not ready", "What is wrong"]);
    shows(&words(&file), &["held", "the books are audited", "runs", "unknown", "HTTP status 503"]);
    shows(&words(&file), &["data file", "unknown", "schema 1, sequence 7 when it was pinned"]);
    shows(&words(&file), &["cargo xtask unhold production"]);

    fs::rename(stage.project.path("registry"), stage.project.path("registry.away")).unwrap();
    fs::rename(stage.path(), format!("{}.away", stage.path())).unwrap();
    operator.ends(0, &["board", "--out", &out]);
    shows(
        &words(&file),
        &["an infra repository that could not be read", "staging, production", "what is pinned is unknown"],
    );
    shows(&words(&file), &["edge", "unknown", "What waits", "unknown which commit edge has is unknown"]);
    if is_here() {
        is_sound(&look(&file, &jiff::Timestamp::now().to_string(), None));
    }
}

#[test]
fn drift_another_volume_and_pins_by_hand_are_told() {
    let (stage, operator) = stage();
    stage.service("production").set("ledger", json!({ "id": "ledger-of-nobody", "sequence": 9 }));
    let staging = stage.service("staging");
    staging.set_frozen(true);
    promote(&operator, &["staging", "edge"]);
    let file = operator.checkout.path("board.html");
    let out = file.to_str().unwrap().to_owned();
    let told: Value = serde_json::from_str(&operator.ends(0, &["board", "--out", &out, "--json"])).unwrap();
    let said = |index: usize| (told["stages"][index]["tone"].clone(), told["stages"][index]["state"].clone());
    assert_eq!(said(2), (json!("odd"), json!("drift")));
    assert_eq!(said(3), (json!("bad"), json!("wrong data")));
    shows(&words(&file), &["production has another data file than before"]);
    shows(&words(&file), &["staging runs something else than is pinned", "What is wrong", "another volume"]);
    shows(&words(&file), &["staging", "drift", "runs", "v0.2.0 of", &stage.image("v0.2.0").commit[..12]]);

    assert!(!words(&file).as_str().unwrap().contains("promote production"));

    staging.set_frozen(false);
    let work = tempfile::tempdir().unwrap();
    let hand = work.path().join("infra");
    project::run("git", &["clone", "--quiet", &stage.path(), hand.to_str().unwrap()], work.path());
    let pinned = fs::read_to_string(hand.join(environments::path("production"))).unwrap();
    fs::write(hand.join(environments::path("production")), pinned.replace("v0.2.0", "v0.3.0")).unwrap();
    let by_hand =
        ["-c", "user.name=Bob", "-c", "user.email=b@c", "commit", "--quiet", "-am", "it <i>burns</i>"];
    project::run("git", &by_hand, &hand);
    project::run("git", &["push", "--quiet"], &hand);
    operator.ends(0, &["board", "--out", &out]);
    shows(
        &words(&file),
        &["What happened", "by hand", "v0.2.0", "v0.3.0", "Bob", "it &#60;i&#62;burns&#60;/i&#62;"],
    );
}

#[test]
fn the_file_is_replaced_in_one_step_or_not_at_all() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_stage, operator) = stage();
    let folder = operator.checkout.path("public");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("index.html");
    fs::write(&file, "old").unwrap();
    let out = file.to_str().unwrap().to_owned();
    operator.ends(0, &["board", "--out", &out]);
    assert!(fs::read_to_string(&file).unwrap().starts_with("<!doctype html>"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o444, 0o444);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    let (link, moved) = (folder.join("link.html"), folder.join("moved.html"));
    fs::rename(&file, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &link).unwrap();
    fs::write(&moved, "old").unwrap();
    operator.ends(0, &["board", "--out", link.to_str().unwrap()]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&moved).unwrap().starts_with("<!doctype html>"));
    fs::remove_file(&link).unwrap();
    assert!(operator.ends(0, &["board", "--out", "-"]).starts_with("<!doctype html>"));

    let missing = folder.join("none/index.html").to_str().unwrap().to_owned();
    shows(&json!(operator.ends(2, &["board", "--out", &missing])), &["error: cannot write", &missing]);
    shows(&json!(operator.ends(2, &["board", "--out", folder.to_str().unwrap()])), &["error: cannot write"]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    shows(&json!(operator.ends(2, &["board", "--out", "-", "--json"])), &["help: give --out a file"]);
}
