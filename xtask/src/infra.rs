//! The infra repository: each environment's pin, the pins before it, and the one way to change it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::environment::{
    Base, HOLD, MANIFESTS, Pinned, RESTORE, beside, restore_of, takes_restore, with_restore,
};
use crate::fault::{Fault, without_credentials};
use crate::git::{Git, Push};
use crate::history::{Change, Commit, Event};
use crate::kustomization::{self, Pin, Target};
use crate::pipeline::{Environment, Manifests, Pipeline, Ref};
use crate::trailers::Trailers;

mod base;
mod proposal;
pub use proposal::Proposal;

/// A private clone of the infra repository's branches that have environments, and the commits that they were read at.
#[derive(Debug)]
pub struct Infra {
    git: Git,
    pipeline: Pipeline,
    /// The commit of each branch; one that the remote lacks is not here.
    heads: BTreeMap<String, String>,
    _folder: tempfile::TempDir,
}

/// What one commit writes of one environment.
#[derive(Clone, Copy, Debug)]
pub struct PinChange<'a> {
    pub pin: &'a Pin,
    pub restore: Option<&'a str>,
    /// The overlay as kustomize renders it at the pin's ref, where the environment keeps it rendered.
    pub manifests: Option<&'a str>,
    /// What to start from in place of the environment's own files.
    pub base: Option<&'a Base>,
}

impl Infra {
    /// Clones the branches that `deploy/pipeline.yaml` names; a relative URL is relative to `root`.
    pub fn clone(pipeline: &Pipeline, root: &Path) -> Result<Self> {
        Self::clone_within(pipeline, root, None)
    }

    /// The same, with this time for each answer of the remote.
    pub fn clone_within(pipeline: &Pipeline, root: &Path, limit: Option<Duration>) -> Result<Self> {
        let folder = tempfile::tempdir().with_context(|| Fault::usage("cannot make a folder in TMPDIR"))?;
        let branches = pipeline.infra_branches();
        // Several are asked for all at once, since one that is not there yet is in no other environment's way.
        let only = if let [only] = branches[..] { Some(only) } else { None };
        let into = folder.path().join("infra.git");
        let git = Git::clone_bare(&pipeline.infra.url, only, root, &into, limit)?;
        git.commit_as(root)?;
        let mut heads = BTreeMap::new();
        for branch in branches {
            if let Some(head) = git.commit(&format!("refs/heads/{branch}"))? {
                heads.insert(branch.to_owned(), head);
            }
        }
        Ok(Self { git, pipeline: pipeline.clone(), heads, _folder: folder })
    }

    /// Reads the remote's branches again.
    pub fn refresh(&mut self) -> Result<()> {
        for (branch, head) in &mut self.heads {
            *head = self.git.fetch("origin", &format!("refs/heads/{branch}"))?;
        }
        Ok(())
    }

    /// The commit that the environment's branch was read at.
    pub fn head(&self, environment: &Environment) -> Result<&str> {
        let branch = self.pipeline.infra_branch(environment);
        let head = self.heads.get(branch).map(String::as_str);
        head.with_context(|| {
            let url = without_credentials(&self.pipeline.infra.url);
            Fault::usage(format!("{url} has no branch {branch}, on which {} lies", environment.name))
                .help("push it there, or mend the branch in deploy/pipeline.yaml")
        })
    }

    fn target<'a>(&'a self, environment: &'a Environment) -> Target<'a> {
        let rendered = environment.manifests == Manifests::Rendered;
        Target {
            path: &environment.kustomization,
            image: &self.pipeline.image,
            source: (!rendered).then_some(&self.pipeline.repository),
            comment: environment.git_ref == Ref::Commit,
        }
    }

    fn text(&self, environment: &Environment, revision: &str) -> Result<String> {
        let path = &environment.kustomization;
        let text = self.git.show(revision, path)?;
        text.with_context(|| {
            Fault::usage(format!(
                "{} has no {path} on {}",
                without_credentials(&self.pipeline.infra.url),
                self.pipeline.infra_branch(environment)
            ))
            .help(format!(
                "start it from deploy/infra-template, or mend the path in deploy/pipeline.yaml; if it was lost: cargo xtask adopt {}",
                environment.name
            ))
        })
    }

    /// What the environment pins now.
    pub fn pin(&self, environment: &Environment) -> Result<Pin> {
        self.pin_at(environment, self.head(environment)?)
    }

    fn pin_at(&self, environment: &Environment, revision: &str) -> Result<Pin> {
        let mut pin = kustomization::read(&self.text(environment, revision)?, &self.target(environment))?;
        if environment.manifests == Manifests::Rendered {
            let text = self.git.show(revision, &beside(&environment.kustomization, MANIFESTS))?;
            pin.git_ref = self.rendered_ref(environment, &text.unwrap_or_default());
        }
        Ok(pin)
    }

    /// What the environment pins now, and what else is asked of it.
    pub fn pinned(&self, environment: &Environment) -> Result<Pinned> {
        self.pinned_at(environment, self.head(environment)?)
    }

    fn pinned_at(&self, environment: &Environment, revision: &str) -> Result<Pinned> {
        let file = |name| self.git.show(revision, &beside(&environment.kustomization, name));
        Ok(Pinned {
            pin: self.pin_at(environment, revision)?,
            restore: file(RESTORE)?.and_then(|text| restore_of(&text)),
            hold: self.hold_at(environment, revision)?,
        })
    }

    /// Why the environment is held, whatever its kustomization is like.
    pub fn hold(&self, environment: &Environment) -> Result<Option<String>> {
        self.hold_at(environment, self.head(environment)?)
    }

    /// Its presence counts: what is no text holds too.
    fn hold_at(&self, environment: &Environment, revision: &str) -> Result<Option<String>> {
        let path = beside(&environment.kustomization, HOLD);
        let texts = self.git.texts(&[(revision, &path)])?;
        let text = texts.into_iter().next().unwrap_or(Ok(None));
        let why = text.unwrap_or_else(|fault| Some(fault.message().to_owned()));
        let said = |text: String| match text.trim() {
            "" => "no reason is given".to_owned(),
            why => why.to_owned(),
        };
        Ok(why.map(said))
    }

    /// The newest commit that held the environment, or ended a hold.
    pub fn hold_commit(&self, environment: &Environment) -> Result<Option<Commit>> {
        let path = beside(&environment.kustomization, HOLD);
        Ok(self.git.log(self.head(environment)?, &[&path])?.into_iter().next())
    }

    /// The commits that changed the environment's pin, newest first; at least one.
    pub fn history(&self, environment: &Environment) -> Result<Vec<Change>> {
        let changes = self.changes(environment)?;
        if changes.is_empty() {
            let problem =
                Fault::refused(format!("git tells no commit that made {}", environment.kustomization));
            return Err(problem.help("see git log in a clone of the infra repository").into());
        }
        Ok(changes)
    }

    /// The same, where none is no error.
    pub fn changes(&self, environment: &Environment) -> Result<Vec<Change>> {
        let target = self.target(environment);
        let paths = [
            environment.kustomization.clone(),
            beside(&environment.kustomization, RESTORE),
            beside(&environment.kustomization, MANIFESTS),
        ];
        let pinning = [paths[0].as_str(), &paths[1]];
        let commits = self.git.log(self.head(environment)?, &pinning)?;
        let files =
            commits.iter().flat_map(|commit| paths.iter().map(|path| (commit.id.as_str(), path.as_str())));
        // What was no text then is no pin.
        let texts = self.git.texts(&files.collect::<Vec<_>>())?.into_iter();
        let texts = texts.map(|text| text.unwrap_or_else(|_| Some(String::new())));
        let mut texts = texts.collect::<Vec<_>>().into_iter();
        let changes = commits.iter().map(|commit| {
            let [kustomization, restore, manifests] =
                [texts.next(), texts.next(), texts.next()].map(Option::flatten);
            let gone = kustomization.is_none();
            let mut pin = kustomization.and_then(|text| kustomization::read(&text, &target).ok());
            if let (Some(pin), Manifests::Rendered) = (&mut pin, environment.manifests) {
                pin.git_ref = self.rendered_ref(environment, &manifests.unwrap_or_default());
            }
            let trailers = self.trailers(commit, &pinning)?;
            // One commit may change several environments; its trailers are of one.
            let others = trailers.environment.as_ref().is_some_and(|name| *name != environment.name);
            let trailers = if others { Trailers::default() } else { trailers };
            let restore = restore.as_deref().and_then(restore_of);
            Ok(Change { commit: commit.clone(), trailers, pin, restore, gone })
        });
        let mut changes = changes.collect::<Result<Vec<Change>>>()?;
        // What else a person changed in the file is no change of the pin.
        changes.reverse();
        changes.dedup_by(|newer, older| {
            newer.pin.is_some() && (&newer.pin, &newer.restore) == (&older.pin, &older.restore)
        });
        changes.reverse();
        Ok(changes)
    }

    /// What a commit says of its pin; of a merge that says nothing, as GitHub's button makes it, what the newest commit
    /// says that it brought to these files.
    fn trailers(&self, commit: &Commit, paths: &[&str]) -> Result<Trailers> {
        let own = Trailers::parse(&commit.message);
        let brought = format!("{}^2", commit.id);
        if own != Trailers::default() || self.git.commit(&brought)?.is_none() {
            return Ok(own);
        }
        let messages = self.git.messages(&format!("{}^1", commit.id), &brought, paths)?;
        Ok(messages.first().map_or(own, |message| Trailers::parse(message)))
    }

    /// What the rendered manifests begin with, but for the ref: how a remote resource would be written.
    fn rendered_from(&self, environment: &Environment) -> String {
        format!("# {}//deploy/k8s/overlays/{}?ref=", self.pipeline.repository, environment.name)
    }

    fn rendered_ref(&self, environment: &Environment, manifests: &str) -> Option<String> {
        let first = manifests.lines().next()?.strip_prefix(&self.rendered_from(environment))?;
        first.split_whitespace().next().map(str::to_owned)
    }

    /// Refuses an environment whose kustomization would not pass a restore on.
    pub fn takes_restore(&self, environment: &Environment) -> Result<()> {
        if environment.manifests == Manifests::Rendered {
            return Ok(());
        }
        Ok(takes_restore(&self.text(environment, self.head(environment)?)?, &environment.kustomization)?)
    }

    /// The files of a change of what was read, with their texts.
    fn files(&self, environment: &Environment, change: &PinChange<'_>) -> Result<Vec<(String, String)>> {
        let (path, head) = (&environment.kustomization, self.head(environment)?);
        let restore_path = beside(path, RESTORE);
        let base = change.base.into_iter().flat_map(|base| base.files.clone());
        let mut files: Vec<_> = base.filter(|(name, _)| name != path && *name != restore_path).collect();
        let before = match change.base.and_then(|base| base.text(path)) {
            Some(text) => text.to_owned(),
            None => self.text(environment, head)?,
        };
        let mut pin = change.pin.clone();
        if let Some(manifests) = change.manifests {
            kustomization::lists_resource(&before, path, MANIFESTS)?;
            if takes_restore(&before, path).is_ok() {
                return Err(Fault::refused(format!(
                    "{path} merges {RESTORE} into a ConfigMap that {MANIFESTS} has under another name"
                ))
                .help(
                    "take that entry of configMapGenerator out, and commit that: the restore is rendered too",
                )
                .into());
            }
            let git_ref = pin.git_ref.take().unwrap_or_default();
            let text = format!("{}{git_ref}\n{manifests}", self.rendered_from(environment));
            files.push((beside(path, MANIFESTS), text));
        }
        let after = kustomization::write(&before, &self.target(environment), &pin)?;
        let there = self.git.show(head, &restore_path)?;
        let kept = || change.base.and_then(|base| base.text(&restore_path)).map(str::to_owned);
        let lacking = change.base.is_some() && there.is_none() && takes_restore(&before, path).is_ok();
        let asked = there.or_else(kept);
        if lacking || asked.as_deref().and_then(restore_of).as_deref() != change.restore {
            files.push((restore_path, with_restore(asked.as_deref().unwrap_or_default(), change.restore)));
        }
        files.push((path.clone(), after));
        Ok(files)
    }

    /// Makes the commit of a change on top of what was read; nothing points to it yet.
    pub fn commit(&self, environment: &Environment, change: &PinChange<'_>, message: &str) -> Result<String> {
        let files = self.files(environment, change)?;
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        self.git.commit_files(self.head(environment)?, &files, message)
    }

    /// Lays out what was read, or what a commit of this change would have; returns the environment's folder.
    pub fn lay_out(
        &self,
        environment: &Environment,
        change: Option<&PinChange<'_>>,
        into: &Path,
    ) -> Result<PathBuf> {
        let tree = match change {
            None => self.head(environment)?.to_owned(),
            Some(change) => {
                let files = self.files(environment, change)?;
                let files: Vec<_> =
                    files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
                self.git.tree_of(self.head(environment)?, &files)?
            }
        };
        self.export(environment, &tree, into)
    }

    /// Lays a commit out, and returns the environment's folder in it.
    pub fn export(&self, environment: &Environment, revision: &str, into: &Path) -> Result<PathBuf> {
        self.git.export(revision, ".", into)?;
        Ok(into.join(folder(environment)))
    }

    /// Whether what was read has the same in the environment's folder as a commit.
    pub fn is_still(&self, environment: &Environment, commit: &str) -> Result<bool> {
        let at = |revision: &str| self.git.object(&format!("{revision}:{}", folder(environment)));
        Ok(at(commit)? == at(self.head(environment)?)?)
    }

    /// Makes the commit that holds the environment, or no longer does.
    pub fn commit_hold(&self, environment: &Environment, why: Option<&str>, message: &str) -> Result<String> {
        let path = beside(&environment.kustomization, HOLD);
        let text = why.map(|why| format!("{why}\n"));
        self.git.commit_changes(self.head(environment)?, &[(&path, text.as_deref())], message)
    }

    /// Brings a commit to the environment's branch: a compare-and-swap, since the remote takes it only while that branch is
    /// still what was read.
    pub fn push(&self, environment: &Environment, commit: &str) -> Result<Push> {
        let branch = self.pipeline.infra_branch(environment);
        self.push_branch(commit, branch, Some(self.head(environment)?))
    }

    pub fn identity(&self) -> Result<String> {
        self.git.identity()
    }

    /// The commits that changed what the environment pins or whether it is held, newest first; one that did both twice.
    pub fn events(&self, environment: &Environment) -> Result<Vec<Event>> {
        let path = &environment.kustomization;
        let [restore, hold] = [RESTORE, HOLD].map(|name| beside(path, name));
        let mut events: Vec<_> =
            self.changes(environment)?.into_iter().map(|change| Event::Pin(Box::new(change))).collect();
        let mut held = None;
        for commit in self.git.log(self.head(environment)?, &[&hold])?.into_iter().rev() {
            let why = self.hold_at(environment, &commit.id)?;
            if why != held {
                held.clone_from(&why);
                let by = Trailers::parse(&commit.message).by;
                events.push(Event::Hold { commit, by, why });
            }
        }
        let order = self.git.log(self.head(environment)?, &[path, &restore, &hold])?;
        let place: HashMap<_, _> =
            order.iter().enumerate().map(|(place, commit)| (&commit.id, place)).collect();
        events.sort_by_key(|event| place.get(&event.commit().id));
        Ok(events)
    }
}

/// Where the environment's kustomization lies.
fn folder(environment: &Environment) -> &str {
    environment.kustomization.rsplit_once('/').map_or("", |(folder, _)| folder)
}
