//! `release`: prepare a version on its branch, wait for CI's image of that very commit, tag it, and see it published.
//! Each step is decided from what is there, so the same command goes on after any failure.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::fault::{Fault, Kind, exit_code};
use crate::gate::{self, Override, ReleaseGate};
use crate::terminal;
use crate::version::{Bump, Version};

mod act;
mod gather;
mod plan;
mod status;

use gather::Sources;
use plan::{Facts, Plan, Planned, Progress, Step};

/// How often `--wait` looks; GitHub counts what it is asked.
const POLL: Duration = Duration::from_secs(15);
/// For how long it waits for one step.
const PATIENCE: Duration = Duration::from_secs(120 * 60);

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Run the same command again after any failure: it goes on from what it finds.
It ends with 1 while CI, or whoever merges, has a part to do.

Examples:
  cargo xtask release v0.1.0 --dry-run
  cargo xtask release v0.1.0 --wait
  cargo xtask release --bump minor
  cargo xtask release v0.2.0-rc.1 --yes
  cargo xtask release v0.1.1 --override checks --because \"the runner is broken, tested by hand\"
  cargo xtask release status v0.1.0"
)]
pub struct Args {
    #[command(subcommand)]
    look: Option<Look>,
    #[command(flatten)]
    cut: Cut,
}

#[derive(Debug, clap::Subcommand)]
enum Look {
    /// How far a release has come, and where it runs.
    Status(status::Args),
}

#[derive(Debug, clap::Args)]
struct Cut {
    /// The version, for example v0.1.0.
    #[arg(required_unless_present = "bump", conflicts_with = "bump")]
    version: Option<Version>,
    /// The version after the last one on the branch that is checked out.
    #[arg(long)]
    bump: Option<Bump>,
    /// Print the plan and stop; needs no right to write.
    #[arg(long)]
    dry_run: bool,
    /// Follow CI to the end.
    #[arg(long)]
    wait: bool,
    /// Do not ask before the first change.
    #[arg(long, short)]
    yes: bool,
    /// Pass a gate that is not met; can be given several times.
    #[arg(long = "override", value_name = "GATE", requires = "because")]
    gates: Vec<ReleaseGate>,
    /// Why a gate is passed; it is kept in the tag's message.
    #[arg(long, value_name = "TEXT", requires = "gates")]
    because: Option<String>,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let Args { look, cut: args } = args;
    if let Some(Look::Status(status)) = look {
        return status::run(status, root);
    }
    let seen = RefCell::new(None);
    let outcome = cut(args, root, &seen);
    if let (true, Err(error)) = (args.json, &outcome) {
        let state = match exit_code(error) {
            1 => "not yet",
            3 => "refused",
            4 => "raced",
            _ => "failed",
        };
        terminal::json(&json!({ "state": state, "error": format!("{error:#}"), "plan": *seen.borrow() }))?;
    }
    outcome
}

fn cut(args: &Cut, root: &Path, seen: &RefCell<Option<Plan>>) -> Result<()> {
    let overrides = gate::given(&args.gates, args.because.as_deref())?;
    let sources = Sources::open(root)?;
    let version = match (&args.version, args.bump) {
        (Some(version), _) => version.clone(),
        (None, Some(bump)) => sources.bumped(bump)?,
        (None, None) => return Err(Fault::usage("which version?").help("cargo xtask release v0.1.0").into()),
    };
    if version.is_zero() {
        return Err(Fault::usage("v0.0.0 stands for \"nothing released\"").help("start with v0.1.0").into());
    }
    let release = Release { args, version, overrides, sources, seen };
    let looking = terminal::Spinner::start("asking git, the registry and GitHub");
    let (facts, plan) = release.look()?;
    drop(looking);
    match args.json {
        false => println!("{plan}"),
        // Whoever is asked has to see what for.
        true if !args.yes && !args.dry_run => eprintln!("{plan}"),
        true => {}
    }
    if args.dry_run {
        // What the plan cannot know, it cannot promise.
        if let Some(Planned { progress: Progress::Unknown(fault), .. }) = plan.next() {
            return Err(release.unknown(fault));
        }
        return release.finish(&plan, if plan.next().is_some() { "dry run" } else { "released" });
    }
    release.converge(facts, plan)
}

struct Release<'a> {
    args: &'a Cut,
    version: Version,
    overrides: Vec<Override<ReleaseGate>>,
    sources: Sources,
    /// The newest plan, for `--json` when it comes to nothing.
    seen: &'a RefCell<Option<Plan>>,
}

impl Release<'_> {
    fn look(&self) -> Result<(Facts, Plan)> {
        let facts = self.sources.gather(&self.version, &self.overrides)?;
        let plan = plan::plan(&facts)?;
        self.seen.replace(Some(plan.clone()));
        Ok((facts, plan))
    }

    /// Does step after step, until all is done or somebody else has to do something.
    fn converge(&self, mut facts: Facts, mut plan: Plan) -> Result<()> {
        let (mut confirmed, mut restarted) = (self.args.yes, None);
        loop {
            if confirmed {
                self.catch_up(&facts, &plan);
            }
            let Some(Planned { step, progress, .. }) = plan.next() else {
                return self.finish(&plan, "released");
            };
            match progress {
                Progress::Waiting(why) => self.wait_for(&plan, *step, why)?,
                Progress::Unknown(fault) if self.args.wait && fault.kind == Kind::Remote => {
                    self.wait_for(&plan, *step, &fault.to_string())?;
                }
                Progress::Unknown(fault) => return Err(self.unknown(fault)),
                Progress::ToDo | Progress::Done if !confirmed => {
                    terminal::confirm(false)?;
                    confirmed = true;
                    // The question may have stood there for an hour.
                    let (now, planned) = self.look()?;
                    if planned != plan {
                        eprintln!("{planned}");
                        confirmed = false;
                    }
                    (facts, plan) = (now, planned);
                    continue;
                }
                Progress::ToDo | Progress::Done if *step == Step::Restart => {
                    let attempt = plan.attempt;
                    match restarted {
                        None => {
                            self.restart(&facts)?;
                            restarted = Some(attempt);
                        }
                        // GitHub takes its time to show what was started.
                        Some(before) if before == attempt => {
                            self.wait_for(&plan, Step::Restart, "the tag's run was started again")?;
                        }
                        Some(_) => return Err(self.failed_again(&facts)),
                    }
                }
                Progress::ToDo | Progress::Done => self.act(*step, &facts, &plan)?,
            }
            (facts, plan) = self.look_patiently()?;
        }
    }

    fn failed_again(&self, facts: &Facts) -> anyhow::Error {
        let url = plan::run_of(facts).map_or("", |run| run.html_url.as_str());
        Fault::remote(format!("the tag's run was started again, and did not publish {}: {url}", self.version))
            .help("mend what it says, then run the same command again")
            .into()
    }

    /// With `--wait`, a remote that stumbles is asked again.
    fn look_patiently(&self) -> Result<(Facts, Plan)> {
        let start = Instant::now();
        loop {
            match self.look() {
                Err(error)
                    if self.args.wait
                        && exit_code(&error) == Kind::Remote as u8
                        && start.elapsed() < PATIENCE =>
                {
                    eprintln!("note: {error:#}");
                    std::thread::sleep(POLL);
                }
                looked => return looked,
            }
        }
    }

    fn act(&self, step: Step, facts: &Facts, plan: &Plan) -> Result<()> {
        match step {
            Step::Prepare => self.prepare(facts, plan),
            Step::Propose => self.propose(facts, plan),
            Step::Tag => self.tag(facts, plan),
            // Others do these; they are never "to do".
            Step::Restart | Step::Merge | Step::Ci | Step::Publish => Ok(()),
        }
    }

    fn unknown(&self, fault: &Fault) -> anyhow::Error {
        anyhow::Error::new(fault.clone()).context(format!("cannot tell how it stands with {}", self.version))
    }

    /// Waits until the step has moved, with `--wait`; else says that it has not.
    fn wait_for(&self, plan: &Plan, step: Step, why: &str) -> Result<()> {
        if !self.args.wait {
            return self.not_yet(why);
        }
        // What others wrote goes past the macros that clean it.
        let why = &terminal::one_line(why);
        let spinner = terminal::Spinner::start(why);
        spinner.say(why);
        let (mut start, mut told) = (Instant::now(), why.to_owned());
        let before = plan.next();
        while start.elapsed() < PATIENCE {
            std::thread::sleep(POLL);
            let now = match self.look() {
                // One that was started again and failed again shows as the same step.
                Ok((_, now)) if now.attempt != plan.attempt => return Ok(()),
                Ok((_, now)) => now,
                // Whoever waits for two hours outlives a stumble.
                Err(error) if exit_code(&error) == Kind::Remote as u8 => {
                    spinner.say(&terminal::plain(&format!("{error:#}")));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let why = match now.next() {
                Some(Planned { step: now, progress: Progress::Waiting(why), .. }) if *now == step => {
                    why.clone()
                }
                Some(Planned { step: now, progress: Progress::Unknown(fault), .. })
                    if *now == step && fault.kind == Kind::Remote =>
                {
                    fault.to_string()
                }
                same if step == Step::Restart && same == before => continue,
                _ => return Ok(()),
            };
            if told != why {
                spinner.say(&terminal::plain(&why));
                (start, told) = (Instant::now(), why);
            }
        }
        Err(Fault::remote(format!(
            "{} is not released, and nothing moved for two hours: {told}",
            self.version
        ))
        .help(format!("look there, then: cargo xtask release {} --wait", self.version))
        .into())
    }

    fn not_yet(&self, why: &str) -> Result<()> {
        Err(Fault::remote(format!("{} is not released yet: {why}", self.version))
            .help(format!("then: cargo xtask release {}, or at once with --wait", self.version))
            .into())
    }

    fn finish(&self, plan: &Plan, state: &str) -> Result<()> {
        if self.args.json {
            terminal::json(&json!({ "state": state, "plan": plan }))?;
        } else {
            self.say(&format!("{}: {state}", self.version));
        }
        Ok(())
    }

    fn say(&self, line: &str) {
        if self.args.json { eprintln!("{line}") } else { println!("{line}") }
    }

    /// A race was lost: shows what is to be done now, and does none of it.
    fn lost(&self, what: String) -> anyhow::Error {
        let fault =
            Fault::race(what).help("nothing was changed; look at what came, then run the same command again");
        match self.look() {
            Ok((_, plan)) => eprintln!("{plan}"),
            Err(error) => eprintln!("{error:#}"),
        }
        fault.into()
    }
}
