//! A team with a branch of the infra repository for each environment: what a change of one leaves alone, and what it asks
//! of the other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/environments.rs"]
mod environments;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/pushes.rs"]
mod pushes;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;

use std::fs;

use environments::{Environments, Operator};
use pushes::Pushes;
use serde_json::Value;

/// Staging lies on `main` and production on `prod`.
struct Scene {
    stage: Environments,
    operator: Operator,
}

fn scene() -> Scene {
    let stage = Environments::new();
    stage.infra.git(&["branch", "prod", "main"]);
    let operator = operator(&stage, "me");
    Scene { stage, operator }
}

fn operator(stage: &Environments, name: &str) -> Operator {
    let operator = stage.operator(name, &stage.path());
    let file = operator.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, text.replace("{name: production, ", "{name: production, branch: prod, ")).unwrap();
    operator
}

impl Scene {
    fn heads(&self) -> [String; 2] {
        ["main", "prod"].map(|branch| self.stage.infra.git(&["rev-parse", branch]))
    }

    /// What each environment pins on its own branch.
    fn pinned(&self) -> [String; 2] {
        [("main", "staging"), ("prod", "production")].map(|(at, name)| self.stage.pin(at, name).tag.unwrap())
    }

    /// Ends so, and moves only the branches that it is to move.
    fn ends(&self, code: i32, args: &[&str], moves: [bool; 2]) -> String {
        let before = self.heads();
        let said = self.operator.ends(code, args);
        let after = self.heads();
        assert_eq!([before[0] != after[0], before[1] != after[1]], moves, "{args:?}: {said}");
        said
    }
}

#[test]
fn each_environment_is_changed_on_its_own_branch() {
    let scene = scene();
    for version in ["v0.1.0", "v0.2.0"] {
        let early = scene.ends(3, &["promote", "production", version, "--yes"], [false, false]);
        assert!(early.contains("staging"), "{early}");
        scene.ends(0, &["promote", "staging", version, "--yes"], [true, false]);
        // The gate reads staging on its own branch: `prod` has it at v0.0.0 for ever.
        scene.ends(0, &["promote", "production", "--yes"], [false, true]);
        assert_eq!(scene.pinned(), [version, version]);
    }
    assert_eq!(scene.stage.pin("prod", "staging").tag.as_deref(), Some("v0.0.0"));
    let again = scene.ends(0, &["promote", "production", "v0.2.0", "--yes"], [false, false]);
    assert!(again.contains("already pins v0.2.0: nothing to do"), "{again}");

    scene.ends(0, &["hold", "production", "the books are audited", "--yes"], [false, true]);
    let held = "held: the books are audited";
    let said = scene.ends(3, &["rollback", "--yes"], [false, false]);
    assert!(said.contains(held), "{said}");
    assert_eq!(scene.stage.infra.git(&["show", "prod:dojo/production/HOLD"]), "the books are audited");
    let status: Value = serde_json::from_slice(&scene.operator.run(&["status", "--json"]).stdout).unwrap();
    let told = |index: usize| &status["environments"][index];
    assert_eq!((&told(0)["pin"]["tag"], &told(1)["pin"]["tag"]), (&"v0.2.0".into(), &"v0.2.0".into()));
    assert_eq!((&told(0)["hold"], &told(1)["hold"]["why"]), (&Value::Null, &"the books are audited".into()));
    scene.ends(0, &["unhold", "production", "--yes"], [false, true]);

    let said = scene.ends(0, &["rollback", "--yes"], [false, true]);
    assert!(said.contains("roll back production: v0.2.0 -> v0.1.0"), "{said}");
    assert_eq!(scene.pinned(), ["v0.2.0", "v0.1.0"]);
}

#[test]
fn a_race_on_one_branch_is_nobody_elses() {
    let scene = scene();
    for name in ["staging", "production"] {
        scene.operator.ends(0, &["promote", name, "v0.1.0", "--yes"]);
    }
    let race = |slow: [&'static str; 4], fast: [&str; 4]| {
        let mut held = operator(&scene.stage, "slow");
        let pushes = Pushes::of(&mut held);
        pushes.hold(false);
        let output = std::thread::scope(|scope| {
            let running = scope.spawn(|| held.run(&slow));
            pushes.wait_until_held();
            scene.operator.ends(0, &fast);
            pushes.let_go();
            running.join().unwrap()
        });
        (environments::ended(output.status.code().unwrap(), &slow, &output), pushes.take().len())
    };
    let staging = |version| ["promote", "staging", version, "--yes"];
    // Staging moves its branch while production's push is on its way: one push is enough.
    scene.operator.ends(0, &staging("v0.2.0"));
    let (said, pushes) = race(["promote", "production", "v0.2.0", "--yes"], staging("v0.3.0"));
    assert!(said.contains("done: infra commit ") && pushes == 1, "{pushes}: {said}");
    assert_eq!(scene.pinned(), ["v0.3.0", "v0.2.0"]);
    let (said, pushes) = race(["hold", "production", "why", "--yes"], staging("v0.1.0"));
    assert!(said.contains("done: infra commit ") && pushes == 1, "{pushes}: {said}");
    scene.operator.ends(0, &["unhold", "production", "--yes"]);
    scene.operator.ends(0, &staging("v0.3.0"));
    // On the same branch it is lost.
    let (said, pushes) =
        race(["promote", "production", "v0.3.0", "--yes"], ["rollback", "--to", "v0.1.0", "--yes"]);
    assert!(said.contains("somebody else changed production") && pushes == 1, "{pushes}: {said}");
    assert_eq!(scene.pinned(), ["v0.3.0", "v0.1.0"]);
}

#[test]
fn a_pull_request_is_held_against_the_environments_of_its_branch() {
    let scene = scene();
    for name in ["staging", "production"] {
        scene.operator.ends(0, &["promote", name, "v0.1.0", "--yes"]);
    }
    scene.operator.ends(0, &["promote", "staging", "v0.2.0", "--yes"]);
    // What a promotion would push, on a branch of its own.
    let [_, prod] = scene.heads();
    scene.operator.ends(0, &["promote", "production", "v0.2.0", "--yes"]);
    scene.stage.infra.git(&["branch", "proposal", "prod"]);
    scene.stage.infra.git(&["update-ref", "refs/heads/prod", &prod]);
    let verify = ["promote", "verify", "--head", "refs/heads/proposal"];
    let good = "production: promote v0.1.0 -> v0.2.0: every gate is met";
    let mut of_job = scene.operator.xtask(&verify[..2]);
    of_job.envs([("GITHUB_BASE_REF", "prod"), ("GITHUB_REF", "refs/pull/1/merge")]);
    scene.stage.infra.git(&["update-ref", "refs/pull/1/merge", "proposal"]);
    for output in [
        scene.operator.run(&[&verify[..], &["--base", "prod"]].concat()),
        scene.operator.run(&[&verify[..], &["--base", "refs/heads/prod"]].concat()),
        of_job.output().unwrap(),
    ] {
        let said = environments::ended(0, &verify, &output);
        assert!(said.contains(good) && !said.contains("staging:"), "{said}");
    }
    let said = scene.operator.ends(0, &verify);
    assert!(said.contains("staging:") && !said.contains("production:"), "{said}");
}

#[test]
fn a_branch_that_is_not_there_stops_only_its_own_environment() {
    let scene = scene();
    scene.stage.infra.git(&["update-ref", "-d", "refs/heads/prod"]);
    scene.operator.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    assert_eq!(scene.stage.pinned()[0], "v0.1.0");
    for args in [&["promote", "production", "v0.1.0", "--yes"][..], &["hold", "production", "why", "--yes"]] {
        let said = scene.operator.ends(2, args);
        assert!(said.contains("has no branch prod, on which production lies\nhelp: push it there"), "{said}");
    }
    let said = scene.operator.ends(0, &["status"]);
    assert!(
        said.contains("  also     what is pinned is unknown") && said.contains("has no branch prod"),
        "{said}"
    );
}
