//! The infra repository: each environment's pin, the pins before it, and the one way to change it.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::fault::Fault;
use crate::git::{Commit, Git, Push};
use crate::image::Digest;
use crate::kustomization::{self, Pin, Target};
use crate::pipeline::{Environment, Pipeline};

/// A private clone of the infra repository's branch, and the commit that it was read at.
#[derive(Debug)]
pub struct Infra {
    git: Git,
    pipeline: Pipeline,
    head: String,
    _folder: tempfile::TempDir,
}

/// One commit that changed an environment's kustomization.
#[derive(Clone, Debug)]
pub struct Change {
    pub commit: Commit,
    /// The pin after it; `None` if the file of then cannot be read as one.
    pub pin: Option<Pin>,
}

impl Change {
    /// The schema of the image that it pinned, from the commit's trailer.
    pub fn schema(&self) -> Option<u32> {
        trailer(&self.commit.message, "Pin-Schema")?.parse().ok()
    }

    /// The digest that this commit rolled back from.
    pub fn bad(&self) -> Option<Digest> {
        trailer(&self.commit.message, "Pin-Bad")?.parse().ok()
    }
}

impl Infra {
    /// Clones the branch that `deploy/pipeline.yaml` names; a relative URL is relative to `root`.
    pub fn clone(pipeline: &Pipeline, root: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let git = Git::clone_bare(
            &pipeline.infra.url,
            &pipeline.infra.branch,
            root,
            &folder.path().join("infra.git"),
        )?;
        let head = git.commit("HEAD")?.context("the infra repository has no commit")?;
        Ok(Self { git, pipeline: pipeline.clone(), head, _folder: folder })
    }

    /// Reads the remote's branch again.
    pub fn refresh(&mut self) -> Result<()> {
        self.head = self.git.fetch("origin", &self.branch())?;
        Ok(())
    }

    fn branch(&self) -> String {
        format!("refs/heads/{}", self.pipeline.infra.branch)
    }

    fn target<'a>(&'a self, environment: &'a Environment) -> Target<'a> {
        Target {
            path: &environment.kustomization,
            image: &self.pipeline.image,
            source: Some(&self.pipeline.repository),
            comment: false,
        }
    }

    fn text(&self, environment: &Environment) -> Result<String> {
        let path = &environment.kustomization;
        let text = self.git.show(&self.head, path)?;
        text.with_context(|| {
            Fault::usage(format!(
                "{} has no {path} on {}",
                self.pipeline.infra.url, self.pipeline.infra.branch
            ))
            .help("start it from deploy/infra-template, or mend the path in deploy/pipeline.yaml")
        })
    }

    /// What the environment pins now.
    pub fn pin(&self, environment: &Environment) -> Result<Pin> {
        Ok(kustomization::read(&self.text(environment)?, &self.target(environment))?)
    }

    /// The commits that changed the environment's kustomization, newest first.
    pub fn history(&self, environment: &Environment) -> Result<Vec<Change>> {
        let target = self.target(environment);
        let mut changes = Vec::new();
        for commit in self.git.log(&self.head, Some(&environment.kustomization))? {
            let text = self.git.show(&commit.id, &environment.kustomization)?;
            let pin = text.and_then(|text| kustomization::read(&text, &target).ok());
            changes.push(Change { commit, pin });
        }
        Ok(changes)
    }

    /// Commits the environment's new pin on top of what was read and pushes it: a compare-and-swap, since the remote takes
    /// it only while its branch is still there.
    pub fn set_pin(&self, environment: &Environment, pin: &Pin, message: &str) -> Result<(String, Push)> {
        let text = kustomization::write(&self.text(environment)?, &self.target(environment), pin)?;
        let commit = self.git.commit_files(&self.head, &[(&environment.kustomization, &text)], message)?;
        let push = self.git.push("origin", &commit, &self.branch(), Some(&self.head))?;
        Ok((commit, push))
    }

    pub fn identity(&self) -> Result<String> {
        self.git.identity()
    }
}

/// The value of the message's last `Key: value` line. Hosts may add paragraphs behind the trailers, when they merge.
fn trailer<'a>(message: &'a str, key: &str) -> Option<&'a str> {
    message.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::trailer;

    #[test]
    fn the_last_trailer_counts_also_before_what_a_host_added() {
        let message =
            "subject\n\nPin-Schema: 9\n\nPin-Schema: 2\nPin-By: A <a@b>\n\nCo-authored-by: B <b@c>\n";
        assert_eq!(trailer(message, "Pin-Schema"), Some("2"));
        assert_eq!(trailer(message, "Pin-By"), Some("A <a@b>"));
        assert_eq!(trailer(message, "Pin"), None);
        assert_eq!(trailer(message, "Pin-Bad"), None);
    }
}
