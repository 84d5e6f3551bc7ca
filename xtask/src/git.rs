//! git, as the program on PATH: a work tree or a bare repository, and what its remotes answer.
//!
//! Commits are made from objects, without a work tree, so that a kill at any point leaves no half-edited files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell, cmd};

use crate::bounded;
use crate::fault::{Fault, Kind, exit_code, without_credentials};

mod history;
mod push;
mod remote;
mod tag;
pub use push::{Push, breaks_rule};

/// A repository on this machine.
#[derive(Debug)]
pub struct Git {
    dir: PathBuf,
    /// What a remote may take for one answer.
    limit: Option<Duration>,
}

impl Git {
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), limit: None }
    }

    /// The same, with this time for each answer of a remote. Nobody is asked for a passphrase then.
    pub fn within(self, limit: Option<Duration>) -> Self {
        Self { limit, ..self }
    }

    /// Clones one branch, or if there is none to name all of them, without a work tree. `url` may be relative to `base`.
    pub fn clone_bare(
        url: &str,
        branch: Option<&str>,
        base: &Path,
        into: &Path,
        limit: Option<Duration>,
    ) -> Result<Self> {
        let sh = shell(base)?;
        let which =
            branch.map_or(vec!["--no-single-branch"], |branch| vec!["--single-branch", "--branch", branch]);
        let clone = git(&sh)
            .args(["clone", "--quiet", "--origin", "origin", "--bare", "--no-tags"])
            .args(which)
            .arg("--")
            .arg(url)
            .arg(into);
        succeed_within(&sh, clone, limit).map_err(|error| {
            if exit_code(&error) == Kind::Usage as u8 {
                return error;
            }
            let url = without_credentials(url);
            let what = branch.map_or(url.clone(), |branch| format!("branch {branch} of {url}"));
            let problem = Fault::remote(format!("cannot clone {what}: {error}"));
            problem.help("check the URL in deploy/pipeline.yaml and your access to it; cargo xtask doctor asks every remote").into()
        })?;
        Ok(Self::at(into).within(limit))
    }

    /// Commits here are made as in the repository at `other`: by whom, and signed or not.
    pub fn commit_as(&self, other: &Path) -> Result<()> {
        let own = ["config", "--local", "--null", "--get-regexp", r"^(user|gpg|commit)\."];
        let Ok(Some(settings)) = Self::at(other).ask(own) else { return Ok(()) };
        for (key, value) in settings.split('\0').filter_map(|setting| setting.split_once('\n')) {
            self.run(["config", "--local", key, value])?;
        }
        Ok(())
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let sh = shell(&self.dir)?;
        Ok(succeed(git(&sh).args(args))?.trim_end().to_owned())
    }

    /// A command that asks a remote.
    fn run_remote<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let sh = shell(&self.dir)?;
        Ok(succeed_within(&sh, git(&sh).args(args), self.limit)?.trim_end().to_owned())
    }

    /// The output of a command that says "no" by the exit code 1: then `None`.
    fn ask<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Option<String>> {
        let sh = shell(&self.dir)?;
        let command = git(&sh).args(args);
        let named = command.to_string();
        let output = output(command)?;
        match output.status.code() {
            Some(0) => Ok(Some(text(&output.stdout).trim_end().to_owned())),
            Some(1) => Ok(None),
            _ => Err(complaint(&named, &output)),
        }
    }

    /// The object that a revision, or `REVISION:PATH`, names; `None` if it names none here.
    pub fn object(&self, revision: &str) -> Result<Option<String>> {
        self.ask(["rev-parse", "--verify", "--quiet", "--end-of-options", revision])
    }

    /// The commit that a revision names; `None` if it names none here.
    pub fn commit(&self, revision: &str) -> Result<Option<String>> {
        self.object(&format!("{revision}^{{commit}}"))
    }

    /// The tree of a commit that is here.
    pub fn commit_tree(&self, commit: &str) -> Result<Option<String>> {
        self.object(&format!("{commit}^{{tree}}"))
    }

    /// The branch that is checked out; `None` when HEAD is detached.
    pub fn branch(&self) -> Result<Option<String>> {
        // `--short` makes `heads/master` of it where a tag has the same name.
        let name = self.ask(["symbolic-ref", "--quiet", "HEAD"])?;
        Ok(name.map(|name| name.strip_prefix("refs/heads/").unwrap_or(&name).to_owned()))
    }

    /// The paths that differ from HEAD, untracked ones included.
    pub fn dirty(&self) -> Result<Vec<String>> {
        let status = self.run(["status", "--porcelain", "--untracked-files=normal"])?;
        Ok(status.lines().filter_map(|line| line.get(3..)).map(str::to_owned).collect())
    }

    /// The files below this folder that git tracks, by their paths from here.
    pub fn tracked(&self) -> Result<Vec<String>> {
        Ok(names(&self.run(["ls-files", "-z"])?))
    }

    /// Those of them that differ from HEAD.
    pub fn edited(&self) -> Result<Vec<String>> {
        Ok(names(&self.run(["diff", "--name-only", "--relative", "--no-renames", "-z", "HEAD", "--"])?))
    }

    /// A file's text at a revision; `None` if it is not there.
    pub fn show(&self, revision: &str, path: &str) -> Result<Option<String>> {
        let texts = self.texts(&[(revision, path)])?;
        Ok(texts.into_iter().next().context("git told nothing of the file")??)
    }

    /// The texts of files, each at a revision, asked at once; `None` for one that is not there.
    pub fn texts(&self, files: &[(&str, &str)]) -> Result<Vec<Result<Option<String>, Fault>>> {
        let sh = shell(&self.dir)?;
        let objects: Vec<_> = files.iter().map(|(revision, path)| format!("{revision}:{path}")).collect();
        // `cat-file blob` would not tell a file that is not there from a failure.
        let asked = objects.join("\n") + "\n";
        let output = output(git(&sh).args(["cat-file", "--batch"]).stdin(asked))?;
        if !output.status.success() {
            return Err(complaint("git cat-file --batch", &output));
        }
        let mut rest = output.stdout.as_slice();
        let mut texts = Vec::new();
        for ((revision, path), object) in files.iter().zip(&objects) {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (head, after) = rest.split_at(end);
            let head = text(head);
            rest = after.get(1..).unwrap_or_default();
            if head == format!("{object} missing") {
                texts.push(Ok(None));
                continue;
            }
            let mut fields = head.split(' ').skip(1);
            let (kind, size) = (fields.next(), fields.next().and_then(|size| size.parse::<usize>().ok()));
            let size = size.with_context(|| format!("git told {head:?} of {object}"))?;
            let (blob, after) = rest.split_at_checked(size).context("git told half of a file")?;
            rest = after.get(1..).unwrap_or_default();
            let wrong = |what: &str| Fault::refused(format!("{path} at {revision} is {what}"));
            texts.push(match kind {
                Some("blob") => String::from_utf8(blob.to_vec()).map(Some).map_err(|_| wrong("not UTF-8")),
                _ => Err(wrong("no file")),
            });
        }
        Ok(texts)
    }

    /// The file names in a folder at a revision, sorted; empty if there is no such folder.
    pub fn list(&self, revision: &str, folder: &str) -> Result<Vec<String>> {
        let Some(tree) = self.object(&format!("{revision}:{folder}"))? else { return Ok(Vec::new()) };
        Ok(self.run(["ls-tree", "--name-only", &tree])?.lines().map(str::to_owned).collect())
    }

    /// Lays a folder of a revision out below `into`, under its own path; `.` is all of it.
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

    /// Who commits here, `Name <email>`.
    pub fn identity(&self) -> Result<String> {
        let identity = self.run(["var", "GIT_COMMITTER_IDENT"]).map_err(|error| {
            Fault::usage(format!("git does not know who you are: {error}"))
                .help("git config --global user.name NAME && git config --global user.email EMAIL")
        })?;
        Ok(identity.split_inclusive('>').next().unwrap_or(&identity).to_owned())
    }

    /// Makes a commit on top of `parent` in which these files have these texts (signed when git is set to); nothing
    /// points to it yet.
    pub fn commit_files(&self, parent: &str, files: &[(&str, &str)], message: &str) -> Result<String> {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, Some(*text))).collect();
        self.commit_changes(parent, &files, message)
    }

    /// The same, where a file without a text is taken away.
    pub fn commit_changes(
        &self,
        parent: &str,
        files: &[(&str, Option<&str>)],
        message: &str,
    ) -> Result<String> {
        let tree = self.tree_of(parent, files)?;
        // commit-tree is the one that ignores this setting.
        let signed =
            self.ask(["config", "--type=bool", "--get", "commit.gpgSign"])?.as_deref() == Some("true");
        let sign = signed.then_some("-S");
        let sh = shell(&self.dir)?;
        let commit = git(&sh).arg("commit-tree").args(sign).args(["-p", parent, "-F", "-", &tree]);
        Ok(succeed(commit.stdin(message))?.trim().to_owned())
    }

    /// Makes the tree that such a commit has, which asks for neither a name nor a signature.
    pub fn tree_of(&self, parent: &str, files: &[(&str, Option<&str>)]) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let sh = shell(&self.dir)?;
        let git = |sh| git(sh).env("GIT_INDEX_FILE", folder.path().join("index"));
        succeed(git(&sh).args(["read-tree", parent]))?;
        for (path, text) in files {
            let Some(text) = text else {
                // Unlike `--force-remove`, this needs no work tree.
                let gone = format!("0 {}\t{path}\0", "0".repeat(parent.len()));
                succeed(git(&sh).args(["update-index", "-z", "--index-info"]).stdin(gone))?;
                continue;
            };
            let blob = succeed(git(&sh).args(["hash-object", "-w", "--stdin"]).stdin(text))?;
            let entry = succeed(git(&sh).args(["ls-tree", parent, "--", path]))?;
            let mode = entry.split(' ').next().filter(|mode| !mode.is_empty()).unwrap_or("100644");
            let entry = format!("{mode},{},{path}", blob.trim());
            succeed(git(&sh).args(["update-index", "--add", "--cacheinfo", &entry]))?;
        }
        Ok(succeed(git(&sh).args(["write-tree"]))?.trim().to_owned())
    }

    /// Brings the checked-out branch forward to `commit`; fails if it has commits of its own.
    pub fn fast_forward(&self, commit: &str) -> Result<()> {
        self.run(["merge", "--quiet", "--ff-only", commit]).map(drop)
    }
}

fn names(list: &str) -> Vec<String> {
    list.split_terminator('\0').map(str::to_owned).collect()
}

fn shell(dir: &Path) -> Result<Shell> {
    let sh = Shell::new()?;
    sh.change_dir(dir);
    Ok(sh)
}

/// The ssh that git is to use, unless somebody set another.
fn ssh(sh: &Shell) -> Option<&'static str> {
    static SSH: OnceLock<Option<&str>> = OnceLock::new();
    *SSH.get_or_init(|| {
        let set = ["GIT_SSH", "GIT_SSH_COMMAND"].iter().any(|name| std::env::var_os(name).is_some());
        let configured =
            || cmd!(sh, "git config --get core.sshCommand").quiet().ignore_stderr().read().is_ok();
        // ssh waits for ever for a server that accepts and stays silent.
        (!set && !configured())
            .then_some("ssh -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3")
    })
}

fn git(sh: &Shell) -> Cmd<'_> {
    // Our own clones are bare, which a setting may forbid.
    let git = cmd!(sh, "git -c safe.bareRepository=all");
    let git = if let Some(ssh) = ssh(sh) { git.env("GIT_SSH_COMMAND", ssh) } else { git };
    git
        // A hook that calls this tool has these set; they would point git elsewhere.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        // Paths are names, and no patterns.
        .env("GIT_LITERAL_PATHSPECS", "1")
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
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(complaint(&named, &output)) }
}

/// The same for a command that may have a time to end in.
fn succeed_within(sh: &Shell, command: Cmd<'_>, limit: Option<Duration>) -> Result<String> {
    let Some(limit) = limit else { return succeed(command) };
    let named = command.to_string();
    // It is no part of the terminal's foreground then, and a question would stop it.
    let command = match ssh(sh) {
        Some(ssh) => command.env("GIT_SSH_COMMAND", format!("{ssh} -o BatchMode=yes")),
        None => command,
    };
    let mut command = Command::from(command);
    let output = bounded::output(command.stdin(Stdio::null()), limit).context("cannot run git")?;
    let Some(output) = output else {
        return Err(Fault::remote(format!("no answer within {} s", limit.as_secs())).into());
    };
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(complaint(&named, &output)) }
}

/// What git said against a command.
fn complaint(named: &str, output: &Output) -> anyhow::Error {
    let said = one_line(&text(&output.stderr));
    if said.contains("failed to sign the data") || said.contains("failed to write commit object") {
        return Fault::usage(format!("git cannot sign as it is set to: {said}"))
            .help("see user.signingKey and gpg.format; git config commit.gpgSign and tag.gpgSign turn it off")
            .into();
    }
    if said.contains("File exists") && said.contains(".lock'") {
        return Fault::usage(format!("git finds a lock: {said}"))
            .help("a git that was killed may have left it: remove that file if no other git is running")
            .into();
    }
    if said.contains("not a git repository") {
        return Fault::usage(said).help("run it inside a clone of the project").into();
    }
    let named: String = without_credentials(named).chars().take(200).collect();
    anyhow::anyhow!("{said} (from {named})")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// git's complaint as one line, without the credentials that a URL may carry.
fn one_line(stderr: &str) -> String {
    let lines: Vec<_> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    without_credentials(&lines.join("; "))
}

#[cfg(test)]
mod tests;
