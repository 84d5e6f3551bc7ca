//! Tags on this machine.

use anyhow::Result;

use super::{Git, git, shell, succeed, without_credentials};
use crate::fault::Fault;

impl Git {
    /// Makes an annotated tag here (signed when git is set to).
    pub fn tag(&self, name: &str, commit: &str, message: &str) -> Result<()> {
        let sh = shell(&self.dir)?;
        // The message makes it annotated. `--annotate` would too, but it turns tag.forceSignAnnotated off.
        succeed(git(&sh).args(["tag", "--cleanup=verbatim", "-F", "-", name, commit]).stdin(message))?;
        Ok(())
    }

    /// Whether a tag here is annotated; a lightweight one carries no message and no signature.
    pub fn is_annotated(&self, tag: &str) -> Result<bool> {
        Ok(self.run(["cat-file", "-t", &format!("refs/tags/{tag}")])? == "tag")
    }

    /// What an annotated tag here says, without its signature; empty if it is not there or not annotated.
    pub fn tag_message(&self, tag: &str) -> Result<String> {
        let found = self
            .tag_fields(&format!("refs/tags/{tag}"), "%(contents)%00%(contents:signature)")?
            .unwrap_or_default();
        let (message, signature) = found.split_once('\0').unwrap_or((&found, ""));
        // git adds a line break, and `run` takes all of them away.
        let message = message.trim_end().strip_suffix(signature.trim_end()).unwrap_or(message);
        Ok(message.trim_end().to_owned())
    }

    /// When an annotated tag of a remote was made, in seconds since 1970; `None` if it is not annotated.
    pub fn remote_tag_time(&self, remote: &str, tag: &str) -> Result<Option<i64>> {
        let reference = format!("refs/tags/{tag}");
        self.fetch(remote, &reference)?;
        let fields = self.tag_fields(&format!("refs/xtask/{reference}"), "%(taggerdate:unix)")?;
        Ok(fields.and_then(|time| time.parse().ok()))
    }

    /// Fields, as `git for-each-ref` knows them, of an annotated tag here.
    fn tag_fields(&self, reference: &str, fields: &str) -> Result<Option<String>> {
        // The pattern finds tags in a folder of this name too.
        let format = format!("--format=%(objecttype) %(refname)%0a{fields}");
        let found = self.run(["for-each-ref", "--count=1", &format, reference])?;
        Ok(found.strip_prefix(&format!("tag {reference}\n")).map(str::to_owned))
    }

    /// Makes the tag here the one that the remote has, whatever it was before.
    pub fn replace_tag_from(&self, remote: &str, tag: &str) -> Result<()> {
        let refspec = format!("+refs/tags/{tag}:refs/tags/{tag}");
        self.fetch_refs(remote, &refspec).map_err(|error| {
            let remote = without_credentials(remote);
            Fault::remote(format!("cannot fetch the tag {tag} from {remote}: {error}")).into()
        })
    }
}
