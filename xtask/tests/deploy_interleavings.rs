//! Up to four people promote and roll back at once, by chance, some of them killed. However it goes, the branch only goes
//! forward by whole changes of one pin each, none undoes another, and everybody ends with their change made, or told why
//! not; what is pinned renders to exactly that image and those manifests.
//!
//! DOJO_FAULTS says how many rounds are played, two for each; without it 20. DOJO_SEED repeats the first of them, as far as
//! chance is the test's.

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
#[path = "tools/rendered.rs"]
mod rendered;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;
#[path = "tools/ssh.rs"]
mod ssh;
mod tools;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Output;
use std::time::{Duration, Instant};

use environments::{Environments, NAMES, Operator};
use fastrand::Rng;
use pin_commits::PinCommit;
use pushes::Pushes;
use rendered::Kustomize;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use ssh::Sshd;

/// How many act at once.
const CREW: usize = 4;
/// How often who lost, or was killed, tries again before it counts as one that never ends.
const TRIES: usize = 3;

/// Those who reach the infra repository in the same way, and what they push.
struct Crew {
    way: &'static str,
    members: Vec<(Operator, Pushes)>,
    /// What a command takes about, undisturbed.
    pace: Duration,
}

/// One command, and what happens to it.
#[derive(Debug)]
struct Run {
    /// Who commits: nobody else is called so.
    name: String,
    args: Vec<String>,
    /// Before it starts, and before each push.
    waits: [Duration; 2],
    /// After its start.
    killed: Option<Duration>,
}

impl Run {
    /// Whether that commit changed what this run was to change, or what it was to bring.
    fn lost_against(&self, other: &PinCommit) -> bool {
        let brings_what_staging_pins = self.args[..3] == ["promote", "production", "--yes"];
        let matters =
            other.environment == self.args[1] || brings_what_staging_pins && other.environment == "staging";
        matters && other.by != self.name
    }
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Its commit, as it says.
    Done(String),
    /// The pin was so already, a guard refused, or another was faster.
    Told(i32),
    /// Its push may be with the server already, and may count.
    Killed,
}

struct Play {
    stage: Environments,
    crews: Vec<Crew>,
    kustomize: Option<Kustomize>,
    /// The last commit that was looked at.
    seen: String,
    fates: HashMap<String, Fate>,
    tally: BTreeMap<String, usize>,
    _sshd: Option<Sshd>,
}

impl Play {
    fn new() -> Self {
        let stage = Environments::new();
        let crew = |way, url: &str, pace, environment: Option<(&'static str, String)>| {
            let member = |number| {
                let mut operator = stage.operator(&format!("{way} {number}"), url);
                operator.environment.extend(environment.clone());
                let pushes = Pushes::of(&mut operator);
                (operator, pushes)
            };
            Crew { way, members: (0..CREW).map(member).collect(), pace: Duration::from_millis(pace) }
        };
        let mut crews = vec![crew("path", &stage.path(), 400, None), crew("http", &stage.http(), 600, None)];
        let sshd = ssh::possible().then(Sshd::start);
        if let Some(sshd) = &sshd {
            crews.push(crew("ssh", &sshd.url(&stage.infra.bare()), 1500, Some(sshd.environment())));
        }
        for (version, environment) in
            ["v0.1.0", "v0.2.0"].into_iter().flat_map(|v| NAMES.map(|name| (v, name)))
        {
            crews[0].members[0].0.ends(0, &["promote", environment, version, "--yes"]);
        }
        let kustomize = rendered::possible().then(|| Kustomize::of(&stage));
        let seen = stage.head();
        Self { stage, crews, kustomize, seen, fates: HashMap::new(), tally: BTreeMap::new(), _sshd: sshd }
    }

    fn round(&mut self, number: usize, rng: &mut Rng) {
        self.restore_backups(rng);
        let at = number % self.crews.len();
        let pace = self.crews[at].pace;
        // So that two pushes are in the server at once.
        self.stage.hook(&format!("sleep {}", rng.f32() / 4.0));
        let runs: Vec<_> = (0..rng.usize(2..=CREW))
            .map(|who| Run {
                name: format!("round {number} member {who}"),
                args: arguments(rng, &self.stage),
                waits: [pace.mul_f32(rng.f32() / 2.0), pace.mul_f32(rng.f32() / 2.0)],
                killed: (rng.u32(0..4) == 0).then(|| pace.mul_f32(rng.f32() * 1.5)),
            })
            .collect();
        let crew = &self.crews[at];
        let outputs: Vec<_> = std::thread::scope(|scope| {
            let pairs = runs.iter().zip(&crew.members);
            let started: Vec<_> =
                pairs.map(|(run, (operator, _))| scope.spawn(move || play(operator, run))).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        println!("  {}: {}", crew.way, story(&runs, &outputs));
        let fates: Vec<_> = runs.iter().zip(&outputs).map(|(run, output)| fate(run, output)).collect();
        self.look(at, &runs, fates);
        for (who, (mut run, output)) in runs.into_iter().zip(outputs).enumerate() {
            if output.status.signal().is_some() {
                self.clean_up(at, who);
                run.killed = None;
                self.again(at, who, run);
            }
        }
    }

    /// Who was killed runs the same command again, and comes to an end.
    fn again(&mut self, at: usize, who: usize, mut run: Run) {
        for _ in 0..TRIES {
            run.name += " again";
            let output = play(&self.crews[at].members[who].0, &run);
            let fate = fate(&run, &output);
            // What it pushed before it was killed may arrive only now.
            let lost = fate == Fate::Told(4);
            self.look(at, std::slice::from_ref(&run), vec![fate]);
            if !lost {
                return;
            }
        }
        panic!("{run:?} does not come to an end");
    }

    /// What a kill leaves: temporary folders, and a lock where it hit git in the moment in which a ref was written.
    fn clean_up(&mut self, at: usize, who: usize) {
        let operator = &self.crews[at].members[who].0;
        let left = fs::read_dir(&operator.temporary).unwrap().map(|entry| entry.unwrap().path());
        let left: Vec<_> = left.collect();
        assert!(left.len() <= TRIES, "{left:?}");
        left.iter().for_each(|path| fs::remove_dir_all(path).unwrap());
        self.count("temporary folders left by the killed", left.len());
        let lock = self.stage.infra.bare().join("refs/heads/main.lock");
        if self.crews[at].way == "path" && fs::remove_file(lock).is_ok() {
            self.count("locks left by the killed", 1);
        }
    }

    /// Holds what came to the branch against what the runs say.
    fn look(&mut self, at: usize, runs: &[Run], fates: Vec<Fate>) {
        let commits = pin_commits::after(&self.stage, &self.seen);
        for (run, fate) in runs.iter().zip(fates) {
            let what = match &fate {
                Fate::Killed => "killed".to_owned(),
                Fate::Done(_) => "ended with 0, done".to_owned(),
                Fate::Told(0) => "ended with 0, nothing to do".to_owned(),
                Fate::Told(code) => format!("ended with {code}"),
            };
            self.count(&what, 1);
            if let Fate::Done(id) = &fate {
                assert!(commits.iter().any(|commit| commit.id == *id), "{run:?} says done, but is not there");
            }
            if fate == Fate::Told(4) {
                assert!(commits.iter().any(|commit| run.lost_against(commit)), "{run:?} lost against nobody");
            }
            self.fates.insert(run.name.clone(), fate);
        }
        for commit in &commits {
            match self.fates.get(&commit.by) {
                Some(Fate::Done(id)) => assert_eq!(*id, commit.id, "{commit:?} is its second"),
                Some(Fate::Killed) => self.count("killed, but their commit came", 1),
                fate => panic!("{commit:?} is there, but {fate:?}"),
            }
            if self.kustomize.as_mut().is_some_and(|kustomize| kustomize.renders(&self.stage, commit)) {
                self.count("kustomizations rendered", 1);
            }
        }
        self.count("commits", commits.len());
        self.seen = commits.last().map_or(std::mem::take(&mut self.seen), |commit| commit.id.clone());
        self.look_at_pushes(at);
    }

    fn look_at_pushes(&mut self, at: usize) {
        let said: Vec<_> = self.crews[at].members.iter().flat_map(|(_, pushes)| pushes.take()).collect();
        for push in said {
            for wording in ["(stale info)", "(fetch first)", "cannot lock ref"] {
                self.count(&format!("pushes lost: {wording}"), push.contains(wording).into());
            }
        }
    }

    /// Now and then somebody puts back the data file of before the migration, or staging could never go back again.
    fn restore_backups(&self, rng: &mut Rng) {
        for environment in NAMES {
            let pinned = self.stage.pin("main", environment).tag.unwrap();
            if self.stage.image(&pinned).schema == 2 && rng.bool() {
                self.stage.service(environment).set_file_schema(1);
            }
        }
    }

    fn count(&mut self, what: &str, number: usize) {
        *self.tally.entry(what.to_owned()).or_default() += number;
    }

    /// Nobody who was not killed leaves anything; nothing runs on.
    fn ends(&self) {
        for (operator, _) in self.crews.iter().flat_map(|crew| &crew.members) {
            assert_eq!(fs::read_dir(&operator.temporary).unwrap().count(), 0, "{:?}", operator.temporary);
        }
        println!("{:#?}", self.tally);
    }
}

fn arguments(rng: &mut Rng, stage: &Environments) -> Vec<String> {
    let environment = *rng.choice(&NAMES).unwrap();
    let version =
        if rng.u32(0..12) == 0 { "v0.4.0" } else { *rng.choice(&["v0.1.0", "v0.2.0", "v0.3.0"]).unwrap() };
    let sha_tag = stage.image(version).sha_tag();
    let words: &[&str] = match (environment, rng.u32(0..10)) {
        (_, 0..3) => &["rollback", environment],
        (_, 3) => &["rollback", environment, "--to", version],
        ("production", 4..8) => &["promote", "production"],
        ("staging", 4) => &["promote", "staging", &sha_tag],
        ("staging", 5) if rng.bool() => &["promote", "staging", "edge"],
        _ => &["promote", environment, version],
    };
    words.iter().chain(&["--yes", "--json"]).map(|word| (*word).to_owned()).collect()
}

fn play(operator: &Operator, run: &Run) -> Output {
    let args: Vec<_> = run.args.iter().map(String::as_str).collect();
    let mut command = operator.xtask(&args);
    command.env("GIT_AUTHOR_NAME", &run.name).env("GIT_COMMITTER_NAME", &run.name);
    command.env("PAUSE_BEFORE_PUSH", run.waits[1].as_secs_f32().to_string()).process_group(0);
    std::thread::sleep(run.waits[0]);
    let child = command.spawn().unwrap();
    if let Some(after) = run.killed {
        std::thread::sleep(after);
        // It may have ended; its number is its own until it is waited for.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    child.wait_with_output().unwrap()
}

/// Fails unless it is one that a run may have.
fn fate(run: &Run, output: &Output) -> Fate {
    let said = String::from_utf8_lossy(&output.stderr);
    match (output.status.code(), output.status.signal()) {
        (Some(0), _) => {
            let result: Value = serde_json::from_slice(&output.stdout).unwrap();
            match result["commit"].as_str() {
                Some(commit) => Fate::Done(commit.to_owned()),
                None => {
                    assert_eq!(result["plan"]["change"], false, "{run:?}: {result}");
                    Fate::Told(0)
                }
            }
        }
        (Some(3), _) if said.starts_with("error: ") && said.contains("\nhelp: ") => Fate::Told(3),
        (Some(4), _) if said.contains("the plan would now be:\n") && said.contains(" -> ") => Fate::Told(4),
        (None, Some(9)) if run.killed.is_some() => Fate::Killed,
        _ => panic!("{run:?}: {}\n{said}", output.status),
    }
}

fn story(runs: &[Run], outputs: &[Output]) -> String {
    let ended = |output: &Output| output.status.code().map_or("killed".to_owned(), |code| code.to_string());
    let told = runs.iter().zip(outputs);
    let told =
        told.map(|(run, output)| format!("{} {}", run.args[..run.args.len() - 2].join(" "), ended(output)));
    told.collect::<Vec<_>>().join(", ")
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[test]
fn whoever_comes_first_every_commit_is_whole_and_everybody_is_told() {
    let rounds = number("DOJO_FAULTS").map_or(20, |number| 2 * number) as usize;
    let first = number("DOJO_SEED").unwrap_or_else(|| Rng::new().u64(..));
    let (mut play, start) = (Play::new(), Instant::now());
    for round in 0..rounds {
        let seed = first.wrapping_add(round as u64);
        println!("DOJO_SEED={seed}");
        play.round(round, &mut Rng::with_seed(seed));
    }
    println!("{rounds} rounds: {} s", start.elapsed().as_secs());
    play.ends();
    let commits = play.tally["commits"];
    assert!(commits >= rounds / 2, "{commits} commits in {rounds} rounds prove little");
}
