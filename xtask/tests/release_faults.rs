//! `release` and its CI while everything fails: a whole release is played once without harm, and then again for each
//! request that changes something, with that one request harmed or its sender killed. The same commands, run again, come
//! to the same end each time: one tag, one release with its files, one digest under all names, no version burned.
//!
//! DOJO_FAULTS says how many of these are played, spread over all, and a fifth as many in which requests fail by chance;
//! without it a few. DOJO_SEED repeats one of the latter.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/github.rs"]
mod github;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/proxy.rs"]
mod proxy;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/stage.rs"]
mod stage;
mod tools;

use std::process::{ExitStatus, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use docker_registry::Registry;
use fastrand::Rng;
use proxy::Harm;
use server::Answer;
use stage::{Stage, ended};

const VERSION: &str = "v0.2.0";
const FILES: [&str; 3] = ["dojo-v0.2.0.cdx.json", "dojo-v0.2.0.digest.txt", "dojo-v0.2.0.production.yaml"];
/// How many are played at once, since most of it is waiting.
const LANES: usize = 3;
/// How often a command is run again before it counts as one that never ends.
const TRIES: usize = 30;
/// Of a hundred requests, how many fail where they fail by chance.
const OFTEN: u32 = 3;

/// The way to the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    PullRequest,
    /// The tag's first run dies before it does anything.
    DeadRun,
}

/// How a request is harmed.
#[derive(Clone, Copy, Debug)]
enum How {
    KilledBefore,
    KilledAfter,
    ErrorBefore,
    ErrorAfter,
    CutBefore,
    CutWithin,
    CutAfter,
}

const HOWS: [How; 7] = [
    How::KilledBefore,
    How::KilledAfter,
    How::ErrorBefore,
    How::ErrorAfter,
    How::CutBefore,
    How::CutWithin,
    How::CutAfter,
];

impl How {
    fn harm(self) -> Harm {
        let error = || {
            Answer::new(500).header("Content-Type", "application/json").body(r#"{"message":"Server Error"}"#)
        };
        match self {
            Self::KilledBefore => Harm::KillBefore,
            Self::KilledAfter => Harm::KillAfter,
            Self::ErrorBefore => Harm::Instead(error()),
            Self::ErrorAfter => Harm::Deny(error()),
            Self::CutBefore => Harm::Cut,
            Self::CutWithin => Harm::CutUpload,
            Self::CutAfter => Harm::LoseAnswer,
        }
    }
}

/// One request of those that change something: its kind, which of that kind from 0, and what is done to it.
#[derive(Clone, Debug)]
struct Target {
    kind: String,
    nth: usize,
    how: How,
}

/// What is harmed, and all requests that came and change something.
struct Script {
    target: Option<Target>,
    /// Any request may be struck, until that is over.
    chance: Option<Mutex<Rng>>,
    over: AtomicBool,
    seen: Mutex<Vec<String>>,
}

impl Script {
    fn choose(&self, peer: &str, line: &str) -> Harm {
        let (method, path) = line.split_once(' ').unwrap();
        if let Some(chance) = self.chance.as_ref().filter(|_| !self.over.load(Ordering::SeqCst)) {
            let mut chance = chance.lock().unwrap();
            if chance.u32(0..100) < OFTEN {
                return chance.choice(HOWS).unwrap().harm();
            }
        }
        if ["GET", "HEAD"].contains(&method) || path.ends_with("/git-upload-pack") {
            return Harm::None;
        }
        let kind = kind(&format!("{peer}: {line}"));
        let mut seen = self.seen.lock().unwrap();
        let nth = seen.iter().filter(|other| **other == kind).count();
        seen.push(kind.clone());
        let struck = self.target.as_ref().filter(|target| target.kind == kind && target.nth == nth);
        struck.map_or(Harm::None, |target| target.how.harm())
    }
}

/// A request without its numbers, which differ from play to play.
fn kind(line: &str) -> String {
    let parts: Vec<_> = line.split(|letter: char| letter.is_ascii_digit()).collect();
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("#")
}

/// A release from beginning to end.
struct Play {
    stage: Stage,
    script: Arc<Script>,
    /// What was run, and how it ended.
    told: Vec<String>,
}

impl Play {
    fn new(registry: &Arc<Registry>, way: Way, target: Option<Target>, seed: Option<u64>) -> Self {
        let chance = seed.map(|seed| Mutex::new(Rng::with_seed(seed)));
        let script =
            Arc::new(Script { target, chance, over: AtomicBool::new(false), seen: Mutex::default() });
        let chooser = Arc::clone(&script);
        let stage = Stage::new(registry, move |peer, line| chooser.choose(peer, line));
        if way == Way::PullRequest {
            stage.protect();
        }
        Self { stage, script, told: Vec::new() }
    }

    fn note(&mut self, what: &str, output: &Output) {
        let said = String::from_utf8_lossy(&output.stderr);
        self.told.push(format!("{what}: {}\n{said}", ended(output.status)));
    }

    /// The developer runs the same command until it is through; others do their part in between.
    fn run_through(&mut self, way: Way) {
        let mut dies = way == Way::DeadRun;
        for _ in 0..TRIES {
            let output = self.stage.release(&[VERSION, "--yes"]);
            self.note("release", &output);
            self.is_in_the_table(output.status);
            if output.status.success() {
                return;
            }
            self.others_do_their_part(&mut dies);
        }
        panic!("{VERSION} is not released after {TRIES} tries\n{}", self.story());
    }

    fn others_do_their_part(&mut self, dies: &mut bool) {
        self.stage.play_ci();
        for pull in self.stage.repository.pulls().iter().filter(|pull| pull["state"] == "open") {
            self.stage.repository.merge(pull["number"].as_u64().unwrap(), "merge");
        }
        self.stage.play_ci();
        let tags = self.stage.remote.git(&["tag", "--list"]);
        for tag in tags.lines() {
            if !self.stage.repository.runs().iter().any(|run| run.head_branch == tag) {
                self.stage.repository.start_run(tag);
            }
        }
        for run in self.stage.repository.runs().iter().filter(|run| run.status == "queued") {
            if std::mem::take(dies) {
                self.stage.repository.end_run(run.id, "cancelled");
                continue;
            }
            let output = self.stage.publish(&run.head_branch);
            self.note("ci publish", &output);
            self.is_in_the_table(output.status);
            self.stage
                .repository
                .end_run(run.id, if output.status.success() { "success" } else { "failure" });
        }
    }

    /// A failure of the network is 1; no harm done here is a reason for another one.
    fn is_in_the_table(&self, status: ExitStatus) {
        let killed = self.script.chance.is_some()
            || self
                .script
                .target
                .as_ref()
                .is_some_and(|target| matches!(target.how.harm(), Harm::KillBefore | Harm::KillAfter));
        let fine = matches!(status.code(), Some(0 | 1)) || killed && ended(status) == "signal 9";
        assert!(fine, "{}\n{}", ended(status), self.story());
    }

    fn story(&self) -> String {
        let seen = self.script.seen.lock().unwrap();
        format!("{:?} of\n{}\n{}", self.script.target, seen.join("\n"), self.told.join("\n"))
    }

    /// The same end, whatever happened on the way.
    fn ended_well(&self) {
        let stage = &self.stage;
        let story = self.story();
        assert_eq!(stage.remote.git(&["tag", "--list"]), VERSION, "{story}");
        assert_eq!(stage.remote.git(&["cat-file", "-t", VERSION]), "tag", "{story}");
        let tagged = stage.remote.git(&["rev-parse", "refs/tags/v0.2.0^{commit}"]);
        let subjects = stage.remote.git(&["log", "--format=%s", "master"]);
        let prepared = subjects.lines().filter(|subject| *subject == "release: v0.2.0").count();
        assert_eq!(prepared, 1, "{subjects}\n{story}");
        let manifest = stage.remote.git(&["show", &format!("{tagged}:Cargo.toml")]);
        assert!(manifest.contains("'0.2.0'") || manifest.contains("\"0.2.0\""), "{manifest}\n{story}");

        let releases = stage.repository.releases();
        let shown: Vec<_> =
            releases.iter().map(|release| (release.id, &release.tag, release.draft)).collect();
        assert_eq!(shown.len(), 1, "{shown:?}\n{story}");
        let release = &releases[0];
        assert_eq!((release.tag.as_str(), release.draft), (VERSION, false), "{story}");
        assert_eq!(release.assets.keys().collect::<Vec<_>>(), FILES, "{story}");
        let digest = stage.tag(&format!("sha-{}", &tagged[..12])).unwrap();
        for tag in [VERSION, "latest"] {
            assert_eq!(stage.tag(tag).as_ref(), Some(&digest), "{tag}\n{story}");
        }
        let file = |name: &str| String::from_utf8(release.assets[name].clone()).unwrap();
        assert_eq!(file(FILES[1]), format!("ghcr.io/blogle/dojo:{VERSION}@{digest}\n"), "{story}");
        assert!(file(FILES[2]).contains(&digest), "{story}");
        let bill = stage.developer(&["image", "sbom", VERSION]).output().unwrap();
        assert_eq!(file(FILES[0]).trim(), String::from_utf8(bill.stdout).unwrap().trim(), "{story}");

        let (changes, again) = (self.script.seen.lock().unwrap().len(), stage.release(&[VERSION, "--yes"]));
        assert_eq!(ended(again.status), "0", "{story}");
        assert_eq!(
            self.script.seen.lock().unwrap().len(),
            changes,
            "once released there is nothing to do\n{story}"
        );
        assert_eq!(stage.repository.violations(), [""; 0], "{story}");
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// Plays it once, and says which requests changed something.
fn play(registry: &Arc<Registry>, way: Way, target: Option<Target>) -> Vec<String> {
    let start = Instant::now();
    let mut play = Play::new(registry, way, target.clone(), None);
    play.run_through(way);
    play.ended_well();
    let seen = play.script.seen.lock().unwrap().clone();
    let runs = play.told.iter().map(|told| told.split_once('\n').unwrap().0).collect::<Vec<_>>().join(", ");
    let what = target.as_ref().map(|target| format!("{} {}, {:?}", target.nth, target.kind, target.how));
    println!("{way:?} {what:?}: {} s; {runs}", start.elapsed().as_secs());
    // That a request is sent again may be chance; that it is sent is not.
    if let Some(Target { kind, nth: 0, .. }) = target {
        assert!(seen.contains(&kind), "there was no {kind}\n{}", play.story());
    }
    seen
}

/// Every request that changes something, harmed in every way; or some of these, spread over all.
fn matrix(way: Way, usual: usize) {
    if !stage::possible() {
        return;
    }
    let registry = Arc::new(Registry::with_password());
    let requests = play(&registry, way, None);
    let target = |at: usize, how| {
        let kind: &String = &requests[at];
        Target { kind: kind.clone(), nth: requests[..at].iter().filter(|other| *other == kind).count(), how }
    };
    let all: Vec<_> = (0..requests.len()).flat_map(|at| HOWS.map(|how| target(at, how))).collect();
    let wanted = number("DOJO_FAULTS").map_or(usual, |number| number as usize).min(all.len());
    // Not always the same harm.
    let of = |number| number * all.len() / wanted + number % (all.len() / wanted);
    let chosen: Vec<_> = (0..wanted).map(|number| all[of(number)].clone()).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(target) = chosen.get(next.fetch_add(1, Ordering::SeqCst)) {
                    play(&registry, way, Some(target.clone()));
                }
            });
        }
    });
    println!("{way:?}: {wanted} of {} played", all.len());
}

#[test]
fn a_release_ends_the_same_whichever_request_is_harmed() {
    matrix(Way::Direct, 8);
}

#[test]
fn a_release_by_pull_request_ends_the_same_whichever_request_is_harmed() {
    matrix(Way::PullRequest, 8);
}

#[test]
fn a_tags_run_that_died_is_started_again_whichever_request_is_harmed() {
    matrix(Way::DeadRun, 5);
}

/// Everything may fail, what only reads too, and more than once.
#[test]
fn a_release_ends_the_same_when_requests_fail_by_chance() {
    if !stage::possible() {
        return;
    }
    let registry = Arc::new(Registry::with_password());
    let first = number("DOJO_SEED").unwrap_or_else(|| Rng::new().u64(..));
    let rounds = number("DOJO_FAULTS").map_or(3, |number| number / 5);
    for seed in (0..rounds).map(|round| first.wrapping_add(round)) {
        println!("DOJO_SEED={seed}");
        let way = if seed % 2 == 0 { Way::Direct } else { Way::PullRequest };
        let mut play = Play::new(&registry, way, None, Some(seed));
        play.run_through(way);
        play.script.over.store(true, Ordering::SeqCst);
        play.ended_well();
        println!("{way:?}: {} commands", play.told.len());
    }
}
