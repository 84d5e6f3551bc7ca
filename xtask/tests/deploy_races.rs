//! Two people change pins at once: one is held between what was read and its push, the other comes first. All the words
//! in which git tells a lost race come up, over HTTP and SSH; what was planned goes on by itself only where it is still
//! the same, and nothing is ever forced.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/environments.rs"]
mod environments;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/pin_commits.rs"]
mod pin_commits;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/pushes.rs"]
mod pushes;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;
#[path = "tools/ssh.rs"]
mod ssh;
mod tools;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Output;
use std::time::Duration;

use environments::{Environments, Operator, ended};
use pushes::{Pushes, wait_for};
use rustix::process::{Pid, Signal, kill_process_group};
use ssh::Sshd;

/// How git says that somebody else was faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wording {
    /// The push sees that the branch is not where the lease has it.
    StaleInfo,
    /// The push, without a lease, sees a commit that it does not know.
    FetchFirst,
    /// The push saw nothing, and the server finds the branch moved when it is to move it.
    CannotLock,
}

impl Wording {
    fn signs(self) -> &'static [&'static str] {
        match self {
            Self::StaleInfo => &["[rejected] (stale info)"],
            Self::FetchFirst => &["[rejected] (fetch first)"],
            Self::CannotLock => &[
                "[remote rejected] (failed to update ref)",
                "cannot lock ref 'refs/heads/main': is at ",
                " but expected ",
            ],
        }
    }
}

/// Lets the first push wait in the server, when all is checked but the branch.
const WAITS_IN_SERVER: &str = "mkdir hooks/first 2>/dev/null || exit 0
tries=0
while [ -e hooks/hold ] && [ $tries -lt 3000 ]; do sleep 0.02; tries=$((tries + 1)); done";

/// Staging pins v0.2.0, and production v0.1.0.
struct Scene {
    stage: Environments,
    start: String,
    /// Who is held.
    slow: Operator,
    pushes: Pushes,
    /// Who comes first, by the repository's path.
    fast: Operator,
    _sshd: Option<Sshd>,
}

impl Scene {
    fn by_http() -> Self {
        let stage = Environments::new();
        let slow = stage.operator("slow", &stage.http());
        Self::of(stage, slow, None)
    }

    fn by_ssh() -> Self {
        let (stage, sshd) = (Environments::new(), Sshd::start());
        let mut slow = stage.operator("slow", &sshd.url(&stage.infra.bare()));
        slow.environment.push(sshd.environment());
        Self::of(stage, slow, Some(sshd))
    }

    fn of(stage: Environments, mut slow: Operator, sshd: Option<Sshd>) -> Self {
        let fast = stage.operator("fast", &stage.path());
        for (environment, version) in [("staging", "v0.1.0"), ("production", "v0.1.0"), ("staging", "v0.2.0")]
        {
            fast.ends(0, &["promote", environment, version, "--yes"]);
        }
        let (start, pushes) = (stage.head(), Pushes::of(&mut slow));
        Self { stage, start, slow, pushes, fast, _sshd: sshd }
    }

    /// `slow` reads, then `fast` does all of its own, then `slow` pushes. How `slow` ends; the branch only went forward.
    fn race(&self, wording: Wording, slow: &[&str], fast: &[&str]) -> Played<'_> {
        let (slow, fast) = ([slow, &["--yes"]].concat(), [fast, &["--yes"]].concat());
        self.stage.reset(&self.start);
        self.hold(wording);
        let output = std::thread::scope(|scope| {
            let held = scope.spawn(|| self.slow.run(&slow));
            self.wait_until_held(wording);
            self.fast.ends(0, &fast);
            self.let_go(wording);
            held.join().unwrap()
        });
        let pushes = self.pushes.take();
        let said = pushes.join("\n");
        for sign in wording.signs() {
            assert!(pushes[0].contains(sign), "{slow:?}, {fast:?}: no {sign:?} in\n{said}");
        }
        for push in &pushes {
            let line = push.lines().next().unwrap();
            assert!(!line.contains("--force ") && !line.contains(" -f ") && !line.contains(" +"), "{line}");
        }
        let left = fs::read_dir(&self.slow.temporary).unwrap().count();
        assert_eq!(left, 0, "{slow:?} leaves something behind");
        Played { scene: self, what: slow.join(" "), output, pushes: pushes.len() }
    }

    fn server(&self, name: &str) -> std::path::PathBuf {
        self.stage.infra.bare().join("hooks").join(name)
    }

    fn hold(&self, wording: Wording) {
        match wording {
            Wording::CannotLock => {
                fs::write(self.server("hold"), "").unwrap();
                self.stage.hook(WAITS_IN_SERVER);
            }
            _ => self.pushes.hold(wording == Wording::FetchFirst),
        }
    }

    fn wait_until_held(&self, wording: Wording) {
        match wording {
            Wording::CannotLock => wait_for(&self.server("first")),
            _ => self.pushes.wait_until_held(),
        }
    }

    fn let_go(&self, wording: Wording) {
        match wording {
            Wording::CannotLock => {
                fs::remove_file(self.server("pre-receive")).unwrap();
                fs::remove_file(self.server("hold")).unwrap();
                fs::remove_dir(self.server("first")).unwrap();
            }
            _ => self.pushes.let_go(),
        }
    }
}

/// A race that was lost, and how its loser ended.
struct Played<'a> {
    scene: &'a Scene,
    what: String,
    output: Output,
    pushes: usize,
}

impl Played<'_> {
    /// With this code and words, after so many pushes, and these tags pinned by so many commits in all.
    fn ends(&self, code: i32, saying: &str, pushes: usize, pinned: [&str; 2], commits: usize) {
        let said = ended(code, &[&self.what], &self.output);
        assert!(said.contains(saying), "{}: no {saying:?} in\n{said}", self.what);
        assert_eq!(self.pushes, pushes, "{}\n{said}", self.what);
        assert_eq!(self.scene.stage.pinned(), pinned, "{}\n{said}", self.what);
        let made = pin_commits::after(&self.scene.stage, &self.scene.start);
        assert_eq!(made.len(), commits, "{}: {made:?}\n{said}", self.what);
    }
}

fn the_same_change_goes_on_and_another_does_not(scene: &Scene) {
    let sha_tag = scene.stage.image("v0.3.0").sha_tag();
    for wording in [Wording::StaleInfo, Wording::FetchFirst, Wording::CannotLock] {
        let promotes = ["promote", "staging", "v0.3.0"];
        let played = scene.race(wording, &promotes, &["promote", "production", "v0.2.0"]);
        played.ends(0, "done: infra commit ", 2, ["v0.3.0", "v0.2.0"], 2);
        let played = scene.race(wording, &promotes, &["promote", "staging", &sha_tag]);
        let plan = format!("the plan would now be:\npromote staging: {sha_tag} -> v0.3.0\n");
        played.ends(4, &plan, 1, [&sha_tag, "v0.1.0"], 1);
        let why = "somebody else changed staging in the meantime (";
        played.ends(4, why, 1, [&sha_tag, "v0.1.0"], 1);
    }
}

#[test]
fn over_http_the_same_change_goes_on_and_another_does_not() {
    the_same_change_goes_on_and_another_does_not(&Scene::by_http());
}

#[test]
fn over_ssh_the_same_change_goes_on_and_another_does_not() {
    if ssh::possible() {
        the_same_change_goes_on_and_another_does_not(&Scene::by_ssh());
    }
}

#[test]
fn who_lost_is_gated_again_and_does_nothing_twice() {
    let scene = Scene::by_http();
    for wording in [Wording::StaleInfo, Wording::CannotLock] {
        let same = ["promote", "staging", "v0.3.0"];
        let done = "staging already pins v0.3.0: nothing to do";
        scene.race(wording, &same, &same).ends(0, done, 1, ["v0.3.0", "v0.1.0"], 1);
        let back = ["rollback", "staging"];
        let done = "staging already pins v0.1.0: nothing to do";
        scene.race(wording, &back, &back).ends(0, done, 1, ["v0.1.0", "v0.1.0"], 1);
        let played = scene.race(wording, &back, &["promote", "production", "v0.2.0"]);
        played.ends(0, "done: infra commit ", 2, ["v0.1.0", "v0.2.0"], 2);
        // Still the same change, but no longer one that may be made.
        let played = scene.race(wording, &["promote", "production", "v0.2.0"], &same);
        played.ends(3, "staging does not run it first: v0.3.0 is pinned there", 1, ["v0.3.0", "v0.1.0"], 1);
        let played = scene.race(wording, &same, &["hold", "staging", "the books are being audited"]);
        played.ends(3, "staging is held: the books are being audited", 1, ["v0.2.0", "v0.1.0"], 0);
        // Nobody else changed production, but what it is to get.
        let played = scene.race(wording, &["promote", "production"], &same);
        played.ends(4, "\npromote production: v0.1.0 -> v0.3.0\n", 1, ["v0.3.0", "v0.1.0"], 1);
    }
}

#[test]
fn who_was_killed_does_it_again_or_finds_it_done() {
    let scene = Scene::by_http();
    let promotes = ["promote", "staging", "v0.3.0", "--yes"];
    // Before its push, and with the push in the server, which takes it all the same.
    for (wording, taken) in [(Wording::StaleInfo, false), (Wording::CannotLock, true)] {
        scene.stage.reset(&scene.start);
        scene.hold(wording);
        let mut killed = scene.slow.xtask(&promotes).process_group(0).spawn().unwrap();
        scene.wait_until_held(wording);
        kill_process_group(Pid::from_child(&killed), Signal::KILL).unwrap();
        killed.wait().unwrap();
        scene.let_go(wording);
        for _ in 0..500 {
            if !taken || scene.stage.head() != scene.start {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(scene.stage.head() != scene.start, taken);
        let said = scene.slow.ends(0, &promotes);
        let done = if taken { "already pins v0.3.0: nothing to do" } else { "done: infra commit " };
        assert!(said.contains(done), "{said}");
        assert_eq!(pin_commits::after(&scene.stage, &scene.start).len(), 1);
    }
}

/// Also where it is the loser of a race whom the hook tells so.
#[test]
fn a_hooks_no_is_final() {
    let scene = Scene::by_http();
    let no = "echo asked >>hooks/asked
echo 'error: GH006: Protected branch update failed for refs/heads/main.' >&2\nexit 1";
    let promotes = ["promote", "staging", "v0.3.0", "--yes"];
    let asked = || fs::read_to_string(scene.server("asked")).unwrap().lines().count();
    scene.stage.hook(no);
    let said = scene.slow.ends(3, &promotes);
    assert!(said.contains("GH006") && said.contains("\nhelp: "), "{said}");
    assert_eq!((asked(), scene.pushes.take().len()), (1, 1), "{said}");
    assert_eq!(scene.stage.head(), scene.start);

    fs::remove_file(scene.server("pre-receive")).unwrap();
    scene.hold(Wording::StaleInfo);
    let output = std::thread::scope(|scope| {
        let held = scope.spawn(|| scene.slow.run(&promotes));
        scene.wait_until_held(Wording::StaleInfo);
        scene.fast.ends(0, &["promote", "production", "v0.2.0", "--yes"]);
        scene.stage.hook(no);
        scene.let_go(Wording::StaleInfo);
        held.join().unwrap()
    });
    let said = ended(3, &promotes, &output);
    assert!(said.contains("GH006"), "{said}");
    assert_eq!((asked(), scene.pushes.take().len()), (2, 2), "{said}");
    assert_eq!(scene.stage.pinned(), ["v0.2.0", "v0.2.0"], "{said}");
}
