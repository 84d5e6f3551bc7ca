//! git, as the program on PATH: a work tree or a bare repository, and what its remotes answer.
//!
//! Commits are made from objects, without a work tree, so that a kill at any point leaves no half-edited files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell, cmd};

use crate::fault::Fault;

/// A repository on this machine.
#[derive(Debug)]
pub struct Git {
    dir: PathBuf,
}

/// How a push ended, unless it failed or was refused by a hook.
#[derive(Debug, PartialEq, Eq)]
pub enum Push {
    Done,
    /// The remote's ref is no longer what it was; git's own words.
    Raced(String),
}

/// One commit, for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// 40 hex digits.
    pub id: String,
    /// Committer time, RFC 3339 in UTC.
    pub time: String,
    pub author: String,
    /// The whole message.
    pub message: String,
}

impl Git {
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Clones one branch without a work tree. `url` may be relative to `base`.
    pub fn clone_bare(url: &str, branch: &str, base: &Path, into: &Path) -> Result<Self> {
        let sh = shell(base)?;
        let clone = git(&sh)
            .args(["clone", "--quiet", "--bare", "--single-branch", "--no-tags", "--branch", branch, "--"])
            .arg(url)
            .arg(into);
        succeed(clone).map_err(|error| {
            let url = without_credentials(url);
            let problem = Fault::remote(format!("cannot clone branch {branch} of {url}: {error}"));
            problem.help("check the URL in deploy/pipeline.yaml and your access to it; cargo xtask doctor asks every remote")
        })?;
        Ok(Self::at(into))
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let sh = shell(&self.dir)?;
        Ok(succeed(git(&sh).args(args))?.trim_end().to_owned())
    }

    /// The output of a command that may plainly fail (exit code 1 or 128): then `None`.
    fn ask<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Option<String>> {
        let sh = shell(&self.dir)?;
        let output = output(git(&sh).args(args))?;
        Ok(output.status.success().then(|| text(&output.stdout).trim_end().to_owned()))
    }

    /// The commit that a revision names; `None` if it names none here.
    pub fn commit(&self, revision: &str) -> Result<Option<String>> {
        self.ask(["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{revision}^{{commit}}")])
    }

    /// The branch that is checked out; `None` when HEAD is detached.
    pub fn branch(&self) -> Result<Option<String>> {
        self.ask(["symbolic-ref", "--short", "--quiet", "HEAD"])
    }

    /// The paths that differ from HEAD, untracked ones included.
    pub fn dirty(&self) -> Result<Vec<String>> {
        let status = self.run(["status", "--porcelain", "--untracked-files=normal"])?;
        Ok(status.lines().filter_map(|line| line.get(3..)).map(str::to_owned).collect())
    }

    /// Whether `ancestor` is `descendant` or one of its ancestors.
    pub fn is_ancestor(&self, ancestor: &str, descendant: &str) -> Result<bool> {
        let sh = shell(&self.dir)?;
        let output = output(git(&sh).args(["merge-base", "--is-ancestor", ancestor, descendant]))?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => anyhow::bail!(
                "cannot compare {ancestor} with {descendant}: {}",
                one_line(&text(&output.stderr))
            ),
        }
    }

    /// What the remote says that a ref names now, annotated tags peeled to their commit; `None` if it has no such ref.
    pub fn remote_ref(&self, remote: &str, reference: &str) -> Result<Option<String>> {
        let peeled = format!("{reference}^{{}}");
        let answer = self.run(["ls-remote", remote, reference, &peeled]).map_err(|error| {
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
        let answer = self
            .run(["ls-remote", "--tags", remote])
            .map_err(|error| Fault::remote(format!("cannot list the tags of {remote}: {error}")))?;
        let mut tags = std::collections::BTreeMap::new();
        // A peeled line (`^{}`) follows its tag object's line and stands over it.
        for (id, name) in answer.lines().filter_map(|line| line.split_once("\trefs/tags/")) {
            tags.insert(name.trim_end_matches("^{}").to_owned(), id.to_owned());
        }
        Ok(tags.into_iter().collect())
    }

    /// Brings a ref of the remote's here and returns its commit. Local branches and tags stay as they are.
    pub fn fetch(&self, remote: &str, reference: &str) -> Result<String> {
        self.run(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", remote, reference])
            .map_err(|error| Fault::remote(format!("cannot fetch {reference} from {remote}: {error}")))?;
        self.remote_ref(remote, reference)?
            .with_context(|| Fault::remote(format!("{remote} has no {reference}")))
    }

    /// A file's text at a revision; `None` if it is not there.
    pub fn show(&self, revision: &str, path: &str) -> Result<Option<String>> {
        let sh = shell(&self.dir)?;
        let output = output(git(&sh).args(["cat-file", "blob", &format!("{revision}:{path}")]))?;
        if !output.status.success() {
            return Ok(None);
        }
        let text = String::from_utf8(output.stdout)
            .map_err(|_| Fault::refused(format!("{path} at {revision} is not UTF-8")))?;
        Ok(Some(text))
    }

    /// The file names in a folder at a revision, sorted; empty if there is no such folder.
    pub fn list(&self, revision: &str, folder: &str) -> Result<Vec<String>> {
        let names = self.ask(["ls-tree", "--name-only", &format!("{revision}:{folder}")])?;
        Ok(names.unwrap_or_default().lines().map(str::to_owned).collect())
    }

    /// The commits that lead to `revision`, newest first; with `path`, only those that changed it.
    pub fn log(&self, revision: &str, path: Option<&str>) -> Result<Vec<Commit>> {
        let mut args = vec!["log", "-z", "--first-parent", "--format=%H%x1f%cI%x1f%an%x1f%B", revision, "--"];
        args.extend(path);
        let text = self.run(args)?;
        let commits = text.split('\0').filter_map(|entry| {
            let mut fields = entry.splitn(4, '\x1f');
            let mut next = || fields.next().map(|field| field.trim().to_owned());
            Some(Commit { id: next()?, time: utc(&next()?), author: next()?, message: next()? })
        });
        Ok(commits.collect())
    }

    /// The commits before `revision` (itself included) with exactly this subject, newest first.
    pub fn commits_called(&self, revision: &str, subject: &str) -> Result<Vec<String>> {
        let pattern = format!("--grep={subject}");
        let found = self.run(["log", "--fixed-strings", &pattern, "--format=%H %s", revision])?;
        let called = found.lines().filter_map(|line| line.split_once(' ')).filter(|(_, s)| *s == subject);
        Ok(called.map(|(id, _)| id.to_owned()).collect())
    }

    /// The subjects of the commits after `from` (or from the start) up to `to`, newest first, merges left out.
    pub fn subjects(&self, from: Option<&str>, to: &str) -> Result<Vec<String>> {
        let range = from.map_or_else(|| to.to_owned(), |from| format!("{from}..{to}"));
        Ok(self.run(["log", "--no-merges", "--format=%s", &range])?.lines().map(str::to_owned).collect())
    }

    /// Who commits here, `Name <email>`.
    pub fn identity(&self) -> Result<String> {
        let identity = self.run(["var", "GIT_COMMITTER_IDENT"]).map_err(|error| {
            Fault::usage(format!("git does not know who you are: {error}"))
                .help("git config --global user.name NAME && git config --global user.email EMAIL")
        })?;
        Ok(identity.split_inclusive('>').next().unwrap_or(&identity).to_owned())
    }

    /// Makes a commit on top of `parent` in which these files have these texts; nothing points to it yet.
    pub fn commit_files(&self, parent: &str, files: &[(&str, &str)], message: &str) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let sh = shell(&self.dir)?;
        let git = |sh| git(sh).env("GIT_INDEX_FILE", folder.path().join("index"));
        succeed(git(&sh).args(["read-tree", parent]))?;
        for (path, text) in files {
            let blob = succeed(git(&sh).args(["hash-object", "-w", "--stdin"]).stdin(text))?;
            let mode = succeed(git(&sh).args(["ls-tree", "--format=%(objectmode)", parent, "--", path]))?;
            let mode = if mode.trim().is_empty() { "100644" } else { mode.trim() };
            let entry = format!("{mode},{},{path}", blob.trim());
            succeed(git(&sh).args(["update-index", "--add", "--cacheinfo", &entry]))?;
        }
        let tree = succeed(git(&sh).args(["write-tree"]))?;
        let commit = git(&sh).args(["commit-tree", "-p", parent, "-F", "-", tree.trim()]).stdin(message);
        Ok(succeed(commit)?.trim().to_owned())
    }

    /// Makes an annotated tag here (signed when git is set to).
    pub fn tag(&self, name: &str, commit: &str, message: &str) -> Result<()> {
        let sh = shell(&self.dir)?;
        succeed(
            git(&sh)
                .args(["tag", "--annotate", "--cleanup=verbatim", "-F", "-", name, commit])
                .stdin(message),
        )?;
        Ok(())
    }

    /// Brings the checked-out branch forward to `commit`; fails if it has commits of its own.
    pub fn fast_forward(&self, commit: &str) -> Result<()> {
        self.run(["merge", "--quiet", "--ff-only", commit]).map(drop)
    }

    /// Pushes `source` to the remote's `reference` without force. A tag or branch that moved in the meantime is a race;
    /// a hook's refusal, a missing right and an unreachable remote are errors.
    pub fn push(&self, remote: &str, source: &str, reference: &str) -> Result<Push> {
        let sh = shell(&self.dir)?;
        let push = git(&sh).args(["push", "--porcelain", remote, &format!("{source}:{reference}")]);
        let output = output(push)?;
        if output.status.success() {
            return Ok(Push::Done);
        }
        judge_push(&text(&output.stdout), &text(&output.stderr), remote, reference).map_err(Into::into)
    }
}

/// What a failed push's porcelain output and stderr mean.
fn judge_push(stdout: &str, stderr: &str, remote: &str, reference: &str) -> Result<Push, Fault> {
    const RACES: [&str; 7] = [
        "(fetch first)",
        "(non-fast-forward)",
        "(stale info)",
        "(already exists)",
        "cannot lock ref",
        "failed to update ref",
        "incorrect old value",
    ];
    let said: Vec<_> =
        stderr.lines().filter_map(|line| line.strip_prefix("remote:")).map(str::trim).collect();
    let Some(line) = stdout.lines().find(|line| line.starts_with('!')) else {
        return Err(Fault::remote(format!("cannot push {reference} to {remote}: {}", one_line(stderr)))
            .help("check your access, then run the same command again"));
    };
    let line = line.trim_start_matches('!').trim().replace('\t', " ");
    if RACES.iter().any(|race| line.contains(race)) {
        return Ok(Push::Raced(line));
    }
    Err(Fault::refused(
        format!("{remote} refused the push to {reference}: {line} {}", said.join(" ")).trim_end(),
    ))
}

fn shell(dir: &Path) -> Result<Shell> {
    let sh = Shell::new()?;
    sh.change_dir(dir);
    Ok(sh)
}

fn git(sh: &Shell) -> Cmd<'_> {
    cmd!(sh, "git")
        // A hook that calls this tool has these set; they would point git elsewhere.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_HTTP_LOW_SPEED_LIMIT", "1000")
        .env("GIT_HTTP_LOW_SPEED_TIME", "30")
}

fn output(command: Cmd<'_>) -> Result<Output> {
    command.quiet().ignore_status().output().map_err(|error| {
        Fault::usage(format!("cannot run git: {error}")).help("install git and see that it is on PATH").into()
    })
}

fn succeed(command: Cmd<'_>) -> Result<String> {
    let named = command.to_string();
    let output = output(command)?;
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let named = without_credentials(&named.chars().take(200).collect::<String>());
    anyhow::bail!("{} (from {named})", one_line(&text(&output.stderr)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// git's complaint as one line, without the credentials that a URL may carry.
fn one_line(stderr: &str) -> String {
    let lines: Vec<_> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    without_credentials(&lines.join("; "))
}

/// Replaces `user:password@` in every URL by `***@`.
fn without_credentials(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c == '/' || c.is_whitespace() || c == '\'').unwrap_or(part.len());
        let rest = part[..end].rfind('@').map_or(part, |at| &part[at..]);
        clean.push_str(if rest.len() < part.len() { "://***" } else { "://" });
        clean.push_str(rest);
    }
    clean
}

fn utc(rfc3339: &str) -> String {
    rfc3339.parse::<jiff::Timestamp>().map_or_else(|_| rfc3339.to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bare repository with one commit on `main`, and a clone of it.
    fn repositories() -> (tempfile::TempDir, Git) {
        let dir = tempfile::tempdir().unwrap();
        let sh = shell(dir.path()).unwrap();
        let run = |line: &[&str]| succeed(git(&sh).args(line)).unwrap();
        run(&["init", "--quiet", "--bare", "--initial-branch=main", "remote.git"]);
        run(&["init", "--quiet", "--initial-branch=main", "work"]);
        let work = Git::at(dir.path().join("work"));
        for (key, value) in
            [("user.name", "A Person"), ("user.email", "person@example.com"), ("commit.gpgsign", "false")]
        {
            work.run(["config", key, value]).unwrap();
        }
        std::fs::write(dir.path().join("work/a.txt"), "one\n").unwrap();
        work.run(["add", "."]).unwrap();
        work.run(["commit", "--quiet", "-m", "first"]).unwrap();
        work.run(["remote", "add", "origin", "../remote.git"]).unwrap();
        work.run(["push", "--quiet", "origin", "main"]).unwrap();
        (dir, work)
    }

    #[test]
    fn a_commit_is_made_without_touching_the_work_tree() {
        let (dir, work) = repositories();
        let parent = work.commit("HEAD").unwrap().unwrap();
        let commit = work
            .commit_files(&parent, &[("a.txt", "two\n"), ("new/b.txt", "b\n")], "second\n\nKey: value\n")
            .unwrap();
        assert_eq!(work.show(&commit, "a.txt").unwrap().as_deref(), Some("two\n"));
        assert_eq!(work.show(&commit, "new/b.txt").unwrap().as_deref(), Some("b\n"));
        assert_eq!(std::fs::read_to_string(dir.path().join("work/a.txt")).unwrap(), "one\n");
        assert_eq!(work.dirty().unwrap(), Vec::<String>::new());
        assert_eq!(work.push("origin", &commit, "refs/heads/main").unwrap(), Push::Done);
        assert_eq!(work.remote_ref("origin", "refs/heads/main").unwrap(), Some(commit.clone()));
        work.fast_forward(&commit).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("work/a.txt")).unwrap(), "two\n");
        let log = work.log("HEAD", Some("a.txt")).unwrap();
        assert_eq!(
            log.iter().map(|c| c.message.as_str()).collect::<Vec<_>>(),
            ["second\n\nKey: value", "first"]
        );
    }

    #[test]
    fn a_push_onto_a_moved_branch_is_a_race_and_a_hooks_no_is_not() {
        let (dir, work) = repositories();
        let parent = work.commit("HEAD").unwrap().unwrap();
        let mine = work.commit_files(&parent, &[("a.txt", "mine\n")], "mine").unwrap();
        let theirs = work.commit_files(&parent, &[("a.txt", "theirs\n")], "theirs").unwrap();
        assert_eq!(work.push("origin", &theirs, "refs/heads/main").unwrap(), Push::Done);
        assert!(matches!(work.push("origin", &mine, "refs/heads/main").unwrap(), Push::Raced(_)));

        let hook = dir.path().join("remote.git/hooks/pre-receive");
        std::fs::write(&hook, "#!/bin/sh\necho 'error: GH006: protected branch' >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let next = work.commit_files(&theirs, &[("a.txt", "next\n")], "next").unwrap();
        let error = work.push("origin", &next, "refs/heads/main").unwrap_err();
        assert_eq!(crate::fault::exit_code(&error), 3);
        assert!(error.to_string().contains("GH006"), "{error}");
        assert_eq!(work.remote_ref("origin", "refs/heads/main").unwrap(), Some(theirs));
    }

    #[test]
    fn an_annotated_tag_is_peeled_to_its_commit() {
        let (_dir, work) = repositories();
        let head = work.commit("HEAD").unwrap().unwrap();
        work.tag("v0.1.0", &head, "Release v0.1.0\n\n### Added\n- a thing\n").unwrap();
        assert_eq!(work.push("origin", "refs/tags/v0.1.0", "refs/tags/v0.1.0").unwrap(), Push::Done);
        assert_eq!(work.remote_ref("origin", "refs/tags/v0.1.0").unwrap(), Some(head.clone()));
        assert_eq!(work.remote_tags("origin").unwrap(), [("v0.1.0".to_owned(), head)]);
    }

    #[test]
    fn an_unreachable_remote_is_an_error_and_no_url_leaks_its_password() {
        let (_dir, work) = repositories();
        let error = work.remote_ref("http://user:hunter2@127.0.0.1:1/x.git", "refs/heads/main").unwrap_err();
        assert_eq!(crate::fault::exit_code(&error), 1);
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert_eq!(
            without_credentials("fatal: 'https://a:b@h/x' and ssh://git@h/y"),
            "fatal: 'https://***@h/x' and ssh://***@h/y"
        );
    }

    #[test]
    fn the_three_wordings_of_a_lost_race() {
        for line in [
            "!\tabc:refs/heads/main\t[rejected] (fetch first)",
            "!\tabc:refs/heads/main\t[rejected] (stale info)",
            "!\tabc:refs/heads/main\t[remote rejected] (failed to update ref)",
        ] {
            assert!(
                matches!(judge_push(line, "", "origin", "refs/heads/main"), Ok(Push::Raced(_))),
                "{line}"
            );
        }
    }
}
