//! What is not on the branch yet: a commit on a branch of its own, and what a pull request would bring.

use anyhow::{Context as _, Result};

use super::Infra;
use crate::environment::{HOLD, MANIFESTS, Pinned, RESTORE, beside, takes_restore};
use crate::fault::Fault;
use crate::git::Push;
use crate::pipeline::{Environment, Manifests};
use crate::trailers::{Trailers, overrides};

/// What a ref of the remote's would make of the branch.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The commit that the ref names.
    pub commit: String,
    /// The files, merged into what was read.
    tree: String,
}

impl Infra {
    /// Reads another ref or commit of the remote's in place of a branch.
    pub fn stand_on(&mut self, branch: &str, reference: &str) -> Result<()> {
        self.heads.insert(branch.to_owned(), self.git.fetch("origin", reference)?);
        Ok(())
    }

    /// What merging a ref or a commit of the remote's into what was read of the environment's branch would come to.
    pub fn proposal(&self, environment: &Environment, reference: &str) -> Result<Proposal> {
        let (head, commit) = (self.head(environment)?, self.git.fetch("origin", reference)?);
        let tree = self.git.merged(head, &commit)?.with_context(|| {
            let branch = self.pipeline.infra_branch(environment);
            Fault::refused(format!("{reference} conflicts with what {branch} has by now"))
                .help("bring it up to date, or close it and promote again")
        })?;
        Ok(Proposal { commit, tree })
    }

    /// What the environment would pin, and what else would be asked of it; `None` if none of its files changes.
    pub fn proposed(&self, proposal: &Proposal, environment: &Environment) -> Result<Option<Pinned>> {
        let (path, head) = (&environment.kustomization, self.head(environment)?);
        let mut changes = false;
        for file in files(environment) {
            changes |= self.git.show(head, &file)? != self.git.show(&proposal.tree, &file)?;
        }
        if !changes {
            return Ok(None);
        }
        let Some(text) = self.git.show(&proposal.tree, path)? else {
            return Err(Fault::refused(format!("{path} would be gone")).into());
        };
        let pinned = self.pinned_at(environment, &proposal.tree)?;
        if pinned.restore.is_some() && environment.manifests == Manifests::Remote {
            takes_restore(&text, path)?;
        }
        Ok(Some(pinned))
    }

    /// What the commits say that a proposal brings to the environment, newest first.
    pub fn messages(&self, proposal: &Proposal, environment: &Environment) -> Result<Vec<String>> {
        let files = files(environment);
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        self.git.messages(self.head(environment)?, &proposal.commit, &files)
    }

    /// The commit of another branch of the remote's, now here; `None` if it has no such branch.
    pub fn branch_commit(&self, branch: &str) -> Result<Option<String>> {
        let reference = format!("refs/heads/{branch}");
        let there = self.git.remote_ref("origin", &reference)?;
        there.map(|_| self.git.fetch("origin", &reference)).transpose()
    }

    /// Brings a commit to another branch, in place of `there`, which that branch must still be at.
    pub fn push_branch(&self, commit: &str, branch: &str, there: Option<&str>) -> Result<Push> {
        self.git.push("origin", commit, &format!("refs/heads/{branch}"), there)
    }

    /// Whether a commit stands on what was read of the environment's branch and is as good as another one: the same files, and the same said of gates.
    /// Who made it, and where the ledger was, may differ.
    pub fn is_as_good(&self, environment: &Environment, commit: &str, other: &str) -> Result<bool> {
        let tree = |commit: &str| self.git.commit_tree(commit);
        if self.git.commit(&format!("{commit}^"))?.as_deref() != Some(self.head(environment)?)
            || tree(commit)? != tree(other)?
        {
            return Ok(false);
        }
        let (one, other) = (self.message(environment, commit)?, self.message(environment, other)?);
        let said =
            |message: &str| (Trailers::parse(message).bad, Trailers::parse(message).told, overrides(message));
        Ok(said(&one) == said(&other))
    }

    /// The whole message of a commit that stands on what was read of the environment's branch.
    pub fn message(&self, environment: &Environment, commit: &str) -> Result<String> {
        let messages = self.git.messages(self.head(environment)?, commit, &[])?;
        messages.into_iter().next().with_context(|| format!("{commit} says nothing"))
    }
}

/// All that this tool reads of an environment.
fn files(environment: &Environment) -> [String; 4] {
    let path = &environment.kustomization;
    [path.clone(), beside(path, RESTORE), beside(path, HOLD), beside(path, MANIFESTS)]
}
