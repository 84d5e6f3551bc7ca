//! What remotes have, and bringing it here.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::{Git, without_credentials};
use crate::fault::{Fault, Kind, exit_code};

impl Git {
    /// What the remote says that a ref names now, annotated tags peeled to their commit; `None` if it has no such ref.
    pub fn remote_ref(&self, remote: &str, reference: &str) -> Result<Option<String>> {
        let peeled = format!("{reference}^{{}}");
        let answer = self.run_remote(["ls-remote", remote, reference, &peeled]).map_err(|error| {
            Fault::remote(format!("cannot ask {} for {reference}: {error}", without_credentials(remote)))
        })?;
        let named = |name: &str| {
            answer
                .lines()
                .filter_map(|line| line.split_once('\t'))
                .find(|(_, n)| *n == name)
                .map(|(id, _)| id.to_owned())
        };
        Ok(named(&peeled).or_else(|| named(reference)))
    }

    /// All tags of the remote with the commits that they name.
    pub fn remote_tags(&self, remote: &str) -> Result<Vec<(String, String)>> {
        let refs = self.remote_refs(remote)?.into_iter();
        Ok(refs
            .filter_map(|(name, commit)| Some((name.strip_prefix("refs/tags/")?.to_owned(), commit)))
            .collect())
    }

    /// All branches and tags of the remote by their full names (`refs/heads/…`, `refs/tags/…`) with the commits that they
    /// name, annotated tags peeled; asked once.
    pub fn remote_refs(&self, remote: &str) -> Result<BTreeMap<String, String>> {
        let answer = self.run_remote(["ls-remote", "--heads", "--tags", remote]).map_err(|error| {
            // No git, no repository: that is nothing of the remote's.
            if exit_code(&error) == Kind::Usage as u8 {
                return Fault::from(error);
            }
            Fault::remote(format!("cannot list the refs of {}: {error}", without_credentials(remote)))
                .help("is the remote right? git remote -v; cargo xtask doctor asks every remote")
        })?;
        let mut refs = BTreeMap::<String, String>::new();
        for (id, name) in answer.lines().filter_map(|line| line.split_once('\t')) {
            // The peeled line of an annotated tag follows the one of its object.
            match name.strip_suffix("^{}").and_then(|name| refs.get_mut(name)) {
                Some(tag) => id.clone_into(tag),
                None => drop(refs.insert(name.to_owned(), id.to_owned())),
            }
        }
        Ok(refs)
    }

    /// Brings a ref of the remote's here and returns its commit. Local branches and tags stay as they are.
    pub fn fetch(&self, remote: &str, reference: &str) -> Result<String> {
        let fetched = format!("refs/xtask/{reference}");
        self.fetch_refs(remote, &format!("+{reference}:{fetched}")).map_err(|error| {
            Fault::remote(format!("cannot fetch {reference} from {}: {error}", without_credentials(remote)))
        })?;
        self.commit(&fetched)?.with_context(|| format!("{reference} of {remote} names no commit"))
    }

    pub(super) fn fetch_refs(&self, remote: &str, refspec: &str) -> Result<()> {
        // Without maintenance, which may pack the whole repository before it lets go.
        let quietly = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"];
        self.run_remote(quietly.iter().chain(&[remote, refspec])).map(drop)
    }
}
