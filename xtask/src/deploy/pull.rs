//! `--pr`: the pin's commit on a branch of its own, and a pull request for it. Each step asks whether it is done already,
//! and what changes GitHub is sent once, so the same command goes on after any failure.

use anyhow::Result;
use serde_json::json;

use super::Deploy;
use super::plan::Plan;
use crate::fault::Fault;
use crate::git::{Push, breaks_rule};
use crate::github::{Github, Merged, Pull};
use crate::pipeline::Pipeline;
use crate::terminal;

/// GitHub takes 65,536 characters of text, of which these are for the diff and for the changelog.
const DIFF: usize = 40_000;
const CHANGES: usize = 15_000;

/// Where pull requests for the infra repository are made; nothing is asked yet.
pub fn open(pipeline: &Pipeline) -> Result<Github> {
    let (api, repository) = pipeline.infra.pulls()?;
    Ok(Github::open(&api, &repository)?)
}

/// A push that was refused by a rule of the branch has another way.
pub fn point_to(error: anyhow::Error) -> anyhow::Error {
    if !breaks_rule(&error) {
        return error;
    }
    Fault::from(error)
        .help("the branch takes no push: add --pr, which proposes the same commit by a pull request")
        .into()
}

impl Deploy<'_> {
    /// Sees to it that there is a pull request for the plan, and with `--merge` that it is merged.
    pub(super) fn propose(&mut self, github: &Github, plan: &Plan, manifests: Option<&str>) -> Result<()> {
        let branch = branch_of(&plan.environment, plan.to.name());
        let commit = self.commit(plan, manifests)?;
        let there = self.sources.infra.branch_commit(&branch)?;
        let mut current = None;
        if let Some(there) = &there
            && self.sources.infra.is_as_good(&self.asked.environment, there, &commit)?
        {
            current = Some(there.clone());
        }
        let into = self.base().to_owned();
        let pull = github.open_pull(&branch, &into)?;
        if let (Some(head), Some(pull)) = (&current, &pull)
            && tells(pull, head)
            && !self.how.merge
        {
            let line = format!("nothing to do: {} waits for a merge", pull.html_url);
            return self.told("proposed", head, pull, &line);
        }
        if self.how.dry_run {
            return self.finish("dry run", None, "dry run: nothing was changed");
        }
        terminal::confirm(self.how.yes)?;
        if current.is_none()
            && let Push::Raced(lost) = self.sources.infra.push_branch(&commit, &branch, there.as_deref())?
        {
            let race = Fault::race(format!("somebody else changed {branch} in the meantime ({lost})"));
            return Err(race.help("it is this tool's own branch; run the same command again").into());
        }
        let head = current.unwrap_or(commit);
        let pull = match pull {
            Some(pull) if tells(&pull, &head) => pull,
            pull => self.describe(github, plan, &head, pull)?,
        };
        if self.how.merge {
            return self.merge(github, plan, &head, &pull);
        }
        self.told("proposed", &head, &pull, &format!("proposed {}", pull.html_url))
    }

    /// The branch that pull requests of this environment are for.
    fn base(&self) -> &str {
        self.sources.pipeline.infra_branch(&self.asked.environment)
    }

    /// Opens the pull request, or gives the one that is open the title and text of this commit.
    fn describe(&self, github: &Github, plan: &Plan, head: &str, pull: Option<Pull>) -> Result<Pull> {
        let (from, into) = (branch_of(&plan.environment, plan.to.name()), self.base());
        let title = plan.subject(self.sources.pipeline.service());
        let body = self.body(plan, head)?;
        let asked = match pull {
            Some(pull) => github.describe(pull.number, &title, &body).map(|()| pull),
            None => github.propose(&from, into, &title, &body),
        };
        // An answer that was lost says nothing about the work.
        asked.or_else(|error| match github.open_pull(&from, into)? {
            Some(pull) if tells(&pull, head) => Ok(pull),
            _ => Err(error),
        })
    }

    /// Merges exactly what was proposed, and looks whether the branch has it.
    fn merge(&mut self, github: &Github, plan: &Plan, head: &str, pull: &Pull) -> Result<()> {
        let url = &pull.html_url;
        let sent =
            github.merge(pull.number, head, &self.sources.infra.message(&self.asked.environment, head)?);
        if let Ok(Merged::NotYet(words)) = &sent {
            let not_yet = Fault::remote(format!("{url} is not merged yet: {words}"));
            return Err(not_yet
                .help("once its checks and reviews are there, run the same command again")
                .into());
        }
        self.sources.infra.refresh()?;
        let now = self.sources.infra.pinned(&self.asked.environment)?;
        if now.pin == plan.to && (plan.restore.is_none() || now.restore == plan.restore) {
            let commit = self.sources.infra.head(&self.asked.environment)?.to_owned();
            return self.told("done", &commit, pull, &format!("done: merged {url}, infra commit {commit}"));
        }
        sent?;
        let (branch, name) = (self.base(), plan.to.name());
        let lost = Fault::remote(format!("{url} was merged, and {branch} does not pin {name}"));
        Err(lost.help("look there, then run the same command again").into())
    }

    /// What a reviewer reads: the plan, what it brings, and what it changes in the cluster.
    fn body(&self, plan: &Plan, head: &str) -> Result<String> {
        let mut body = format!("{}\n", fenced("", &plan.to_string()));
        if !plan.overrides.is_empty() {
            body += "\nGates that are not met, and are passed:\n\n";
            body.extend(plan.overrides.iter().map(|pass| format!("- **{}**: {}\n", pass.gate, pass.because)));
        }
        let changes = self.sources.changes(plan.verb, &plan.from, &plan.to)?;
        if !changes.trim().is_empty() {
            body += &format!("\n{}\n", cut(changes.trim(), CHANGES));
        }
        body += "\n### In the cluster\n\n";
        let rendering = self.rendering.as_ref();
        let why = rendering.and_then(|rendering| rendering.why.as_deref());
        body += &match (why, rendering.map_or("", |rendering| rendering.diff.as_str())) {
            (Some(why), _) => fenced("", &format!("not rendered: {why}")),
            (None, "") => "No object changes, or there was nothing before.".to_owned(),
            (None, diff) => fenced("diff", &cut(diff, DIFF)),
        };
        body += &format!("\n\nMade by `cargo xtask {} --pr` of infra commit {head}.\n", self.command(plan));
        Ok(body)
    }

    fn command(&self, plan: &Plan) -> String {
        match plan.verb {
            super::Verb::Promote => format!("promote {} {}", plan.environment, plan.to.name()),
            super::Verb::Adopt => format!("adopt {}", plan.environment),
            super::Verb::Rollback => format!("rollback {} --to {}", plan.environment, plan.to.name()),
        }
    }

    fn told(&self, state: &str, commit: &str, pull: &Pull, line: &str) -> Result<()> {
        if self.how.json {
            let plan = &*self.seen.borrow();
            let pull = &pull.html_url;
            return terminal::json(&json!({ "state": state, "plan": plan, "commit": commit, "pull": pull }));
        }
        println!("{line}");
        Ok(())
    }
}

/// Whether the text is that of this commit.
fn tells(pull: &Pull, head: &str) -> bool {
    pull.body.as_deref().is_some_and(|body| body.contains(head))
}

/// `pin/production-v0.2.0`: this tool's own, one for each target.
fn branch_of(environment: &str, to: &str) -> String {
    let name = format!("{environment}-{to}");
    // What git takes in the name of a ref (git-check-ref-format), and no more.
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let mut name: String = name.chars().map(plain).collect();
    while name.contains("..") {
        name = name.replace("..", ".");
    }
    let name = name.trim_matches('.');
    format!("pin/{}", name.strip_suffix(".lock").unwrap_or(name))
}

/// The text in a block that nothing in it ends.
fn fenced(language: &str, text: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    format!("{fence}{language}\n{}\n{fence}", text.trim_end())
}

/// Whole lines of at most so many bytes, and how many are left out.
fn cut(text: &str, most: usize) -> String {
    let mut kept = 0;
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let fitting = lines.iter().take_while(|line| {
        kept += line.len();
        kept <= most
    });
    let fitting = fitting.count();
    let left = lines.len() - fitting;
    let text = lines[..fitting].concat();
    if left == 0 { text } else { format!("{text}… and {left} more lines\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_has_a_name_that_git_takes() {
        assert_eq!(branch_of("production", "v0.2.0-rc.1"), "pin/production-v0.2.0-rc.1");
        assert_eq!(branch_of("qa/eu west~1", "sha-a..b.lock"), "pin/qa-eu-west-1-sha-a.b");
        assert_eq!(branch_of("..", "v1@{."), "pin/-v1--");
    }

    #[test]
    fn a_block_ends_where_its_text_does() {
        assert_eq!(fenced("diff", "+x\n"), "```diff\n+x\n```");
        assert_eq!(fenced("", "a\n````\nb"), "`````\na\n````\nb\n`````");
    }

    #[test]
    fn what_is_too_long_is_cut_between_lines() {
        assert_eq!(cut("ab\ncd\n", 6), "ab\ncd\n");
        assert_eq!(cut("ab\ncd\nef", 5), "ab\n… and 2 more lines\n");
        assert_eq!(cut("ü", 1), "… and 1 more lines\n");
    }
}
