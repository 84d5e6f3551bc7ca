//! Pushing without force: a lost race told apart from a refusal and from a failure.

use anyhow::Result;

use super::{Git, git, one_line, output, shell, text, without_credentials};
use crate::fault::{Fault, Kind, exit_code};

/// How a push ended, unless it failed or was refused by a hook.
#[derive(Debug, PartialEq, Eq)]
pub enum Push {
    Done,
    /// The remote's ref is no longer what it was; git's own words.
    Raced(String),
}

impl Git {
    /// Pushes `source` to the remote's `reference`, which the remote takes only while it is still at `expected` (`None`:
    /// absent). That it moved in the meantime is a race; a hook's refusal, a missing right and a remote that cannot take
    /// it for another reason are errors.
    pub fn push(&self, remote: &str, source: &str, reference: &str, expected: Option<&str>) -> Result<Push> {
        let sh = shell(&self.dir)?;
        let lease = format!("--force-with-lease={reference}:{}", expected.unwrap_or_default());
        let push = git(&sh).args([
            "push",
            "--porcelain",
            "--no-recurse-submodules",
            &lease,
            remote,
            &format!("{source}:{reference}"),
        ]);
        let output = output(push)?;
        // An answer that was lost on its way is no failure: what counts is what the remote has.
        let pushed =
            || Ok::<_, anyhow::Error>(self.remote_object(remote, reference)? == self.object(source)?);
        if output.status.success() || pushed().unwrap_or(false) {
            return Ok(Push::Done);
        }
        let push = judge_push(&text(&output.stdout), &text(&output.stderr), remote, reference)?;
        if let Push::Raced(line) = &push
            && self.remote_object(remote, reference)?.as_deref() == expected
        {
            let problem = Fault::remote(format!(
                "{} cannot take the push to {reference}: {line}",
                without_credentials(remote)
            ));
            return Err(problem
                .help("nobody moved it; look at the remote, then run the same command again")
                .into());
        }
        Ok(push)
    }

    /// The object that the remote's ref names now, not peeled.
    fn remote_object(&self, remote: &str, reference: &str) -> Result<Option<String>> {
        let answer = self.run(["ls-remote", remote, reference])?;
        let lines = answer.lines().filter_map(|line| line.split_once('\t'));
        Ok(lines.filter(|(_, name)| *name == reference).map(|(id, _)| id.to_owned()).next())
    }
}

/// Whether a push was refused because the branch has rules that it does not meet: in GitHub's words, old and new ones.
pub fn breaks_rule(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    exit_code(error) == Kind::Refused as u8
        && ["GH006", "GH013", "protected branch"].iter().any(|sign| text.contains(sign))
}

/// What a failed push's porcelain output and stderr mean.
pub fn judge_push(stdout: &str, stderr: &str, remote: &str, reference: &str) -> Result<Push, Fault> {
    const RACES: [&str; 7] = [
        "(fetch first)",
        "(non-fast-forward)",
        "(stale info)",
        "(already exists)",
        "cannot lock ref",
        "failed to update ref",
        "incorrect old value",
    ];
    const CREDENTIALS: [&str; 6] = [
        "returned error: 401",
        "returned error: 403",
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "Permission denied",
    ];
    let said: Vec<_> =
        stderr.lines().filter_map(|line| line.strip_prefix("remote:")).map(str::trim).collect();
    let Some(line) = stdout.lines().find(|line| line.starts_with('!')) else {
        let message = format!("cannot push {reference} to {remote}: {}", one_line(stderr));
        return Err(if CREDENTIALS.iter().any(|sign| message.contains(sign)) {
            Fault::usage(message).help("may you push there? then see that git has your credentials")
        } else {
            Fault::remote(message).help("run the same command again")
        });
    };
    let line = line.trim_start_matches('!').trim().replace('\t', " ");
    if RACES.iter().any(|race| line.contains(race)) {
        return Ok(Push::Raced(line));
    }
    Err(Fault::refused(
        format!("{remote} refused the push to {reference}: {line} {}", said.join(" ")).trim_end(),
    )
    .help("a hook or a rule of the remote said so: ask who may push there"))
}
