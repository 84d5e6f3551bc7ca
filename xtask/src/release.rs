//! `release`: prepare a version on its branch, wait for CI's image of that very commit, tag it, and see it published.
//! Each step is decided from what is there, so the same command goes on after any failure.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::fault::{Fault, Kind, exit_code};
use crate::terminal;
use crate::version::{Bump, Version};

mod act;
mod gather;
mod plan;
mod status;

use gather::Sources;
use plan::{Facts, Gate, Override, Plan, Planned, Progress, Step};

/// How often `--wait` looks, and for how long.
const POLL: Duration = Duration::from_secs(5);
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
    gates: Vec<Gate>,
    /// Why a gate is passed; it is kept in the tag's message.
    #[arg(long, value_name = "TEXT", requires = "gates")]
    because: Option<String>,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    match &args.look {
        Some(Look::Status(status)) => status::run(status, root),
        None => cut(&args.cut, root),
    }
}

fn cut(args: &Cut, root: &Path) -> Result<()> {
    let overrides = overrides(args)?;
    let sources = Sources::open(root)?;
    let version = match (&args.version, args.bump) {
        (Some(version), _) => version.clone(),
        (None, Some(bump)) => sources.bumped(bump)?,
        (None, None) => return Err(Fault::usage("which version?").help("cargo xtask release v0.1.0").into()),
    };
    if version.is_zero() {
        return Err(Fault::usage("v0.0.0 stands for \"nothing released\"").help("start with v0.1.0").into());
    }
    let release = Release { args, version, overrides, sources };
    let looking = terminal::Spinner::start("asking git, the registry and GitHub");
    let (facts, plan) = release.look()?;
    drop(looking);
    match args.json {
        false => println!("{plan}"),
        // Whoever is asked has to see what for.
        true if !args.yes => eprintln!("{plan}"),
        true => {}
    }
    if args.dry_run && plan.next().is_some() {
        return release.finish(&plan, "dry run");
    }
    release.converge(facts, plan)
}

fn overrides(args: &Cut) -> Result<Vec<Override>, Fault> {
    let because = args.because.as_deref().unwrap_or_default().trim();
    if args.because.is_some() && (because.is_empty() || because.chars().any(char::is_control)) {
        return Err(Fault::usage("--because needs a reason, in one line"));
    }
    Ok(args.gates.iter().map(|gate| Override { gate: *gate, because: because.to_owned() }).collect())
}

struct Release<'a> {
    args: &'a Cut,
    version: Version,
    overrides: Vec<Override>,
    sources: Sources,
}

impl Release<'_> {
    fn look(&self) -> Result<(Facts, Plan)> {
        let facts = self.sources.gather(&self.version, &self.overrides)?;
        let plan = plan::plan(&facts)?;
        Ok((facts, plan))
    }

    /// Does step after step, until all is done or somebody else has to do something.
    fn converge(&self, mut facts: Facts, mut plan: Plan) -> Result<()> {
        let (mut confirmed, mut restarted) = (self.args.yes, false);
        loop {
            self.catch_up(&facts, &plan);
            let Some(Planned { step, progress, .. }) = plan.next() else {
                return self.finish(&plan, "released");
            };
            match progress {
                Progress::Waiting(why) => self.wait_for(&plan, *step, why)?,
                // Once is enough: GitHub needs its time to show it.
                Progress::ToDo if *step == Step::Restart && restarted => {
                    self.wait_for(&plan, Step::Restart, "the tag's run was started again")?;
                }
                Progress::Unknown(fault) => return Err(self.unknown(fault)),
                Progress::ToDo | Progress::Done => {
                    terminal::confirm(confirmed)?;
                    confirmed = true;
                    restarted |= *step == Step::Restart;
                    self.act(*step, &facts, &plan)?;
                }
            }
            (facts, plan) = self.look()?;
        }
    }

    fn act(&self, step: Step, facts: &Facts, plan: &Plan) -> Result<()> {
        match step {
            Step::Prepare => self.prepare(facts, plan),
            Step::Propose => self.propose(facts, plan),
            Step::Tag => self.tag(plan),
            Step::Restart => self.restart(facts),
            // Others do these; they are never "to do".
            Step::Merge | Step::Ci | Step::Publish => Ok(()),
        }
    }

    fn unknown(&self, fault: &Fault) -> anyhow::Error {
        anyhow::Error::new(fault.clone()).context(format!("cannot tell how it stands with {}", self.version))
    }

    /// Waits until the step has moved, with `--wait`; else says that it has not.
    fn wait_for(&self, plan: &Plan, step: Step, why: &str) -> Result<()> {
        if !self.args.wait {
            return self.not_yet(plan, why);
        }
        let spinner = terminal::Spinner::start(why);
        let (start, mut told) = (Instant::now(), String::new());
        while start.elapsed() < PATIENCE {
            match self.look() {
                Ok((_, plan)) => match plan.next() {
                    Some(Planned { step: now, progress: Progress::Waiting(why), .. }) if *now == step => {
                        if told != *why {
                            spinner.say(why);
                            told.clone_from(why);
                        }
                    }
                    Some(Planned { step: now, progress: Progress::Unknown(fault), .. })
                        if *now == step && fault.kind == Kind::Remote =>
                    {
                        spinner.say(&fault.to_string());
                    }
                    Some(Planned { step: Step::Restart, .. }) if step == Step::Restart => {}
                    _ => return Ok(()),
                },
                // Whoever waits for two hours outlives a stumble.
                Err(error) if exit_code(&error) == Kind::Remote as u8 => spinner.say(&format!("{error:#}")),
                Err(error) => return Err(error),
            }
            std::thread::sleep(POLL);
        }
        Err(Fault::remote(format!("{} is not released after two hours: {told}", self.version))
            .help("look there, then run the same command again")
            .into())
    }

    fn not_yet(&self, plan: &Plan, why: &str) -> Result<()> {
        if self.args.json {
            self.finish(plan, "waiting")?;
        }
        Err(Fault::remote(format!("{} is not released yet: {why}", self.version))
            .help("run the same command again then, or with --wait")
            .into())
    }

    fn finish(&self, plan: &Plan, state: &str) -> Result<()> {
        if self.args.json {
            println!("{}", json!({ "state": state, "plan": plan }));
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
