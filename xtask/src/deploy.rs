//! `promote` and `rollback`: gather facts, plan, show, and swap one environment's pin in the infra repository.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::changelog;
use crate::fault::Fault;
use crate::git::{Git, Push};
use crate::image::{Digest, is_fixed, sha_tag};
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
    /// The data file's schema, read by you where it lies; counts only while the service does not answer.
    #[arg(long, value_name = "N")]
    file_schema: Option<u32>,
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
    Deploy::new(root, Verb::Promote, &args.environment, args.image.as_deref(), &args.how)?.run()
}

pub fn rollback(args: &RollbackArgs, root: &Path) -> Result<()> {
    Deploy::new(root, Verb::Rollback, &args.environment, args.to.as_deref(), &args.how)?.run()
}

/// One environment on its way to another pin.
struct Deploy<'a> {
    verb: Verb,
    environment: Environment,
    asked: Option<&'a str>,
    how: &'a How,
    pipeline: Pipeline,
    project: Git,
    registry: Registry,
    infra: Infra,
}

impl<'a> Deploy<'a> {
    fn new(root: &Path, verb: Verb, environment: &str, asked: Option<&'a str>, how: &'a How) -> Result<Self> {
        let pipeline = Pipeline::load(root)?;
        let environment =
            pipeline.environment(environment).map_err(|fault| match Version::from_tag(environment) {
                Some(version) if verb == Verb::Rollback => Fault::usage(fault.to_string())
                    .help(format!("did you mean: cargo xtask rollback --to {version}")),
                Some(version) => Fault::usage(fault.to_string())
                    .help(format!("the environment comes first: promote ENVIRONMENT {version}")),
                None => fault,
            })?;
        let environment = environment.clone();
        let registry = Registry::open(pipeline.registry(), root)?;
        let spinner = terminal::Spinner::start(format!("reading {}", pipeline.infra.url));
        let infra = Infra::clone(&pipeline, root)?;
        drop(spinner);
        Ok(Self { verb, environment, asked, how, pipeline, project: Git::at(root), registry, infra })
    }

    fn run(&mut self) -> Result<()> {
        let how = self.how;
        let service = self.pipeline.service().to_owned();
        let mut plan = plan::plan(&self.gather()?)?;
        match how.json {
            false => println!("{plan}"),
            // Whoever is asked has to see what for.
            true if !how.yes => eprintln!("{plan}"),
            true => {}
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
        let to = match self.verb {
            Verb::Promote => self.newcomer()?,
            Verb::Rollback => self.predecessor(&from, &history)?,
        };
        let spinner = terminal::Spinner::start(format!("asking {}", self.environment.url));
        let before = self.before()?;
        let observed = service::observe(&self.environment.url);
        drop(spinner);
        let downgrade =
            observed.report().map_or(self.how.file_schema, |report| Some(report.version.schema.file));
        let downgrade = downgrade.is_some_and(|file| file > to.labels.schema.current);
        let migrations = match &to.commit {
            Some(commit) => self.project.list(commit, "dojo/migrations")?,
            None => Vec::new(),
        };
        Ok(Facts {
            verb: self.verb,
            environment: self.environment.clone(),
            pinned_schemas: if observed.report().is_none() {
                self.pinned_schemas(&history)
            } else {
                Vec::new()
            },
            released: if downgrade { self.released()? } else { Vec::new() },
            migrations: migrations.into_iter().filter(|name| name.ends_with(".sql")).collect(),
            told_schema: self.how.file_schema.filter(|_| observed.report().is_none()),
            from,
            observed,
            before,
            to,
        })
    }

    /// The schema of every image that was pinned here: by the registry's label, else by the commit's trailer.
    fn pinned_schemas(&self, history: &[Change]) -> Vec<Option<u32>> {
        let pinned = history.iter().filter(|change| !change.pin.as_ref().is_some_and(plan::nothing_yet));
        let schema = |change: &Change| {
            let digest = change.pin.as_ref()?.digest.as_ref()?;
            let label = self.registry.labels(digest).map(|labels| labels.schema.current).ok();
            label.or_else(|| change.schema())
        };
        pinned.map(schema).collect()
    }

    fn before(&self) -> Result<Option<Before>> {
        let Some(name) = self.environment.after.as_deref().filter(|_| self.verb == Verb::Promote) else {
            return Ok(None);
        };
        let environment = self.pipeline.environment(name)?;
        let pin = self.infra.pin(environment)?;
        Ok(Some(Before { name: name.to_owned(), pin, observed: service::observe(&environment.url) }))
    }

    /// What a promotion brings: what was asked for, or the newest.
    fn newcomer(&self) -> Result<Candidate> {
        let asked = self.asked.map_or_else(|| self.newest(), |asked| Ok(asked.to_owned()))?;
        let asked = canonical(&asked);
        if asked != "edge" && !is_fixed(&asked) {
            return Err(Fault::usage(format!("{asked} is no image to promote"))
                .help("name a version (v0.1.0), a commit's tag (sha-…), or edge")
                .into());
        }
        self.candidate(&asked, self.registry.find(&asked)?)
    }

    /// What a rollback returns to: an image that ran here, by the digest that it had then.
    fn predecessor(&self, from: &Pin, history: &[Change]) -> Result<Candidate> {
        let pins = || history.iter().filter_map(|change| fixed(change.pin.as_ref()?));
        let found = match self.asked.map(canonical) {
            Some(asked) => pins().find(|(tag, _)| *tag == asked).ok_or_else(|| {
                let mut ran: Vec<_> = pins().map(|(tag, _)| tag).collect();
                ran.dedup();
                Fault::refused(format!("{} never ran {asked}", self.environment.name)).help(format!(
                    "a rollback returns to what ran there: {}; anything else is promoted",
                    ran.join(", ")
                ))
            })?,
            // Rolled back already, and the same command again: it must not go one further.
            None if history.first().is_some_and(|newest| newest.bad().is_some()) && fixed(from).is_some() => {
                fixed(from).context("a pin without a digest")?
            }
            None => {
                let bad: Vec<_> = history.iter().filter_map(Change::bad).collect();
                let mut earlier = pins().filter(|(_, digest)| Some(digest) != from.digest.as_ref());
                earlier.find(|(_, digest)| !bad.contains(digest)).ok_or_else(|| {
                    let path = &self.environment.kustomization;
                    Fault::refused(format!("the history of {path} has no earlier pin to return to"))
                        .help("name one with --to")
                })?
            }
        };
        self.candidate(&found.0, found.1)
    }

    fn newest(&self) -> Result<String> {
        if let Some(before) = &self.environment.after {
            let pin = self.infra.pin(self.pipeline.environment(before)?)?;
            let tag = pin.tag.clone().filter(|_| !plan::nothing_yet(&pin));
            return tag.with_context(|| {
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
            // A tag of before this tool has no labels, and is no version to return to.
            if let Some(digest) = self.registry.resolve(&tag)?
                && let Ok(labels) = self.registry.labels(&digest)
            {
                released.push((version, labels.schema.current));
            }
        }
        Ok(released)
    }

    fn candidate(&self, tag: &str, digest: Digest) -> Result<Candidate> {
        let labels = self.registry.labels(&digest)?;
        let (name, kind, git_ref) = match (Version::from_tag(tag), tag) {
            (Some(_), _) => (tag.to_owned(), Accepts::Release, tag.to_owned()),
            // edge itself is never pinned: it moves.
            (None, "edge") => (sha_tag(&labels.revision), Accepts::Edge, labels.revision.clone()),
            (None, _) => (tag.to_owned(), Accepts::Sha, labels.revision.clone()),
        };
        let commit = self.commit(kind, &git_ref)?;
        Ok(Candidate { name, kind, git_ref, commit, digest, labels })
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

/// A version as it is tagged, also where the `v` was left out.
fn canonical(asked: &str) -> String {
    asked.parse::<Version>().map_or_else(|_| asked.to_owned(), |version| version.to_string())
}

/// A pin that names one image for good: by digest, under a tag that never moves.
fn fixed(pin: &Pin) -> Option<(String, Digest)> {
    let tag = pin.tag.clone().filter(|tag| is_fixed(tag) && !plan::nothing_yet(pin))?;
    Some((tag, pin.digest.clone()?))
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
