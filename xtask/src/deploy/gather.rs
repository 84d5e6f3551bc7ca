//! What the world says about a pin: git, the registry, GitHub, the infra repository and the services. Nothing is changed
//! but the refs below `refs/xtask/`.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::plan::{self, Before, Candidate, Facts, Other, Past, Restore, Verb};
use crate::changelog;
use crate::checks::{Check, judge};
use crate::environment::told_by_name;
use crate::fault::{Fault, Kind, exit_code};
use crate::gate::{Override, PinGate};
use crate::git::Git;
use crate::github::Github;
use crate::image::{Digest, Schema, is_fixed, sha_tag};
use crate::infra::{Change, Infra};
use crate::kustomization::Pin;
use crate::pipeline::{Accepts, Environment, Pipeline, Ref};
use crate::registry::Registry;
use crate::report::Observed;
use crate::service;
use crate::terminal::Spinner;
use crate::version::Version;

/// All that is asked.
pub struct Sources {
    pub pipeline: Pipeline,
    pub project: Git,
    pub infra: Infra,
    pub registry: Registry,
    github: Option<Github>,
}

/// What an operator asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub verb: Verb,
    pub environment: Environment,
    /// A version, `sha-…` or `edge`; `None` is the default of the verb.
    pub image: Option<String>,
    /// A backup's id.
    pub restore: Option<String>,
    pub file_schema: Option<u32>,
    pub overrides: Vec<Override<PinGate>>,
    /// As the last step of CI on the branch, which is one of the checks itself.
    pub follow: bool,
}

impl Sources {
    pub fn open(pipeline: Pipeline, root: &Path) -> Result<Self> {
        let registry = Registry::open(pipeline.registry(), root)?;
        let github = pipeline.github().map(|api| Github::open(&api, &pipeline.repository)).transpose()?;
        let spinner = Spinner::start(format!("reading {}", pipeline.infra.url));
        let infra = Infra::clone(&pipeline, root)?;
        drop(spinner);
        Ok(Self { pipeline, project: Git::at(root), infra, registry, github })
    }

    pub fn gather(&self, asked: &Asked) -> Result<Facts> {
        let environment = &asked.environment;
        let from = self.infra.pinned(environment)?;
        let history = self.infra.history(environment)?;
        if asked.restore.is_some() {
            self.infra.takes_restore(environment)?;
        }
        let to = match asked.verb {
            Verb::Promote => self.newcomer(asked)?,
            Verb::Rollback => self.predecessor(asked, &from.pin, &history)?,
        };
        let spinner = Spinner::start(format!("asking {}", environment.url));
        let before = self.before(asked)?;
        let observed = service::observe(&environment.url);
        drop(spinner);
        let checks = match asked.verb {
            Verb::Promote if !asked.follow => self.checks(&to.revision),
            Verb::Promote | Verb::Rollback => Ok(Vec::new()),
        };
        let migrations = match &to.commit {
            Some(commit) => self.project.list(commit, "dojo/migrations")?,
            None => Vec::new(),
        };
        let unseen = observed.report().is_none() || asked.restore.is_some();
        let from_digest = self.digest_of(&from.pin);
        let mut facts = Facts {
            verb: asked.verb,
            environment: environment.clone(),
            restore: asked.restore.as_ref().map(|id| restore(id, &from.restore, &history, &observed)),
            tagged_before: tagged_before(&to, &history),
            bad_since: bad_since(&to.digest, &history),
            past: self.past(&history, unseen),
            others: Vec::new(),
            from_image: from_digest.as_ref().and_then(|digest| self.image_of(digest, &history)),
            from_digest,
            named: asked.image.is_some(),
            migrations: migrations.into_iter().filter(|name| name.ends_with(".sql")).collect(),
            told_schema: asked.file_schema.filter(|_| observed.report().is_none() || asked.restore.is_some()),
            overrides: asked.overrides.clone(),
            from,
            to,
            observed,
            before,
            checks,
        };
        if facts.is_change() && !plan::is_safe(&facts) {
            // Only to say what would be: no reason to fail.
            facts.others = self.others(&facts, &history).unwrap_or_default();
        }
        Ok(facts)
    }

    /// The earlier pins with the schema of their images: by the commit's trailer, else, while the file is
    /// `unseen`, by the registry's label.
    fn past(&self, history: &[Change], unseen: bool) -> Vec<Past> {
        let pinned = history.iter().filter(|change| !change.pin.as_ref().is_some_and(Pin::is_nothing));
        let past = pinned.map(|change| {
            let digest = change.pin.as_ref().and_then(|pin| pin.digest.as_ref());
            let of_digest = change
                .trailers
                .schema
                .filter(|_| digest.is_some() && change.trailers.digest.as_ref() == digest);
            let label = || {
                let digest = self.digest_of(change.pin.as_ref()?)?;
                self.registry.labels(&digest).map(|labels| labels.schema).ok()
            };
            Past {
                schema: if unseen { of_digest.or_else(label) } else { of_digest },
                seen: change.trailers.seen.clone(),
                restores: change.restore.is_some(),
            }
        });
        past.collect()
    }

    /// What a pin names; of a tag alone what the registry has there now.
    fn digest_of(&self, pin: &Pin) -> Option<Digest> {
        let named = || pin.tag.as_ref().and_then(|tag| self.registry.resolve(tag).ok().flatten());
        pin.digest.clone().or_else(|| if pin.is_nothing() { None } else { named() })
    }

    fn before(&self, asked: &Asked) -> Result<Option<Before>> {
        let Some(name) = asked.environment.after.as_deref().filter(|_| asked.verb == Verb::Promote) else {
            return Ok(None);
        };
        let environment = self.pipeline.environment(name)?;
        let pin = self.infra.pin(environment)?;
        Ok(Some(Before { name: name.to_owned(), pin, observed: service::observe(&environment.url) }))
    }

    fn checks(&self, commit: &str) -> Result<Vec<Check>, Fault> {
        let Some(github) = &self.github else { return Ok(Vec::new()) };
        let runs = github.check_runs(commit).map_err(Fault::from)?;
        Ok(judge(self.pipeline.checks(), &runs, &github.checks_page(commit)))
    }

    /// What a promotion brings: what was asked for, or the newest.
    fn newcomer(&self, asked: &Asked) -> Result<Candidate> {
        let image = asked.image.clone().map_or_else(|| self.newest(&asked.environment), Ok)?;
        let image = canonical(&image);
        if image != "edge" && !is_fixed(&image) {
            return Err(Fault::usage(format!("{image} is no image to promote"))
                .help("name a version (v0.1.0), a commit's tag (sha-…), or edge")
                .into());
        }
        let digest = self.registry.find(&image)?;
        self.candidate(&asked.environment, &image, digest, None)
    }

    /// What a rollback returns to: an image that ran here, by the digest that it had then.
    fn predecessor(&self, asked: &Asked, from: &Pin, history: &[Change]) -> Result<Candidate> {
        let environment = &asked.environment;
        let pins = || history.iter().filter_map(|change| Some((fixed(change.pin.as_ref()?)?, change)));
        let rollback = Some(Verb::Rollback.word());
        let rolled_back = history.first().is_some_and(|newest| newest.trailers.verb.as_deref() == rollback);
        let found = match asked.image.as_deref().map(canonical) {
            Some(image) => pins().find(|((tag, _), _)| *tag == image).ok_or_else(|| {
                let mut ran: Vec<_> = Vec::new();
                pins().for_each(|((tag, _), _)| {
                    if !ran.contains(&tag) {
                        ran.push(tag)
                    }
                });
                let ran = if ran.is_empty() { "nothing yet".to_owned() } else { ran.join(", ") };
                Fault::refused(format!("{} never ran {image}", environment.name))
                    .help(format!("a rollback returns to what ran there: {ran}; anything else is promoted"))
            })?,
            // Rolled back already, and the same command again: it must not go one further.
            None if rolled_back && fixed(from).is_some() => {
                pins().next().context("a pin without a commit")?
            }
            None => {
                let mut earlier = pins().filter(|((_, digest), _)| Some(digest) != from.digest.as_ref());
                earlier.find(|((_, digest), _)| bad_since(digest, history).is_none()).ok_or_else(|| {
                    let path = &environment.kustomization;
                    Fault::refused(format!(
                        "the history of {path} has no earlier pin to return to that is not marked bad"
                    ))
                    .help(format!(
                        "name one with --to, or one that never ran here: cargo xtask promote {} VERSION",
                        environment.name
                    ))
                })?
            }
        };
        let ((tag, digest), _) = found;
        // Of all commits that pinned it, the one that says most.
        let told = pins().find(|((_, other), change)| {
            *other == digest && change.trailers.digest.as_ref() == Some(&digest)
        });
        self.candidate(environment, &tag, digest, told.map(|(_, change)| change))
    }

    fn newest(&self, environment: &Environment) -> Result<String> {
        if let Some(before) = &environment.after {
            let pin = self.infra.pin(self.pipeline.environment(before)?)?;
            return pin.tag.clone().filter(|_| !pin.is_nothing()).with_context(|| {
                Fault::refused(format!("{before} runs nothing yet"))
                    .help(format!("cargo xtask promote {before}"))
            });
        }
        if environment.accepts.contains(&Accepts::Edge) {
            return Ok("edge".into());
        }
        let versions = self.registry.tags()?.into_iter().filter_map(|tag| Version::from_tag(&tag));
        let newest = versions.filter(|version| !version.is_prerelease()).max();
        newest
            .map(|version| version.to_string())
            .with_context(|| Fault::refused("nothing is released yet").help("cargo xtask release v0.1.0"))
    }

    /// What a pinned image says of itself: by a commit that pinned it, else by the registry.
    fn image_of(&self, digest: &Digest, history: &[Change]) -> Option<(String, Schema)> {
        let told = history.iter().filter(|change| change.trailers.digest.as_ref() == Some(digest));
        let mut told = told.filter_map(|change| change.trailers.commit.clone().zip(change.trailers.schema));
        let label = || self.registry.labels(digest).map(|labels| (labels.revision, labels.schema)).ok();
        told.next().or_else(label)
    }

    /// The versions that the registry has, but for what is pinned and what is asked for.
    fn others(&self, facts: &Facts, history: &[Change]) -> Result<Vec<Other>> {
        let mut others = Vec::new();
        for tag in self.registry.tags()? {
            let Some(version) = Version::from_tag(&tag).filter(|version| !version.is_prerelease()) else {
                continue;
            };
            // A tag of before this tool has no labels, and is no version to return to.
            let Some(digest) = self.registry.resolve(&tag)? else { continue };
            let Ok(labels) = self.registry.labels(&digest) else { continue };
            if facts.from_digest.as_ref() == Some(&digest) || facts.to.digest == digest {
                continue;
            }
            let pinned =
                |change: &Change| change.pin.as_ref().and_then(fixed).is_some_and(|(_, ran)| ran == digest);
            let ran = history.iter().any(pinned) && bad_since(&digest, history).is_none();
            others.push(Other { version, schema: labels.schema.current, ran });
        }
        Ok(others)
    }

    /// `ran` is a commit that pinned it, whose word counts while the registry does not answer.
    fn candidate(
        &self,
        environment: &Environment,
        tag: &str,
        digest: Digest,
        ran: Option<&Change>,
    ) -> Result<Candidate> {
        let (revision, schema, version, unasked) = match self.registry.labels(&digest) {
            Ok(labels) => (labels.revision, labels.schema, Some(labels.version), None),
            Err(error) => {
                let told = ran.and_then(|change| change.trailers.commit.clone().zip(change.trailers.schema));
                let Some((revision, schema)) = told.filter(|_| exit_code(&error) == Kind::Remote as u8)
                else {
                    return Err(error);
                };
                (revision, schema, None, Some(format!("{error:#}")))
            }
        };
        let (name, kind) = match (Version::from_tag(tag), tag) {
            (Some(_), _) => (tag.to_owned(), Accepts::Release),
            // edge itself is never pinned: it moves.
            (None, "edge") => (sha_tag(&revision), Accepts::Edge),
            (None, _) => (tag.to_owned(), Accepts::Sha),
        };
        let told = ran.and_then(|change| change.trailers.commit.clone());
        let git_ref = match (kind, environment.git_ref) {
            (Accepts::Release, Ref::Tag) => name.clone(),
            _ => revision.clone(),
        };
        let commit = match self.commit(kind, environment.git_ref, &name, &revision) {
            // What ran there is known by what the infra repository keeps of it.
            Err(error) if told.is_some() && exit_code(&error) == Kind::Remote as u8 => {
                log::warn!(
                    "the project's remote does not answer, so whether {name} was moved is unknown: {}",
                    Fault::from(error).message()
                );
                told
            }
            commit => commit?,
        };
        Ok(Candidate { name, kind, git_ref, commit, digest, revision, schema, version, unasked })
    }

    /// The commit that the project's remote has for an image; `None` if kustomize would not find it there.
    fn commit(&self, kind: Accepts, by: Ref, name: &str, revision: &str) -> Result<Option<String>> {
        match (kind, by) {
            (Accepts::Release, Ref::Tag) => self.commit_of_tag(name),
            (Accepts::Release, Ref::Commit) => {
                Ok(self.commit_of_tag(name)?.or(self.commit_on_branch(revision)?))
            }
            (Accepts::Edge | Accepts::Sha, _) => self.commit_on_branch(revision),
        }
    }

    /// The commit that the project's remote has under a tag.
    fn commit_of_tag(&self, tag: &str) -> Result<Option<String>> {
        let reference = format!("refs/tags/{tag}");
        let commit = self.project.remote_ref("origin", &reference)?;
        if let Some(commit) = &commit
            && self.project.commit(commit)?.is_none()
        {
            self.project.fetch("origin", &reference)?;
        }
        Ok(commit)
    }

    /// The same commit, if it is on the project's branch.
    fn commit_on_branch(&self, commit: &str) -> Result<Option<String>> {
        let head = self.project.fetch("origin", &format!("refs/heads/{}", self.pipeline.branch))?;
        let known = self.project.commit(commit)?;
        Ok(known.filter(|commit| self.project.is_ancestor(commit, &head).unwrap_or(false)))
    }

    /// The changelog between the two pins; empty where either is no version.
    pub fn changes(&self, plan: &plan::Plan) -> Result<String> {
        let version =
            |pin: &Pin| pin.tag.as_deref().and_then(Version::from_tag).filter(|version| !version.is_zero());
        let (from, Some(to)) = (version(&plan.from), version(&plan.to)) else { return Ok(String::new()) };
        let newer = from.as_ref().map_or(&to, |from| from.max(&to));
        // A rollback does not fail for its changelog.
        let commit = self.commit_of_tag(&newer.to_string()).or_else(|error| match plan.verb {
            Verb::Rollback => Ok(None),
            Verb::Promote => Err(error),
        })?;
        let Some(commit) = commit else { return Ok(String::new()) };
        let Some(text) = self.project.show(&commit, "CHANGELOG.md")? else { return Ok(String::new()) };
        let (low, high) = match &from {
            Some(from) if *from > to => (Some(&to), from),
            from => (from.as_ref(), &to),
        };
        let verb = if from.as_ref().is_some_and(|from| *from > to) { "Takes back" } else { "Brings" };
        let sections = changelog::between(&text, low, high);
        let told = sections.iter().map(|(version, notes)| format!("{verb} {version}:\n\n{notes}\n"));
        Ok(told.collect::<Vec<_>>().join("\n"))
    }
}

/// A version as it is tagged, also where the `v` was left out.
fn canonical(asked: &str) -> String {
    asked.parse::<Version>().map_or_else(|_| asked.to_owned(), |version| version.to_string())
}

/// The infra template's `v0.0.0`, which no image has.
pub fn is_zero(tag: &str) -> bool {
    Version::from_tag(tag).is_some_and(|version| version.is_zero())
}

/// A pin that names one image for good: by digest, under a tag that never moves.
fn fixed(pin: &Pin) -> Option<(String, Digest)> {
    let tag = pin.tag.clone().filter(|tag| is_fixed(tag) && !is_zero(tag))?;
    Some((tag, pin.digest.clone()?))
}

/// What an earlier pin of the same version says of its commit, and the commit that says it.
fn tagged_before(to: &Candidate, history: &[Change]) -> Option<(String, String)> {
    let same = history.iter().filter(|change| change.trailers.to.as_ref() == Some(&to.name));
    let mut told =
        same.filter_map(|change| Some((change.trailers.commit.clone()?, change.commit.id.clone())));
    // The first time that it was pinned is what it was made as.
    told.next_back()
}

/// The last change that rolled back from this image, unless it was pinned again since.
fn bad_since(digest: &Digest, history: &[Change]) -> Option<String> {
    let again = |change: &&Change| change.pin.as_ref().and_then(|pin| pin.digest.as_ref()) != Some(digest);
    let since = history.iter().take_while(again);
    since
        .filter(|change| change.trailers.bad.as_ref() == Some(digest))
        .map(|change| change.commit.id.clone())
        .next()
}

fn restore(id: &str, now: &Option<String>, history: &[Change], observed: &Observed) -> Restore {
    let report = observed.report().map(|report| &report.version);
    let there = report.and_then(|version| version.backups.as_ref());
    let listed = there.and_then(|backups| backups.iter().find(|backup| backup.id == id));
    let told = listed.map(|backup| (backup.schema, backup.sequence)).or_else(|| told_by_name(id));
    let (schema, sequence) = told.unzip();
    // What is asked for at this moment is not earlier.
    let mut asks = history
        .iter()
        .skip_while(|change| now.as_deref() == Some(id) && change.restore.as_deref() == Some(id));
    let asked_before = asks.find(|change| change.restore.as_deref() == Some(id));
    Restore {
        id: id.to_owned(),
        schema,
        sequence,
        made_at: listed.map(|backup| backup.made_at.clone()),
        there: there.map(|backups| backups.iter().map(|backup| backup.id.clone()).collect()),
        asked_before: asked_before.map(|change| change.commit.id.clone()),
    }
}
