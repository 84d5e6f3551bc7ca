//! Which image runs, by the service's own account, and what is the matter with the pin that should say so.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Sources;
use crate::deploy::plan::{Candidate, Lost};
use crate::environment::{Base, Pinned};
use crate::fault::{Fault, Kind, exit_code};
use crate::history::is_zero;
use crate::image::{Digest, is_fixed, sha_tag};
use crate::kustomization::{Pin, is_commit};
use crate::pipeline::Environment;
use crate::report::Observed;
use crate::version::Version;

/// What a new team's infra repository starts with.
const TEMPLATE: &str = "deploy/infra-template";

impl Sources {
    /// What the environment pins, and what is wrong with it.
    pub(super) fn standing(&self, environment: &Environment) -> Result<(Pinned, Lost)> {
        let (pinned, unreadable) = self.legible(environment)?;
        let broken = match unreadable {
            None => self.broken(environment, &pinned.pin)?,
            why => why,
        };
        Ok((pinned, Lost { broken, base: None }))
    }

    /// What the environment pins; nothing where nobody can read it, and why.
    pub fn legible(&self, environment: &Environment) -> Result<(Pinned, Option<String>)> {
        match self.infra.pinned(environment) {
            Ok(pinned) => Ok((pinned, None)),
            Err(error) if exit_code(&error) == Kind::Remote as u8 => Err(error),
            Err(error) => {
                let pinned = Pinned {
                    pin: Pin::default(),
                    restore: self.infra.restore(environment)?,
                    hold: self.infra.hold(environment)?,
                };
                Ok((pinned, Some(Fault::from(error).message().to_owned())))
            }
        }
    }

    /// Why a pin is not one whole image with its manifests; `None` if it is.
    fn broken(&self, environment: &Environment, pin: &Pin) -> Result<Option<String>> {
        let Some(tag) = pin.tag.as_deref().filter(|tag| is_fixed(tag) && !is_zero(tag)) else {
            let tag = pin.tag.as_deref().unwrap_or("none");
            return Ok(Some(format!("newTag is {tag}, which is no image for good")));
        };
        let Some(digest) = &pin.digest else { return Ok(Some("it has no digest".to_owned())) };
        match self.registry.resolve(tag)? {
            None => return Ok(Some(format!("the registry has no {tag}"))),
            Some(other) if other != *digest => {
                return Ok(Some(format!("{tag} is {other} in the registry, and {digest} is pinned")));
            }
            Some(_) => {}
        }
        let whole = match self.candidate(environment, tag, digest.clone(), None) {
            Ok(whole) => whole,
            Err(error) if exit_code(&error) == Kind::Remote as u8 => return Err(error),
            Err(error) => return Ok(Some(Fault::from(error).message().to_owned())),
        };
        let git_ref = pin.git_ref.as_deref().unwrap_or("none");
        let belongs = git_ref == whole.git_ref || git_ref == whole.revision;
        Ok((!belongs).then(|| format!("ref {git_ref} is not that of {tag}")))
    }

    /// The image that runs; as it is pinned, if it is.
    pub(super) fn running(
        &self,
        environment: &Environment,
        observed: &Observed,
        pin: &Pin,
        lost: &Lost,
    ) -> Result<Candidate> {
        let name = &environment.name;
        let version = match observed {
            Observed::Reports(report) => &report.version,
            Observed::Silent(why) => {
                return Err(Fault::remote(format!("what {name} runs is unknown: {why}"))
                    .help("once it answers, run the same command again; what is known to be right can be promoted")
                    .into());
            }
        };
        let commit = &version.commit;
        if !is_commit(commit) {
            let message =
                format!("{name} runs {}, built from {commit:?}, which is no commit", version.version);
            return Err(Fault::refused(message)
                .help("no image can be found by that: promote one that CI built")
                .into());
        }
        if let (None, Some(tag), Some(digest)) = (&lost.broken, &pin.tag, &pin.digest)
            && self.registry.labels(digest)?.revision == *commit
        {
            let whole = self.candidate(environment, tag, digest.clone(), None)?;
            let git_ref = pin.git_ref.clone().unwrap_or_default();
            return Ok(Candidate { git_ref, ..whole });
        }
        let images = self.built_from(commit)?;
        let Some((digest, tags)) = images.first_key_value() else {
            let message = format!("{name} runs commit {commit}, and {} has no image of it", self.registry);
            return Err(Fault::refused(message)
                .help("push the image of that commit again, or promote another one")
                .into());
        };
        if images.len() > 1 {
            let all: Vec<_> =
                images.iter().map(|(digest, tags)| format!("{digest} ({})", tags.join(", "))).collect();
            let message = format!(
                "several images say that they were built from {commit}, which {name} runs: {}",
                all.join("; ")
            );
            return Err(Fault::refused(message)
                .help(format!("see which one the pod has (kubectl describe), and promote that by name: cargo xtask promote {name} TAG"))
                .into());
        }
        let by_version =
            |tag: &&String| Version::from_tag(tag).is_some_and(|tagged| tagged.bare() == version.version);
        let released =
            tags.iter().find(by_version).or_else(|| tags.iter().find(|tag| Version::from_tag(tag).is_some()));
        let tag = released.or(tags.first()).cloned().unwrap_or_else(|| sha_tag(commit));
        self.candidate(environment, &tag, digest.clone(), None)
    }

    /// The images of a commit by their labels, with the tags that name them for good, versions first.
    fn built_from(&self, commit: &str) -> Result<BTreeMap<Digest, Vec<String>>> {
        let mut images: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        let own = sha_tag(commit);
        let mut tags = self.registry.tags()?;
        tags.retain(|tag| *tag == own || Version::from_tag(tag).is_some());
        tags.sort_by_cached_key(|tag| std::cmp::Reverse(Version::from_tag(tag)));
        for tag in tags {
            let Some(digest) = self.registry.resolve(&tag)? else { continue };
            match self.registry.labels(&digest) {
                Ok(labels) if labels.revision == commit => images.entry(digest).or_default().push(tag),
                Err(error) if exit_code(&error) == Kind::Remote as u8 => return Err(error),
                // Another's, or one of before this tool.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(images)
    }

    /// The files to write this pin into, where those that are there will not do.
    pub(super) fn base(&self, environment: &Environment, pin: &Pin) -> Result<Option<Base>> {
        let path = &environment.kustomization;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let names = self.project.list("HEAD", &format!("{TEMPLATE}/{folder}"))?;
        let mut template = Vec::new();
        for name in names {
            let at = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let text = self.project.texts(&[("HEAD", &format!("{TEMPLATE}/{at}"))])?.into_iter().next();
            if let Some(Ok(Some(text))) = text {
                template.push((at, text));
            }
        }
        self.infra.base(environment, pin, &template)
    }
}
