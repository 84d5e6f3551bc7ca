//! `promote` and `rollback`: gather facts, plan, show, and swap one environment's pin in the infra repository.

use std::cell::RefCell;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::environment::check_id;
use crate::fault::{Fault, exit_code};
use crate::gate::{self, PinGate};
use crate::git::Push;
use crate::infra::PinChange;
use crate::kustomize::Kustomize;
use crate::pipeline::{Environment, Manifests, Pipeline};
use crate::terminal;
use crate::version::Version;

mod gather;
mod plan;
mod pull;
mod verify;
use gather::{Asked, Sources};
use plan::{Facts, Plan, Verb};

/// How often a lost race is planned anew before giving up.
const TRIES: usize = 5;

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  cargo xtask promote staging              the newest that staging accepts
  cargo xtask promote staging sha-0123456789ab
  cargo xtask promote production           what staging runs
  cargo xtask promote production v0.2.0 --dry-run
  cargo xtask promote production v0.2.1 --override soak --because \"v0.2.0 loses money\"
  cargo xtask promote production --pr

Gates: `--override` takes hold, accepts, after, soak, checks and tag. An image that is not there, and a data file
that it could not open, are never passed."
)]
pub struct PromoteArgs {
    #[command(subcommand)]
    look: Option<Look>,
    /// The environment, as deploy/pipeline.yaml names it.
    #[arg(required = true)]
    environment: Option<String>,
    /// What to run: a version, a commit's tag `sha-…`, or `edge` [default: what the environment in `after` pins; without
    /// one `edge` where it is accepted, else the newest version].
    image: Option<String>,
    /// As CI does for an environment that follows edge: a hold, or an image that was rolled back from, ends it well.
    #[arg(long, hide = true)]
    follow: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask rollback                     production, to what ran before
  cargo xtask rollback staging --to v0.1.0
  cargo xtask rollback --dry-run
  cargo xtask rollback --to v0.1.0 --restore ledger-schema1-seq42

A rollback passes the environment's gates but for a hold and a moved tag: what it returns to ran there. With the
registry down it goes on, on the word of the commit that pinned the image.")]
pub struct RollbackArgs {
    /// The environment, as deploy/pipeline.yaml names it.
    #[arg(default_value = "production")]
    environment: String,
    /// The version or `sha-…` to return to [default: the newest pin before this one that was not rolled back].
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Also start from this backup, once: what was written since is lost, and the replaced file is kept.
    #[arg(long, value_name = "BACKUP-ID")]
    restore: Option<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Subcommand)]
enum Look {
    /// Hold what a pull request of the infra repository would pin against the gates, as its required check.
    Verify(verify::Args),
}

#[derive(Debug, clap::Args)]
struct How {
    /// Propose the commit by a pull request in place of pushing it to the branch.
    #[arg(long)]
    pr: bool,
    /// Merge the pull request too, as soon as GitHub lets it.
    #[arg(long, requires = "pr")]
    merge: bool,
    /// The schema of the data file (or of the backup), read by you where it lies; counts only while nobody else tells it.
    #[arg(long, value_name = "N")]
    file_schema: Option<u32>,
    /// Pass a gate that is not met; can be given several times.
    #[arg(long = "override", value_name = "GATE", requires = "because")]
    gates: Vec<PinGate>,
    /// Why a gate is passed; it is kept in the commit.
    #[arg(long, value_name = "TEXT", requires = "gates")]
    because: Option<String>,
    /// Print the plan and stop; needs no right to write.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before the change.
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

pub fn promote(args: &PromoteArgs, root: &Path) -> Result<()> {
    let PromoteArgs { look, environment, image, follow, how } = args;
    if let Some(Look::Verify(args)) = look {
        return verify::run(args, root);
    }
    // Without one clap has refused it.
    let environment = environment.as_deref().unwrap_or_default();
    run(Verb::Promote, environment, image.as_deref(), None, *follow, how, root)
}

pub fn rollback(args: &RollbackArgs, root: &Path) -> Result<()> {
    let RollbackArgs { environment, to, restore, how } = args;
    run(Verb::Rollback, environment, to.as_deref(), restore.as_deref(), false, how, root)
}

fn run(
    verb: Verb,
    environment: &str,
    image: Option<&str>,
    restore: Option<&str>,
    follow: bool,
    how: &How,
    root: &Path,
) -> Result<()> {
    let seen = RefCell::new(None);
    let deploy = || -> Result<()> {
        let pipeline = Pipeline::load(root)?;
        restore.map_or(Ok(()), check_id)?;
        let asked = Asked {
            verb,
            environment: environment_of(&pipeline, verb, environment)?,
            image: image.map(str::to_owned),
            restore: restore.map(str::to_owned),
            file_schema: how.file_schema,
            overrides: gate::given(&how.gates, how.because.as_deref())?,
            follow,
        };
        Deploy { asked, how, sources: Sources::open(pipeline, root)?, seen: &seen }.run()
    };
    let outcome = deploy();
    if let (true, Err(error)) = (how.json, &outcome) {
        let state = match exit_code(error) {
            3 => "refused",
            4 => "raced",
            _ => "failed",
        };
        terminal::json(&json!({ "state": state, "error": format!("{error:#}"), "plan": *seen.borrow() }))?;
    }
    outcome
}

fn environment_of(pipeline: &Pipeline, verb: Verb, name: &str) -> Result<Environment, Fault> {
    let found = pipeline.environment(name).map_err(|fault| match Version::from_tag(name) {
        Some(version) if verb == Verb::Rollback => {
            Fault::usage(fault.to_string()).help(format!("did you mean: cargo xtask rollback --to {version}"))
        }
        Some(version) => Fault::usage(fault.to_string())
            .help(format!("the environment comes first: promote ENVIRONMENT {version}")),
        None => fault,
    });
    found.cloned()
}

/// One environment on its way to another pin.
struct Deploy<'a> {
    asked: Asked,
    how: &'a How,
    sources: Sources,
    /// The newest plan, for `--json` when it comes to nothing.
    seen: &'a RefCell<Option<Plan>>,
}

impl Deploy<'_> {
    fn run(&mut self) -> Result<()> {
        let how = self.how;
        let github = how.pr.then(|| pull::open(&self.sources.pipeline)).transpose()?;
        let facts = self.sources.gather(&self.asked)?;
        if let Some(why) = self.asked.follow.then(|| left_alone(&facts)).flatten() {
            return self.finish("left alone", None, &why);
        }
        let mut plan = self.plan(&facts)?;
        match how.json {
            false => println!("{plan}"),
            // Whoever is asked has to see what for.
            true if !how.yes && !how.dry_run => eprintln!("{plan}"),
            true => {}
        }
        if !plan.change {
            return self.finish("nothing to do", None, "");
        }
        if let Some(github) = &github {
            return self.propose(github, &plan);
        }
        if how.dry_run {
            return self.finish("dry run", None, "dry run: nothing was changed");
        }
        terminal::confirm(how.yes)?;
        for _ in 0..TRIES {
            let commit = self.commit(&plan)?;
            let lost = match self.sources.infra.push(&commit).map_err(pull::point_to)? {
                Push::Done => {
                    return self.finish("done", Some(&commit), &format!("done: infra commit {commit}"));
                }
                Push::Raced(lost) => lost,
            };
            self.sources.infra.refresh()?;
            let facts = self.sources.gather(&self.asked)?;
            let next =
                self.plan(&facts).context("somebody else changed the infra repository in the meantime")?;
            if !next.change {
                return self.finish("nothing to do", None, &next.to_string());
            }
            if !next.is_same(&plan) {
                let name = &self.asked.environment.name;
                let race = Fault::race(format!("somebody else changed {name} in the meantime ({lost})"));
                return Err(race.help(format!("nothing was changed; the plan would now be:\n{next}")).into());
            }
            plan = next;
        }
        let url = &self.sources.pipeline.infra.url;
        let race = Fault::race(format!("{url} kept moving: {TRIES} pushes were lost"));
        Err(race.help("nothing was changed; run the same command again").into())
    }

    fn plan(&self, facts: &Facts) -> Result<Plan> {
        let plan = plan::plan(facts)?;
        self.seen.replace(Some(plan.clone()));
        Ok(plan)
    }

    /// Makes the plan's commit; nothing points to it yet.
    fn commit(&self, plan: &Plan) -> Result<String> {
        let Sources { pipeline, infra, .. } = &self.sources;
        let manifests = match self.asked.environment.manifests {
            Manifests::Remote => None,
            Manifests::Rendered => Some(self.rendered(plan)?),
        };
        let change =
            PinChange { pin: &plan.to, restore: plan.restore.as_deref(), manifests: manifests.as_deref() };
        let message = plan.message(pipeline.service(), &self.sources.changes(plan)?, &infra.identity()?);
        infra.commit(&self.asked.environment, &change, &message)
    }

    /// The overlay at the plan's commit, as kustomize renders it.
    fn rendered(&self, plan: &Plan) -> Result<String> {
        let folder = tempfile::tempdir().context("no folder to render in")?;
        self.sources.project.export(&plan.commit, "deploy/k8s", folder.path())?;
        let overlay = folder.path().join("deploy/k8s/overlays").join(&self.asked.environment.name);
        Ok(Kustomize::find()?.text(&overlay)?)
    }

    fn finish(&self, state: &str, commit: Option<&str>, line: &str) -> Result<()> {
        if self.how.json {
            return terminal::json(&json!({ "state": state, "plan": *self.seen.borrow(), "commit": commit }));
        }
        if !line.is_empty() {
            println!("{line}");
        }
        Ok(())
    }
}

/// Why an environment that follows edge does not now.
fn left_alone(facts: &Facts) -> Option<String> {
    let (name, to) = (&facts.environment.name, &facts.to.name);
    if let Some(why) = &facts.from.hold {
        return Some(format!("{name} is held, and does not follow edge: {why}"));
    }
    let commit = facts.bad_since.as_ref()?;
    Some(format!("{name} does not take {to}, which was rolled back from (infra commit {commit})"))
}
