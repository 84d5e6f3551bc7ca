//! `promote` and `rollback`: gather facts, plan, show, and swap one environment's pin in the infra repository.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::changelog;
use crate::fault::Fault;
use crate::git::{Git, Push};
use crate::image::{Digest, sha_tag};
use crate::infra::{Change, Infra};
use crate::kustomization::Pin;
use crate::pipeline::{Accepts, Environment, Pipeline};
use crate::registry::Registry;
use crate::service;
use crate::terminal;
use crate::version::Version;

mod plan;
use plan::{Before, Candidate, Facts, Plan, Verb};

/// How often a lost race is planned anew before giving up.
const TRIES: usize = 5;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask promote staging              the newest that staging accepts
  cargo xtask promote staging sha-0123456789ab
  cargo xtask promote production v0.2.0    after staging runs it
  cargo xtask promote production --dry-run")]
pub struct PromoteArgs {
    /// The environment, as deploy/pipeline.yaml names it.
    environment: String,
    /// What to run: a version, a commit's tag `sha-…`, or `edge` [default: what the environment before runs, else the newest accepted].
    image: Option<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask rollback                     production, to what ran before
  cargo xtask rollback staging --to v0.1.0
  cargo xtask rollback --dry-run")]
pub struct RollbackArgs {
    /// The environment, as deploy/pipeline.yaml names it.
    #[arg(default_value = "production")]
    environment: String,
    /// The version or `sha-…` to return to [default: the newest pin before this one that was not rolled back].
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
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
    Deploy::new(root, Verb::Promote, &args.environment, args.image.as_deref())?.run(&args.how)
}

pub fn rollback(args: &RollbackArgs, root: &Path) -> Result<()> {
    Deploy::new(root, Verb::Rollback, &args.environment, args.to.as_deref())?.run(&args.how)
}

/// One environment on its way to another pin.
struct Deploy<'a> {
    verb: Verb,
    environment: Environment,
    asked: Option<&'a str>,
    pipeline: Pipeline,
    project: Git,
    registry: Registry,
    infra: Infra,
}

impl<'a> Deploy<'a> {
    fn new(root: &Path, verb: Verb, environment: &str, asked: Option<&'a str>) -> Result<Self> {
        let pipeline = Pipeline::load(root)?;
        let environment = pipeline.environment(environment)?.clone();
        let registry = Registry::open(pipeline.registry(), root)?;
        let spinner = terminal::Spinner::start(format!("reading {}", pipeline.infra.url));
        let infra = Infra::clone(&pipeline, root)?;
        drop(spinner);
        Ok(Self { verb, environment, asked, pipeline, project: Git::at(root), registry, infra })
    }

    fn run(&mut self, how: &How) -> Result<()> {
        let service = self.pipeline.service().to_owned();
        let mut plan = plan::plan(&self.gather()?)?;
        if !how.json {
            println!("{plan}");
        }
        if how.dry_run || !plan.change {
            return finish(how, &plan, None);
        }
        terminal::confirm(how.yes)?;
        for _ in 0..TRIES {
            let message = plan.message(&service, &self.changes(&plan)?, &self.infra.identity()?);
            let (commit, push) = self.infra.set_pin(&self.environment, &plan.to, &message)?;
            let lost = match push {
                Push::Done => return finish(how, &plan, Some(&commit)),
                Push::Raced(lost) => lost,
            };
            self.infra.refresh()?;
            let next = plan::plan(&self.gather()?)?;
            if !next.change {
                if !how.json {
                    println!("{next}");
                }
                return finish(how, &next, None);
            }
            if (&next.from, &next.to) != (&plan.from, &plan.to) {
                let race = Fault::race(format!(
                    "somebody else changed {} in the meantime ({lost})",
                    self.environment.name
                ));
                return Err(race.help(format!("nothing was changed; the plan would now be:\n{next}")).into());
            }
            plan = next;
        }
        let race = Fault::race(format!("{} kept moving: {TRIES} pushes were lost", self.pipeline.infra.url));
        Err(race.help("nothing was changed; run the same command again").into())
    }

    fn gather(&self) -> Result<Facts> {
        let from = self.infra.pin(&self.environment)?;
        let history = self.infra.history(&self.environment)?;
        let to = self.candidate(&self.target(&from, &history)?)?;
        let spinner = terminal::Spinner::start(format!("asking {}", self.environment.url));
        let before = self.before()?;
        let observed = service::observe(&self.environment.url);
        drop(spinner);
        let migrations = match &to.commit {
            Some(commit) => self.project.list(commit, "dojo/migrations")?,
            None => Vec::new(),
        };
        Ok(Facts {
            verb: self.verb,
            environment: self.environment.clone(),
            from,
            observed,
            before,
            highest_pinned: history.iter().filter_map(Change::schema).max(),
            released: self.released()?,
            migrations: migrations.into_iter().filter(|name| name.ends_with(".sql")).collect(),
            to,
        })
    }

    fn before(&self) -> Result<Option<Before>> {
        let Some(name) = self.environment.after.as_deref().filter(|_| self.verb == Verb::Promote) else {
            return Ok(None);
        };
        let environment = self.pipeline.environment(name)?;
        let pin = self.infra.pin(environment)?;
        Ok(Some(Before { name: name.to_owned(), pin, observed: service::observe(&environment.url) }))
    }

    /// The tag to pin: the one that was asked for, or the verb's default.
    fn target(&self, from: &Pin, history: &[Change]) -> Result<String> {
        match (self.asked, self.verb) {
            (Some(asked), _) => Ok(asked.to_owned()),
            (None, Verb::Promote) => self.newest(),
            (None, Verb::Rollback) => previous(from, history).with_context(|| {
                Fault::refused(format!(
                    "the history of {} has no earlier pin to return to",
                    self.environment.kustomization
                ))
                .help("name one with --to")
            }),
        }
    }

    fn newest(&self) -> Result<String> {
        if let Some(before) = &self.environment.after {
            let pin = self.infra.pin(self.pipeline.environment(before)?)?;
            return pin.tag.filter(|tag| tag != "v0.0.0").with_context(|| {
                Fault::refused(format!("{before} runs nothing yet"))
                    .help(format!("cargo xtask promote {before}"))
            });
        }
        if self.environment.accepts.contains(&Accepts::Edge) {
            return Ok("edge".into());
        }
        let newest =
            self.released()?.into_iter().map(|(version, _)| version).filter(|v| !v.is_prerelease()).max();
        newest
            .map(|version| version.to_string())
            .with_context(|| Fault::refused("nothing is released yet").help("cargo xtask release v0.1.0"))
    }

    /// Released versions that the registry has, with their schema.
    fn released(&self) -> Result<Vec<(Version, u32)>> {
        let mut released = Vec::new();
        for tag in self.registry.tags()? {
            let Some(version) = Version::from_tag(&tag) else { continue };
            if let Some(digest) = self.registry.resolve(&tag)? {
                released.push((version, self.registry.labels(&digest)?.schema.current));
            }
        }
        Ok(released)
    }

    fn candidate(&self, asked: &str) -> Result<Candidate> {
        let version = Version::from_tag(asked).or_else(|| asked.parse().ok());
        let asked = version.as_ref().map_or_else(|| asked.to_owned(), Version::to_string);
        let digest = self.digest(&asked)?;
        let labels = self.registry.labels(&digest)?;
        let (name, kind, git_ref) = match (&version, asked.as_str()) {
            (Some(_), _) => (asked.clone(), Accepts::Release, asked.clone()),
            // edge itself is never pinned: it moves.
            (None, "edge") => (sha_tag(&labels.revision), Accepts::Edge, labels.revision.clone()),
            (None, _) => (asked.clone(), Accepts::Sha, labels.revision.clone()),
        };
        let commit = self.commit(kind, &git_ref)?;
        Ok(Candidate { name, kind, git_ref, commit, digest, labels })
    }

    fn digest(&self, tag: &str) -> Result<Digest> {
        self.registry.resolve(tag)?.with_context(|| {
            let known = self.registry.tags().unwrap_or_default().join(", ");
            Fault::refused(format!("{} has no image under {tag}", self.pipeline.registry()))
                .help(format!("it has: {known}"))
        })
    }

    /// The commit that the project's remote has for a ref: a tag there, or a commit on its branch.
    fn commit(&self, kind: Accepts, git_ref: &str) -> Result<Option<String>> {
        if kind == Accepts::Release {
            let reference = format!("refs/tags/{git_ref}");
            let Some(commit) = self.project.remote_ref("origin", &reference)? else { return Ok(None) };
            if self.project.commit(&commit)?.is_none() {
                self.project.fetch("origin", &reference)?;
            }
            return Ok(Some(commit));
        }
        let head = self.project.fetch("origin", &format!("refs/heads/{}", self.pipeline.branch))?;
        let known = self.project.commit(git_ref)?;
        Ok(known.filter(|commit| self.project.is_ancestor(commit, &head).unwrap_or(false)))
    }

    /// The changelog between the two pins; empty where either is no version.
    fn changes(&self, plan: &Plan) -> Result<String> {
        let version =
            |pin: &Pin| pin.tag.as_deref().and_then(Version::from_tag).filter(|version| !version.is_zero());
        let (from, Some(to)) = (version(&plan.from), version(&plan.to)) else { return Ok(String::new()) };
        let newer = from.as_ref().map_or(&to, |from| from.max(&to));
        let commit = self.project.remote_ref("origin", &format!("refs/tags/{newer}"))?;
        let Some(text) =
            commit.map(|commit| self.project.show(&commit, "CHANGELOG.md")).transpose()?.flatten()
        else {
            return Ok(String::new());
        };
        let (low, high) = match &from {
            Some(from) if *from > to => (Some(&to), from),
            from => (from.as_ref(), &to),
        };
        let verb = if from.as_ref().is_some_and(|from| *from > to) { "Takes back" } else { "Brings" };
        let sections = changelog::between(&text, low, high);
        Ok(sections
            .iter()
            .map(|(version, notes)| format!("{verb} {version}:\n\n{notes}\n"))
            .collect::<Vec<_>>()
            .join("\n"))
    }
}

/// The newest pin in the history that is neither the present one nor one that was rolled back from.
fn previous(from: &Pin, history: &[Change]) -> Option<String> {
    let bad: Vec<_> = history.iter().filter_map(Change::bad).collect();
    let pins = history.iter().filter_map(|change| change.pin.as_ref());
    let earlier = pins.filter(|pin| pin.digest != from.digest && !plan::nothing_yet(pin));
    earlier
        .filter(|pin| pin.digest.as_ref().is_none_or(|digest| !bad.contains(digest)))
        .find_map(|pin| pin.tag.clone())
}

fn finish(how: &How, plan: &Plan, commit: Option<&str>) -> Result<()> {
    if how.json {
        println!("{}", serde_json::to_string(&json!({ "plan": plan, "commit": commit }))?);
    } else if let Some(commit) = commit {
        println!("done: infra commit {commit}");
    } else if plan.change {
        println!("dry run: nothing was changed");
    }
    Ok(())
}
