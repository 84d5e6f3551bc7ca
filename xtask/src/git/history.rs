//! What the commits say that lead to one, or stand between two.
//!
//! Where a range begins at a commit, all that is after it must be here: a shallow clone is refused, since what it lacks
//! would seem not to exist.

use anyhow::Result;

use super::Git;
use crate::fault::Fault;
use crate::history::Commit;

/// A whole commit, for [`commits`].
const WHOLE: &str = "--format=%H%x1f%cI%x1f%an%x1f%B";

impl Git {
    /// Whether `ancestor`, which need not be here, is `descendant` or one of its ancestors.
    pub fn is_ancestor(&self, ancestor: &str, descendant: &str) -> Result<bool> {
        let merged = ["merge-base", "--is-ancestor", ancestor, descendant];
        if self.commit(ancestor)?.is_some() && self.ask(merged)?.is_some() {
            return Ok(true);
        }
        // All ancestors of a commit are where it is, but for a shallow clone.
        if !self.is_shallow()? {
            return Ok(false);
        }
        let unknown = format!("this shallow clone cannot tell whether {ancestor} came before {descendant}");
        Err(Fault::usage(unknown).help("git fetch --unshallow --tags origin").into())
    }

    fn is_shallow(&self) -> Result<bool> {
        Ok(self.run(["rev-parse", "--is-shallow-repository"])? == "true")
    }

    /// The commits that lead to `revision`, newest first; with `paths`, only those that changed one of them. On
    /// all lines: a merge that was made the wrong way round takes what was the branch off the line of first parents.
    pub fn log(&self, revision: &str, paths: &[&str]) -> Result<Vec<Commit>> {
        let mut args = vec!["-z", "--topo-order", "--full-history", WHOLE, revision, "--"];
        args.extend(paths);
        Ok(commits(&self.walk(&args)?))
    }

    /// The newest commits after `from` (or from the start) up to `to`, newest first, merges left out.
    pub fn between(&self, from: Option<&str>, to: &str, most: usize) -> Result<Vec<Commit>> {
        let (range, most) = (self.range(from, to)?, format!("--max-count={most}"));
        Ok(commits(&self.walk(&["-z", "--topo-order", "--no-merges", &most, WHOLE, &range, "--"])?))
    }

    /// The subjects of the commits after `from` (or from the start) up to `to`, newest first, merges left out.
    pub fn subjects(&self, from: Option<&str>, to: &str) -> Result<Vec<String>> {
        let range = self.range(from, to)?;
        Ok(self.walk(&["--no-merges", "--format=%s", &range, "--"])?.lines().map(str::to_owned).collect())
    }

    /// How many commits there are after `from` (or from the start) up to `to`, merges left out.
    pub fn count(&self, from: Option<&str>, to: &str) -> Result<usize> {
        let count = self.run(["rev-list", "--count", "--no-merges", &self.range(from, to)?, "--"])?;
        Ok(count.parse()?)
    }

    /// The first `most` commits after `commit` on the line of first parents that leads to `head`, oldest first. It is an
    /// error if `commit` is not on that line, unless nothing is after it.
    pub fn first_parent_after(&self, commit: &str, head: &str, most: usize) -> Result<Vec<String>> {
        let range = self.range(Some(commit), head)?;
        let found = self.run(["rev-list", "--first-parent", "--reverse", "--parents", &range, "--"])?;
        let ids: Vec<_> = found.lines().map(|line| line.split(' ')).collect();
        let parent = ids.first().and_then(|ids| ids.clone().nth(1));
        if parent.is_some_and(|parent| parent != commit) || parent.is_none() && !ids.is_empty() {
            return Err(Fault::refused(format!("{commit} is on no line of first parents to {head}"))
                .help("the branch was rewritten, or it was merged the wrong way round: see git log --first-parent")
                .into());
        }
        Ok(ids.into_iter().take(most).filter_map(|mut ids| ids.next()).map(str::to_owned).collect())
    }

    /// The commits on the line of first parents after `from` (or from the start) up to `head` that changed one of `paths`,
    /// newest first. A merge counts for what it brought.
    pub fn changes(&self, from: Option<&str>, head: &str, paths: &[&str]) -> Result<Vec<String>> {
        let range = self.range(from, head)?;
        let found = self.walk(&[&["--first-parent", "--format=%H", &range, "--"], paths].concat())?;
        Ok(found.lines().map(str::to_owned).collect())
    }

    /// The messages of the commits after `from` (or from the start) up to `to` that begin with this text, newest first;
    /// those of merged branches too.
    pub fn messages_that_begin(&self, from: Option<&str>, to: &str, start: &str) -> Result<Vec<String>> {
        let pattern = format!("--grep={start}");
        let range = self.range(from, to)?;
        let found = self.walk(&["-z", "--fixed-strings", &pattern, "--format=%B", &range, "--"])?;
        let messages = found.split('\0').map(str::trim).filter(|message| message.starts_with(start));
        Ok(messages.map(str::to_owned).collect())
    }

    /// The messages of the commits after `from` up to `to`, newest first, merges left out; with `paths`, only of those that
    /// changed one of them.
    pub fn messages(&self, from: &str, to: &str, paths: &[&str]) -> Result<Vec<String>> {
        let range = self.range(Some(from), to)?;
        let args = ["-z", "--full-history", "--no-merges", "--format=%B", &range, "--"];
        let found = self.walk(&[&args, paths].concat())?;
        let messages = found.split('\0').map(str::trim).filter(|message| !message.is_empty());
        Ok(messages.map(str::to_owned).collect())
    }

    /// The tree of what merging `theirs` into `ours` comes to; `None` if they conflict.
    pub fn merged(&self, ours: &str, theirs: &str) -> Result<Option<String>> {
        let written = self.ask(["merge-tree", "--write-tree", ours, theirs])?;
        Ok(written.and_then(|tree| tree.lines().next().map(str::to_owned)))
    }

    /// `git log`, as a program can read it whatever the user's settings are.
    fn walk(&self, args: &[&str]) -> Result<String> {
        self.run(["log", "--no-show-signature", "--no-color", "--encoding=UTF-8"].iter().chain(args))
    }

    /// The commits after `from` up to `to`, as git writes it, all of which are here.
    fn range(&self, from: Option<&str>, to: &str) -> Result<String> {
        let Some(from) = from else { return Ok(to.to_owned()) };
        let range = format!("{from}..{to}");
        let shallow = self.is_shallow()?;
        let lacks = if self.commit(from)?.is_none() {
            format!("this clone does not have the commit {from}")
        // Where a shallow clone is cut off, commits seem to have no parent.
        } else if shallow && !self.run(["rev-list", "--max-parents=0", &range, "--"])?.is_empty() {
            format!("this shallow clone does not have all commits after {from}")
        } else {
            return Ok(range);
        };
        let unshallow = if shallow { "--unshallow " } else { "" };
        Err(Fault::usage(lacks).help(format!("git fetch {unshallow}--tags origin")).into())
    }
}

/// What `git log -z` writes by [`WHOLE`].
fn commits(text: &str) -> Vec<Commit> {
    let commits = text.split('\0').filter_map(|entry| {
        let mut fields = entry.splitn(4, '\x1f');
        let mut next = || fields.next().map(|field| field.trim().to_owned());
        Some(Commit { id: next()?, time: utc(&next()?), author: next()?, message: next()? })
    });
    commits.collect()
}

fn utc(rfc3339: &str) -> String {
    rfc3339.parse::<jiff::Timestamp>().map_or_else(|_| rfc3339.to_owned(), |time| time.to_string())
}
