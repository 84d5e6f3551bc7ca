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
#[path = "tools/runs.rs"]
mod runs;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;
#[path = "tools/ssh.rs"]
mod ssh;
mod tools;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use environments::{Environments, NAMES, Operator};
use fastrand::Rng;
use pin_commits::PinCommit;
use pushes::Pushes;
use rendered::Kustomize;
use runs::{Fate, Run};
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
        let name = |who| format!("round {number} member {who}");
        let mut runs: Vec<_> =
            (0..rng.usize(2..=CREW)).map(|who| Run::by_chance(name(who), rng, &self.stage, pace)).collect();
        let crew = &self.crews[at];
        let outputs: Vec<_> = std::thread::scope(|scope| {
            let pairs = runs.iter().zip(&crew.members);
            let started: Vec<_> =
                pairs.map(|(run, (operator, _))| scope.spawn(move || run.play(operator))).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let ended = || runs.iter().zip(&outputs);
        let told: Vec<_> = ended().map(|(run, output)| run.story(output)).collect();
        println!("  {}: {}", crew.way, told.join(", "));
        let fates: Vec<_> = ended().map(|(run, output)| run.fate(output)).collect();
        let killed: Vec<_> = (0..runs.len()).filter(|who| fates[*who] == Fate::Killed).collect();
        self.look(at, &runs, fates);
        for who in killed {
            self.clean_up(at, who);
            self.again(at, who, &mut runs[who]);
        }
    }

    /// Who was killed runs the same command again, and comes to an end.
    fn again(&mut self, at: usize, who: usize, run: &mut Run) {
        for _ in 0..TRIES {
            run.again();
            let fate = run.fate(&run.play(&self.crews[at].members[who].0));
            // What it pushed before it was killed may arrive only now.
            let lost = fate == Fate::Lost;
            self.look(at, std::slice::from_ref(run), vec![fate]);
            if !lost {
                return;
            }
        }
        panic!("{run:?} does not come to an end");
    }

    /// What a kill leaves: temporary folders, and a lock where it hit git in the moment in which a ref was written.
    fn clean_up(&mut self, at: usize, who: usize) {
        let operator = &self.crews[at].members[who].0;
        let left = || -> Vec<_> {
            fs::read_dir(&operator.temporary).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let number = left().len();
        // The clone, what is rendered without the change and with it, an index, and git's or kubectl's own.
        assert!(number <= 2 * TRIES, "{:?}", left());
        // A kubectl that was started goes on for a while, and takes its own away.
        let until = Instant::now() + Duration::from_secs(30);
        while !left().is_empty() {
            assert!(Instant::now() < until, "{:?}", left());
            left().iter().for_each(|path| drop(fs::remove_dir_all(path)));
            std::thread::sleep(Duration::from_millis(20));
        }
        self.count("temporary folders left by the killed", number);
        if self.crews[at].way == "path" && fs::remove_file(self.lock()).is_ok() {
            self.count("locks left by the killed", 1);
        }
    }

    /// Holds what came to the branch against what the runs say.
    fn look(&mut self, at: usize, runs: &[Run], fates: Vec<Fate>) {
        let commits = pin_commits::after(&self.stage, &self.seen);
        for (run, fate) in runs.iter().zip(fates) {
            let (what, holds) = self.holds(run, &fate, &commits);
            assert!(holds, "{run:?} says {fate:?}, but there came {commits:?}");
            self.count(what, 1);
            self.fates.insert(run.name.clone(), fate);
        }
        for commit in &commits {
            match self.fates.insert(commit.by.clone(), Fate::Done(commit.id.clone(), None)) {
                Some(Fate::Done(id, _)) => assert_eq!(id, commit.id, "{commit:?} is its second"),
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

    /// What a run says, and whether it is so, if these commits came meanwhile.
    fn holds(&self, run: &Run, fate: &Fate, commits: &[PinCommit]) -> (&'static str, bool) {
        let here = || commits.iter().filter(|commit| commit.environment == run.environment());
        match fate {
            Fate::Done(id, shown) => {
                let made = here().find(|commit| commit.id == *id);
                let as_shown = made.is_some_and(|PinCommit { from, to, .. }| {
                    shown.as_ref().is_none_or(|shown| *shown == format!("{from} -> {to}"))
                        && run.target().is_none_or(|target| target == to)
                });
                ("ended with 0: done", as_shown)
            }
            Fate::Already(tag) => {
                let before = self.stage.pin(&self.seen, run.environment()).tag;
                let pinned = before.as_ref() == Some(tag) || here().any(|commit| commit.to == *tag);
                ("ended with 0: nothing to do", pinned)
            }
            Fate::Blocked => ("ended with 1: a lock that a killed one left", self.lock().exists()),
            Fate::Refused(_) => ("ended with 3", true),
            Fate::Lost => ("ended with 4", commits.iter().any(|commit| run.lost_against(commit))),
            Fate::Killed => ("killed", true),
        }
    }

    fn lock(&self) -> PathBuf {
        self.stage.infra.bare().join("refs/heads/main.lock")
    }

    fn look_at_pushes(&mut self, at: usize) {
        let said: Vec<_> = self.crews[at].members.iter().flat_map(|(_, pushes)| pushes.take()).collect();
        for push in said {
            for wording in ["(stale info)", "cannot lock ref"] {
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

    /// Nobody who was not killed leaves anything, and the repository is whole.
    fn ends(&self) {
        for (operator, _) in self.crews.iter().flat_map(|crew| &crew.members) {
            assert_eq!(fs::read_dir(&operator.temporary).unwrap().count(), 0, "{:?}", operator.temporary);
        }
        self.stage.infra.git(&["fsck", "--strict"]);
        println!("{:#?}", self.tally);
    }
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
