//! What the world says about a pin: git, the registry, GitHub, the infra repository and the services. Nothing is changed
//! but the refs below `refs/xtask/`.

use std::path::Path;

use anyhow::Result;

use super::plan::{self, Before, Candidate, Facts, Lost, Other, Restore, Verb};
use crate::changelog;
use crate::checks::{Check, judge};
use crate::data_file::{self, Past};
use crate::environment::told_by_name;
use crate::fault::{Fault, without_credentials};
use crate::gate::{Override, PinGate};
use crate::git::Git;
use crate::github::Github;
use crate::history::{Change, bad_since, fixed};
use crate::image::{Digest, Schema};
use crate::infra::Infra;
use crate::kustomization::Pin;
use crate::pipeline::{Environment, Pipeline};
use crate::registry::Registry;
use crate::report::Observed;
use crate::service;
use crate::terminal::Spinner;
use crate::version::Version;

mod running;
mod target;

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
    /// Why, where no gate is passed.
    pub because: Option<String>,
    /// As the last step of CI on the branch, which is one of the checks itself.
    pub follow: bool,
}

impl Sources {
    pub fn open(pipeline: Pipeline, root: &Path) -> Result<Self> {
        let registry = Registry::open(pipeline.registry(), root)?;
        let github = pipeline.github().map(|api| Github::open(&api, &pipeline.repository)).transpose()?;
        let spinner = Spinner::start(format!("reading {}", without_credentials(&pipeline.infra.url)));
        let infra = Infra::clone(&pipeline, root)?;
        drop(spinner);
        Ok(Self { pipeline, project: Git::at(root), infra, registry, github })
    }

    pub fn gather(&self, asked: &Asked) -> Result<Facts> {
        let environment = &asked.environment;
        let (from, mut lost) = match asked.verb {
            Verb::Adopt => self.standing(environment)?,
            Verb::Promote | Verb::Rollback => (self.infra.pinned(environment)?, Lost::default()),
        };
        let history = match asked.verb {
            // Nobody need have made the file yet.
            Verb::Adopt => self.infra.changes(environment)?,
            Verb::Promote | Verb::Rollback => self.infra.history(environment)?,
        };
        if asked.restore.is_some() {
            self.infra.takes_restore(environment)?;
        }
        let observe = || {
            let _spinner = Spinner::start(format!("asking {}", environment.url));
            service::observe(&environment.url)
        };
        let (to, observed) = match asked.verb {
            Verb::Promote => (self.newcomer(asked)?, observe()),
            Verb::Rollback => (self.predecessor(asked, &from.pin, &history)?, observe()),
            Verb::Adopt => {
                let observed = observe();
                let to = self.running(environment, &observed, &from.pin, &lost)?;
                lost.base = self.base(environment, &to.pin())?;
                (to, observed)
            }
        };
        let before = self.before(asked)?;
        let checks = match asked.verb {
            Verb::Promote if !asked.follow => self.checks(&to.revision),
            Verb::Promote | Verb::Rollback | Verb::Adopt => Ok(Vec::new()),
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
            restore: asked.restore.as_ref().map(|id| restore(id, &history, &observed)),
            lost,
            tagged_before: tagged_before(&to, &history),
            bad_since: bad_since(&to.digest, &history),
            past: self.past(&history, unseen),
            others: Vec::new(),
            from_image: from_digest.as_ref().and_then(|digest| self.image_of(digest, &history)),
            from_digest,
            named: asked.image.is_some(),
            migrations: migrations.into_iter().filter(|name| name.ends_with(".sql")).collect(),
            told_schema: asked.file_schema,
            overrides: asked.overrides.clone(),
            because: asked.because.clone(),
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

    /// The earlier pins with the schema of their images: while the file is `unseen` by the registry's label, where it
    /// has one, and else by the commit's trailer.
    fn past(&self, history: &[Change], unseen: bool) -> Vec<Past> {
        data_file::past(history, |pin| {
            let digest = unseen.then(|| self.digest_of(pin)).flatten()?;
            self.registry.labels(&digest).map(|labels| labels.schema).ok()
        })
    }

    /// What a pin names; of a tag alone what the registry has there now.
    pub fn digest_of(&self, pin: &Pin) -> Option<Digest> {
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

    /// What a pinned image says of itself: by a commit that pinned it, else by the registry.
    pub fn image_of(&self, digest: &Digest, history: &[Change]) -> Option<(String, Schema)> {
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

    /// The changelog between two pins, for a commit's message; empty where either is no version.
    pub fn changes(&self, verb: Verb, from: &Pin, to: &Pin) -> Result<String> {
        // What runs brings nothing.
        if verb == Verb::Adopt {
            return Ok(String::new());
        }
        // A rollback does not fail for its changelog.
        let (back, sections) = self.sections(from, to).or_else(|error| match verb {
            Verb::Promote => Err(error),
            _ => Ok((false, Vec::new())),
        })?;
        let does = if back { "Takes back" } else { "Brings" };
        let told = sections.iter().map(|(version, notes)| format!("{does} {version}:\n\n{notes}\n"));
        Ok(told.collect::<Vec<_>>().join("\n"))
    }

    /// The changelog's sections between two pins, newest first, and whether it goes back by them; none where either is
    /// no version.
    pub fn sections(&self, from: &Pin, to: &Pin) -> Result<(bool, Vec<(Version, String)>)> {
        let version =
            |pin: &Pin| pin.tag.as_deref().and_then(Version::from_tag).filter(|version| !version.is_zero());
        let (from, Some(to)) = (version(from), version(to)) else { return Ok((false, Vec::new())) };
        let back = from.as_ref().is_some_and(|from| *from > to);
        let newer = from.as_ref().map_or(&to, |from| from.max(&to));
        let Some(commit) = self.commit_of_tag(newer)? else { return Ok((back, Vec::new())) };
        let Some(text) = self.project.show(&commit, "CHANGELOG.md")? else { return Ok((back, Vec::new())) };
        let (low, high) = match &from {
            Some(from) if back => (Some(&to), from),
            from => (from.as_ref(), &to),
        };
        Ok((back, changelog::between(&text, low, high)))
    }
}

/// What an earlier pin of the same version says of its commit, and the commit that says it.
fn tagged_before(to: &Candidate, history: &[Change]) -> Option<(String, String)> {
    let same = history.iter().filter(|change| change.trailers.to.as_ref() == Some(&to.name));
    let mut told =
        same.filter_map(|change| Some((change.trailers.commit.clone()?, change.commit.id.clone())));
    // The first time that it was pinned is what it was made as.
    told.next_back()
}

fn restore(id: &str, history: &[Change], observed: &Observed) -> Restore {
    let report = observed.report().map(|report| &report.version);
    let there = report.and_then(|version| version.backups.as_ref());
    let listed = there.and_then(|backups| backups.iter().find(|backup| backup.id == id));
    let told = listed.map(|backup| (backup.schema, backup.sequence)).or_else(|| told_by_name(id));
    let (schema, sequence) = told.unzip();
    // Where nothing changes, that it is asked for already stands in nobody's way.
    let asked_before = history.iter().find(|change| change.restore.as_deref() == Some(id));
    Restore {
        id: id.to_owned(),
        schema,
        sequence,
        made_at: listed.map(|backup| backup.made_at.clone()),
        there: there.map(|backups| backups.iter().map(|backup| backup.id.clone()).collect()),
        asked_before: asked_before.map(|change| change.commit.id.clone()),
    }
}
