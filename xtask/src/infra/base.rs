//! What an environment's files are made of again, where they are gone or nobody can edit them.

use anyhow::Result;

use super::{Infra, folder};
use crate::environment::{Base, HOLD, MANIFESTS, RESTORE, beside, restore_of};
use crate::fault::Fault;
use crate::kustomization::{self, Pin};
use crate::pipeline::{Environment, Manifests};

impl Infra {
    /// The backup that the environment is to start from, whatever its kustomization is like.
    pub fn restore(&self, environment: &Environment) -> Result<Option<String>> {
        let text = self.git.show(self.head(environment)?, &beside(&environment.kustomization, RESTORE))?;
        Ok(text.as_deref().and_then(restore_of))
    }

    /// The newest files of the environment in which this pin can be written, of the branch's history, else `template`;
    /// `None` if it can be written in those that are there.
    pub fn base(
        &self,
        environment: &Environment,
        pin: &Pin,
        template: &[(String, String)],
    ) -> Result<Option<Base>> {
        let (path, head) = (&environment.kustomization, self.head(environment)?);
        let mut pin = pin.clone();
        if environment.manifests == Manifests::Rendered {
            pin.git_ref = None;
        }
        let takes = |text: &str| kustomization::write(text, &self.target(environment), &pin).is_ok();
        let commits = self.git.log(head, &[path])?;
        let revisions = [head].into_iter().chain(commits.iter().map(|commit| commit.id.as_str()));
        let asked: Vec<_> = revisions.map(|revision| (revision, path.as_str())).collect();
        let texts = self.git.texts(&asked)?.into_iter().map(|text| text.ok().flatten());
        let found = texts.zip(&asked).enumerate().find_map(|(place, (text, (revision, _)))| {
            text.filter(|text| takes(text)).map(|text| (place, text, *revision))
        });
        let (whence, mut files) = match found {
            Some((0, ..)) => return Ok(None),
            Some((_, text, revision)) => {
                let short = revision.get(..12).unwrap_or(revision);
                let files = [(path.clone(), text)].into_iter().chain(self.beside_at(environment, revision)?);
                (format!("infra commit {short}"), files.collect())
            }
            None if template.iter().any(|(name, text)| name == path && takes(text)) => {
                ("deploy/infra-template".to_owned(), template.to_vec())
            }
            None => {
                return Err(Fault::refused(format!(
                    "neither {path} nor what it was before can be edited, and deploy/infra-template has none"
                ))
                .help("write it by hand, as docs/promoting.md and deploy/infra-template show")
                .into());
            }
        };
        // What is there is somebody's; only what is missing is brought back.
        let mut kept = Vec::new();
        for (name, text) in files.drain(..) {
            if name == *path || self.git.object(&format!("{head}:{name}"))?.is_none() {
                kept.push((name, text));
            }
        }
        Ok(Some(Base { whence, files: kept }))
    }

    /// The other files that lay in the environment's folder, but for a hold and for what a promotion writes anew.
    fn beside_at(&self, environment: &Environment, revision: &str) -> Result<Vec<(String, String)>> {
        let path = &environment.kustomization;
        let own = [path.clone(), beside(path, HOLD), beside(path, MANIFESTS)];
        let names = self.git.list(revision, folder(environment))?;
        let paths = names.iter().map(|name| beside(path, name)).filter(|name| !own.contains(name));
        let paths: Vec<_> = paths.collect();
        let asked: Vec<_> = paths.iter().map(|name| (revision, name.as_str())).collect();
        let texts = self.git.texts(&asked)?.into_iter();
        // A folder, or what is no text, was none of this tool's.
        let texts = texts.map(|text| text.ok().flatten());
        Ok(paths.iter().cloned().zip(texts).filter_map(|(name, text)| Some((name, text?))).collect())
    }
}
