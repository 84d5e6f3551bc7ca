//! `diff`: what would change in an environment if an image were promoted there. No gate stands in its way, and what
//! cannot be told is unknown, and why.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::gather::{Asked, Sources};
use super::plan::{self, Facts, Unmet, Verb};
use super::render::{self, Rendering};
use super::shortened;
use crate::fault::{Fault, Kind, exit_code};
use crate::image::Digest;
use crate::infra::PinChange;
use crate::kustomization::Pin;
use crate::pipeline::{Environment, Manifests, Pipeline, Ref};
use crate::terminal::{self, one_line};
use crate::version::Version;

mod requirements;
mod show;
use requirements::requirements;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask diff production              if what staging pins were promoted
  cargo xtask diff production v0.2.0
  cargo xtask diff staging edge --json")]
pub struct Args {
    /// The environment, as deploy/pipeline.yaml names it.
    environment: String,
    /// A version, a commit's tag `sha-…`, or `edge` [default: what `promote` would take].
    image: Option<String>,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

/// What was found out, or why it could not be.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Told<T> {
    Known(T),
    Unknown(String),
}

impl<T> From<Result<T>> for Told<T> {
    fn from(result: Result<T>) -> Self {
        let why = |error| shortened(&one_line(Fault::from(error).message().trim()));
        result.map_or_else(|error| Self::Unknown(why(error)), Self::Known)
    }
}

/// One environment, with what is pinned now and with another image.
#[derive(Clone, Debug, Serialize)]
struct Difference {
    environment: String,
    from: Pin,
    /// Its digest is `None` where the registry did not tell it.
    to: Pin,
    commits: Told<Commits>,
    changelog: Told<Changelog>,
    migrations: Told<Migrations>,
    manifests: Told<Manifest>,
    requirements: Told<Vec<requirements::Change>>,
    pull: Told<Pull>,
    /// What a promotion would be refused for.
    unmet: Told<Vec<Unmet>>,
}

/// Subjects, newest first, merges left out.
#[derive(Clone, Debug, Serialize)]
struct Commits {
    brings: Vec<String>,
    takes_back: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Changelog {
    /// Whether it goes back by these versions.
    back: bool,
    /// Newest first, with their notes.
    versions: Vec<(Version, String)>,
}

#[derive(Clone, Debug, Serialize)]
struct Migrations {
    /// File names; at most these, where the file is not known.
    run: Vec<String>,
    file_known: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Manifest {
    /// Unified, by object; empty if nothing changes, or nothing was there.
    diff: String,
    /// Whether all that changes is the image.
    image_alone: bool,
    /// How many objects there would be.
    objects: usize,
    /// Whether there is nothing to compare with.
    new: bool,
}

/// In bytes.
#[derive(Clone, Debug, Serialize)]
struct Pull {
    /// For a node that has what is pinned now; `None` if that cannot be looked at.
    bytes: Option<u64>,
    bytes_in_all: u64,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let pipeline = Pipeline::load(root)?;
    let asked = Asked {
        verb: Verb::Promote,
        environment: pipeline.environment(&args.environment)?.clone(),
        image: args.image.clone(),
        restore: None,
        file_schema: None,
        overrides: Vec::new(),
        because: None,
        follow: false,
    };
    let sources = Sources::open(pipeline, root)?;
    let difference = Look::at(&sources, &asked)?.difference();
    if args.json {
        return terminal::json(&difference);
    }
    println!("{}", difference.to_string().trim_end());
    Ok(())
}

/// The two images, as far as they are known.
struct Look<'a> {
    sources: &'a Sources,
    environment: &'a Environment,
    /// Why there are none, if so: the registry or the project's remote did not answer.
    facts: Result<Facts, Fault>,
    from: Pin,
    to: Pin,
    /// The commits that they were built from; nothing if nothing is pinned.
    revisions: (Result<Option<String>>, Result<String>),
}

impl<'a> Look<'a> {
    fn at(sources: &'a Sources, asked: &'a Asked) -> Result<Self> {
        let environment = &asked.environment;
        let gathered = sources.gather(asked);
        let look = |facts, from, to, revisions| Self { sources, environment, facts, from, to, revisions };
        match (gathered, &asked.image) {
            (Ok(facts), _) => {
                let (from, to) = (facts.from.pin.clone(), facts.to.pin());
                let built = facts.from_image.as_ref().map(|(revision, _)| revision.clone());
                let revisions = (before(sources, &from, built), Ok(facts.to.revision.clone()));
                Ok(look(Ok(facts), from, to, revisions))
            }
            (Err(error), Some(image)) if exit_code(&error) == Kind::Remote as u8 => {
                let from = sources.infra.pin(environment)?;
                let history = sources.infra.history(environment)?;
                let built = from.digest.as_ref().and_then(|digest| sources.image_of(digest, &history));
                let digest = sources.registry.find(image).ok();
                let revision = revision_of(sources, image, digest.as_ref());
                let tagged = Version::from_tag(image).filter(|_| environment.git_ref == Ref::Tag);
                let tagged = tagged.map(|version| sources.pipeline.git_tag(&version));
                let git_ref = tagged.or_else(|| revision.as_ref().ok().cloned());
                let to = Pin { git_ref, tag: Some(image.clone()), digest };
                let revisions = (before(sources, &from, built.map(|(revision, _)| revision)), revision);
                Ok(look(Err(Fault::from(error)), from, to, revisions))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn difference(self) -> Difference {
        let rendering = self.rendering();
        Difference {
            environment: self.environment.name.clone(),
            commits: self.commits().into(),
            changelog: self
                .sources
                .sections(&self.from, &self.to)
                .map(|(back, versions)| Changelog { back, versions })
                .into(),
            migrations: self.migrations().into(),
            requirements: self.requirements(&rendering).into(),
            manifests: rendering.map(|rendering| self.manifest(&rendering)).into(),
            pull: self.pull().into(),
            unmet: self.facts().map(plan::unmet).into(),
            from: self.from,
            to: self.to,
        }
    }

    fn facts(&self) -> Result<&Facts> {
        self.facts.as_ref().map_err(|fault| fault.clone().into())
    }

    fn commits(&self) -> Result<Commits> {
        let told = |fault: &anyhow::Error| Fault::remote(format!("{fault:#}"));
        let from = self.revisions.0.as_ref().map_err(told)?;
        let to = self.revisions.1.as_ref().map_err(told)?;
        let project = &self.sources.project;
        for (commit, pin) in [(from.as_ref(), &self.from), (Some(to), &self.to)] {
            if let Some(commit) = commit {
                self.fetch(commit, pin)?;
            }
        }
        let takes_back = from.as_ref().map(|from| project.subjects(Some(to), from)).transpose()?;
        Ok(Commits {
            brings: project.subjects(from.as_deref(), to)?,
            takes_back: takes_back.unwrap_or_default(),
        })
    }

    /// Sees to it that an image's commit is in this clone: by its tag, or by the branch.
    fn fetch(&self, commit: &str, pin: &Pin) -> Result<()> {
        let Sources { project, pipeline, .. } = self.sources;
        if project.commit(commit)?.is_some() {
            return Ok(());
        }
        match pin.tag.as_deref().and_then(Version::from_tag) {
            Some(version) => drop(self.sources.commit_of_tag(&version)?),
            None => drop(project.fetch("origin", &format!("refs/heads/{}", pipeline.branch))?),
        }
        let there = project.commit(commit)?;
        there.map(drop).with_context(|| format!("the project's remote has no commit {commit}"))
    }

    fn migrations(&self) -> Result<Migrations> {
        let facts = self.facts()?;
        Ok(Migrations { run: plan::pending(facts), file_known: plan::is_known(facts) })
    }

    fn rendering(&self) -> Result<Rendering> {
        let restore = match &self.facts {
            Ok(facts) => facts.from.restore.clone(),
            Err(_) => self.sources.infra.pinned(self.environment)?.restore,
        };
        // A promotion ends what was asked for, but where it changes nothing.
        let restore = restore.as_deref().filter(|_| self.from == self.to);
        let manifests = match self.environment.manifests {
            Manifests::Remote => None,
            Manifests::Rendered => {
                let commit =
                    self.revisions.1.as_ref().map_err(|error| Fault::remote(format!("{error:#}")))?;
                self.fetch(commit, &self.to)?;
                Some(render::overlay(self.sources, self.environment, commit, restore)?)
            }
        };
        let change = PinChange { pin: &self.to, restore, manifests: manifests.as_deref(), base: None };
        let rendering = render::run(self.sources, self.environment, (&self.from, &self.to), Some(&change))?;
        match &rendering.why {
            Some(why) => Err(Fault::remote(why.clone()).into()),
            None => Ok(rendering),
        }
    }

    fn manifest(&self, rendering: &Rendering) -> Manifest {
        Manifest {
            diff: rendering.diff.clone(),
            image_alone: rendering.image_alone,
            objects: rendering.objects.len(),
            new: rendering.before.is_none(),
        }
    }

    fn requirements(&self, rendering: &Result<Rendering>) -> Result<Vec<requirements::Change>> {
        let rendering = rendering.as_ref().map_err(|_| Fault::remote("the manifests are unknown"))?;
        let before = match &rendering.before {
            Some(objects) => requirements(objects),
            None if self.from.is_nothing() => requirements::Needs::new(),
            None => return Err(Fault::remote("what is pinned now does not render").into()),
        };
        Ok(requirements::changes(&before, &requirements(&rendering.objects)))
    }

    fn pull(&self) -> Result<Pull> {
        let registry = &self.sources.registry;
        let digest = match (&self.to.digest, &self.facts) {
            (Some(digest), _) => digest,
            (None, Err(fault)) => return Err(fault.clone().into()),
            (None, Ok(_)) => bail!("{} has no digest", self.to.name()),
        };
        let to = registry.image(digest, None)?;
        let bytes_in_all = to.bytes_after(None);
        if self.from.is_nothing() {
            return Ok(Pull { bytes: Some(bytes_in_all), bytes_in_all });
        }
        let from = self.sources.digest_of(&self.from).and_then(|digest| registry.image(&digest, None).ok());
        Ok(Pull { bytes: from.map(|from| to.bytes_after(Some(&from))), bytes_in_all })
    }
}

/// The commit of what is pinned: what the image says of itself, else the version's tag; nothing if nothing is pinned.
fn before(sources: &Sources, from: &Pin, built: Option<String>) -> Result<Option<String>> {
    if from.is_nothing() || built.is_some() {
        return Ok(built.filter(|_| !from.is_nothing()));
    }
    let version = from.tag.as_deref().and_then(Version::from_tag);
    let commit = version.map(|version| sources.commit_of_tag(&version)).transpose()?.flatten();
    let unknown = || format!("nobody tells from which commit {} was built", from.name());
    commit.map(Some).with_context(unknown)
}

/// The commit of an image: its label, else the version's tag, at the remote or in this clone.
fn revision_of(sources: &Sources, image: &str, digest: Option<&Digest>) -> Result<String> {
    let label = digest.and_then(|digest| sources.registry.labels(digest).ok());
    if let Some(labels) = label {
        return Ok(labels.revision);
    }
    let commit = match Version::from_tag(image) {
        Some(version) => sources.commit_of_tag(&version).or_else(|_| {
            sources.project.commit(&format!("refs/tags/{}", sources.pipeline.git_tag(&version)))
        })?,
        None => sources.project.commit(image.strip_prefix("sha-").unwrap_or_default())?,
    };
    commit.with_context(|| format!("nobody tells from which commit {image} was built"))
}
