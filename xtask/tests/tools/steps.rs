//! The steps of a release, as tests play them again and again.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::process::Output;
use std::sync::Arc;

use crate::docker_registry::Registry;
use crate::proxy::Harm;
use crate::stage::{Stage, ended, possible};

/// Nothing is prepared yet, and no request is harmed; `None` where it cannot be played.
pub fn scene() -> Option<Stage> {
    possible().then(|| Stage::new(&Arc::new(Registry::with_password()), |_, _| Harm::None))
}

/// It must end so; gives all that it said.
pub fn ends(output: &Output, code: i32) -> String {
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said)).concat();
    assert_eq!(ended(output.status), code.to_string(), "{said}");
    said
}

/// It must refuse, and say all of this.
pub fn refuses(stage: &Stage, args: &[&str], sayings: &[&str]) {
    let said = ends(&stage.release(args), 3);
    for saying in sayings {
        assert!(said.contains(saying), "{args:?}: no {saying:?} in\n{said}");
    }
    assert!(said.contains("\nhelp: "), "{said}");
}

/// The tag's run, played.
pub fn publish(stage: &Stage, version: &str) {
    let run = stage.repository.start_run(version);
    let output = stage.publish(version);
    ends(&output, 0);
    stage.repository.end_run(run, "success");
}

/// All of it, without a hitch.
pub fn through(stage: &Stage, version: &str) {
    ends(&stage.release(&[version, "--yes"]), 1);
    finish(stage, version);
}

/// What is left when the version is prepared, or its pull request merged: CI, the tag, and its run.
pub fn finish(stage: &Stage, version: &str) {
    stage.play_ci();
    ends(&stage.release(&[version, "--yes"]), 1);
    publish(stage, version);
    ends(&stage.release(&[version, "--yes"]), 0);
    assert_eq!(stage.repository.violations(), [""; 0]);
}

/// Those of the remote.
pub fn tags(stage: &Stage) -> String {
    stage.remote.git(&["tag", "--list"])
}

/// The commit that the remote's tag names.
pub fn tagged(stage: &Stage, tag: &str) -> String {
    stage.remote.git(&["rev-parse", &format!("refs/tags/{tag}^{{commit}}")])
}

/// What the remote's tag says.
pub fn message(stage: &Stage, tag: &str) -> String {
    stage.remote.git(&["tag", "--list", "--format=%(contents)", tag])
}

/// A commit that is not pushed.
pub fn commit(stage: &Stage, subject: &str) -> String {
    fs::write(stage.project.path("news"), subject).unwrap();
    stage.project.commit(subject)
}

/// And CI does its part.
pub fn push(stage: &Stage, branch: &str) {
    stage.git(&["push", "--quiet", "--set-upstream", "origin", branch]);
    stage.play_ci();
}

/// With the version prepared and its image built; what the checks say is the test's.
pub fn prepared() -> Option<(Stage, String)> {
    let stage = scene()?;
    ends(&stage.release(&["v0.2.0", "--yes"]), 1);
    let head = stage.head("master");
    stage.leave_to_test(&head);
    stage.push_image("master", &head);
    Some((stage, head))
}
