//! `promote verify`, the required check of the infra repository's pull requests: what people and bots may propose, and
//! what it says of it.

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

use environments::{Environments, Operator, path};
use project::run;
use serde_json::{Value, json};
use tempfile::TempDir;

const HEAD: &str = "refs/heads/proposal";
const HOLD: &str = "dojo/production/HOLD";

struct Scene {
    stage: Environments,
    operator: Operator,
    /// Somebody's clone of the infra repository.
    clone: TempDir,
}

/// Staging runs v0.3.0 and production v0.2.0, after v0.1.0.
fn scene() -> Scene {
    let stage = Environments::new();
    let operator = stage.operator("somebody", &stage.path());
    for version in ["v0.1.0", "v0.2.0"] {
        for environment in ["staging", "production"] {
            operator.ends(0, &["promote", environment, version, "--yes"]);
        }
    }
    operator.ends(0, &["promote", "staging", "v0.3.0", "--yes"]);
    let clone = tempfile::tempdir().unwrap();
    run("git", &["clone", "--quiet", &stage.path(), "."], clone.path());
    Scene { stage, operator, clone }
}

impl Scene {
    /// A branch with one commit on what the infra repository has now, in which these files have these texts.
    fn propose(&self, files: &[(&str, Option<&str>)], message: &str) {
        let git = |args: &[&str]| run("git", args, self.clone.path());
        git(&["fetch", "--quiet", "origin", "main"]);
        git(&["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"]);
        self.commit(files, message);
    }

    /// One more commit on that branch.
    fn commit(&self, files: &[(&str, Option<&str>)], message: &str) {
        let git = |args: &[&str]| run("git", args, self.clone.path());
        for (name, text) in files {
            let file = self.clone.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            match text {
                Some(text) => fs::write(file, text).unwrap(),
                None => fs::remove_file(file).unwrap(),
            }
        }
        git(&["add", "--all"]);
        let who = ["-c", "user.name=B", "-c", "user.email=b@example.com", "-c", "commit.gpgsign=false"];
        git(&[&who[..], &["commit", "--quiet", "-m", message]].concat());
        git(&["push", "--quiet", "--force", "origin", &format!("HEAD:{HEAD}")]);
    }

    /// An environment's kustomization with this ref, newTag and digest; none leaves the digest's line out.
    fn pinned(&self, environment: &str, git_ref: &str, tag: &str, digest: Option<&str>) -> String {
        let text = self.stage.infra.git(&["show", &format!("main:{}", path(environment))]);
        let now = self.stage.pin("main", environment);
        let [old, new] = [now.git_ref.as_deref().unwrap(), git_ref].map(|name| format!("?ref={name}"));
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            match (line.trim().split(": ").next().unwrap(), digest) {
                ("digest", None) => {}
                ("digest", Some(digest)) => lines.push(format!("    digest: {digest}")),
                ("newTag", _) => lines.push(format!("    newTag: {tag}")),
                _ => lines.push(line.replace(&old, &new)),
            }
        }
        lines.join("\n") + "\n"
    }

    /// A whole pin of an image, by hand.
    fn pin_by_hand(&self, environment: &str, version: &str, message: &str) {
        let digest = &self.stage.image(version).digest;
        let text = self.pinned(environment, version, version, Some(digest));
        self.propose(&[(&path(environment), Some(&text))], message);
    }

    fn verify(&self, code: i32, words: &[&str]) -> String {
        let said = self.operator.ends(code, &["promote", "verify", "--head", HEAD]);
        for word in words {
            assert!(said.contains(word), "{word} is missing in: {said}");
        }
        said
    }
}

#[test]
fn a_whole_pin_that_meets_the_gates_is_good_whoever_made_it() {
    let scene = scene();
    scene.pin_by_hand("production", "v0.3.0", "Bump dojo");
    let good = "production: promote v0.2.0 -> v0.3.0: every gate is met\n";
    scene.verify(0, &["staging: unchanged\n", good]);
    // What kustomize fetches is the same.
    let image = scene.stage.image("v0.3.0");
    let by_commit = scene.pinned("production", &image.commit, "v0.3.0", Some(&image.digest));
    scene.propose(&[(&path("production"), Some(&by_commit))], "Bump dojo");
    scene.verify(0, &[good]);

    let commit = scene.stage.infra.git(&["rev-parse", HEAD]);
    let told = scene.operator.run(&["promote", "verify", "--head", &commit, "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["state"], &told["head"]), (&json!("verified"), &json!(commit)), "{told}");
    let [staging, production] = [0, 1].map(|at| told["environments"][at].clone());
    assert_eq!((&staging["state"], &staging["plan"]), (&json!("unchanged"), &json!(null)), "{told}");
    assert_eq!(production["state"], "good");
    assert_eq!(production["plan"]["to"]["tag"], "v0.3.0");

    // As a pull request's job has it; elsewhere somebody has to say which.
    scene.stage.infra.git(&["update-ref", "refs/pull/7/head", HEAD]);
    let run = |reference: &str| {
        let mut command = scene.operator.xtask(&["promote", "verify"]);
        command.env("GITHUB_REF", reference).output().unwrap().status.code().unwrap()
    };
    assert_eq!((run("refs/pull/7/head"), run("refs/heads/main"), run("refs/pull/8/head")), (0, 2, 1));
    assert_eq!(scene.stage.pinned()[1], "v0.2.0", "it only looks");
}

#[test]
fn values_that_do_not_belong_together_are_named() {
    let scene = scene();
    let [old, new] = ["v0.2.0", "v0.3.0"].map(|version| scene.stage.image(version).digest.as_str());
    let whole = format!("the image has ref v0.3.0, newTag v0.3.0 and digest {new}");
    for (git_ref, tag, digest) in [
        ("v0.2.0", "v0.3.0", Some(new)),
        ("v0.3.0", "v0.3.0", Some(old)),
        ("v0.3.0", "v0.3.0", None),
        ("master", "v0.3.0", Some(new)),
    ] {
        let text = scene.pinned("production", git_ref, tag, digest);
        scene.propose(&[(&path("production"), Some(&text))], "Bump dojo");
        let torn = format!("ref {git_ref}, newTag {tag} and digest {} do not", digest.unwrap_or("none"));
        let file = "production (dojo/production/kustomization.yaml): ";
        scene.verify(3, &["production: refused\n", file, &torn, &whole]);
    }
    // Only the tag is behind: the digest is what would run.
    let text = scene.pinned("production", "v0.2.0", "v0.2.0", Some(new));
    scene.propose(&[(&path("production"), Some(&text))], "Bump dojo");
    scene.verify(3, &["do not belong together", "cargo xtask promote production v0.2.0 --pr"]);
    for tag in ["latest", "edge", "v0.0.0"] {
        let text = scene.pinned("staging", tag, tag, Some(new));
        scene.propose(&[(&path("staging"), Some(&text))], "Follow");
        scene.verify(3, &[&format!("newTag would be {tag}, which is no image for good")]);
    }
}

#[test]
fn the_gates_are_the_projects_and_are_passed_by_trailers_alone() {
    let scene = scene();
    scene.operator.ends(0, &["promote", "staging", "v0.2.0", "--yes"]);
    let refused = ["production: refused", "staging does not run it first: v0.2.0 is pinned there"];
    scene.pin_by_hand("production", "v0.3.0", "Bump dojo\n\nWe say\nOverride: after because prose");
    scene.verify(3, &refused);
    // Rules that a pull request brings are nobody's.
    let lax = fs::read_to_string(scene.operator.checkout.path("deploy/pipeline.yaml")).unwrap();
    let lax = lax.replace(", after: staging", "");
    scene.commit(&[("deploy/pipeline.yaml", Some(&lax))], "Relax");
    scene.verify(3, &refused);
    // Of another environment's commit.
    scene.commit(&[("dojo/staging/notes", Some("x"))], "Note\n\nOverride: after because of notes");
    scene.verify(3, &refused);
    scene.pin_by_hand("production", "v0.3.0", "Bump dojo\n\nOverride: after because it burns");
    scene.verify(0, &["every gate is met or passed\n  passed  after: it burns\n"]);

    scene.pin_by_hand("staging", "v0.3.0", "Bump dojo");
    scene.stage.service("staging").set_silent(true);
    scene.verify(0, &["promote v0.2.0 -> v0.3.0: every gate is met"]);
    scene.stage.service("staging").set_silent(false);
    scene.operator.ends(0, &["promote", "staging", "v0.3.0", "--yes"]);
    scene.stage.service("staging").set_silent(true);
    scene.pin_by_hand("production", "v0.3.0", "Bump dojo");
    scene.verify(1, &["production: unknown", "whether it runs is unknown"]);
}

#[test]
fn a_rollback_is_what_says_so_and_returns_to_what_ran_there() {
    let scene = scene();
    let marked = |bad: &str| {
        format!("Roll back\n\nPin-Environment: production\nPin-Bad: {}", scene.stage.image(bad).digest)
    };
    scene.pin_by_hand("production", "v0.1.0", "Roll back");
    scene.verify(3, &["cannot promote production to v0.1.0: staging does not run it first"]);
    scene.pin_by_hand("production", "v0.1.0", &marked("v0.2.0"));
    scene.verify(0, &["production: roll back v0.2.0 -> v0.1.0: every gate is met"]);
    // It leaves another image than what is pinned.
    scene.pin_by_hand("production", "v0.1.0", &marked("v0.3.0"));
    scene.verify(3, &["cannot promote production"]);
    // It never ran there.
    scene.pin_by_hand("production", "v0.4.0", &marked("v0.2.0"));
    scene.verify(3, &["cannot promote production to v0.4.0"]);
    // And no reason opens a data file.
    scene.stage.service("production").set_file_schema(2);
    scene.pin_by_hand("production", "v0.1.0", &marked("v0.2.0"));
    scene.verify(3, &["it would need a downgrade"]);
}

#[test]
fn a_hold_counts_until_it_is_gone_from_the_branch() {
    let scene = scene();
    scene.operator.ends(0, &["hold", "production", "an audit", "--yes"]);
    scene.pin_by_hand("production", "v0.3.0", "Bump dojo");
    scene.verify(3, &["production is held: an audit"]);
    scene.commit(&[(HOLD, None)], "End the hold");
    scene.verify(3, &["production is held: an audit"]);
    scene.propose(&[(HOLD, None)], "End the hold");
    scene.verify(0, &["production: the pin stays, and it is no longer held"]);
    scene.propose(&[(HOLD, Some("another audit\n"))], "Hold");
    scene.verify(0, &["production: the pin stays, and it is held: another audit"]);
}

#[test]
fn what_cannot_be_read_is_refused_and_what_is_no_pin_is_left_alone() {
    let scene = scene();
    let file = path("production");
    let text = scene.stage.infra.git(&["show", &format!("main:{file}")]) + "\n";
    let refused = ["production: refused", "production (dojo/production/kustomization.yaml): "];
    scene.propose(&[(&file, None)], "Clean up");
    scene.verify(3, &[refused[0], refused[1], "would be gone"]);
    scene.propose(&[(&file, Some(&format!("{text}---\n{text}")))], "Twice");
    scene.verify(3, &refused);
    scene.propose(&[(&file, Some(&format!("{text}commonAnnotations: {{team: books}}\n")))], "Annotate");
    scene.verify(0, &["production: changed, but not in its pin: that is not looked at here"]);
    let restore = "dojo/production/restore.env";
    scene.propose(&[(restore, Some("DOJO_RESTORE=../../x\n"))], "Restore");
    scene.verify(3, &refused);
}

#[test]
fn what_the_branch_got_meanwhile_counts_too() {
    let scene = scene();
    scene.pin_by_hand("production", "v0.3.0", "Bump dojo");
    // Another environment's change is no conflict, and its new pin is what the gates see.
    scene.operator.ends(0, &["promote", "staging", "v0.2.0", "--yes"]);
    scene.verify(3, &["staging: unchanged", "staging does not run it first: v0.2.0 is pinned there"]);
    scene.operator.ends(0, &["promote", "staging", "v0.3.0", "--yes"]);
    scene.verify(0, &["promote v0.2.0 -> v0.3.0: every gate is met"]);
    scene.operator.ends(0, &["rollback", "--yes"]);
    scene.verify(3, &["refs/heads/proposal conflicts with what main has by now"]);
    let before = scene.stage.infra.git(&["rev-parse", "main~1"]);
    let args = ["promote", "verify", "--head", HEAD, "--base", &before];
    assert!(scene.operator.ends(0, &args).contains("every gate is met"));
}
