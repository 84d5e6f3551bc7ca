//! One promotion or rollback by chance, perhaps killed, and how it ended.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Output;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::environments::{Environments, NAMES, Operator};
use crate::pin_commits::PinCommit;

/// One command, and what happens to it.
#[derive(Debug)]
pub struct Run {
    /// Who commits: nobody else is called so.
    pub name: String,
    args: Vec<String>,
    /// Before it starts.
    wait: Duration,
    /// Before each of its pushes.
    pause: Duration,
    /// After its start.
    killed: Option<Duration>,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its commit, as it says, and the first plan that it showed, `FROM -> TO`, if it did.
    Done(String, Option<String>),
    /// The tag that was pinned already.
    Already(String),
    /// The server's branch could not be locked, though nobody moved it.
    Blocked,
    /// A guard refused, and why.
    Refused(String),
    /// Another was faster.
    Lost,
    /// Its push may be with the server already, and may count.
    Killed,
}

impl Run {
    /// `pace` is what a command takes about, undisturbed.
    pub fn by_chance(name: String, rng: &mut Rng, stage: &Environments, pace: Duration) -> Self {
        let args = arguments(rng, stage);
        let mut share = |most: f32| pace.mul_f32(rng.f32() * most);
        let (wait, pause, killed) = (share(0.5), share(0.5), share(1.5));
        Self { name, args, wait, pause, killed: (rng.u32(0..4) == 0).then_some(killed) }
    }

    /// The same command, undisturbed.
    pub fn again(&mut self) {
        self.name += " again";
        self.killed = None;
    }

    pub fn environment(&self) -> &str {
        &self.args[1]
    }

    /// What it asks for by name.
    pub fn target(&self) -> Option<&str> {
        let fixed = |word: &&String| word.starts_with('v') || word.starts_with("sha-");
        self.args.iter().find(fixed).map(String::as_str)
    }

    /// Whether that commit changed what this run was to change, or what it was to bring.
    pub fn lost_against(&self, other: &PinCommit) -> bool {
        let brings_what_staging_pins = self.args[..3] == ["promote", "production", "--yes"];
        let matters = other.environment == self.environment()
            || brings_what_staging_pins && other.environment == "staging";
        matters && other.by != self.name
    }

    pub fn play(&self, operator: &Operator) -> Output {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        let mut command = operator.xtask(&args);
        command.env("GIT_AUTHOR_NAME", &self.name).env("GIT_COMMITTER_NAME", &self.name);
        command.env("PAUSE_BEFORE_PUSH", self.pause.as_secs_f32().to_string()).process_group(0);
        std::thread::sleep(self.wait);
        let child = command.spawn().unwrap();
        if let Some(after) = self.killed {
            std::thread::sleep(after);
            // It may have ended; its number is its own until it is waited for.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        }
        child.wait_with_output().unwrap()
    }

    /// Fails unless it is one that a run may have.
    pub fn fate(&self, output: &Output) -> Fate {
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.signal() == Some(9) && self.killed.is_some() {
            return Fate::Killed;
        }
        let (code, answer) = (output.status.code(), self.answer(output));
        match (code, answer) {
            (Some(0), Some(answer)) => return answer,
            // No hook says no here.
            (Some(3), None) if said.starts_with("error: ") && !said.contains("refused the push") => {
                assert!(said.contains("\nhelp: "), "{self:?}: {said}");
                return Fate::Refused(said.lines().next().unwrap().to_owned());
            }
            (Some(1), None) if said.contains("nobody moved it") => return Fate::Blocked,
            (Some(4), None) if said.contains("the plan would now be:\n") && said.contains(" -> ") => {
                return Fate::Lost;
            }
            _ => {}
        }
        panic!("{self:?}: {}\n{}{said}", output.status, String::from_utf8_lossy(&output.stdout));
    }

    /// What it says that it did, in words or as JSON; `None` if nothing.
    fn answer(&self, output: &Output) -> Option<Fate> {
        let said = String::from_utf8_lossy(&output.stdout);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        if self.args.contains(&"--json".to_owned()) {
            let result: Value = serde_json::from_str(&said).unwrap();
            return match result["state"].as_str().unwrap() {
                "done" => Some(Fate::Done(text(&result["commit"]), None)),
                "nothing to do" => Some(Fate::Already(text(&result["plan"]["to"]["tag"]))),
                state => {
                    let states = HashMap::from([(1, "failed"), (3, "refused"), (4, "raced")]);
                    assert_eq!(Some(&state), output.status.code().and_then(|code| states.get(&code)));
                    None
                }
            };
        }
        let already =
            said.split_once(" already pins ").and_then(|(_, rest)| rest.split_once(": nothing to do"));
        let done = said.lines().find_map(|line| line.strip_prefix("done: infra commit "));
        let shown =
            said.lines().next().and_then(|line| line.split_once(": ")).map(|(_, plan)| plan.to_owned());
        match (already, done) {
            (None, Some(commit)) => Some(Fate::Done(commit.to_owned(), shown)),
            (Some((tag, _)), None) => Some(Fate::Already(tag.to_owned())),
            _ => None,
        }
    }

    /// In few words.
    pub fn story(&self, output: &Output) -> String {
        let code = output.status.code().map_or("killed".to_owned(), |code| code.to_string());
        format!("{} {code}", self.args.join(" "))
    }
}

fn arguments(rng: &mut Rng, stage: &Environments) -> Vec<String> {
    let environment = *rng.choice(&NAMES).unwrap();
    let old = ["v0.1.0", "v0.2.0", "v0.3.0"];
    let version = if rng.u32(0..12) == 0 { "v0.4.0" } else { *rng.choice(&old).unwrap() };
    let sha_tag = stage.image(version).sha_tag();
    let words: &[&str] = match (environment, rng.u32(0..10)) {
        (_, 0..3) => &["rollback", environment],
        (_, 3) => &["rollback", environment, "--to", version],
        ("production", 4..8) => &["promote", "production"],
        ("staging", 4) => &["promote", "staging", &sha_tag],
        ("staging", 5) if rng.bool() => &["promote", "staging", "edge"],
        _ => &["promote", environment, version],
    };
    let how: &[&str] = if rng.bool() { &["--yes"] } else { &["--yes", "--json"] };
    words.iter().chain(how).map(|word| (*word).to_owned()).collect()
}
