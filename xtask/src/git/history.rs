//! What the history tells a release: who added a line, what came after, and what a tag says.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Git, complaint, git, output, shell};

impl Git {
    /// The oldest commit of `head`'s first-parent line after `from` (or from the start) that changed how often a line of
    /// `path` begins with one of `needles`.
    pub fn commit_that_added(
        &self,
        from: Option<&str>,
        head: &str,
        path: &str,
        needles: &[String],
    ) -> Result<Option<String>> {
        let escaped = needles.iter().map(|needle| {
            let special = |c: char| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() };
            needle.chars().map(special).collect::<String>()
        });
        let pattern = format!("-G^({})", escaped.collect::<Vec<_>>().join("|"));
        let range = from.map_or_else(|| head.to_owned(), |from| format!("{from}..{head}"));
        // A merge is compared with its first parent, which also turns patches on.
        let log = ["log", "--first-parent", "--diff-merges=first-parent", "--no-patch", "--format=%H"];
        let found = self.run([&log[..], &["--extended-regexp", &pattern, &range, "--", path]].concat())?;
        Ok(found.lines().last().map(str::to_owned))
    }

    /// The commits on `head`'s first-parent line after `commit`, oldest first, at most `count`.
    pub fn first_parent_after(&self, commit: &str, head: &str, count: usize) -> Result<Vec<String>> {
        let range = format!("{commit}..{head}");
        let all = self.run(["rev-list", "--first-parent", "--reverse", &range])?;
        Ok(all.lines().take(count).map(str::to_owned).collect())
    }

    /// How many commits came after `from` (or from the start) up to `to`, merges left out.
    pub fn count(&self, from: Option<&str>, to: &str) -> Result<usize> {
        let range = from.map_or_else(|| to.to_owned(), |from| format!("{from}..{to}"));
        let count = self.run(["rev-list", "--count", "--no-merges", &range])?;
        count.parse().with_context(|| format!("git counts {count} commits"))
    }

    /// The message of an annotated tag, of any other tag that of its commit; empty without such a tag here.
    pub fn tag_message(&self, tag: &str) -> Result<String> {
        self.run(["for-each-ref", "--format=%(contents)", &format!("refs/tags/{tag}")])
    }

    /// When a tag here was made, in seconds since 1970.
    pub fn tag_time(&self, tag: &str) -> Result<Option<i64>> {
        let time = self.run(["for-each-ref", "--format=%(creatordate:unix)", &format!("refs/tags/{tag}")])?;
        Ok(time.parse().ok())
    }

    /// Brings the remote's tag here, in place of one of the same name.
    pub fn replace_tag_from(&self, remote: &str, tag: &str) -> Result<()> {
        let reference = format!("+refs/tags/{tag}:refs/tags/{tag}");
        self.run(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", remote, &reference]).map(drop)
    }

    /// The message of a commit.
    pub fn message(&self, commit: &str) -> Result<String> {
        self.run(["show", "--no-patch", "--format=%B", commit])
    }

    /// Lays a folder of a revision out below `into`, under its own path.
    pub fn export(&self, revision: &str, folder: &str, into: &Path) -> Result<()> {
        let sh = shell(&self.dir)?;
        let archive = git(&sh).args(["archive", "--format=tar", revision, "--", folder]);
        let named = archive.to_string();
        let output = output(archive)?;
        if !output.status.success() {
            return Err(complaint(&named, &output));
        }
        tar::Archive::new(output.stdout.as_slice())
            .unpack(into)
            .with_context(|| format!("{folder} at {revision}"))
    }
}
