//! Which image is to be pinned: what was asked for, the newest that there is, or what ran before.

use anyhow::{Context as _, Result};

use super::{Asked, Sources};
use crate::deploy::plan::{Candidate, Verb};
use crate::fault::{Fault, Kind, exit_code};
use crate::history::{Change, bad_since, fixed};
use crate::image::{Digest, is_fixed, sha_tag};
use crate::kustomization::{Pin, is_commit};
use crate::pipeline::{Accepts, Environment, Ref};
use crate::version::Version;

impl Sources {
    /// What a promotion brings: what was asked for, or the newest.
    pub(super) fn newcomer(&self, asked: &Asked) -> Result<Candidate> {
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
    pub(super) fn predecessor(&self, asked: &Asked, from: &Pin, history: &[Change]) -> Result<Candidate> {
        let environment = &asked.environment;
        let pins = || history.iter().filter_map(|change| Some((fixed(change.pin.as_ref()?)?, change)));
        let rollback = Some(Verb::Rollback.word());
        let rolled_back = history.first().is_some_and(|newest| newest.trailers.verb.as_deref() == rollback);
        let found = match asked.image.as_deref().map(canonical) {
            Some(image) => pins().find(|((tag, _), _)| *tag == image).ok_or_else(|| {
                let mut ran: Vec<_> = Vec::new();
                for ((tag, _), _) in pins() {
                    if !ran.contains(&tag) {
                        ran.push(tag);
                    }
                }
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
            let tag = pin.tag.clone().filter(|_| !pin.is_nothing()).with_context(|| {
                Fault::refused(format!("{before} runs nothing yet"))
                    .help(format!("cargo xtask promote {before}"))
            })?;
            // A commit's image may have been released since: a version is another name of the same digest.
            let by_commit = Version::from_tag(&tag).is_none() && !environment.accepts.contains(&Accepts::Sha);
            let released = if by_commit { self.version_of(pin.digest.as_ref())? } else { None };
            return Ok(released.unwrap_or(tag));
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

    /// The newest version that names this digest.
    fn version_of(&self, digest: Option<&Digest>) -> Result<Option<String>> {
        let mut versions: Vec<_> =
            self.registry.tags()?.into_iter().filter_map(|tag| Version::from_tag(&tag)).collect();
        versions.sort();
        for version in versions.iter().rev().map(ToString::to_string) {
            if digest.is_some() && self.registry.resolve(&version)?.as_ref() == digest {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// `ran` is a commit that pinned it, whose word counts while the registry does not answer.
    pub(super) fn candidate(
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
                (revision, schema, None, Some(Fault::from(error).message().to_owned()))
            }
        };
        if !is_commit(&revision) {
            let message =
                format!("the image under {tag} says that it was built from {revision:?}, which is no commit");
            return Err(Fault::refused(message).help("build and push it from a commit: CI does").into());
        }
        let named = Version::from_tag(tag);
        let (name, kind) = match (&named, tag) {
            (Some(_), _) => (tag.to_owned(), Accepts::Release),
            // edge itself is never pinned: it moves.
            (None, "edge") => (sha_tag(&revision), Accepts::Edge),
            (None, _) => (tag.to_owned(), Accepts::Sha),
        };
        let told = ran.and_then(|change| change.trailers.commit.clone());
        let git_ref = match (&named, environment.git_ref) {
            (Some(version), Ref::Tag) => self.pipeline.git_tag(version),
            _ => revision.clone(),
        };
        let commit = match self.commit(named.as_ref(), environment.git_ref, &revision) {
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
    fn commit(&self, version: Option<&Version>, by: Ref, revision: &str) -> Result<Option<String>> {
        let Some(version) = version else { return self.commit_on_branch(revision) };
        match (self.commit_of_tag(version)?, by) {
            (None, Ref::Commit) => self.commit_on_branch(revision),
            (tagged, _) => Ok(tagged),
        }
    }

    /// The commit that the project's remote has under a version's tag.
    pub fn commit_of_tag(&self, version: &Version) -> Result<Option<String>> {
        let reference = format!("refs/tags/{}", self.pipeline.git_tag(version));
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
}

/// A version as it is tagged, also where the `v` was left out.
fn canonical(asked: &str) -> String {
    asked.parse::<Version>().map_or_else(|_| asked.to_owned(), |version| version.to_string())
}
